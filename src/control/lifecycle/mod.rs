//! The life of channels and sessions: a machine without I/O. Records, an input and `now` in; new records, events and
//! effects out. The whole of a `Step` is one transaction of the store, its effects come after the commit.
//!
//! Time: `Wall`, in whole milliseconds. Deadlines are absolute and kept in the records, so that a restart re-derives
//! every timer. Whatever is due is done before an input is looked at.
//! Invariants: a channel is active exactly while one session of it is open; `ended` is final and said once; a channel's
//! events are numbered without a hole, and its states follow from them alone.
//! When it fails: a `Refusal` says what to do instead, and nothing has changed.

mod door;
mod fact;
mod fields;
mod machine;
mod operate;
mod refusal;
mod timer;

pub use door::{Door, Opening};
pub use fact::{Fact, Publish};
pub use fields::{check, merge, read_new};
pub use machine::{ChannelWrite, Dismissal, Effect, Input, Outcome, Step, recover, step};
pub use operate::{Command, KEY_GRACE, Others, create};
pub use refusal::{Code, FieldError, Refusal};
pub use timer::deadline;

#[cfg(test)]
mod tests;
