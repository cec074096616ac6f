//! `Debug` for generated messages that hold secrets.

use std::fmt;

use crate::v1;

macro_rules! redacted {
    ($($message:ident),+ $(,)?) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(…)"))
            }
        }
    )+};
}

redacted!(
    InitResponse,
    JoinRequest,
    JoinSecret,
    JoinTokenResponse,
    LocalJoinRequest,
    RaftMessage,
    RegistryAuth,
    RootCa,
);
