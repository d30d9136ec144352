//! One session: what was made in it, what is in flight, and what its thread still has to do.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use rung_double_common::Fault;

use crate::DOUBLE;
use crate::abi::{
    Answer, DEVICE_NOT_EXIST, Given, INVALID_CALL, INVALID_DEVICE, INVALID_PARAM, NOT_ENOUGH_BUFFER, NOT_INITIALIZED,
    Out, RECONFIGURE_PARAMS_VER, SEQUENCE_PARAM_PAYLOAD_VER, Status, UNSUPPORTED_PARAM, decline, refuse,
};
use crate::buffers::{HostBuffer, Mapped, Output, Registered, Use};
use crate::card::{Codec, caps};
use crate::config::{self, Config};
use crate::cuda::Cuda;
use crate::limit::Slot;
use crate::plan::Plan;
use crate::work::{self, Coded, Job, Surface};

pub(crate) struct Session {
    pub(crate) handle: u64,
    /// The client's CUDA context.
    pub(crate) context: u64,
    other_headers: bool,
    slot: Mutex<Option<Slot>>,
    inside: Mutex<Inside>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Which threads are in a call.
#[derive(Default)]
struct Inside {
    submit: Option<ThreadId>,
    output: Option<ThreadId>,
}

/// What a call belongs to: a session may be used by one thread that submits and one that takes what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Submit,
    Output,
    /// Of both.
    Either,
}

#[derive(Default)]
pub(crate) struct State {
    /// Once it was initialised.
    pub(crate) encoder: Option<Encoder>,
    pub(crate) registered: BTreeMap<u64, Registered>,
    pub(crate) mapped: BTreeMap<u64, Mapped>,
    pub(crate) hosts: BTreeMap<u64, HostBuffer>,
    pub(crate) outputs: BTreeMap<u64, Output>,
    /// The stream that inputs are written in, where the client named one.
    pub(crate) stream: Option<u64>,
    jobs: VecDeque<Job>,
    /// The thread has a job.
    working: bool,
    stop: bool,
    opened: Option<Result<Vec<u8>, String>>,
    thread: Option<JoinHandle<()>>,
    /// What every call answers since the thread met it.
    failed: Option<Status>,
    /// A fault was played or the card is gone: nobody has to flush what may never come out.
    pub(crate) excused: bool,
    /// Coded and not locked yet, in the order they came out.
    coded: VecDeque<Coded>,
    /// How many came out.
    finished: u64,
}

pub(crate) struct Encoder {
    pub(crate) config: Config,
    pub(crate) plan: Plan,
    /// Parameter sets.
    headers: Vec<u8>,
    /// The next picture is an IDR picture.
    pub(crate) force_idr: bool,
    pub(crate) submitted: u64,
    /// Outputs that may be locked: those given before the last success.
    pub(crate) allowed: u64,
    /// Outputs in the order they were given, not locked yet.
    pub(crate) order: VecDeque<Submitted>,
    /// Inputs in flight, by the number of their picture.
    pub(crate) inputs: BTreeMap<u64, u64>,
    /// The end was said, and no picture followed.
    pub(crate) ended: bool,
}

/// An output that was given with a picture, and its place among all outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitted {
    pub(crate) output: u64,
    pub(crate) place: u64,
}

impl Session {
    pub(crate) fn open(context: u64, slot: Slot, other_headers: bool) -> u64 {
        let handle = handle();
        let session = Session {
            handle,
            context,
            other_headers,
            slot: Mutex::new(Some(slot)),
            inside: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        sessions().insert(handle, Arc::new(session));
        DOUBLE.count("live sessions", 1);
        handle
    }

    pub(crate) fn find(handle: u64) -> Option<Arc<Session>> {
        sessions().get(&handle).map(Arc::clone)
    }

    /// Runs a call of the client, alone on its side and with the session's context current.
    pub(crate) fn call(&self, call: &str, side: Side, body: impl FnOnce() -> Answer) -> Answer {
        let _entered = Entered::new(self, call, side)?;
        let current = match Cuda::get().map_or(Ok(0), Cuda::context) {
            Ok(current) => current,
            Err(code) => {
                // The card is gone: what a session has can be given back, and nothing else be done.
                self.state().excused = true;
                let gone = || decline(call, format_args!("libcuda says {code}"), DEVICE_NOT_EXIST);
                return if GIVES_BACK.contains(&call) { body() } else { gone() };
            }
        };
        if current != self.context {
            let why = format!("the calling thread's context is {current:#x}, the session's {:#x}", self.context);
            return refuse(call, why, INVALID_DEVICE);
        }
        body()
    }

    pub(crate) fn initialise(self: &Arc<Session>, at: *const c_void) -> Answer {
        const CALL: &str = "nvEncInitializeEncoder";
        let given = config::given(CALL, at)?;
        fault("encode.init", &[])?;
        if self.state().encoder.is_some() {
            return refuse(CALL, "the session is initialised", INVALID_CALL);
        }
        let config = Config::read(CALL, &given)?;
        let (session, of_thread, other) = (Arc::clone(self), config.clone(), self.other_headers);
        let thread = std::thread::Builder::new().name("nvenc".into());
        let thread = thread.spawn(move || work::run(&session, of_thread, other));
        let Ok(thread) = thread else { return decline(CALL, "no thread", DEVICE_NOT_EXIST) };
        let mut state = self.wait(|state| state.opened.is_some());
        match state.opened.take().expect("waited for") {
            Err(why) => {
                drop(state);
                thread.join().ok();
                decline(CALL, why, INVALID_PARAM)
            }
            Ok(headers) => {
                let plan = Plan::new(config.b_frames, config.lookahead, config.gop);
                state.thread = Some(thread);
                state.encoder = Some(Encoder {
                    config,
                    plan,
                    headers,
                    force_idr: false,
                    submitted: 0,
                    allowed: 0,
                    order: VecDeque::new(),
                    inputs: BTreeMap::new(),
                    ended: false,
                });
                Ok(())
            }
        }
    }

    pub(crate) fn reconfigure(&self, at: *const c_void) -> Answer {
        const CALL: &str = "nvEncReconfigureEncoder";
        let given = Given::versioned::<sys::NV_ENC_RECONFIGURE_PARAMS>(
            CALL,
            "NV_ENC_RECONFIGURE_PARAMS",
            at,
            RECONFIGURE_PARAMS_VER,
        )?;
        let word = fault("encode.reconfigure", &["ignore_rate"])?;
        let inner = at.wrapping_byte_add(offset_of!(sys::NV_ENC_RECONFIGURE_PARAMS, reInitEncodeParams));
        let wanted = config::given(CALL, inner)?;
        let mut state = self.state();
        state.healthy(CALL)?;
        let encoder = state.encoder(CALL)?;
        let mut config = Config::read(CALL, &wanted)?;
        if wanted.pointer(offset_of!(sys::NV_ENC_INITIALIZE_PARAMS, encodeConfig)).is_null() {
            config = Config { width: config.width, height: config.height, ..encoder.config.clone() };
        }
        let flags = offset_of!(sys::NV_ENC_RECONFIGURE_PARAMS, _bitfield_1);
        let (reset, force_idr) = (given.bit(flags, 0), given.bit(flags, 1));
        if force_idr && !config.decides_types {
            return refuse(CALL, "forceIDR without enablePTD", INVALID_PARAM);
        }
        compatible(CALL, &encoder.config, &config)?;
        let resized = (config.width, config.height) != (encoder.config.width, encoder.config.height);
        let retuned = config.spending != encoder.config.spending;
        let ignored = word.is_some();
        if ignored {
            config.spending = encoder.config.spending;
        }
        let key_by_itself = retuned && config.codec == Codec::Av1;
        encoder.force_idr |= reset || force_idr || resized || key_by_itself;
        encoder.config = config.clone();
        if resized || reset {
            state.jobs.push_back(Job::Restart(Box::new(config)));
        } else if retuned && !ignored {
            state.jobs.push_back(Job::Rate(config.spending));
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// `instead`: what the encoder would be initialised with, for a session that is not.
    pub(crate) fn sequence_params(&self, call: &str, instead: Option<*const c_void>, at: *const c_void) -> Answer {
        let given = Given::versioned::<sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD>(
            call,
            "NV_ENC_SEQUENCE_PARAM_PAYLOAD",
            at,
            SEQUENCE_PARAM_PAYLOAD_VER,
        )?;
        let mut state = self.state();
        let headers = match (&state.encoder, instead) {
            (None, Some(instead)) => {
                drop(state);
                let config = Config::read(call, &config::given(call, instead)?)?;
                work::headers(&config, self.other_headers).or_else(|why| decline(call, why, INVALID_PARAM))?
            }
            _ => state.encoder(call)?.headers.clone(),
        };
        if headers.is_empty() {
            return decline(call, "no parameter sets of AV1 out of band", UNSUPPORTED_PARAM);
        }
        let room = given.u32(offset_of!(sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD, inBufferSize)) as usize;
        if headers.len() > room {
            return refuse(call, format_args!("{room} bytes for {}", headers.len()), NOT_ENOUGH_BUFFER);
        }
        let to = given.pointer(offset_of!(sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD, spsppsBuffer));
        let size = given.pointer(offset_of!(sys::NV_ENC_SEQUENCE_PARAM_PAYLOAD, outSPSPPSPayloadSize));
        let to = Out::new(call, "spsppsBuffer", to)?;
        let size = Out::new(call, "outSPSPPSPayloadSize", size)?;
        to.put_bytes(&headers);
        size.put(0, headers.len() as u32);
        Ok(())
    }

    /// Ends the session whatever is still in it; what should not be is said.
    pub(crate) fn destroy(self: &Arc<Session>) -> Answer {
        const CALL: &str = "nvEncDestroyEncoder";
        if fault("encode.destroy", &["hang"])?.is_some() {
            hang();
        }
        {
            let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
            if inside.output.is_some() {
                return refuse(CALL, "another thread is in a call of this session", INVALID_CALL);
            }
        }
        sessions().remove(&self.handle);
        let mut state = self.state();
        let left = state.left();
        for sentence in &left {
            DOUBLE.broken(&format!("{CALL}: {sentence}"));
        }
        state.clear();
        state.stop = true;
        let thread = state.thread.take();
        drop(state);
        self.changed.notify_all();
        if let Some(thread) = thread {
            thread.join().ok();
        }
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        DOUBLE.count("live sessions", -1);
        Ok(())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is so.
    pub(crate) fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.changed.wait_while(self.state(), |state| !until(state));
        state.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submit(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.push(job);
        drop(state);
        self.changed.notify_all();
    }

    /// For the session's thread: whether its encoder opened, and with which parameter sets.
    pub(crate) fn opened(&self, how: Result<Vec<u8>, String>) {
        self.change(|state| state.opened = Some(how));
    }

    pub(crate) fn new_headers(&self, headers: Vec<u8>) {
        self.change(|state| {
            if let Some(encoder) = &mut state.encoder {
                encoder.headers = headers;
            }
        });
    }

    pub(crate) fn coded(&self, coded: Coded) {
        self.change(|state| {
            state.finished += 1;
            state.coded.push_back(coded);
        });
    }

    pub(crate) fn failed(&self, code: Status) {
        self.change(|state| state.failed = Some(code));
    }

    /// None when the session ends.
    pub(crate) fn next_job(&self) -> Option<Job> {
        self.change(|state| state.working = false);
        let mut state = self.wait(|state| state.stop || !state.jobs.is_empty());
        if state.stop {
            return None;
        }
        state.working = true;
        state.jobs.pop_front()
    }

    /// From now on nobody is to write to a surface whose stream came to it.
    pub(crate) fn guard_surface(&self, mapped: u64, surface: &Surface) {
        self.change(|state| {
            if let Some(mapped) = state.mapped.get_mut(&mapped) {
                mapped.guard(surface);
            }
        });
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state());
        self.changed.notify_all();
    }
}

impl State {
    pub(crate) fn encoder(&mut self, call: &str) -> Result<&mut Encoder, Status> {
        match &mut self.encoder {
            Some(encoder) => Ok(encoder),
            None => refuse(call, "before nvEncInitializeEncoder", NOT_INITIALIZED),
        }
    }

    /// What the session's thread met is answered by every later call that needs the encoder.
    pub(crate) fn healthy(&self, call: &str) -> Answer {
        self.failed.map_or(Ok(()), |code| decline(call, "the session failed", code))
    }

    pub(crate) fn push(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    pub(crate) fn failure(&self) -> Option<Status> {
        self.failed
    }

    /// Pictures in flight need not be waited for: the end was said, or an error met.
    pub(crate) fn settled(&self) -> bool {
        self.excused || self.failed.is_some() || self.encoder.as_ref().is_some_and(|encoder| encoder.ended)
    }

    /// The thread has nothing to do.
    pub(crate) fn idle(&self) -> bool {
        self.jobs.is_empty() && !self.working
    }

    /// Whether the output at that place came out and is due.
    pub(crate) fn ready(&self, place: u64) -> bool {
        let due = self.encoder.as_ref().map_or(0, |encoder| encoder.plan.due());
        self.finished > place && due > place
    }

    /// The next output; `ready` was true for it.
    pub(crate) fn take(&mut self) -> Option<Coded> {
        self.coded.pop_front()
    }

    /// What a client has to give back before it ends a session, as sentences.
    fn left(&self) -> Vec<String> {
        let locked = self.outputs.values().filter(|output| matches!(output.used, Use::Locked(_))).count();
        let lists = [
            (self.mapped.len(), "mapped inputs"),
            (self.registered.len(), "registrations"),
            (self.hosts.len(), "input buffers"),
            (self.outputs.len(), "bitstream buffers"),
            (locked, "locked bitstreams"),
        ];
        let some = lists.iter().filter(|(count, _)| *count > 0);
        let mut left: Vec<String> = some.map(|(count, what)| format!("{count} {what} are left")).collect();
        let unfinished = self.encoder.as_ref().is_some_and(|e| e.submitted > 0 && !e.ended);
        if unfinished && !self.excused && self.failed.is_none() {
            left.push("the encoder was not flushed".to_owned());
        }
        left
    }

    /// What the driver gives back by itself with the session.
    fn clear(&mut self) {
        self.jobs.clear();
        for mapped in std::mem::take(&mut self.mapped).into_values() {
            mapped.release();
        }
        let outputs = std::mem::take(&mut self.outputs);
        let locked = outputs.values().filter(|output| matches!(output.used, Use::Locked(_))).count();
        let gone = [
            ("live registrations", std::mem::take(&mut self.registered).len()),
            ("live input buffers", std::mem::take(&mut self.hosts).len()),
            ("live bitstream buffers", outputs.len()),
            ("live locked bitstreams", locked),
        ];
        for (what, count) in gone.into_iter().filter(|(_, count)| *count > 0) {
            DOUBLE.count(what, -(count as i64));
        }
    }
}

/// A call that is being made.
struct Entered<'a> {
    session: &'a Session,
    side: Side,
}

impl Entered<'_> {
    fn new<'a>(session: &'a Session, call: &str, side: Side) -> Result<Entered<'a>, Status> {
        let mut inside = session.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match side {
            Side::Submit => &mut inside.submit,
            Side::Output => &mut inside.output,
            Side::Either => return Ok(Entered { session, side }),
        };
        if let Some(other) = place.replace(std::thread::current().id()) {
            *place = Some(other);
            return refuse(call, format_args!("thread {other:?} is in a call of this session"), INVALID_CALL);
        }
        Ok(Entered { session, side })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut inside = self.session.inside.lock().unwrap_or_else(PoisonError::into_inner);
        match self.side {
            Side::Submit => inside.submit = None,
            Side::Output => inside.output = None,
            Side::Either => {}
        }
    }
}

/// Whether an encoder can become another without a new session.
fn compatible(call: &str, now: &Config, wanted: &Config) -> Answer {
    let same =
        Config { width: now.width, height: now.height, aspect: now.aspect, spending: now.spending, ..wanted.clone() };
    if same.most != now.most {
        return refuse(call, "maxEncodeWidth or maxEncodeHeight changed", UNSUPPORTED_PARAM);
    }
    if (same.gop, same.b_frames) != (now.gop, now.b_frames) {
        return refuse(call, "the GOP structure changed", UNSUPPORTED_PARAM);
    }
    if same.decides_types != now.decides_types {
        return refuse(call, "enablePTD changed", UNSUPPORTED_PARAM);
    }
    if same != *now || wanted.spending.mode != now.spending.mode {
        return decline(call, "what changed can not change in a session on this card", UNSUPPORTED_PARAM);
    }
    if wanted.spending != now.spending && now.codec.cap(caps::DYNAMIC_RATE) == 0 {
        return decline(call, "no new rate in a session on this card", UNSUPPORTED_PARAM);
    }
    let size = (wanted.width, wanted.height);
    if size == (now.width, now.height) {
        return Ok(());
    }
    if now.codec.cap(caps::DYNAMIC_SIZE) == 0 {
        return decline(call, "no new size in a session on this card", UNSUPPORTED_PARAM);
    }
    if size.0 > now.most.0 || size.1 > now.most.1 {
        return refuse(call, format_args!("{size:?} is beyond maxEncode {:?}", now.most), INVALID_PARAM);
    }
    Ok(())
}

/// Plays what is due at `point`: a code is answered, a sleep is slept, one of `words` is handed back.
///
/// # Panics
/// The file says a word that the point does not know: the test is wrong.
pub(crate) fn fault(point: &str, words: &[&str]) -> Result<Option<String>, Status> {
    match DOUBLE.fault(point) {
        None => Ok(None),
        Some(Fault::Code(code)) => decline(point, "a fault is played", code),
        Some(Fault::Sleep(time)) => {
            sleep(time);
            Ok(None)
        }
        Some(Fault::Word(word)) if words.contains(&word.as_str()) => Ok(Some(word)),
        Some(Fault::Word(word)) => panic!("fault {point} {word}: it knows code=, sleep=, {words:?}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a fault that takes its time")]
fn sleep(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// A call that never comes back.
pub(crate) fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// A number that was never given out before, and no address.
pub(crate) fn handle() -> u64 {
    MARK | HANDLES.fetch_add(1, Ordering::Relaxed) << 4
}

fn sessions() -> MutexGuard<'static, BTreeMap<u64, Arc<Session>>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

static SESSIONS: Mutex<BTreeMap<u64, Arc<Session>>> = Mutex::new(BTreeMap::new());
static HANDLES: AtomicU64 = AtomicU64::new(1);
/// Calls that take nothing but give something back.
const GIVES_BACK: [&str; 7] = [
    "nvEncDestroyEncoder",
    "nvEncUnmapInputResource",
    "nvEncUnregisterResource",
    "nvEncUnlockBitstream",
    "nvEncUnlockInputBuffer",
    "nvEncDestroyBitstreamBuffer",
    "nvEncDestroyInputBuffer",
];
/// No address of a user process begins so.
const MARK: u64 = 0x00c1_0000_0000_0000;
