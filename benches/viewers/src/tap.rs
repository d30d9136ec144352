//! A relay in front of a server that counts by address what is asked of it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Requests by their target.
pub type Counts = BTreeMap<String, u64>;

#[derive(Debug)]
pub struct Tap {
    pub address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

impl Tap {
    /// Listens on a free port of loopback and relays to `to`.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(to: SocketAddr) -> io::Result<Tap> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let counting = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(stream, to, Arc::clone(&counting)));
            }
        });
        Ok(Tap { address, counts, task })
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until either side closes; a side that breaks ends both.
async fn relay(near: TcpStream, to: SocketAddr, counts: Arc<Mutex<Counts>>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    // Small heads in one direction, whole answers in the other: nothing gains from waiting.
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let asked = async {
        let (mut heads, mut buffer) = (Heads::default(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = from_near.read(&mut buffer).await {
            for target in heads.feed(&buffer[..n]) {
                *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(target).or_default() += 1;
            }
            if to_far.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    let answered = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_far.read(&mut buffer).await {
            if to_near.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = asked => {}
        () = answered => {}
    }
}

/// Finds the targets of requests without bodies in a stream of bytes.
#[derive(Debug, Default)]
struct Heads(Vec<u8>);

impl Heads {
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let mut targets = Vec::new();
        while let Some(end) = self.0.windows(4).position(|w| w == b"\r\n\r\n") {
            let line = self.0.split(|b| *b == b'\r').next().unwrap_or_default();
            if let Some(target) = String::from_utf8_lossy(line).split(' ').nth(1) {
                targets.push(target.to_owned());
            }
            self.0.drain(..end + 4);
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_however_the_heads_are_cut() {
        let text = b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\n\r\n";
        for cut in 0..text.len() {
            let mut heads = Heads::default();
            let mut found = heads.feed(&text[..cut]);
            found.extend(heads.feed(&text[cut..]));
            assert_eq!(found, ["/a?b=1", "/c"], "cut at {cut}");
        }
    }
}
