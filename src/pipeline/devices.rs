//! Which GPU carries which channel: what a channel costs there, what is booked, what is refused and why. Pure but for the
//! lock: facts in, placements out.
//!
//! A channel is priced in shares of a GPU's resources. It is placed where the fullest resource stays emptiest; nothing is
//! placed above `FULL`, so that those who run keep their time. Prices rest on the rates below, one per engine; what the
//! GPU itself says of its load counts instead where it is more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::media::channel::{BackendPolicy, ChannelName, SessionId, VideoCodec};
use crate::media::grid::FrameRate;
use crate::media::track::{Codec, VideoConfig};
use crate::pixels::health::{GpuValues, PciAddress};
use crate::pixels::protocol::{Backend, EncodeCaps, GpuCaps, OpenRendition};
use crate::time::Mono;

/// Luma samples that one decode engine takes in a second: 625 frames of 1080p, twice as many for HEVC.
const DECODE_RATE: f64 = 625.0 * 1920.0 * 1080.0;
const DECODE_RATE_HEVC: f64 = 2.0 * DECODE_RATE;
/// Luma samples that one encode engine makes in a second at preset P4: 500 frames of 1080p.
const ENCODE_RATE: f64 = 500.0 * 1920.0 * 1080.0;
/// HEVC takes an engine longer, by its larger choice of blocks: how much is assumed, on the cautious side, until a card is
/// measured.
const ENCODE_RATE_HEVC: f64 = 0.7 * ENCODE_RATE;
/// Bytes that the scaler reads and writes in a second, at a modest share of the slowest card's bandwidth.
const SCALE_RATE: f64 = 60e9;
/// Device memory of an encode session beside its surfaces, and of a channel's share in its process' context.
const SESSION_BYTES: f64 = 60e6;
const CONTEXT_BYTES: f64 = 80e6;
/// A resource is full at this share.
const FULL: f64 = 0.85;
/// How much of a change in a GPU's load a second's reading brings.
const FOLLOWED: f64 = 0.2;
/// A GPU on which more workers than this met their end within `FAULTS_WITHIN` takes no channel for `FAULTS_REST`.
const FAULTS_MAX: usize = 2;
const FAULTS_WITHIN: Duration = Duration::from_secs(60);
const FAULTS_REST: Duration = Duration::from_secs(300);
/// Channels whose last request is remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 4_096;

/// What a channel asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    pub bits: u8,
    /// chroma_format_idc: 1 is 4:2:0.
    pub chroma_format: u8,
    pub rate: FrameRate,
    /// Codec, columns and rows of each rendition that is encoded.
    pub renditions: Vec<(VideoCodec, u32, u32)>,
    /// Surfaces that an encoder holds back for B frames and lookahead.
    pub held: u32,
}

impl Request {
    pub fn new(source: &VideoConfig, rate: FrameRate, renditions: &[OpenRendition]) -> Request {
        Request {
            codec: source.codec,
            width: source.width,
            height: source.height,
            bits: source.bit_depth,
            chroma_format: source.chroma_format,
            rate,
            renditions: renditions.iter().map(|r| (r.codec, r.width, r.height)).collect(),
            held: renditions.iter().map(|r| r.bframes + r.lookahead).max().unwrap_or(0),
        }
    }
}

/// Where a channel runs, and why there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub backend: Backend,
    /// The GPU's index; `None` on the software backend.
    pub gpu: Option<u32>,
    /// A sentence for the log and the API.
    pub why: String,
}

/// What stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// There is no GPU, or none that is well.
    Gpu,
    Codec,
    Encoder,
    DecodeEngine,
    EncodeEngine,
    EncodeSessions,
    Scaler,
    Memory,
}

impl Resource {
    pub fn name(self) -> &'static str {
        match self {
            Resource::Gpu => "gpu",
            Resource::Codec => "codec",
            Resource::Encoder => "encoder",
            Resource::DecodeEngine => "decode_engine",
            Resource::EncodeEngine => "encode_engine",
            Resource::EncodeSessions => "encode_sessions",
            Resource::Scaler => "scaler",
            Resource::Memory => "gpu_memory",
        }
    }
}

/// A channel that no GPU takes. `Display` names the limiting resource of each GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the GPU that came closest.
    pub resource: Resource,
    pub what: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Shares of a GPU's resources, each 0 to 1; sessions are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    pub decode: f64,
    pub scale: f64,
    pub encode: f64,
    pub memory: f64,
    pub sessions: u32,
}

impl Shares {
    fn plus(self, more: Shares) -> Shares {
        Shares {
            decode: self.decode + more.decode,
            scale: self.scale + more.scale,
            encode: self.encode + more.encode,
            memory: self.memory + more.memory,
            sessions: self.sessions + more.sessions,
        }
    }

    /// The fullest share.
    fn fullest(&self) -> f64 {
        self.decode.max(self.scale).max(self.encode).max(self.memory)
    }
}

/// What a GPU says of itself, shares from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    pub decode: f64,
    pub encode: f64,
    pub memory: f64,
}

impl Measured {
    /// What it does not tell counts as nothing.
    pub fn of(values: &GpuValues) -> Measured {
        let share = |percent: Option<u32>| f64::from(percent.unwrap_or(0)) / 100.0;
        let memory = values.memory_used_bytes.zip(values.memory_total_bytes);
        let memory = memory.map_or(0.0, |(used, total)| used as f64 / (total.max(1) as f64));
        Measured { decode: share(values.decoder), encode: share(values.encoder), memory }
    }
}

/// What `request` costs on `gpu`.
///
/// # Errors
/// The GPU can not do it at all, whatever else it does.
pub fn price(request: &Request, gpu: &GpuCaps, backend: Backend) -> Result<Shares, Refusal> {
    let refused = |resource, what: String| Err(Refusal { resource, what: format!("GPU {}: {what}", gpu.index) });
    if let Some(why) = &gpu.unfit {
        return refused(Resource::Gpu, why.clone());
    }
    let of_kind = gpu.decode.iter().find(|d| d.codec == request.codec && d.bits == request.bits);
    let (codec, bits) = (request.codec, request.bits);
    let (Some(decoder), 1) = (of_kind.filter(|_| gpu.decode_engines > 0), request.chroma_format) else {
        let what = format!("its decoder does not take {codec} {bits} bit, chroma format {}", request.chroma_format);
        return refused(Resource::Codec, what);
    };
    if request.width > decoder.width_max || request.height > decoder.height_max {
        let (w, h) = (request.width, request.height);
        let what = format!("its decoder takes {codec} up to {}x{}, not {w}x{h}", decoder.width_max, decoder.height_max);
        return refused(Resource::Codec, what);
    }
    let hz = request.rate.hz();
    let samples = |w: u32, h: u32| f64::from(w) * f64::from(h);
    let source = samples(request.width, request.height);
    let outputs: f64 = request.renditions.iter().map(|(_, w, h)| samples(*w, *h)).sum();
    let decode_rate = if codec == Codec::H265 { DECODE_RATE_HEVC } else { DECODE_RATE };
    let bytes_per_sample = if bits > 8 { 3.0 } else { 1.5 };
    let mut shares = Shares {
        decode: source * hz / (decode_rate * f64::from(gpu.decode_engines)),
        scale: (source * bytes_per_sample + outputs * 1.5) * hz / SCALE_RATE,
        ..Shares::default()
    };
    // Reference pictures and spares, two output surfaces; a ring of surfaces per rendition.
    let decode_bytes = source * bytes_per_sample * (16.0 + 4.0 + 2.0);
    let surfaces = f64::from(request.held) + SURFACES;
    let mut bytes = CONTEXT_BYTES + decode_bytes + outputs * 1.5 * surfaces;
    if backend == Backend::Gpu {
        let encoder = match &gpu.encode {
            Ok(encoder) => encoder,
            Err(why) => return refused(Resource::Encoder, why.clone()),
        };
        if let Err(what) = check_encodes(request, encoder) {
            return refused(Resource::Encoder, what);
        }
        let seconds = request.renditions.iter().map(|(codec, w, h)| samples(*w, *h) / encode_rate(*codec));
        shares.encode = seconds.sum::<f64>() * hz / f64::from(encoder.engines.max(1));
        shares.sessions = u32::try_from(request.renditions.len()).unwrap_or(u32::MAX);
        bytes += SESSION_BYTES * f64::from(shares.sessions);
    }
    shares.memory = bytes / (gpu.memory_bytes.max(1) as f64);
    Ok(shares)
}

/// Surfaces of a rendition beyond those that its encoder holds back.
const SURFACES: f64 = 7.0;

/// Luma samples that one engine makes in a second.
fn encode_rate(codec: VideoCodec) -> f64 {
    match codec {
        VideoCodec::H264 => ENCODE_RATE,
        VideoCodec::Hevc => ENCODE_RATE_HEVC,
    }
}

fn check_encodes(request: &Request, encoder: &EncodeCaps) -> Result<(), String> {
    request.renditions.iter().try_for_each(|(codec, w, h)| {
        let most = match codec {
            VideoCodec::H264 => (encoder.width_max, encoder.height_max),
            VideoCodec::Hevc if !encoder.hevc => {
                return Err(format!("its encoder makes no HEVC, and a rendition of {w}x{h} asks for it"));
            }
            VideoCodec::Hevc => (encoder.hevc_width_max, encoder.hevc_height_max),
        };
        let least = (encoder.width_min, encoder.height_min);
        if (least.0..=most.0).contains(w) && (least.1..=most.1).contains(h) {
            return Ok(());
        }
        Err(format!("its encoder makes {codec} from {}x{} to {}x{}, not {w}x{h}", least.0, least.1, most.0, most.1))
    })
}

/// The GPUs of this box and who is on them.
#[derive(Debug, Default)]
pub struct Devices(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    gpus: Vec<Gpu>,
    /// Why there is none.
    absent: Option<String>,
    placed: BTreeMap<SessionId, (Request, Placement)>,
    /// What each channel asked for last.
    remembered: BTreeMap<ChannelName, (SessionId, Request, BackendPolicy)>,
}

#[derive(Debug)]
struct Gpu {
    caps: GpuCaps,
    measured: Measured,
    /// It told of its load before.
    told: bool,
    /// Why nothing is placed here.
    ill: Option<String>,
    /// Until when, if it passes by itself.
    rests: Option<Mono>,
    faults: VecDeque<Mono>,
}

impl Gpu {
    /// Encode sessions that open; `None`: as many as were tried, so only its engines are a limit.
    fn session_limit(&self) -> Option<u32> {
        let encode = self.caps.encode.as_ref().ok()?;
        (encode.sessions < encode.sessions_tried).then_some(encode.sessions)
    }

    fn is_well(&mut self) {
        (self.ill, self.rests) = (None, None);
        self.faults.clear();
    }
}

impl Devices {
    pub fn new(gpus: Vec<GpuCaps>) -> Devices {
        let devices = Devices::default();
        devices.found(gpus);
        devices
    }

    /// What the driver shows now. What is known of a GPU and booked on it stays, and so does one that is not shown: it
    /// may be lost for a while only.
    pub fn found(&self, gpus: Vec<GpuCaps>) {
        let mut book = self.book();
        for mut caps in gpus {
            if let Some(gpu) = book.gpus.iter_mut().find(|gpu| gpu.caps.pci == caps.pci) {
                // One that works hides some of what it can do: sessions in use could not be opened.
                if gpu.caps.unfit.is_some() {
                    caps.index = gpu.caps.index;
                    gpu.caps = caps;
                }
                continue;
            }
            let taken = |number: &u32| book.gpus.iter().any(|gpu| gpu.caps.index == *number);
            caps.index = [caps.index].into_iter().chain(0..).find(|n| !taken(n)).expect("fewer GPUs than numbers");
            // What others use now; NVML tells more, later.
            let memory = 1.0 - caps.memory_free_bytes as f64 / (caps.memory_bytes.max(1) as f64);
            let measured = Measured { memory, ..Measured::default() };
            book.gpus.push(Gpu { caps, measured, told: false, ill: None, rests: None, faults: VecDeque::new() });
        }
        book.absent = None;
    }

    /// None was found, and why.
    pub fn absent(&self, why: &str) {
        self.book().absent = Some(why.to_owned());
    }

    /// Rung's number of each GPU, and where it is plugged in.
    pub fn slots(&self) -> BTreeMap<u32, PciAddress> {
        self.book().gpus.iter().map(|gpu| (gpu.caps.index, gpu.caps.pci)).collect()
    }

    /// The number of the GPU in that slot.
    pub fn number(&self, slot: PciAddress) -> Option<u32> {
        self.book().gpus.iter().find(|gpu| gpu.caps.pci == slot).map(|gpu| gpu.caps.index)
    }

    /// Why nothing is placed there.
    pub fn illness(&self, gpu: u32) -> Option<String> {
        let mut book = self.book();
        let gpu = book.gpu(gpu)?;
        gpu.ill.clone().or_else(|| gpu.caps.unfit.clone())
    }

    /// A GPU's own view of its load, told once a second. A channel that catches up fills an engine for a moment: what
    /// lasts counts.
    pub fn measured(&self, gpu: u32, told: Measured) {
        if let Some(gpu) = self.book().gpu(gpu) {
            let Measured { decode, encode, .. } = gpu.measured;
            let share = if std::mem::replace(&mut gpu.told, true) { FOLLOWED } else { 1.0 };
            let follow = |old: f64, new: f64| old + (new - old) * share;
            let (decode, encode) = (follow(decode, told.decode), follow(encode, told.encode));
            gpu.measured = Measured { decode, encode, memory: told.memory };
        }
    }

    /// Nothing is placed on it until `well`.
    pub fn ill(&self, gpu: u32, why: &str) {
        if let Some(gpu) = self.book().gpu(gpu) {
            (gpu.ill, gpu.rests) = (Some(why.to_owned()), None);
        }
    }

    pub fn well(&self, gpu: u32) {
        if let Some(gpu) = self.book().gpu(gpu) {
            gpu.is_well();
        }
    }

    /// A worker met its end there. Often enough, and the GPU rests: then why.
    pub fn fault(&self, gpu: u32, what: &str, now: Mono) -> Option<String> {
        let mut book = self.book();
        let gpu = book.gpu(gpu)?;
        gpu.faults.push_back(now);
        gpu.faults.retain(|at| now - *at <= FAULTS_WITHIN);
        let faults = gpu.faults.len();
        if faults <= FAULTS_MAX || gpu.ill.is_some() {
            return None;
        }
        gpu.rests = Some(now + FAULTS_REST);
        gpu.ill = Some(format!("{faults} processes on it came to a bad end within a minute, the last: {what}"));
        gpu.ill.clone()
    }

    /// A worker found the GPU gone. It rests; whoever watches it may know more, or sooner that it is well.
    pub fn lost(&self, gpu: u32, what: &str, now: Mono) {
        if let Some(gpu) = self.book().gpu(gpu)
            && gpu.ill.is_none()
        {
            (gpu.ill, gpu.rests) = (Some(what.to_owned()), Some(now + FAULTS_REST));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.book().gpus.is_empty()
    }

    /// Illnesses that pass by themselves.
    pub fn tick(&self, now: Mono) {
        for gpu in &mut self.book().gpus {
            if gpu.rests.is_some_and(|until| now >= until) {
                gpu.is_well();
            }
        }
    }

    /// Places a session and books it; one that is placed already is placed anew. `avoid`: not there.
    ///
    /// # Errors
    /// No GPU takes it, and the policy allows nothing else. Nothing is booked then.
    pub fn place(
        &self,
        channel: &ChannelName,
        session: &SessionId,
        request: &Request,
        policy: BackendPolicy,
        avoid: &[u32],
    ) -> Result<Placement, Refusal> {
        let mut book = self.book();
        book.placed.remove(session);
        book.remember(channel, session, request, policy);
        let placement = book.choose(request, policy, avoid)?;
        book.placed.insert(session.clone(), (request.clone(), placement.clone()));
        Ok(placement)
    }

    /// Whether a session like this would be placed now; books nothing.
    ///
    /// # Errors
    /// As `place`.
    pub fn room(&self, request: &Request, policy: BackendPolicy, avoid: &[u32]) -> Result<Placement, Refusal> {
        self.book().choose(request, policy, avoid)
    }

    /// Whether a publisher of this channel may come: what it asked for last would find room, or has its place already.
    ///
    /// # Errors
    /// As `place`.
    pub fn welcome(&self, channel: &ChannelName) -> Result<(), Refusal> {
        let book = self.book();
        let Some((session, request, policy)) = book.remembered.get(channel) else { return Ok(()) };
        if book.placed.contains_key(session) { Ok(()) } else { book.choose(request, *policy, &[]).map(drop) }
    }

    pub fn release(&self, session: &SessionId) {
        self.book().placed.remove(session);
    }

    /// Each GPU's booked shares, and its channels.
    pub fn booked(&self) -> Vec<(u32, Shares, usize)> {
        let book = self.book();
        book.gpus.iter().map(|gpu| (gpu.caps.index, book.booked_on(&gpu.caps), book.count_on(gpu.caps.index))).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn gpu(&mut self, index: u32) -> Option<&mut Gpu> {
        self.gpus.iter_mut().find(|gpu| gpu.caps.index == index)
    }

    fn remember(&mut self, channel: &ChannelName, session: &SessionId, request: &Request, policy: BackendPolicy) {
        self.remembered.insert(channel.clone(), (session.clone(), request.clone(), policy));
        if self.remembered.len() > REMEMBERED_MAX {
            let oldest =
                self.remembered.iter().min_by_key(|(_, (session, ..))| session.ulid()).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.remembered.remove(&name));
        }
    }

    fn booked_on(&self, caps: &GpuCaps) -> Shares {
        let here = self.placed.values().filter(|(_, placement)| placement.gpu == Some(caps.index));
        let prices = here.filter_map(|(request, placement)| price(request, caps, placement.backend).ok());
        prices.fold(Shares::default(), Shares::plus)
    }

    fn count_on(&self, index: u32) -> usize {
        self.placed.values().filter(|(_, placement)| placement.gpu == Some(index)).count()
    }

    fn choose(&self, request: &Request, policy: BackendPolicy, avoid: &[u32]) -> Result<Placement, Refusal> {
        if policy == BackendPolicy::Software {
            let why = "the software backend is configured".to_owned();
            return Ok(Placement { backend: Backend::Software, gpu: None, why });
        }
        let mut refusals = Vec::new();
        let wanted: &[Backend] = match policy {
            BackendPolicy::Gpu => &[Backend::Gpu],
            _ => &[Backend::Gpu, Backend::GpuDecode],
        };
        for backend in wanted {
            match self.best(request, *backend, avoid) {
                Ok((gpu, why)) => {
                    let refused =
                        refusals.first().map(|refusal: &Refusal| format!("; encoded on the CPU, because {refusal}"));
                    let why = why + &refused.unwrap_or_default();
                    return Ok(Placement { backend: *backend, gpu: Some(gpu), why });
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        // What kept it from the GPU altogether is what an operator must know first.
        let refusal = refusals.remove(0);
        if policy == BackendPolicy::Auto {
            let also = refusals.iter().find(|other| other.what != refusal.what);
            let also = also.map_or_else(String::new, |other| format!("; decoded there alone: {other}"));
            let why = format!("software, because {refusal}{also}");
            return Ok(Placement { backend: Backend::Software, gpu: None, why });
        }
        Err(refusal)
    }

    /// The GPU whose fullest resource stays emptiest.
    fn best(&self, request: &Request, backend: Backend, avoid: &[u32]) -> Result<(u32, String), Refusal> {
        let mut refusals: Vec<Refusal> = Vec::new();
        let mut best: Option<(f64, u32, String)> = None;
        for gpu in self.gpus.iter().filter(|gpu| !avoid.contains(&gpu.caps.index)) {
            match self.fits(request, backend, gpu) {
                Ok(after) => {
                    let full = after.fullest();
                    if best.as_ref().is_none_or(|(least, ..)| full < *least) {
                        let why = format!("GPU {}, its fullest resource then at {:.0} %", gpu.caps.index, full * 100.0);
                        best = Some((full, gpu.caps.index, why));
                    }
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        if let Some((_, gpu, why)) = best {
            return Ok((gpu, why));
        }
        let Some(resource) = refusals.iter().map(|refusal| refusal.resource).max() else {
            let what = match &self.absent {
                _ if !avoid.is_empty() => "there is no other GPU".to_owned(),
                Some(why) => format!("there is no GPU: {why}"),
                None => "there is no GPU".to_owned(),
            };
            return Err(Refusal { resource: Resource::Gpu, what });
        };
        let what = refusals.iter().map(|refusal| refusal.what.as_str()).collect::<Vec<_>>().join("; ");
        Err(Refusal { resource, what })
    }

    /// The GPU's shares with the newcomer.
    fn fits(&self, request: &Request, backend: Backend, gpu: &Gpu) -> Result<Shares, Refusal> {
        let index = gpu.caps.index;
        if let Some(ill) = &gpu.ill {
            return Err(Refusal { resource: Resource::Gpu, what: format!("GPU {index}: {ill}") });
        }
        let price = price(request, &gpu.caps, backend)?;
        let booked = self.booked_on(&gpu.caps);
        let now = Shares {
            decode: booked.decode.max(gpu.measured.decode),
            scale: booked.scale,
            encode: booked.encode.max(gpu.measured.encode),
            memory: booked.memory.max(gpu.measured.memory),
            sessions: booked.sessions,
        };
        let after = now.plus(price);
        let resources = [
            (Resource::DecodeEngine, "decode engines", now.decode, price.decode, after.decode),
            (Resource::EncodeEngine, "encode engines", now.encode, price.encode, after.encode),
            (Resource::Scaler, "scaler", now.scale, price.scale, after.scale),
            (Resource::Memory, "memory", now.memory, price.memory, after.memory),
        ];
        // What the newcomer does not use cannot stand in its way.
        if let Some((resource, name, now, price, _)) = resources.iter().find(|r| r.3 > 0.0 && r.4 > FULL) {
            let what = format!(
                "GPU {index}: {name} at {:.0} %, this channel needs {:.0} % more, {:.0} % are given out",
                now * 100.0,
                price * 100.0,
                FULL * 100.0
            );
            return Err(Refusal { resource: *resource, what });
        }
        let Some(sessions) = gpu.session_limit().filter(|_| price.sessions > 0) else { return Ok(after) };
        // The limit is the driver's, for all cards together.
        let limited = self.gpus.iter().filter(|gpu| gpu.session_limit().is_some());
        let in_use: u32 = limited.map(|gpu| self.booked_on(&gpu.caps).sessions).sum();
        if in_use + price.sessions > sessions {
            let what = format!(
                "GPU {index}: {in_use} of {sessions} encode sessions are in use, this channel needs {}",
                price.sessions
            );
            return Err(Refusal { resource: Resource::EncodeSessions, what });
        }
        Ok(after)
    }
}

#[cfg(test)]
pub(crate) mod tests;
