//! Purpose: who may ask the API for what: tokens, their scopes, and how often they may ask.
//! Time: UTC for expiry; `Mono` for rates, handed in.
//! Invariants: a token is shown once and kept as SHA-256; comparing takes the same time whatever differs; nothing here logs.
//! When it fails: `Denied` says which, and the API turns it into one answer that tells a stranger nothing.

mod key;
mod limit;
mod scope;
mod token;

pub use key::publish_key;
pub use limit::{Limit, Limits};
pub use scope::Scope;
pub use token::{Denied, Secret, TokenRecord};
