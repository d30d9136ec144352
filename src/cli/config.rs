//! `rung config check`.

use clap::Subcommand;
use std::path::PathBuf;

use super::{Failure, print};
use crate::control::config::Loaded;
use crate::media::channel::{ChannelKind, Ladder};

#[derive(Subcommand)]
pub(crate) enum Config {
    /// Read a configuration as `rung serve` would and say what it means, or what is wrong and where
    Check {
        #[arg(default_value = "rung.toml")]
        file: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Config::Check { file } = self;
        let loaded = Loaded::read(&file).map_err(|e| Failure::usage(e.to_string()))?;
        let c = &loaded.config;
        let crypto = if loaded.srt_passphrase.is_some() { "encrypted" } else { "not encrypted" };
        print(&format!("{} is valid", file.display()));
        print(&format!("  srt      {} ({crypto})", c.srt.listen));
        match (c.quic.enabled, &loaded.quic_certificate) {
            (false, _) => print("  quic     off"),
            (true, None) => print(&format!("  quic     {}, with a certificate of its own", c.quic.listen)),
            (true, Some(_)) => print(&format!("  quic     {}, with quic.certificate", c.quic.listen)),
        }
        print(&format!("  http     {}", c.http.listen));
        match loaded.certificates.len() {
            0 => print("  https    off: it needs https.certificate and https.key"),
            1 => print(&format!("  https    {}, 1 certificate", c.https.listen)),
            several => print(&format!("  https    {}, {several} certificates", c.https.listen)),
        }
        for warning in &loaded.warnings {
            print(&format!("           warning: {warning}"));
        }
        print(&format!("  metrics  {}", c.metrics.listen));
        for configured in &loaded.channels {
            let (name, channel) = (&configured.config.name, &configured.config.profile);
            let ladder = match (&channel.ladder, channel.kind) {
                (_, ChannelKind::Transmux) => "source only".to_owned(),
                (None, _) => "default ladder".to_owned(),
                (Some(l), _) => l.0.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" "),
            };
            let kind = format!("{:?}", channel.kind).to_lowercase();
            print(&format!("  channel  {name}: {kind}, {}, {ladder}", channel.mode.name()));
            if channel.kind == ChannelKind::Transcode && channel.ladder.as_ref().is_some_and(Ladder::is_hevc_alone) {
                print(
                    "           advice: every rendition is HEVC; players without it find nothing, and Apple asks for",
                );
                print("           H.264 renditions beside HEVC");
            }
        }
        if loaded.channels.is_empty() {
            print("  no channel: add a [[bootstrap.channel]] to publish to");
        }
        Ok(())
    }
}
