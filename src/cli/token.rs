//! `rung token`: who may use the API.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::remote::{Extra, Remote, all, cell, instant, print_json, print_list, segment};
use super::{Failure, print};

/// API tokens of a daemon
#[derive(Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum What {
    /// List tokens, newest first
    List,
    /// Make a token and print its secret, once
    Create {
        /// What it is for
        name: String,
        /// What it may do: channels:read, channels:write, sessions:read, sessions:write, tokens:admin, nodes:admin
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Only for this channel; may be given several times
        #[arg(long = "channel", value_name = "CHANNEL")]
        channels: Vec<String>,
        /// Only from this network, such as 192.0.2.0/24; may be given several times
        #[arg(long = "network", value_name = "NETWORK")]
        networks: Vec<String>,
        /// Not valid from then on, such as 2027-01-01T00:00:00Z
        #[arg(long, value_name = "INSTANT")]
        expires_at: Option<String>,
    },
    /// Revoke a token, at once
    Delete { token: String },
}

impl Token {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let to = self.remote.open()?;
        let answer = match &self.what {
            What::List => Value::Array(all(&to, "/v1/tokens", &[], usize::MAX)?),
            What::Create { name, scopes, channels, networks, expires_at } => {
                let some = |all: &[String]| if all.is_empty() { Value::Null } else { json!(all) };
                let body = json!({
                    "name": name, "scopes": scopes, "channels": some(channels), "networks": some(networks),
                    "expires_at": expires_at,
                });
                to.post("/v1/tokens", Extra { body: Some(body), ..Extra::default() })?
            }
            What::Delete { token } => {
                to.ask(Method::DELETE, &format!("/v1/tokens/{}", segment(token)), Extra::default())?
            }
        };
        if self.remote.json {
            print_json(&answer);
            return Ok(());
        }
        match &self.what {
            What::List => {
                print_list(&["name", "token", "scopes", "channels", "last used", "expires"], &answer, row);
            }
            What::Create { .. } => {
                print(&cell(&answer["secret"]));
                super::complain(
                    "this is the only time that the token is shown: keep it in a file that only you can read",
                );
            }
            What::Delete { token } => print(&format!("token {token} is revoked")),
        }
        Ok(())
    }
}

fn row(token: &Value) -> Vec<String> {
    let channels = match &token["channels"] {
        Value::Null => "all".to_owned(),
        some => cell(some),
    };
    vec![
        cell(&token["name"]),
        format!("{}…", cell(&token["prefix"])),
        cell(&token["scopes"]),
        channels,
        instant(&token["last_used_at"]),
        instant(&token["expires_at"]),
    ]
}
