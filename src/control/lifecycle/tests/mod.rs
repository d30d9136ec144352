//! The rows of both tables of states, one test each; then random walks with crashes, judged by the fold of the events.

use crate::control::record;
use crate::media::channel::SessionId;

mod bench;
#[path = "../../../../tests/support/fold.rs"]
mod fold;
mod model;
mod rows;
