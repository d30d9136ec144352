//! Purpose: what configures and watches the data plane, to the side of it. Never carries media.
//! When it fails: a bad configuration is refused whole, with the line and what to write instead; a state folder that
//! cannot be written is a fact with a sentence, and live goes on.

pub mod api;
pub mod auth;
pub mod bridge;
pub mod config;
pub mod ledger;
pub mod lifecycle;
pub mod record;
pub mod state;
