//! Requests that wait: each asks for a version of a playlist that is two segments away, and again once it is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::board;
use crate::line::{Line, Take};
use crate::playlist;

#[derive(Clone, Debug)]
pub struct Plan {
    pub to: SocketAddr,
    /// Of a media playlist.
    pub path: String,
    pub requests: usize,
    pub time: Duration,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Answers in all.
    pub answered: u64,
    /// Other statuses than 200, and broken connections.
    pub failed: u64,
}

/// Keeps so many requests waiting for so long; `ready` is told when all have asked for the first time.
///
/// # Errors
/// In a sentence: there is no such playlist.
pub async fn block(plan: &Plan, ready: impl FnOnce()) -> Result<Report, String> {
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let edge =
        ahead(&mut Line::new(plan.to), &plan.path).await.ok_or_else(|| format!("no playlist at {}", plan.path))?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.requests {
        let (to, path, answered, failed) = (plan.to, plan.path.clone(), Arc::clone(&answered), Arc::clone(&failed));
        tasks.spawn(async move {
            let (mut line, mut msn) = (Line::new(to), edge);
            loop {
                let answer = line.get(&format!("{path}?_HLS_msn={msn}"), &mut Take::Sum).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    answered.fetch_add(1, Ordering::Relaxed);
                    msn += 1;
                } else {
                    failed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    msn = ahead(&mut line, &path).await.unwrap_or(msn);
                }
            }
        });
        // A listening socket's queue is shorter than five thousand.
        tokio::task::yield_now().await;
    }
    ready();
    tokio::time::sleep(plan.time).await;
    tasks.shutdown().await;
    Ok(Report {
        requests: plan.requests,
        answered: answered.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
    })
}

/// The segment after the one that is being made.
async fn ahead(line: &mut Line, path: &str) -> Option<u64> {
    let mut take = Take::Keep(Vec::new());
    let answer = line.get(path, &mut take).await.ok().filter(|answer| answer.status == 200)?;
    let Take::Keep(body) = take else { return None };
    Some(playlist::media(&board::text(&answer, &body)?)?.next.0 + 1)
}
