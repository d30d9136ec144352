//! Purpose: what an operator sees. Events become log lines and metrics here and nowhere else.
//! Time: lines are stamped by the subscriber; repeats are aggregated by the monotonic second.
//! Invariants: names and labels come from closed sets; secrets do not print; a scrape costs the data plane nothing.
//! Spec: Prometheus text format 0.0.4.
//! When it fails: without `setup` everything here is a no-op, so cores and tests need no ceremony.

pub mod names;
pub mod redact;
pub mod report;
pub mod setup;

pub use names::{Counter, Gauge, Histogram, Label, Metric, count, counter, gauge, gauge_handle, histogram, observe};
pub use redact::Redacted;
pub use report::{Level, Place, Report, log};
