//! `rung playback-key`: who may sign viewers in.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

use super::remote::{Extra, Remote, all, cell, instant, print_json, print_list, segment};
use super::{Failure, print};

/// Keys that sign viewers in on signed channels
#[derive(Args)]
pub(crate) struct PlaybackKey {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum What {
    /// List keys, newest first
    List,
    /// Make a key: without a public key Rung makes an HS256 secret and prints it, once
    Create {
        /// Whose it is
        name: String,
        /// PEM file with an Ed25519 public key: tokens are signed with EdDSA then, and Rung holds no secret
        #[arg(long, value_name = "FILE.pem")]
        public_key: Option<PathBuf>,
    },
    /// Delete a key: what it signed is void at once. Deleting "rung" voids all addresses of `rung channel sign`
    Delete { key: String },
}

impl PlaybackKey {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let to = self.remote.open()?;
        let answer = match &self.what {
            What::List => Value::Array(all(&to, "/v1/playback-keys", &[], usize::MAX)?),
            What::Create { name, public_key } => {
                let wrong = |file: &PathBuf, e| Failure::usage(format!("{}: {e}", file.display()));
                let read = |file: &PathBuf| std::fs::read_to_string(file).map_err(|e| wrong(file, e));
                let body = json!({ "name": name, "public_key": public_key.as_ref().map(read).transpose()? });
                to.post("/v1/playback-keys", Extra { body: Some(body), ..Extra::default() })?
            }
            What::Delete { key } => {
                to.ask(Method::DELETE, &format!("/v1/playback-keys/{}", segment(key)), Extra::default())?
            }
        };
        if self.remote.json {
            print_json(&answer);
            return Ok(());
        }
        match &self.what {
            What::List => print_list(&["name", "kid", "algorithm", "created"], &answer, row),
            What::Create { public_key, .. } => {
                print(&format!("kid     {}", cell(&answer["id"])));
                if public_key.is_none() {
                    print(&format!("secret  {}", cell(&answer["secret"])));
                    super::complain("this is the only time that the secret is shown: give it to the signer alone");
                }
            }
            What::Delete { key } => print(&format!("playback key {key} is deleted")),
        }
        Ok(())
    }
}

fn row(key: &Value) -> Vec<String> {
    vec![cell(&key["name"]), cell(&key["id"]), cell(&key["algorithm"]), instant(&key["created_at"])]
}
