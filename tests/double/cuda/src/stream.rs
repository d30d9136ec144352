//! Streams: one thread each, which does in order what was submitted. The default stream of a context (0, or 1 by its
//! other name) waits for everything submitted before to the context's blocking streams, and they wait for it; streams
//! made with CU_STREAM_NON_BLOCKING wait for events only. Work waits only for work that was submitted earlier, so no
//! two streams can wait for one another.
#![expect(unsafe_code, reason = "exports the driver's C ABI")]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::abi::{Answer, Code, Out, Played, broken, callback, counted, fault, in_context, refuse, sleep};
use crate::codes::{INVALID_HANDLE, INVALID_VALUE, LAUNCH_FAILED, NOT_READY, NOT_SUPPORTED, OUT_OF_MEMORY, sticky};
use crate::context::{Failed, Here};
use crate::world::{Kind, World, world};

pub(crate) struct Stream {
    pub(crate) context: u64,
    pub(crate) queue: Arc<Queue>,
    /// Keeps order with the default stream.
    blocking: bool,
}

/// A stream's work, shared with its thread.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    failed: Failed,
}

struct State {
    waiting: VecDeque<Job>,
    submitted: u64,
    finished: u64,
    closed: bool,
}

type Job = Box<dyn FnOnce() + Send>;

/// As many as a stream takes before whoever submits must wait: a driver's is of that order.
const WAITING_MAX: usize = 1024;

impl Queue {
    fn start(failed: Failed) -> Result<Arc<Queue>, Code> {
        let state = State { waiting: VecDeque::new(), submitted: 0, finished: 0, closed: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new(), failed });
        let worker = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("double-stream".into()).spawn(move || worker.run());
        thread.map(|_| queue).map_err(|_| OUT_OF_MEMORY)
    }

    fn run(&self) {
        loop {
            let mut state = self.wait_while(|state| state.waiting.is_empty() && !state.closed);
            let Some(job) = state.waiting.pop_front() else { return };
            drop(state);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                broken("a stream", "what it ran panicked");
                self.failed.set(LAUNCH_FAILED);
            }
            self.state().finished += 1;
            self.changed.notify_all();
        }
    }

    /// Adds a job behind those that are there: its number.
    fn push(&self, job: Job) -> u64 {
        let mut state = self.state();
        state.waiting.push_back(job);
        state.submitted += 1;
        let number = state.submitted;
        drop(state);
        self.changed.notify_all();
        number
    }

    /// Until the first `number` jobs are done.
    fn wait_for(&self, number: u64) {
        drop(self.wait_while(|state| state.finished < number));
    }

    fn wait_for_room(&self) {
        drop(self.wait_while(|state| state.waiting.len() >= WAITING_MAX));
    }

    /// What is there is still done, then the thread ends.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn submitted(&self) -> u64 {
        self.state().submitted
    }

    fn idle(&self) -> bool {
        let state = self.state();
        state.finished == state.submitted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, mut condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state(), |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Submits work to a stream of the current context. Work on a context that failed is skipped.
///
/// # Errors
/// Another context's stream, or none at all.
pub(crate) fn submit(
    call: &str,
    here: &Here,
    stream: u64,
    work: impl FnOnce() + Send + 'static,
) -> Result<Ticket, Code> {
    let (queue, _) = find(&mut world(), call, here, stream)?;
    queue.wait_for_room();
    // From here to the push nobody else submits: what was submitted before stays known.
    let mut world = world();
    let (queue, blocking) = find(&mut world, call, here, stream)?;
    let before = if default(stream) { world.blocking(here.context) } else { world.legacy(here.context, blocking) };
    let before: Vec<(Arc<Queue>, u64)> =
        before.into_iter().filter(|q| !q.idle()).map(|q| (Arc::clone(&q), q.submitted())).collect();
    let failed = queue.failed.clone();
    let number = queue.push(Box::new(move || {
        for (queue, number) in before {
            queue.wait_for(number);
        }
        if failed.check().is_ok() {
            work();
        }
    }));
    Ok(Ticket { queue, number })
}

/// Work that was submitted.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

impl Ticket {
    pub(crate) fn wait(self) {
        self.queue.wait_for(self.number);
    }
}

impl World {
    fn blocking(&self, context: u64) -> Vec<Arc<Queue>> {
        let ours = self.all(context).filter(|stream| stream.blocking);
        ours.map(|stream| Arc::clone(&stream.queue)).collect()
    }

    /// Those that were destroyed and still have work as well.
    fn all(&self, context: u64) -> impl Iterator<Item = &Stream> {
        self.streams.values().chain(&self.closing).filter(move |stream| stream.context == context)
    }

    fn legacy(&self, context: u64, blocking: bool) -> Vec<Arc<Queue>> {
        let default = self.contexts.get(&context).and_then(|context| context.legacy.clone());
        default.into_iter().filter(|_| blocking).collect()
    }

    fn queues(&self, context: u64) -> Vec<Arc<Queue>> {
        let queues = self.all(context).map(|stream| Arc::clone(&stream.queue));
        queues.chain(self.contexts.get(&context).and_then(|context| context.legacy.clone())).collect()
    }
}

/// Waits for everything that was submitted to a context's streams.
pub(crate) fn wait_all(context: u64) {
    let queues: Vec<(Arc<Queue>, u64)> =
        world().queues(context).into_iter().map(|queue| (Arc::clone(&queue), queue.submitted())).collect();
    for (queue, number) in queues {
        queue.wait_for(number);
    }
}

/// The stream's queue, and whether it keeps order with the default stream. 0 and 1 are the default stream.
fn find(world: &mut World, call: &str, here: &Here, stream: u64) -> Result<(Arc<Queue>, bool), Code> {
    if default(stream) {
        let Some(context) = world.contexts.get_mut(&here.context) else { return Err(INVALID_HANDLE) };
        let queue = match &context.legacy {
            Some(queue) => Arc::clone(queue),
            None => Arc::clone(context.legacy.insert(Queue::start(context.failed.clone())?)),
        };
        return Ok((queue, true));
    }
    if stream == 2 {
        return refuse(call, "this double has no default stream for each thread", NOT_SUPPORTED);
    }
    let Some(Stream { context, queue, blocking }) = world.streams.get(&stream) else {
        return world.unknown(call, Kind::Stream, stream, INVALID_HANDLE);
    };
    if *context != here.context {
        return refuse(call, "the stream is another context's", INVALID_HANDLE);
    }
    Ok((Arc::clone(queue), *blocking))
}

fn default(stream: u64) -> bool {
    stream <= 1
}

/// A fault of work in a stream: the code to answer at once, or what the stream is to do in the work's place or before it.
pub(crate) fn played_in_stream(played: Played, failed: &Failed) -> Result<impl FnOnce() -> bool + Send + use<>, Code> {
    if let Played::Code(code) = played
        && !sticky(code)
    {
        return Err(code);
    }
    let failed = failed.clone();
    Ok(move || match played {
        Played::Nothing => true,
        Played::Sleep(time) => {
            sleep(time);
            true
        }
        Played::Code(code) => {
            failed.set(code);
            false
        }
    })
}

/// A fault of a call that waits: a sticky code is the context's from now on.
pub(crate) fn played_by_host(played: Played, failed: &Failed) -> Answer {
    if let Played::Code(code) = played
        && sticky(code)
    {
        failed.set(code);
    }
    played.now()
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Out<u64>, flags: u32) -> Code {
    create("cuStreamCreate", stream, flags)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, _priority: i32) -> Code {
    create("cuStreamCreateWithPriority", stream, flags)
}

fn create(call: &str, stream: Out<u64>, flags: u32) -> Code {
    in_context(call, |here| {
        if flags > 1 {
            return refuse(call, format_args!("flags {flags:#x}"), INVALID_VALUE);
        }
        let queue = Queue::start(here.failed.clone())?;
        let mut world = world();
        let handle = world.handle(Kind::Stream);
        world.streams.insert(handle, Stream { context: here.context, queue, blocking: flags == 0 });
        drop(world);
        counted("live streams", 1);
        stream.put(call, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: u64) -> Code {
    in_context("cuStreamDestroy_v2", |_| {
        let mut world = world();
        let Some(destroyed) = world.streams.remove(&stream) else {
            return world.unknown("cuStreamDestroy_v2", Kind::Stream, stream, INVALID_HANDLE);
        };
        destroyed.queue.close();
        world.closing.retain(|stream| !stream.queue.idle());
        world.closing.push(destroyed);
        drop(world);
        counted("live streams", -1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamQuery(stream: u64) -> Code {
    in_context("cuStreamQuery", |here| {
        let idle = of_any_context("cuStreamQuery", here, stream)?.idle();
        here.fit()?;
        if idle { Ok(()) } else { Err(NOT_READY) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: u64) -> Code {
    in_context("cuStreamSynchronize", |here| {
        let queue = of_any_context("cuStreamSynchronize", here, stream)?;
        played_by_host(fault("cuda.sync"), &here.failed)?;
        queue.wait_for(queue.submitted());
        queue.failed.check()
    })
}

/// For calls that take streams of other contexts as well.
fn of_any_context(call: &str, here: &Here, stream: u64) -> Result<Arc<Queue>, Code> {
    let mut world = world();
    match world.streams.get(&stream) {
        Some(stream) => Ok(Arc::clone(&stream.queue)),
        None => find(&mut world, call, here, stream).map(|(queue, _)| queue),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) -> Code {
    in_context("cuStreamWaitEvent", |here| {
        if flags > 1 {
            return refuse("cuStreamWaitEvent", format_args!("flags {flags:#x}"), INVALID_VALUE);
        }
        let mark = {
            let world = world();
            let Some(event) = world.events.get(&event) else {
                return world.unknown("cuStreamWaitEvent", Kind::Event, event, INVALID_HANDLE);
            };
            event.mark.clone()
        };
        // An event that was never recorded is waited for by nobody.
        let Some(mark) = mark else {
            return find(&mut world(), "cuStreamWaitEvent", here, stream).map(|_| ());
        };
        submit("cuStreamWaitEvent", here, stream, move || mark.wait()).map(|_| ())
    })
}

/// A function of the host in a stream's order.
type HostFunction = extern "C" fn(*mut c_void);

/// An address that the caller wants to see again, on the stream's thread.
struct Given(*mut c_void);

// SAFETY: it is only handed to the caller's function, which answers for it.
unsafe impl Send for Given {}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchHostFunc(stream: u64, function: Option<HostFunction>, data: *mut c_void) -> Code {
    in_context("cuLaunchHostFunc", |here| {
        let Some(function) = function else {
            return refuse("cuLaunchHostFunc", "the function is null", INVALID_VALUE);
        };
        let data = Given(data);
        let run = move || {
            let Given(data) = { data };
            callback(|| function(data));
        };
        submit("cuLaunchHostFunc", here, stream, run).map(|_| ())
    })
}
