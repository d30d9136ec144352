//! `rung events`: what happened, and what happens.

use clap::Args;
use http::header::HeaderName;
use serde_json::Value;

use super::remote::{Extra, Remote, all, cell, instant, query};
use super::{Failure, print};

/// What happened on a daemon, oldest first; with --follow also what happens
#[derive(Args)]
pub(crate) struct Events {
    /// Only events of this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only these types, separated by commas, such as session.live,session.ended
    #[arg(long)]
    types: Option<String>,
    /// So many of the past
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Go on with what happens, until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Events {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let to = self.remote.open()?;
        let filter = [("channel", self.channel.clone()), ("types", self.types.clone())];
        let mut seen = None;
        if self.limit > 0 {
            for event in all(&to, "/v1/events", &filter, self.limit)?.iter().take(self.limit).rev() {
                seen = event["seq"].as_u64();
                self.tell(event);
            }
        }
        if !self.follow {
            return Ok(());
        }
        let last = seen.map(|seq| (HeaderName::from_static("last-event-id"), seq.to_string()));
        let extra = Extra { headers: last.into_iter().collect(), ..Extra::default() };
        to.follow(&format!("/v1/events/stream{}", query(&filter)), extra, |line| {
            if let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok()) {
                self.tell(&event);
            }
            true
        })
    }

    fn tell(&self, event: &Value) {
        if self.remote.json {
            return print(&event.to_string());
        }
        let about = if event["session"].is_null() { &event["channel"] } else { &event["session"] };
        let data = event["data"].as_object().filter(|data| !data.is_empty());
        let short = |value: &Value| if value.is_object() { "…".to_owned() } else { cell(value) };
        let facts = data.map_or_else(String::new, |data| {
            data.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!(" {k}={}", short(v))).collect()
        });
        print(&format!("{}  {:<28}  {}{facts}", instant(&event["at"]), cell(&event["type"]), cell(about)));
    }
}
