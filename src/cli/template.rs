//! `rung template`: ladders with a name.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

use super::channel::read_json;
use super::remote::{Extra, Remote, all, cell, instant, print_json, print_list, segment};
use super::{Failure, print};

/// Ladders with a name, for new channels
#[derive(Args)]
pub(crate) struct Template {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand)]
enum What {
    /// List templates, newest first
    List,
    /// Make a template
    Create {
        name: String,
        /// File with the ladder as JSON: [{"name": "720p", "height": 720, "bitrate": 2800000}], with "codec": "hevc" for HEVC
        #[arg(long, value_name = "FILE")]
        ladder: PathBuf,
    },
    /// Show a template
    Show { template: String },
    /// Change a template; channels that were made from it stay as they are
    Set {
        template: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// File with another ladder
        #[arg(long, value_name = "FILE")]
        ladder: Option<PathBuf>,
    },
    /// Delete a template
    Delete { template: String },
}

impl Template {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let to = self.remote.open()?;
        let path = |template: &str| format!("/v1/templates/{}", segment(template));
        let answer = match &self.what {
            What::List => Value::Array(all(&to, "/v1/templates", &[], usize::MAX)?),
            What::Create { name, ladder } => {
                let body = json!({ "name": name, "ladder": read_json(ladder)? });
                to.post("/v1/templates", Extra { body: Some(body), ..Extra::default() })?
            }
            What::Show { template } => to.get(&path(template))?,
            What::Set { template, name, ladder } => {
                let mut body = Map::new();
                body.extend(name.iter().map(|name| ("name".to_owned(), Value::from(name.as_str()))));
                if let Some(file) = ladder {
                    body.insert("ladder".into(), read_json(file)?);
                }
                let extra = Extra { body: Some(Value::Object(body)), ..Extra::default() };
                to.ask(Method::PATCH, &path(template), extra)?
            }
            What::Delete { template } => to.ask(Method::DELETE, &path(template), Extra::default())?,
        };
        match &self.what {
            _ if self.remote.json => print_json(&answer),
            What::List => {
                print_list(&["name", "renditions", "updated"], &answer, row);
            }
            What::Delete { template } => print(&format!("template {template} is deleted")),
            _ => {
                let rendition =
                    |r: &Value| ["name", "height", "bitrate", "codec"].map(|field| cell(&r[field])).to_vec();
                print(&format!("template {}", cell(&answer["name"])));
                print_list(&["rendition", "height", "bitrate", "codec"], &answer["ladder"], rendition);
            }
        }
        Ok(())
    }
}

fn row(template: &Value) -> Vec<String> {
    let names = template["ladder"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|r| cell(&r["name"]));
    vec![cell(&template["name"]), names.collect::<Vec<_>>().join(" "), instant(&template["updated_at"])]
}
