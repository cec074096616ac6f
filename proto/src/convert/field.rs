//! Single fields: each function names the field where it refuses a value.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::Malformed;

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// Refuses the value of a field.
pub(super) fn malformed(field: &str, reason: impl Display) -> Malformed {
    Malformed::Field {
        field: field.to_owned(),
        reason: reason.to_string(),
    }
}

/// Prepends the name of the message that the field is in.
fn within(outer: &str, error: Malformed) -> Malformed {
    match error {
        Malformed::Field { field, reason } => Malformed::Field {
            field: format!("{outer}.{field}"),
            reason,
        },
        other => other,
    }
}

/// A message that must be there.
pub(super) fn required<W, M>(field: &str, value: Option<W>) -> Result<M>
where
    M: TryFrom<W, Error = Malformed>,
{
    match value {
        Some(value) => M::try_from(value).map_err(|error| within(field, error)),
        None => Err(malformed(field, "missing")),
    }
}

/// A message that may be there.
pub(super) fn optional<W, M>(field: &str, value: Option<W>) -> Result<Option<M>>
where
    M: TryFrom<W, Error = Malformed>,
{
    value.map(|value| required(field, Some(value))).transpose()
}

/// A list of messages.
pub(super) fn list<W, M>(field: &str, values: Vec<W>) -> Result<Vec<M>>
where
    M: TryFrom<W, Error = Malformed>,
{
    let convert = |(index, value)| required(&format!("{field}[{index}]"), Some(value));
    values.into_iter().enumerate().map(convert).collect()
}

/// A list for the way out.
pub(super) fn messages<'a, W: From<&'a M>, M>(values: &'a [M]) -> Vec<W> {
    values.iter().map(W::from).collect()
}

/// An enumeration; prost keeps them as numbers.
pub(super) fn enumeration<W, M>(field: &str, value: i32) -> Result<M>
where
    W: TryFrom<i32>,
    M: FromWire<W>,
{
    let known = W::try_from(value).ok().and_then(M::from_wire);
    known.ok_or_else(|| match value {
        0 => malformed(field, "missing"),
        _ => malformed(field, format_args!("unknown value {value}")),
    })
}

/// The model's side of an enumeration; `None` for the zero that stands for nothing.
pub(super) trait FromWire<W>: Sized {
    fn from_wire(value: W) -> Option<Self>;
}

/// Both directions of an enumeration whose values have the same names on both sides. The
/// model's type and `v1` must be in scope.
macro_rules! mirrored {
    ($name:ident { $($value:ident),+ $(,)? }) => {
        impl From<$name> for v1::$name {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$value => Self::$value,)+
                }
            }
        }

        impl $crate::convert::field::FromWire<v1::$name> for $name {
            fn from_wire(value: v1::$name) -> Option<Self> {
                match value {
                    v1::$name::Unspecified => None,
                    $(v1::$name::$value => Some(Self::$value),)+
                }
            }
        }
    };
}
pub(super) use mirrored;

/// An identifier, with the model's own check.
pub(super) fn id<T, E: Display>(
    field: &str,
    text: &str,
    parse: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<T> {
    parse(text).map_err(|error| malformed(field, error))
}

/// An address, with or without port.
pub(super) fn address<T: FromStr>(field: &str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| malformed(field, format_args!("invalid address {text:?}")))
}

/// A port number.
pub(super) fn port(field: &str, value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| malformed(field, format_args!("{value} is no port")))
}

/// Bytes of a fixed number. Their values are not repeated: they may be secrets.
pub(super) fn array<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        let found = bytes.len();
        malformed(field, format_args!("{found} bytes instead of {N}"))
    })
}

/// Nanoseconds on the wire. 64 bits end after 584 years, a specification's durations after
/// one: a longer one is a mistake elsewhere, and stays as long as can be instead of wrapping.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
