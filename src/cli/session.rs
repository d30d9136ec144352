//! `rung session`: sessions of a daemon.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::channel::Wait;
use super::remote::{Remote, all, cell, instant, print_json, print_list, segment};
use super::{Failure, print};

/// Sessions of a daemon
#[derive(Args)]
pub(crate) struct Session {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum What {
    /// List sessions, newest first
    List {
        /// Only sessions of this channel
        #[arg(long)]
        channel: Option<String>,
        /// Only sessions in this state: init, processing, live, error, ended
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show a session
    Show { session: String },
    /// End a session; its channel takes the next publisher
    End {
        session: String,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Session {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let to = self.remote.open()?;
        let answer = match &self.what {
            What::List { channel, state, limit } => {
                let filter = [("channel", channel.clone()), ("state", state.clone())];
                Value::Array(all(&to, "/v1/sessions", &filter, *limit)?)
            }
            What::Show { session } => to.get(&format!("/v1/sessions/{}", segment(session)))?,
            What::End { session, wait } => to.post(&format!("/v1/sessions/{}/end", segment(session)), wait.extra())?,
        };
        if self.remote.json {
            print_json(&answer);
            return Ok(());
        }
        match &self.what {
            What::List { .. } => {
                print_list(&["session", "channel", "state", "input", "created", "ended", "reason"], &answer, row);
            }
            What::Show { .. } => show(&answer),
            What::End { .. } => print(&format!("session {} has ended", cell(&answer["id"]))),
        }
        Ok(())
    }
}

fn row(session: &Value) -> Vec<String> {
    let plain = ["id", "channel_name", "state", "input"].map(|name| cell(&session[name]));
    let instants = ["created_at", "ended_at"].map(|name| instant(&session[name]));
    plain.into_iter().chain(instants).chain([cell(&session["ended_reason"])]).collect()
}

fn show(session: &Value) {
    for name in ["id", "channel_name", "state", "input", "legs", "health", "ended_reason"] {
        print(&format!("{name:<20}{}", cell(&session[name])));
    }
    let place = &session["runs_on"];
    if place.is_object() {
        let gpu = place["gpu"].as_u64().map_or_else(String::new, |gpu| format!(" on GPU {gpu}"));
        print(&format!("{:<20}{}{gpu}: {}", "runs_on", cell(&place["backend"]), cell(&place["why"])));
    }
    for name in ["created_at", "processing_at", "live_at", "last_media_at", "window_deadline", "deadline", "ended_at"] {
        print(&format!("{name:<20}{}", instant(&session[name])));
    }
    if let Some(detail) = session["error"]["detail"].as_str() {
        print(&format!("{:<20}{detail}", "error"));
    }
}
