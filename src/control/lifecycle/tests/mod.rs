//! The rows of both tables of states, one test each; then random walks with crashes, judged by the fold of the events.

mod bench;
mod fold;
mod model;
mod rows;
