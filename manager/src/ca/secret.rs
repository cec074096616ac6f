//! Join secrets: derived from the root key, kept as a hash, compared in constant time.
//!
//! Whoever knows the root key could sign certificates anyway, so deriving the secret from it
//! gives nothing away, and every manager can show the token although no secret is stored.

use ring::{digest, hmac};
use zeroize::Zeroizing;

use swarmlet_core::model::{Cluster, JoinSecret, Role, RootCa};
use swarmlet_proto::token::{self, JoinToken};

use crate::random::{self, NoRandomness};

/// Length of a secret in bytes: 128 bits cannot be guessed.
const SECRET_BYTES: usize = 16;

/// Makes what the cluster keeps of a new secret; the old one is worth nothing afterwards.
pub(crate) fn rotate(root: &RootCa, role: Role) -> Result<JoinSecret, NoRandomness> {
    let mut salt = [0; 16];
    random::fill(&mut salt)?;
    let token = derive(root, role, &salt);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, token.secret.as_bytes()).as_ref());
    Ok(JoinSecret { salt, sha256 })
}

/// The token that lets a node join with a role.
pub(crate) fn token(cluster: &Cluster, role: Role) -> JoinToken {
    derive(&cluster.root_ca, role, &cluster.join_secret(role).salt)
}

/// The role that a presented secret, as the token spells it, gives, if it gives any.
///
/// Both are always compared, and each comparison takes the same time however much of it
/// agrees, so that an answer's time says nothing about the secrets.
pub(crate) fn role_of(cluster: &Cluster, presented: &str) -> Result<Option<Role>, NoRandomness> {
    let worker = matches(cluster.join_secret(Role::Worker), presented)?;
    let manager = matches(cluster.join_secret(Role::Manager), presented)?;
    Ok(match (manager, worker) {
        (true, _) => Some(Role::Manager),
        (false, true) => Some(Role::Worker),
        (false, false) => None,
    })
}

fn derive(root: &RootCa, role: Role, salt: &[u8; 16]) -> JoinToken {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &root.key);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"swarmlet join");
    context.update(role.to_string().as_bytes());
    context.update(salt);
    let tag = context.sign();
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    secret.copy_from_slice(&tag.as_ref()[..SECRET_BYTES]);
    JoinToken::new(token::ca_digest(&root.certificate), &secret)
}

/// Compares under a key that is used once: ring offers a constant-time comparison for
/// authentication tags, and under an unknown key equal tags mean equal hashes.
fn matches(kept: &JoinSecret, presented: &str) -> Result<bool, NoRandomness> {
    let presented = digest::digest(&digest::SHA256, presented.as_bytes());
    let mut key = [0; 32];
    random::fill(&mut key)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, presented.as_ref());
    Ok(hmac::verify(&key, &kept.sha256, tag.as_ref()).is_ok())
}
