//! A key that signs viewers in, as it is kept. Rung checks signatures with it, so it keeps what checking takes: of an
//! HS256 key the secret itself.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

use super::{PlaybackKeyId, Utc};
use crate::media::playback::{Material, SigningKey, jwt};

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Algorithm {
    /// A secret that Rung and the signer share.
    HS256,
    /// Ed25519: Rung has the public half only.
    EdDSA,
    /// Rung's own: behind the addresses that its API hands out.
    Rung,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybackKey {
    pub id: PlaybackKeyId,
    pub name: String,
    pub algorithm: Algorithm,
    /// HS256: the secret's text; EdDSA: the public key as it was given; Rung's own: nothing.
    pub material: String,
    pub created_at: Utc,
}

impl PlaybackKey {
    /// As signatures are checked with it; `None`: the row was written by somebody else.
    pub fn signing(&self) -> Option<SigningKey> {
        let material = match self.algorithm {
            Algorithm::HS256 => Material::Hs256(self.material.clone().into_bytes()),
            Algorithm::EdDSA => Material::EdDsa(Box::new(jwt::public_key(&self.material).ok()?)),
            Algorithm::Rung => Material::Own,
        };
        Some(SigningKey { id: self.id.0, material })
    }
}

/// Without its secret.
impl fmt::Debug for PlaybackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlaybackKey({} {} {:?})", self.id, self.name, self.algorithm)
    }
}
