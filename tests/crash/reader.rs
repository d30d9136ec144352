//! Somebody who follows the events from the first one on, whatever becomes of the daemon meanwhile.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rung::control::record::EventRecord;
use serde_json::Value;

pub(crate) struct Reader {
    token: String,
    /// In their order, without a hole.
    pub(crate) events: Vec<EventRecord>,
    pub(crate) connections: u64,
}

impl Reader {
    pub(crate) fn new(token: &str) -> Reader {
        Reader { token: token.to_owned(), events: Vec::new(), connections: 0 }
    }

    pub(crate) fn last(&self) -> u64 {
        self.events.len() as u64
    }

    /// Until the daemon is killed, or event number `until` has come.
    pub(crate) fn run(&mut self, to: SocketAddr, until: u64) {
        let Ok(mut stream) = TcpStream::connect(to) else { return };
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("settable");
        let (token, last) = (&self.token, self.last());
        let request = format!(
            "GET /v1/events/stream HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nLast-Event-ID: {last}\r\n\r\n"
        );
        if stream.write_all(request.as_bytes()).is_err() {
            return;
        }
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        // What a kill cut off has no end of line.
        while self.last() < until && lines.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            self.connections += u64::from(line.starts_with("HTTP/1.1 200"));
            if let Some(data) = line.strip_prefix("data: ") {
                self.take(data);
            }
            line.clear();
        }
    }

    fn take(&mut self, data: &str) {
        let told: Value = serde_json::from_str(data).expect("JSON");
        let event: EventRecord = serde_json::from_value(told).expect("an event");
        assert_eq!(event.seq, self.last() + 1, "{data}");
        self.events.push(event);
    }
}
