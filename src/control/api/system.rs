//! The box.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::call::Call;
use super::gpus::{self, GpuMonitorView, GpuView};
use super::problem::Problem;
use crate::control::state::{Condition, Db};
use crate::time::SystemClock;

/// The box and how it is.
#[derive(Serialize, ToSchema)]
#[schema(as = System)]
pub(super) struct SystemView {
    version: &'static str,
    /// Seconds since the API was opened.
    uptime_s: u64,
    state: StateView,
    channels: u64,
    /// Open sessions.
    sessions: u64,
    /// The newest event's number.
    event_seq: u64,
    /// Event streams that are open.
    event_streams: usize,
    gpu_monitor: GpuMonitorView,
    /// Every GPU that was seen since the start, lost ones too.
    gpus: Vec<GpuView>,
}

/// The state folder.
#[derive(Serialize, ToSchema)]
#[schema(as = StateFolder)]
struct StateView {
    condition: ConditionView,
    /// What that means, and what to do.
    detail: String,
    /// Bytes up to the last page in use.
    used_bytes: u64,
    /// Bytes that may be in use before the map grows by itself.
    map_bytes: u64,
    /// Read transactions that are open now.
    readers: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = StateCondition)]
enum ConditionView {
    Good,
    Full,
    Failing,
}

/// The box: version, state folder, what it carries, its GPUs.
#[utoipa::path(get, path = "/v1/system", tag = "system", security(("token" = ["nodes:admin"])),
    responses((status = 200, description = "The box.", body = SystemView)))]
pub(super) async fn get_system(call: &Call) -> Result<Answer, Problem> {
    call.query.expect_known(&[])?;
    let state = call.api.state();
    let usage = state.control.usage();
    let condition = state.condition();
    let (gpu_monitor, gpus) = gpus::views(&call.api.options.gpus, &call.api.options.devices, SystemClock::mono());
    let (channels, sessions) = call.read(|view| Ok((view.count(Db::ChannelNames)?, view.count(Db::Open)?)))?;
    Ok(Answer::json(&SystemView {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: (SystemClock::mono() - call.api.since).as_secs(),
        state: StateView {
            detail: condition.to_string(),
            condition: match condition {
                Condition::Good => ConditionView::Good,
                Condition::Full { .. } => ConditionView::Full,
                Condition::Failing { .. } => ConditionView::Failing,
            },
            used_bytes: usage.used_bytes,
            map_bytes: usage.map_bytes,
            readers: usage.readers,
        },
        channels,
        sessions,
        event_seq: *call.api.ledger.newest_event().borrow(),
        event_streams: call.api.streams.load(std::sync::atomic::Ordering::Relaxed),
        gpu_monitor,
        gpus,
    }))
}
