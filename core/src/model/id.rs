//! Identifiers: 25 characters of base 36, as Docker Swarm's, each with a type of its own.
//!
//! The characters are in the value itself and not behind a pointer: maps of tens of thousands of
//! tasks are searched all the time, and each comparison would else wait for memory of its own.

use std::fmt;

use serde::{Serialize, Serializer};

/// Length of an identifier in characters. 25 base-36 digits hold 128 random bits.
const LENGTH: usize = 25;

/// A text that is no identifier: it must be 25 characters of `0-9a-z`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid id {0:?}: expected 25 characters of 0-9a-z")]
pub struct InvalidId(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; LENGTH]);

        impl $name {
            /// Makes an identifier of 128 bits that the caller drew from a random source.
            #[must_use]
            pub fn from_random(bits: u128) -> Self {
                Self(base36(bits))
            }

            /// Reads an identifier that came from outside.
            ///
            /// # Errors
            /// [`InvalidId`] unless it is 25 characters of `0-9a-z`.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let refused = || InvalidId(text.to_owned());
                let digits: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| refused())?;
                let well_formed = |b: &u8| b.is_ascii_digit() || b.is_ascii_lowercase();
                if digits.iter().all(well_formed) { Ok(Self(digits)) } else { Err(refused()) }
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                str::from_utf8(&self.0).expect("an identifier is made of ASCII characters")
            }

            /// The first twelve characters, as tables show it.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.as_str()[..12]
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

id! {
    /// Names a cluster; the `O` of every certificate in it.
    ClusterId
}
id! {
    /// Names a node for as long as it belongs to the cluster; never used again after it left.
    NodeId
}
id! {
    /// Names a service over all of its versions.
    ServiceId
}
id! {
    /// Names a task. A task is one-shot: a restart is another task with another id.
    TaskId
}

fn base36(mut bits: u128) -> [u8; LENGTH] {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; LENGTH];
    for place in text.iter_mut().rev() {
        // The remainder of a division by 36 fits a u8 and so any usize.
        *place = DIGITS[(bits % 36) as usize];
        bits /= 36;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_read_back() {
        for bits in [0, 1, 35, 36, u128::MAX] {
            let id = NodeId::from_random(bits);
            assert_eq!(NodeId::parse(id.as_str()), Ok(id));
        }
        assert_eq!(
            TaskId::from_random(36).as_str(),
            "0000000000000000000000010"
        );
        assert_eq!(
            TaskId::from_random(u128::MAX).as_str(),
            "f5lxx1zz5pnorynqglhzmsp33"
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "ABC",
            "0000000000000000000000000000",
            "00000000000000000000000-0",
        ] {
            assert_eq!(ServiceId::parse(text), Err(InvalidId(text.to_owned())));
        }
    }
}
