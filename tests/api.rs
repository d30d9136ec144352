//! The API seen from outside: the real server on loopback, a store and a ledger in a folder of their own. Method: each test
//! says what a client sends and what it must see; the data plane is a list of what it was told.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

#[path = "support/api.rs"]
mod support;

#[path = "api/access.rs"]
mod access;
#[path = "api/document.rs"]
mod document;
#[path = "api/keys.rs"]
mod keys;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/logo.rs"]
mod logo;
#[path = "api/repeats.rs"]
mod repeats;
#[path = "api/resources.rs"]
mod resources;
#[path = "api/slow.rs"]
mod slow;
#[path = "api/stream.rs"]
mod stream;
