//! cuvidCtxLock: a lock that makes a floating context current for whoever holds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;

use crate::DOUBLE;
use crate::abi::{self, Status};
use crate::cuda::Cuda;

struct Lock {
    context: usize,
    /// Who holds it, and how often it took it.
    held: Mutex<Option<(ThreadId, u32)>>,
    freed: Condvar,
}

static LOCKS: Mutex<BTreeMap<usize, Arc<Lock>>> = Mutex::new(BTreeMap::new());

pub(crate) fn create(handle: usize, context: usize) {
    let lock = Lock { context, held: Mutex::new(None), freed: Condvar::new() };
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(lock));
    DOUBLE.count("live context locks", 1);
}

pub(crate) fn destroy(handle: usize) -> Result<(), Status> {
    let lock = find("cuvidCtxLockDestroy", handle)?;
    if lock.held.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
        DOUBLE.broken("cuvidCtxLockDestroy: the lock is held");
    }
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    DOUBLE.count("live context locks", -1);
    Ok(())
}

/// Waits until no other thread holds it, and makes its context current.
pub(crate) fn take(call: &str, cuda: Cuda, handle: usize) -> Result<(), Status> {
    let lock = find(call, handle)?;
    let me = std::thread::current().id();
    let held = lock.held.lock().unwrap_or_else(PoisonError::into_inner);
    let other = |held: &mut Option<(ThreadId, u32)>| held.is_some_and(|(who, _)| who != me);
    let mut held = lock.freed.wait_while(held, other).unwrap_or_else(PoisonError::into_inner);
    cuda.push(lock.context)?;
    *held = Some((me, held.map_or(0, |(_, times)| times) + 1));
    Ok(())
}

pub(crate) fn give_back(call: &str, cuda: Cuda, handle: usize) -> Result<(), Status> {
    let lock = find(call, handle)?;
    let mut held = lock.held.lock().unwrap_or_else(PoisonError::into_inner);
    let me = std::thread::current().id();
    match *held {
        Some((who, times)) if who == me => {
            *held = (times > 1).then_some((me, times - 1));
            lock.freed.notify_one();
            cuda.pop()
        }
        _ => {
            DOUBLE.broken(&format!("{call}: the calling thread does not hold the lock"));
            Err(abi::INVALID_VALUE)
        }
    }
}

fn find(call: &str, handle: usize) -> Result<Arc<Lock>, Status> {
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned().ok_or_else(|| {
        DOUBLE.broken(&format!("{call}: no such context lock"));
        abi::INVALID_HANDLE
    })
}
