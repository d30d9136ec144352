//! One software channel: its threads, their queues, the order in which they start and drain.

use rung::media::limits;
use rung::media::logo::Logo;
use rung::media::track::{AudioConfig, Pid};
use rung::pixels::protocol::{
    self, Backend, Fill, FromWorker, Lost, Open, OpenRendition, OpenVideo, ToWorker, Unit, VideoInit,
};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::audio::{self, Audio, ToAudio};
use crate::decode::{self, Decode, Outlet, ToDecode};
use crate::encode::{Encode, Gate, Plan, ToEncode};
use crate::error::{Error, Harm};
use crate::gpu::Gpu;
use crate::gpu::cuda::Stream;
use crate::marker::Marker;
use crate::picture::planar::Ring;
use crate::queue::Queue;
use crate::scale::device::Ladder;
use crate::scale::marks::Canvases;
use crate::shared::Shared;
use crate::thumbnail::{Look, Pictures};

/// Renditions of one channel.
const RENDITIONS_MAX: usize = 15;
/// Pictures of a rendition between the GPU's scaler and an encoder on the CPU.
const RING_PICTURES: usize = 6;

pub struct Channel {
    ch: u32,
    shared: Arc<Shared>,
    video: Option<(Pid, Arc<Queue<ToDecode>>)>,
    audio: Option<Arc<Queue<ToAudio>>>,
    encoders: Vec<Arc<Queue<ToEncode>>>,
    decode_thread: Option<JoinHandle<()>>,
    picture_thread: Option<JoinHandle<()>>,
    encode_threads: Vec<JoinHandle<()>>,
    audio_thread: Option<JoinHandle<()>>,
    /// The process's GPU, if it has one.
    gpu: Option<Arc<Gpu>>,
    /// What logos are fitted to, and who does it once one is given.
    canvases: Option<Canvases>,
    marker: Option<Marker>,
}

/// What a thread says once it stands, and what it was made for.
type Ready<T> = SyncSender<Result<T, String>>;

/// How far a failure reaches. An encoder may be the first to feel a fault that broke the whole context, and its own codes
/// do not say so; the context itself does.
fn reach(error: &Error, gpu: Option<&Gpu>) -> Harm {
    match (error, error.harm(), gpu) {
        (Error::Device(_), Harm::Request, Some(gpu)) => {
            gpu.device.memory().map_or_else(|e| e.harm(), |_| Harm::Request)
        }
        (_, harm, _) => harm,
    }
}

impl Channel {
    /// Starts every thread, waits until all encoders stand, and says `Opened`.
    ///
    /// # Errors
    /// A sentence: what could not be opened.
    pub fn open(ch: u32, open: Open, shared: &Arc<Shared>, gpu: Option<&Arc<Gpu>>) -> Result<Channel, String> {
        let video_outputs = open.video.as_ref().map_or(0, |v| v.renditions.len());
        if video_outputs == 0 && open.audio.is_empty() {
            return Err("a channel needs a rendition or an audio track: nothing was asked for".to_owned());
        }
        if video_outputs > RENDITIONS_MAX {
            return Err(format!("{video_outputs} renditions asked for, {RENDITIONS_MAX} are the most"));
        }
        let mut channel = Channel {
            ch,
            shared: Arc::clone(shared),
            video: None,
            audio: None,
            encoders: Vec::new(),
            decode_thread: None,
            picture_thread: None,
            encode_threads: Vec::new(),
            audio_thread: None,
            gpu: gpu.cloned(),
            canvases: open.video.as_ref().map(Canvases::of),
            marker: None,
        };
        let started = channel.start(open);
        if started.is_err() {
            channel.finish();
        }
        let (renditions, audio) = started?;
        shared.send(FromWorker::Opened { ch, renditions, audio });
        Ok(channel)
    }

    fn start(&mut self, open: Open) -> Result<(Vec<VideoInit>, Vec<AudioConfig>), String> {
        let start = open.video.as_ref().map_or(0, |v| v.start);
        self.shared.counters.open(self.ch, start);
        let mut audio = Vec::new();
        if !open.audio.is_empty() {
            let rate = open.video.as_ref().map(|v| v.cadence.rate);
            let input = Arc::new(Queue::bounded(audio::INPUT_UNITS));
            self.audio = Some(Arc::clone(&input));
            let (ch, tracks, shared) = (self.ch, open.audio, Arc::clone(&self.shared));
            let (configs, thread) = self.thread("audio", Arc::clone(&input), move |ready: &Ready<_>| {
                let Some(audio) = announce(Audio::open(ch, &tracks, rate, &shared), ready, Audio::configs)? else {
                    return Ok(());
                };
                audio.run(&input).map_err(Error::from)
            })?;
            self.audio_thread = Some(thread);
            audio = configs;
        }
        let mut renditions = Vec::new();
        if let Some(video) = open.video {
            let mut outlets = Vec::new();
            for i in 0..video.renditions.len() {
                let (outlet, init) = self.start_encoder(&video, i)?;
                outlets.push(outlet);
                renditions.push(init);
            }
            self.start_decoder(video, open.unpaced, outlets)?;
        }
        Ok((renditions, audio))
    }

    fn start_encoder(&mut self, video: &OpenVideo, i: usize) -> Result<(Outlet, VideoInit), String> {
        let rendition = video.renditions[i].clone();
        let input: Arc<Queue<ToEncode>> = Arc::new(Queue::bounded(limits::ENCODER_INPUT_FRAMES));
        let name = format!("enc-{}", rendition.name);
        let index = u8::try_from(i).unwrap_or(u8::MAX);
        let pictures =
            if i == protocol::lowest(&video.renditions) { Some(self.start_pictures(video, i)?) } else { None };
        let gpu = self.gpu.clone().filter(|_| video.backend != Backend::Software);
        let ring = match (&gpu, video.backend) {
            (Some(gpu), Backend::GpuDecode) => Some(self.ring(gpu, &rendition)?),
            _ => None,
        };
        let plan = Plan { ch: self.ch, index, rendition, cadence: video.cadence, pictures, gpu, ring };
        let shared = Arc::clone(&self.shared);
        self.encoders.push(Arc::clone(&input));
        let queue = Arc::clone(&input);
        let ((init, inputs), thread) = self.thread(&name, Arc::clone(&input), move |ready: &Ready<_>| {
            let opened = Encode::open(plan, shared);
            let Some(encode) = announce(opened, ready, |e| (e.init().clone(), e.inputs()))? else {
                return Ok(());
            };
            encode.run(&input)
        })?;
        self.encode_threads.push(thread);
        Ok((Outlet { queue, gate: Gate::new(video.cadence.gop), inputs }, init))
    }

    fn ring(&self, gpu: &Gpu, rendition: &OpenRendition) -> Result<Ring, String> {
        let (width, height) = (rendition.width as usize, rendition.height as usize);
        Ring::new(&gpu.device, width, height, RING_PICTURES).map_err(|error| {
            let words = format!("rendition {}: {error}", rendition.name);
            // What can be asked for again is told by whoever opens.
            if error.harm() != Harm::Request {
                fail(&self.shared, self.ch, error.harm(), &words);
            }
            words
        })
    }

    /// It ends after the encoder that feeds it.
    fn start_pictures(&mut self, video: &OpenVideo, i: usize) -> Result<Pictures, String> {
        let (sar, source_height) = (video.renditions[i].sar, video.source.height);
        let look = Look { sar, colour: video.renditions[i].colour, source_height };
        let (pictures, thread) = Pictures::start(self.ch, video.pictures, look, &self.shared)?;
        self.picture_thread = Some(thread);
        Ok(pictures)
    }

    fn start_decoder(&mut self, video: OpenVideo, unpaced: bool, outlets: Vec<Outlet>) -> Result<(), String> {
        let input = Arc::new(Queue::bounded(decode::INPUT_UNITS));
        self.video = Some((video.pid, Arc::clone(&input)));
        let (ch, shared, audio) = (self.ch, Arc::clone(&self.shared), self.audio.clone());
        let gpu = self.gpu.clone().filter(|_| video.backend != Backend::Software);
        let ((), thread) = self.thread("decode", Arc::clone(&input), move |ready: &Ready<_>| {
            let opened = ladder(gpu.as_ref(), &video, &outlets, &shared)
                .and_then(|ladder| Decode::open(ch, video, unpaced, outlets, audio, shared, ladder));
            let Some(decode) = announce(opened, ready, |_| ())? else {
                return Ok(());
            };
            decode.run(&input)
        })?;
        self.decode_thread = Some(thread);
        Ok(())
    }

    /// Starts a thread and waits for its first word. When it ends, its input takes nothing more, so nobody waits for it.
    fn thread<T: Send + 'static, I: Send + 'static>(
        &self,
        name: &str,
        input: Arc<Queue<I>>,
        body: impl FnOnce(&Ready<T>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(T, JoinHandle<()>), String> {
        let (ready, opened) = sync_channel(1);
        let (ch, shared, what, gpu) = (self.ch, Arc::clone(&self.shared), name.to_owned(), self.gpu.clone());
        let run = move || {
            // Whoever opens waits until `ready` is gone: behind the last words of a process that can not go on.
            let ended = body(&ready);
            input.close();
            if let Err(error) = ended {
                fail(&shared, ch, reach(&error, gpu.as_deref()), &format!("{what}: {error}"));
            }
        };
        let thread = self.shared.spawn(name.to_owned(), ch, run).map_err(|e| format!("thread {name}: {e}"))?;
        let first = opened.recv().map_err(|_| format!("{name} ended before it stood"))?;
        first.map(|word| (word, thread)).map_err(|e| format!("{name}: {e}"))
    }

    /// Takes a message about this channel; waits while the stage it is for has no room.
    pub fn handle(&mut self, message: ToWorker) {
        match message {
            ToWorker::Unit { unit, .. } => self.unit(unit),
            ToWorker::Fill { to, with, .. } => {
                self.decode(ToDecode::Fill { to, with });
                if let Some(audio) = self.audio.as_ref().filter(|_| with != Fill::Still) {
                    audio.wait_push(ToAudio::Fill(to));
                }
            }
            ToWorker::Idr { at, .. } => self.decode(ToDecode::Idr { at }),
            ToWorker::Retune { rendition, bitrate, .. } => self.decode(ToDecode::Retune { rendition, bitrate }),
            ToWorker::Shed { rendition, at, .. } => self.decode(ToDecode::Shed { rendition, at }),
            ToWorker::Resume { rendition, at, .. } => self.decode(ToDecode::Resume { rendition, at }),
            ToWorker::Logo { logo, .. } => self.logo(logo),
            ToWorker::Snap { .. } => self.decode(ToDecode::Snap),
            ToWorker::Hello { .. }
            | ToWorker::Probe
            | ToWorker::ProbeGpus
            | ToWorker::Open { .. }
            | ToWorker::Close { .. }
            | ToWorker::Stills { .. }
            | ToWorker::Still { .. }
            | ToWorker::Forget { .. }
            | ToWorker::Pattern { .. } => {}
        }
    }

    /// End of media: everything inside comes out.
    pub fn close(mut self) {
        self.finish();
    }

    /// Nobody wants what is inside any more: threads end as soon as they can.
    pub fn abandon(mut self) {
        self.video.iter().for_each(|(_, queue)| queue.abandon());
        self.encoders.iter().for_each(|queue| queue.abandon());
        self.audio.iter().for_each(|queue| queue.abandon());
        self.finish();
    }

    fn unit(&self, unit: Unit) {
        match &self.video {
            Some((pid, queue)) if *pid == unit.pid => {
                queue.wait_push(ToDecode::Unit(unit));
            }
            _ => {
                if let Some(audio) = &self.audio {
                    audio.wait_push(ToAudio::Unit(unit));
                }
            }
        }
    }

    fn logo(&mut self, logo: Option<Box<Logo>>) {
        if let (None, Some((_, queue)), Some(canvases)) = (&self.marker, &self.video, &self.canvases) {
            match Marker::start(self.ch, canvases.clone(), Arc::clone(queue), &self.shared) {
                Ok(marker) => self.marker = Some(marker),
                Err(words) => return fail(&self.shared, self.ch, Harm::Request, &words),
            }
        }
        if let Some(marker) = &self.marker {
            marker.order(logo);
        }
    }

    fn decode(&self, command: ToDecode) {
        if let Some((_, queue)) = &self.video {
            queue.wait_push(command);
        }
    }

    /// Drains in the order in which media flows.
    fn finish(&mut self) {
        self.marker.take().into_iter().for_each(Marker::close);
        if let Some((_, queue)) = self.video.take() {
            queue.close();
        }
        self.decode_thread.take().into_iter().for_each(join);
        for queue in self.encoders.drain(..) {
            queue.close();
        }
        self.encode_threads.drain(..).for_each(join);
        self.picture_thread.take().into_iter().for_each(join);
        if let Some(queue) = self.audio.take() {
            queue.close();
        }
        self.audio_thread.take().into_iter().for_each(join);
    }
}

/// What scales this channel's pictures, if a GPU does.
fn ladder(
    gpu: Option<&Arc<Gpu>>,
    video: &OpenVideo,
    outlets: &[Outlet],
    shared: &Shared,
) -> Result<Option<Ladder>, Error> {
    let Some(gpu) = gpu else { return Ok(None) };
    let sizes = video.renditions.iter().map(|r| (r.width, r.height));
    let inputs = outlets.iter().map(|outlet| outlet.inputs.clone());
    let renditions = sizes.zip(inputs).map(|(size, inputs)| Some((size, inputs?))).collect::<Option<Vec<_>>>();
    let renditions = renditions.ok_or_else(|| Error::Other("a rendition has nowhere to be scaled to".to_owned()))?;
    let stream = Arc::new(Stream::new(&gpu.device)?);
    let watch = shared.watch("decode".to_owned());
    Ok(Some(Ladder::new(gpu, &stream, renditions, video.crop, watch)))
}

/// Says what was opened, or why it could not be; `None`: nothing to run.
///
/// # Errors
/// What costs more than this channel.
fn announce<S, T, E: Into<Error>>(
    opened: Result<S, E>,
    ready: &Ready<T>,
    word: impl FnOnce(&S) -> T,
) -> Result<Option<S>, Error> {
    let (said, stage) = match opened.map_err(E::into) {
        Ok(stage) => (Ok(word(&stage)), Some(stage)),
        Err(error) if error.harm() != Harm::Request => return Err(error),
        Err(error) => (Err(error.to_string()), None),
    };
    // Whoever opens waits for exactly this word; if it is gone the channel is being torn down.
    Ok(ready.send(said).ok().and(stage))
}

/// This channel can not go on, nor can what the harm reaches beyond it.
fn fail(shared: &Shared, ch: u32, harm: Harm, words: &str) {
    match harm {
        Harm::Request => shared.fail(ch, words.to_owned()),
        Harm::Process => shared.fail_process(ch, words, Lost::Process),
        Harm::Gpu => shared.fail_process(ch, words, Lost::Device),
    }
}

fn join(thread: JoinHandle<()>) {
    // `Shared::spawn` catches panics and reports them: there is nothing left to learn here.
    drop(thread.join());
}
