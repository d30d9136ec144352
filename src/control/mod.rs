//! Purpose: what configures and watches the data plane, to the side of it. Never carries media.
//! When it fails: a bad configuration is refused whole, with the line and what to write instead.

pub mod config;
pub mod lifecycle;
pub mod record;
