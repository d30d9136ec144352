//! Talking to a daemon: where it is, the token, one request and its answer. Shared by every command that uses the API.

use bytes::Bytes;
use clap::Args;
use http::header::{self, HeaderName};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Trust, Web, is_exposed};
use super::{Failure, complain, print};
use crate::control::api::ADMIN_FILE;
use crate::sys::random;

/// The daemon is not there, or does not answer.
const UNREACHABLE: u8 = 3;
/// It wants a token, or another one.
const FORBIDDEN: u8 = 4;
/// There is nothing of that name.
const MISSING: u8 = 5;
/// The state of things does not allow it.
const CONFLICT: u8 = 6;
/// Something in the request is wrong.
const INVALID: u8 = 7;
/// The daemon cannot do it now.
const UNAVAILABLE: u8 = 8;

const ANSWER_BYTES_MAX: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(45);
/// Where the admin token is on the box itself: in the folder that `rung serve` uses here, or the packaged one.
const STATE_FOLDERS: [&str; 2] = ["rung-data", "/var/lib/rung"];

/// Which daemon, and how to speak to it.
#[derive(Args, Clone)]
pub(crate) struct Remote {
    /// The daemon's address, http:// or https://
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) server: String,
    /// File whose first line is the API token; without it the admin token of the state folder, where it can be read
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Print the API's answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A connection to the daemon.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    client: Web<Full<Bytes>>,
    server: String,
    token: String,
}

/// What a request may say besides its path.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) body: Option<Value>,
    /// A body of another kind: its media type and bytes.
    pub(crate) file: Option<(&'static str, Bytes)>,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

impl Remote {
    pub(crate) fn open(&self) -> Result<Session, Failure> {
        if !self.server.starts_with("http://") && !self.server.starts_with("https://") {
            let what = format!("--server {}: write http://HOST:PORT or https://HOST:PORT", self.server);
            return Err(Failure::usage(what));
        }
        let token = self.token()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::failed(format!("cannot start: {e}")))?;
        let client = self.trust.client(&self.server)?;
        if is_exposed(&self.server) {
            complain("the token goes over the network in the clear: use https://, or run this on the box itself");
        }
        Ok(Session { runtime, client, server: self.server.trim_end_matches('/').to_owned(), token })
    }

    fn token(&self) -> Result<String, Failure> {
        let line = |file: &Path| -> std::io::Result<String> {
            Ok(std::fs::read_to_string(file)?.lines().next().unwrap_or_default().trim().to_owned())
        };
        if let Some(file) = &self.token_file {
            return line(file).map_err(|e| Failure::usage(format!("--token-file {}: {e}", file.display())));
        }
        let files: Vec<PathBuf> = STATE_FOLDERS.iter().map(|folder| Path::new(folder).join(ADMIN_FILE)).collect();
        files.iter().find_map(|file| line(file).ok()).ok_or_else(|| {
            let tried = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" and ");
            Failure::usage(format!("no API token: give --token-file FILE (looked for {tried})"))
        })
    }
}

impl Session {
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, Extra::default())
    }

    /// A change that is made once even if its answer is lost: it is tried again, once, under the same key.
    pub(crate) fn post(&self, path: &str, mut extra: Extra) -> Result<Value, Failure> {
        let key = format!("cli-{:032x}", random::bits());
        extra.headers.push((HeaderName::from_static("idempotency-key"), key));
        self.ask(Method::POST, path, extra)
    }

    /// One request; its answer is JSON, or nothing.
    pub(crate) fn ask(&self, method: Method, path: &str, extra: Extra) -> Result<Value, Failure> {
        let body = self.fetch(method, path, extra)?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        let foreign = |_| Failure::failed(format!("{} answers no JSON: is it Rung?", self.server));
        serde_json::from_slice(&body).map_err(foreign)
    }

    /// One request, and its answer's bytes.
    pub(crate) fn fetch(&self, method: Method, path: &str, extra: Extra) -> Result<Bytes, Failure> {
        self.runtime.block_on(async {
            let answered = async {
                let response = self.send(method, path, extra).await?;
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|e| self.unreachable(&*e))?.to_bytes();
                if !parts.status.is_success() {
                    return Err(refused(parts.status, &body));
                }
                Ok(body)
            };
            let late = |_| Failure { what: format!("{} did not answer in time", self.server), code: UNREACHABLE };
            tokio::time::timeout(PATIENCE, answered).await.map_err(late)?
        })
    }

    /// Hands every line of an endless answer to `line`, until that breaks off (`Ok`) or the connection does (`Err`).
    pub(crate) fn follow(&self, path: &str, extra: Extra, mut line: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let response = self.send(Method::GET, path, extra).await?;
            let (parts, mut body) = response.into_parts();
            if !parts.status.is_success() {
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                return Err(refused(parts.status, &body.map_err(|e| self.unreachable(&*e))?.to_bytes()));
            }
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.unreachable(&e))?;
                text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = text.iter().position(|b| *b == b'\n') {
                    let rest = text.split_off(end + 1);
                    let whole = String::from_utf8_lossy(&text).into_owned();
                    text = rest;
                    if !line(whole.trim_end_matches(['\n', '\r'])) {
                        return Ok(());
                    }
                }
            }
            Err(self.unreachable(&std::io::Error::other("the daemon ended the stream")))
        })
    }

    async fn send(&self, method: Method, path: &str, extra: Extra) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in extra.headers {
            request = request.header(name, value);
        }
        let json = extra.body.map(|body| ("application/json", Bytes::from(body.to_string())));
        let body = match extra.file.or(json) {
            Some((kind, body)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                body
            }
            None => Bytes::new(),
        };
        let request =
            request.body(Full::new(body)).map_err(|e| Failure::usage(format!("{}{path}: {e}", self.server)))?;
        self.client.request(request).await.map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let what = format!("{} cannot be reached ({cause}): is the daemon running there?", self.server);
        Failure { what, code: UNREACHABLE }
    }
}

/// The problem's sentence, and each field that it names.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let code = match status.as_u16() {
        401 | 403 => FORBIDDEN,
        404 => MISSING,
        409 | 412 | 428 => CONFLICT,
        429 | 503 => UNAVAILABLE,
        400..500 => INVALID,
        _ => 1,
    };
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(detail) = problem["detail"].as_str() else {
        return Failure { what: format!("the daemon answers {status}"), code };
    };
    let mut what = detail.to_owned();
    let errors = problem["errors"].as_array().map_or(&[][..], Vec::as_slice);
    for error in errors.iter().filter(|_| errors.len() > 1) {
        let place = error["pointer"].as_str().or(error["parameter"].as_str()).unwrap_or_default();
        what.push_str(&format!("\n  {place}: {}", error["detail"].as_str().unwrap_or_default()));
    }
    Failure { what, code }
}

/// A name or id as a part of a path.
pub(crate) fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// `?a=b&c=d` of what is there.
pub(crate) fn query(parts: &[(&str, Option<String>)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parts {
        if let Some(value) = value {
            text.append_pair(name, value);
        }
    }
    let text = text.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

/// All pages of a list, up to `most` items.
pub(crate) fn all(
    session: &Session,
    path: &str,
    filter: &[(&str, Option<String>)],
    most: usize,
) -> Result<Vec<Value>, Failure> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let limit = (most - items.len()).clamp(1, 200);
        let mut parts = filter.to_vec();
        parts.extend([("limit", Some(limit.to_string())), ("cursor", cursor.clone())]);
        let page = session.get(&format!("{path}{}", query(&parts)))?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || items.len() >= most {
            return Ok(items);
        }
    }
}

/// Prints JSON as the API gave it.
pub(crate) fn print_json(value: &Value) {
    print(&format!("{value:#}"));
}

/// A JSON array as a table, a row for each element.
pub(crate) fn print_list(headings: &[&str], list: &Value, row: impl Fn(&Value) -> Vec<String>) {
    let rows: Vec<Vec<String>> = list.as_array().map_or(&[][..], Vec::as_slice).iter().map(row).collect();
    print_table(headings, &rows);
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub(crate) fn print_table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let headings: Vec<String> = headings.iter().map(|h| h.to_uppercase()).collect();
    print(&line(&headings));
    for row in rows {
        print(&line(row));
    }
}

/// A member as a cell: nothing for `null`.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "-".to_owned(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// An instant without its fraction.
pub(crate) fn instant(value: &Value) -> String {
    let text = cell(value);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_is_its_sentence_with_every_field_and_a_code_of_its_kind() {
        let body = json!({ "detail": "2 fields are wrong: see errors", "errors": [
            { "pointer": "/mode", "detail": "write \"low\"" }, { "parameter": "limit", "detail": "write 1 to 200" },
        ]});
        let failure = refused(StatusCode::UNPROCESSABLE_ENTITY, body.to_string().as_bytes());
        assert_eq!(failure.code, INVALID);
        assert_eq!(failure.what, "2 fields are wrong: see errors\n  /mode: write \"low\"\n  limit: write 1 to 200");
        assert_eq!(refused(StatusCode::BAD_GATEWAY, b"<html>").what, "the daemon answers 502 Bad Gateway");
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(segment("ci token/1"), "ci%20token%2F1");
        assert_eq!(query(&[("a", Some("b c".into())), ("d", None)]), "?a=b+c");
        assert_eq!(query(&[]), "");
        assert_eq!(instant(&json!("2026-05-01T18:30:00.500Z")), "2026-05-01 18:30:00Z");
    }
}
