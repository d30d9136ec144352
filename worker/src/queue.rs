//! A bounded queue between two threads. What happens when it is full is its caller's choice, and in the name of the call.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    emptied: Condvar,
    bound: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    Item(T),
    TimedOut,
    /// Closed, and nothing is left in it.
    Closed,
}

impl<T> Queue<T> {
    pub fn bounded(bound: usize) -> Queue<T> {
        Queue {
            state: Mutex::new(State { items: VecDeque::with_capacity(bound), closed: false }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            bound,
        }
    }

    /// Waits for room. False: the queue was closed, the item is dropped.
    pub fn wait_push(&self, item: T) -> bool {
        let mut state = self.lock();
        while state.items.len() >= self.bound && !state.closed {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.put(state, item)
    }

    /// Pushes unless it is full. False: the item was dropped.
    pub fn try_push(&self, item: T) -> bool {
        let state = self.lock();
        if state.items.len() >= self.bound {
            return false;
        }
        self.put(state, item)
    }

    /// Pushes beyond the bound: for the few commands that must follow what was queued.
    pub fn push_command(&self, item: T) {
        let state = self.lock();
        self.put(state, item);
    }

    pub fn is_full(&self) -> bool {
        self.lock().items.len() >= self.bound
    }

    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Waits for an item. `None`: closed, and nothing is left in it.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                self.emptied.notify_one();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for an item, at most `span`.
    pub fn pop_within(&self, span: Duration) -> Popped<T> {
        let state = self.lock();
        let (mut state, _) = self
            .filled
            .wait_timeout_while(state, span, |s| s.items.is_empty() && !s.closed)
            .unwrap_or_else(PoisonError::into_inner);
        match state.items.pop_front() {
            Some(item) => {
                self.emptied.notify_one();
                Popped::Item(item)
            }
            None if state.closed => Popped::Closed,
            None => Popped::TimedOut,
        }
    }

    /// Takes what is there.
    pub fn try_pop(&self) -> Option<T> {
        let item = self.lock().items.pop_front();
        if item.is_some() {
            self.emptied.notify_one();
        }
        item
    }

    /// Nothing more goes in; what is inside still comes out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Nothing more goes in, and what is inside is dropped.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        self.filled.notify_all();
        self.emptied.notify_all();
        drop(dropped);
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) -> bool {
        if state.closed {
            return false;
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A thread that panicked while holding it left a whole queue behind: every change is one push or pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_full_queue_refuses_frames_and_takes_commands() {
        let queue = Queue::bounded(2);
        assert!(queue.try_push(1) && queue.try_push(2) && !queue.try_push(3));
        queue.push_command(4);
        queue.close();
        assert!(!queue.try_push(5));
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(2), Some(4), None]);
        assert_eq!(queue.pop_within(Duration::from_millis(1)), Popped::Closed);
    }

    #[test]
    fn an_abandoned_queue_is_empty_and_takes_nothing() {
        let queue = Arc::new(Queue::bounded(2));
        assert!(queue.try_push(1) && queue.try_push(2));
        let waiting = Arc::clone(&queue);
        let pusher = std::thread::spawn(move || waiting.wait_push(3));
        queue.abandon();
        assert!(!pusher.join().unwrap());
        assert!(queue.pop().is_none() && !queue.try_push(4));
    }

    #[test]
    fn whoever_waits_for_room_goes_on_when_an_item_leaves_or_the_queue_closes() {
        let queue = Arc::new(Queue::bounded(1));
        assert!(queue.wait_push(1));
        let waiting = Arc::clone(&queue);
        let pusher = std::thread::spawn(move || (waiting.wait_push(2), waiting.wait_push(3)));
        assert_eq!((queue.pop(), queue.pop()), (Some(1), Some(2)));
        queue.close();
        let (second, third) = pusher.join().unwrap();
        assert!(second);
        assert_eq!(queue.pop(), third.then_some(3));
    }
}
