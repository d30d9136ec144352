//! `rung serve`: the daemon.

use clap::Args;
use std::path::PathBuf;

use super::daemon::Daemon;
use super::{Failure, print};
use crate::control::config::Loaded;

/// Run the daemon until SIGTERM or Ctrl-C
#[derive(Args)]
pub(crate) struct Serve {
    /// Configuration file; without one every default holds and there is no channel
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let loaded = match &self.config {
            Some(file) => Loaded::read(file).map_err(|e| Failure::usage(e.to_string()))?,
            None => Loaded::empty(),
        };
        let daemon = Daemon::start(&loaded)?;
        print(&format!("rung {}", env!("CARGO_PKG_VERSION")));
        print(&format!("  srt      {} (publish to srt://HOST:{}?streamid=CHANNEL/KEY)", daemon.srt, daemon.srt.port()));
        if let Some(quic) = &daemon.quic {
            let port = quic.address.port();
            let pin = if quic.own { "?pin=SHA256" } else { "" };
            print(&format!("  quic     {} (publish to quic://HOST:{port}/CHANNEL/KEY{pin})", quic.address));
            print(&format!("           certificate SHA-256 {}", quic.pin));
        }
        print(&format!("  http     {} (watch at http://HOST:{}/)", daemon.http, daemon.http.port()));
        if let Some(https) = daemon.https {
            print(&format!("  https    {https} (watch at https://HOST:{}/)", https.port()));
        }
        print(&format!("  metrics  {} (/metrics, /healthz, /readyz)", daemon.metrics));
        for configured in &loaded.channels {
            let (name, channel) = (&configured.config.name, &configured.config.profile);
            print(&format!(
                "  channel  {} ({}, {})",
                name,
                format!("{:?}", channel.kind).to_lowercase(),
                channel.mode.name()
            ));
        }
        let all = daemon.channels();
        let state = loaded.config.state.folder.display();
        match all.saturating_sub(loaded.channels.len()) {
            _ if all == 0 => {
                print("  no channel: nobody can publish; add a [[bootstrap.channel]] and give --config FILE")
            }
            0 => {}
            more => print(&format!("  channel  {more} more in {state}")),
        }
        print("ready");
        daemon.wait(|| true)?;
        daemon.stop();
        Ok(())
    }
}
