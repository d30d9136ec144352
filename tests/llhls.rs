//! What a live origin owes its players by the HLS draft and Apple's authoring rules, one named test a rule. The table in
//! `docs/llhls.md` says which rule is shown by which test.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "llhls/dates.rs"]
mod dates;
#[path = "llhls/history.rs"]
mod history;
#[path = "llhls/http.rs"]
mod http;
#[path = "llhls/iframes.rs"]
mod iframes;
#[path = "llhls/multivariant.rs"]
mod multivariant;
#[path = "support/on_air.rs"]
mod on_air;
#[path = "llhls/read.rs"]
mod read;
#[path = "llhls/rig.rs"]
mod rig;
#[path = "llhls/table.rs"]
mod table;
#[path = "package/world.rs"]
mod world;
