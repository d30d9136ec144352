//! Requests one after the other on kept connections, as fast as they are answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::histogram::{Durations, Spread};
use crate::line::{Line, Take};

#[derive(Clone, Debug)]
pub struct Plan {
    pub to: SocketAddr,
    pub paths: Vec<String>,
    pub connections: usize,
    pub gzip: bool,
    pub time: Duration,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub requests: u64,
    pub seconds: f64,
    pub bytes: u64,
    /// Milliseconds.
    pub took: Spread,
    pub statuses: BTreeMap<u16, u64>,
    pub failed: u64,
    pub own_load: f64,
}

/// Asks for the paths in turn, each connection from another one on.
pub async fn ask(plan: &Plan) -> Report {
    let (durations, stop) = (Arc::new(Durations::default()), Arc::new(AtomicBool::new(false)));
    let encoding = if plan.gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    let head = |path: &String| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{encoding}\r\n", plan.to).into_bytes();
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(plan.paths.iter().map(head).collect());
    let (began, cpu) = (Instant::now(), crate::own_cpu());
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..plan.connections {
        let (requests, durations, stop, to) =
            (Arc::clone(&requests), Arc::clone(&durations), Arc::clone(&stop), plan.to);
        tasks.spawn(async move {
            let mut line = Line::new(to);
            let (mut bytes, mut statuses, mut failed) = (0u64, BTreeMap::<u16, u64>::new(), 0u64);
            for request in requests.iter().cycle().skip(first % requests.len()) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let since = Instant::now();
                match line.send(request, &mut Take::Sum).await {
                    Ok(answer) => {
                        durations.add(since.elapsed());
                        bytes += answer.length as u64;
                        *statuses.entry(answer.status).or_default() += 1;
                    }
                    Err(_) => {
                        failed += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            (bytes, statuses, failed)
        });
    }
    tokio::time::sleep(plan.time).await;
    stop.store(true, Ordering::Relaxed);
    let (mut bytes, mut statuses, mut failed) = (0, BTreeMap::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let Ok((more, by_status, broken)) = done else { continue };
        bytes += more;
        failed += broken;
        for (status, count) in by_status {
            *statuses.entry(status).or_default() += count;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let took = durations.spread();
    Report {
        requests: took.count,
        seconds,
        bytes,
        took,
        statuses,
        failed,
        own_load: (crate::own_cpu() - cpu) / seconds,
    }
}
