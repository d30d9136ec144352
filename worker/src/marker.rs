//! The thread that makes another logo ready while its channel goes on: nobody who decodes or encodes waits for it.

use rung::media::fault::FaultKind;
use rung::media::logo::Logo;
use rung::pixels::protocol::FromWorker;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::decode::ToDecode;
use crate::queue::Queue;
use crate::scale::marks::{Canvases, Marks};
use crate::shared::Shared;

/// Started with the first order.
pub struct Marker {
    orders: Arc<Queue<Option<Box<Logo>>>>,
    thread: JoinHandle<()>,
}

impl Marker {
    /// What it makes goes to `decode`.
    ///
    /// # Errors
    /// A sentence: no thread can be started.
    pub fn start(
        ch: u32,
        canvases: Canvases,
        decode: Arc<Queue<ToDecode>>,
        shared: &Arc<Shared>,
    ) -> Result<Marker, String> {
        let orders: Arc<Queue<Option<Box<Logo>>>> = Arc::new(Queue::bounded(1));
        let (input, out) = (Arc::clone(&orders), Arc::clone(shared));
        let body = move || {
            while let Some(order) = input.pop() {
                match order.map_or(Ok(None), |logo| Marks::new(&logo, &canvases)) {
                    Ok(marks) => decode.push_command(ToDecode::Marks(marks.map(Arc::new))),
                    Err(detail) => out.send(FromWorker::Fault { ch, kind: FaultKind::Decode, at: None, detail }),
                }
            }
        };
        let thread = shared.spawn("logo".to_owned(), ch, body).map_err(|e| format!("thread logo: {e}"))?;
        Ok(Marker { orders, thread })
    }

    /// The newest order counts: one that still waits is out of date.
    pub fn order(&self, logo: Option<Box<Logo>>) {
        while self.orders.is_full() {
            drop(self.orders.try_pop());
        }
        self.orders.push_command(logo);
    }

    pub fn close(self) {
        self.orders.close();
        // A panic was caught and reported by `Shared::spawn`.
        drop(self.thread.join());
    }
}
