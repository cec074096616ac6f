//! The certificate authority: who becomes a node, and with which certificate.
//!
//! [`authority`] signs, [`secret`] knows the join tokens, [`limit`] slows down who guesses
//! them, [`service`] puts them together.

mod authority;
mod limit;
mod outside;
pub(crate) mod secret;
mod service;
#[cfg(test)]
mod tests;

pub use authority::CaError;
pub(crate) use authority::{Subject, new_root, sign};
pub(crate) use service::CaService;
