//! A caller of the double's libnvcuvid that does all by the book: parser, decoder, every picture mapped and copied out.
//! The structures are the SDK's, so that a double that lays them out otherwise is found out.

use libloading::Library;
use nvidia_video_codec_sdk::sys::cuviddec::*;
use nvidia_video_codec_sdk::sys::nvcuvid::*;
use std::collections::HashMap;
use std::ffi::{c_int, c_ulonglong, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::double::Driver;

pub(crate) const END_OF_STREAM: u64 = 1;
pub(crate) const TIMESTAMP: u64 = 2;
pub(crate) const END_OF_PICTURE: u64 = 8;

/// Runs `body` in a process of its own, over a driver of its own: settings, faults and counts are a process's. The
/// driver afterwards; `None` in that process, where the test ends.
pub(crate) fn alone(test: &str, with: impl FnOnce(Driver) -> Driver, body: impl FnOnce()) -> Option<Driver> {
    const INSIDE: &str = "RUNG_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        body();
        return None;
    }
    let driver = with(Driver::new());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    driver.env(&mut command);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{}\n{said}\n{}\nbroken: {:#?}",
        out.status,
        String::from_utf8_lossy(&out.stderr),
        driver.broken()
    );
    Some(driver)
}

/// The functions of libnvcuvid and of libcuda that a caller needs.
pub(crate) struct Api {
    cuda: &'static Library,
    cuvid: &'static Library,
    context: usize,
}

impl Api {
    /// With the primary context of device 0 current on this thread.
    pub(crate) fn load() -> Api {
        // SAFETY: the doubles, whose constructors do nothing.
        let open = |name| unsafe { Library::new(name) }.unwrap();
        // They stay loaded: a library that is unloaded forgets what it counted.
        static LOADED: OnceLock<(Library, Library)> = OnceLock::new();
        let (cuda, cuvid) = LOADED.get_or_init(|| (open("libcuda.so.1"), open("libnvcuvid.so.1")));
        let mut api = Api { cuda, cuvid, context: 0 };
        let mut device = -1;
        assert_eq!(api.cu::<u32>("cuInit", 0), 0);
        assert_eq!(api.cu2::<*mut c_int, c_int>("cuDeviceGet", &raw mut device, 0), 0);
        let mut context = 0;
        assert_eq!(api.cu2::<*mut usize, c_int>("cuDevicePrimaryCtxRetain", &raw mut context, device), 0);
        api.context = context;
        api.make_current(context);
        api
    }

    pub(crate) fn context(&self) -> usize {
        self.context
    }

    pub(crate) fn make_current(&self, context: usize) {
        assert_eq!(self.cu::<usize>("cuCtxSetCurrent", context), 0);
    }

    pub(crate) fn release(&self) {
        assert_eq!(self.cu::<c_int>("cuDevicePrimaryCtxRelease_v2", 0), 0);
    }

    pub(crate) fn stream(&self) -> usize {
        let mut stream = 0;
        assert_eq!(self.cu2::<*mut usize, u32>("cuStreamCreate", &raw mut stream, 1), 0);
        stream
    }

    pub(crate) fn wait(&self, stream: usize) {
        assert_eq!(self.cu::<usize>("cuStreamSynchronize", stream), 0);
    }

    pub(crate) fn end_stream(&self, stream: usize) {
        assert_eq!(self.cu::<usize>("cuStreamDestroy_v2", stream), 0);
    }

    pub(crate) fn download(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        type Copy = unsafe extern "C" fn(*mut u8, u64, usize) -> u32;
        // SAFETY: the signature of cuda.h.
        let copy = unsafe { self.cuda.get::<Copy>("cuMemcpyDtoH_v2") }.unwrap();
        // SAFETY: room for so many bytes; the device's side is checked by the double.
        assert_eq!(unsafe { copy(out.as_mut_ptr(), at, bytes) }, 0);
        out
    }

    fn cu<A>(&self, name: &str, a: A) -> u32 {
        // SAFETY: the signature of cuda.h, by who calls this.
        let call = unsafe { self.cuda.get::<unsafe extern "C" fn(A) -> u32>(name) }.unwrap();
        // SAFETY: as above; pointers are to live values.
        unsafe { call(a) }
    }

    fn cu2<A, B>(&self, name: &str, a: A, b: B) -> u32 {
        // SAFETY: the signature of cuda.h, by who calls this.
        let call = unsafe { self.cuda.get::<unsafe extern "C" fn(A, B) -> u32>(name) }.unwrap();
        // SAFETY: as above; pointers are to live values.
        unsafe { call(a, b) }
    }

    pub(crate) fn call<A>(&self, name: &str, a: A) -> u32 {
        // SAFETY: the signature of nvcuvid.h, by who calls this.
        let call = unsafe { self.cuvid.get::<unsafe extern "C" fn(A) -> u32>(name) }.unwrap();
        // SAFETY: as above; pointers are to live values.
        unsafe { call(a) }
    }

    pub(crate) fn call2<A, B>(&self, name: &str, a: A, b: B) -> u32 {
        // SAFETY: the signature of nvcuvid.h, by who calls this.
        let call = unsafe { self.cuvid.get::<unsafe extern "C" fn(A, B) -> u32>(name) }.unwrap();
        // SAFETY: as above; pointers are to live values.
        unsafe { call(a, b) }
    }

    pub(crate) fn caps(&self, codec: cudaVideoCodec, chroma: cudaVideoChromaFormat, depth: u32) -> CUVIDDECODECAPS {
        let mut caps = zeroed::<CUVIDDECODECAPS>();
        (caps.eCodecType, caps.eChromaFormat, caps.nBitDepthMinus8) = (codec, chroma, depth - 8);
        assert_eq!(self.call("cuvidGetDecoderCaps", &raw mut caps), 0);
        caps
    }

    pub(crate) fn map(&self, decoder: usize, index: i32, how: &mut CUVIDPROCPARAMS) -> Result<(u64, u32), u32> {
        type Map = unsafe extern "C" fn(usize, c_int, *mut c_ulonglong, *mut u32, *mut CUVIDPROCPARAMS) -> u32;
        // SAFETY: the signature of cuviddec.h.
        let map = unsafe { self.cuvid.get::<Map>("cuvidMapVideoFrame64") }.unwrap();
        let (mut at, mut pitch) = (0, 0);
        // SAFETY: pointers to live values.
        match unsafe { map(decoder, index, &raw mut at, &raw mut pitch, how) } {
            0 => Ok((at, pitch)),
            status => Err(status),
        }
    }

    pub(crate) fn unmap(&self, decoder: usize, at: u64) -> u32 {
        self.call2("cuvidUnmapVideoFrame64", decoder, at)
    }

    pub(crate) fn status(&self, decoder: usize, index: i32) -> Result<u32, u32> {
        type Status = unsafe extern "C" fn(usize, c_int, *mut u32) -> u32;
        // SAFETY: the signature of cuviddec.h, the structure taken as the words that it is.
        let status = unsafe { self.cuvid.get::<Status>("cuvidGetDecodeStatus") }.unwrap();
        let mut words = [u32::MAX; size_of::<CUVIDGETDECODESTATUS>() / 4];
        // SAFETY: as many bytes as the structure has, aligned as its pointers by the allocator's grace: they are written
        // as words.
        match unsafe { status(decoder, index, words.as_mut_ptr()) } {
            0 => Ok(words[0]),
            status => Err(status),
        }
    }
}

/// The structures of the SDK that callers fill: all bytes zero are a value of each.
pub(crate) fn zeroed<T>() -> T {
    // SAFETY: integers, null pointers, and enumerations that have a zero.
    unsafe { std::mem::zeroed() }
}

/// How a caller does things.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) codec: cudaVideoCodec,
    /// ulMaxDisplayDelay.
    pub(crate) delay: u32,
    pub(crate) clock: u32,
    /// Decode surfaces beyond what the stream needs.
    pub(crate) surfaces_more: i32,
    pub(crate) deinterlace: cudaVideoDeinterlaceMode,
    /// Another sequence: the decoder is reconfigured, else destroyed and made anew.
    pub(crate) reconfigure: bool,
    /// Both fields of a picture with fields are mapped.
    pub(crate) fields: bool,
    /// Pictures are mapped through a stream of their own.
    pub(crate) stream: bool,
    /// The answer of the callbacks: sequence (`None`: the surfaces), decode, display.
    pub(crate) answers: (Option<i32>, i32, i32),
    /// What is shown is mapped.
    pub(crate) map: bool,
}

impl Manner {
    pub(crate) fn of(codec: cudaVideoCodec) -> Manner {
        Manner {
            codec,
            delay: 0,
            clock: 90_000,
            surfaces_more: 3,
            deinterlace: cudaVideoDeinterlaceMode::cudaVideoDeinterlaceMode_Weave,
            reconfigure: false,
            fields: false,
            stream: false,
            answers: (None, 1, 1),
            map: true,
        }
    }
}

/// What the sequence callback was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) codec: u32,
    pub(crate) rate: (u32, u32),
    pub(crate) progressive: bool,
    pub(crate) depth: (u8, u8),
    pub(crate) surfaces: u8,
    pub(crate) coded: (u32, u32),
    pub(crate) area: [i32; 4],
    pub(crate) chroma: u32,
    pub(crate) aspect: (i32, i32),
    pub(crate) full_range: bool,
    pub(crate) colour: [u8; 3],
}

/// A picture that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) index: i32,
    pub(crate) time: i64,
    pub(crate) progressive: bool,
    pub(crate) top_first: bool,
    pub(crate) repeat: i32,
    /// In which packet's call.
    pub(crate) packet: usize,
    /// cuvidGetDecodeStatus.
    pub(crate) status: Result<u32, u32>,
}

/// A picture that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coded {
    pub(crate) index: i32,
    pub(crate) mbs: (i32, i32),
    /// field_pic_flag, bottom_field_flag, second_field.
    pub(crate) field: (i32, i32, i32),
    pub(crate) reference: i32,
    pub(crate) intra: i32,
    pub(crate) slices: u32,
    pub(crate) bytes: u32,
}

/// Parser and decoder at work. Boxed: the parser has its address.
pub(crate) struct Caller {
    pub(crate) api: Api,
    pub(crate) manner: Manner,
    pub(crate) parser: usize,
    pub(crate) decoder: usize,
    pub(crate) told: Vec<Told>,
    pub(crate) coded: Vec<Coded>,
    pub(crate) shown: Vec<Shown>,
    /// Planar 4:2:0 as ffmpeg writes it, in the order shown.
    pub(crate) pictures: Vec<Vec<u8>>,
    pub(crate) pitches: Vec<u32>,
    pub(crate) ends: u32,
    /// What failed in callbacks.
    pub(crate) failed: HashMap<&'static str, Vec<u32>>,
    /// Asked in the sequence callback before anything else.
    pub(crate) in_sequence: Option<fn(&mut Caller, &mut CUVIDDECODECREATEINFO)>,
    target: [usize; 2],
    wide: bool,
    stream: usize,
    packets: usize,
}

impl Caller {
    pub(crate) fn start(manner: Manner) -> Box<Caller> {
        Caller::with(Api::load(), manner)
    }

    pub(crate) fn with(api: Api, manner: Manner) -> Box<Caller> {
        let stream = if manner.stream { api.stream() } else { 0 };
        let mut caller = Box::new(Caller {
            api,
            manner,
            parser: 0,
            decoder: 0,
            told: Vec::new(),
            coded: Vec::new(),
            shown: Vec::new(),
            pictures: Vec::new(),
            pitches: Vec::new(),
            ends: 0,
            failed: HashMap::new(),
            in_sequence: None,
            target: [0; 2],
            wide: false,
            stream,
            packets: 0,
        });
        let mut params = caller.parser_params();
        let mut parser = 0usize;
        assert_eq!(caller.api.call2("cuvidCreateVideoParser", &raw mut parser, &raw mut params), 0);
        caller.parser = parser;
        caller
    }

    pub(crate) fn parser_params(&mut self) -> CUVIDPARSERPARAMS {
        let mut params = zeroed::<CUVIDPARSERPARAMS>();
        params.CodecType = self.manner.codec;
        params.ulMaxNumDecodeSurfaces = 1;
        params.ulClockRate = self.manner.clock;
        params.ulErrorThreshold = 100;
        params.ulMaxDisplayDelay = self.manner.delay;
        params.pUserData = std::ptr::from_mut(self).cast();
        params.pfnSequenceCallback = Some(on_sequence);
        params.pfnDecodePicture = Some(on_decode);
        params.pfnDisplayPicture = Some(on_display);
        params
    }

    pub(crate) fn parse(&mut self, data: &[u8], flags: u64, time: i64) -> u32 {
        let mut packet = zeroed::<CUVIDSOURCEDATAPACKET>();
        packet.flags = flags;
        packet.payload_size = data.len() as u64;
        packet.payload = if data.is_empty() { std::ptr::null() } else { data.as_ptr() };
        packet.timestamp = time;
        let status = self.api.call2("cuvidParseVideoData", self.parser, &raw mut packet);
        self.packets += 1;
        status
    }

    /// Whole pictures with their times, each a packet, `flags` besides the time's; then the end of the stream.
    pub(crate) fn play(&mut self, packets: &[(Vec<u8>, i64)], flags: u64) {
        self.feed(packets, flags);
        assert_eq!(self.parse(&[], END_OF_STREAM, 0), 0);
    }

    pub(crate) fn feed(&mut self, packets: &[(Vec<u8>, i64)], flags: u64) {
        for (data, time) in packets {
            assert_eq!(self.parse(data, flags | TIMESTAMP, *time), 0);
        }
    }

    /// Destroys all, in the right order.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.api.call("cuvidDestroyVideoParser", self.parser), 0);
        if self.decoder != 0 {
            assert_eq!(self.api.call("cuvidDestroyDecoder", self.decoder), 0);
        }
        if self.stream != 0 {
            self.api.end_stream(self.stream);
        }
        self.api.release();
        assert!(self.failed.is_empty(), "{:?}", self.failed);
    }

    pub(crate) fn create_info(&self, format: &CUVIDEOFORMAT) -> CUVIDDECODECREATEINFO {
        let mut info = zeroed::<CUVIDDECODECREATEINFO>();
        let wide = format.bit_depth_luma_minus8 > 0;
        let area = &format.display_area;
        info.ulWidth = u64::from(format.coded_width);
        info.ulHeight = u64::from(format.coded_height);
        info.ulMaxWidth = info.ulWidth.max(640);
        info.ulMaxHeight = info.ulHeight.max(480);
        info.ulNumDecodeSurfaces = u64::from(format.min_num_decode_surfaces) + self.manner.surfaces_more as u64;
        info.CodecType = format.codec;
        info.ChromaFormat = format.chroma_format;
        info.bitDepthMinus8 = u64::from(format.bit_depth_luma_minus8);
        info.OutputFormat = match wide {
            true => cudaVideoSurfaceFormat::cudaVideoSurfaceFormat_P016,
            false => cudaVideoSurfaceFormat::cudaVideoSurfaceFormat_NV12,
        };
        info.DeinterlaceMode = self.manner.deinterlace;
        info.ulTargetWidth = (area.right - area.left) as u64;
        info.ulTargetHeight = (area.bottom - area.top) as u64;
        info.ulNumOutputSurfaces = 2;
        info.display_area.left = area.left as i16;
        info.display_area.top = area.top as i16;
        info.display_area.right = area.right as i16;
        info.display_area.bottom = area.bottom as i16;
        info
    }

    pub(crate) fn fail(&mut self, call: &'static str, status: u32) {
        self.failed.entry(call).or_default().push(status);
    }

    fn sequence(&mut self, format: &CUVIDEOFORMAT) -> i32 {
        self.told.push(Told::of(format));
        let mut info = self.create_info(format);
        if let Some(ask) = self.in_sequence {
            ask(self, &mut info);
        }
        self.target = [info.ulTargetWidth as usize, info.ulTargetHeight as usize];
        self.wide = format.bit_depth_luma_minus8 > 0;
        if self.decoder != 0 && self.manner.reconfigure {
            let mut again = zeroed::<CUVIDRECONFIGUREDECODERINFO>();
            (again.ulWidth, again.ulHeight) = (info.ulWidth as u32, info.ulHeight as u32);
            (again.ulTargetWidth, again.ulTargetHeight) = (info.ulTargetWidth as u32, info.ulTargetHeight as u32);
            again.ulNumDecodeSurfaces = info.ulNumDecodeSurfaces as u32;
            again.display_area.right = info.display_area.right;
            again.display_area.bottom = info.display_area.bottom;
            let status = self.api.call2("cuvidReconfigureDecoder", self.decoder, &raw mut again);
            if status != 0 {
                self.fail("reconfigure", status);
            }
        } else {
            if self.decoder != 0 {
                assert_eq!(self.api.call("cuvidDestroyDecoder", self.decoder), 0);
                self.decoder = 0;
            }
            let mut decoder = 0usize;
            match self.api.call2("cuvidCreateDecoder", &raw mut decoder, &raw mut info) {
                0 => self.decoder = decoder,
                status => {
                    self.fail("create", status);
                    return 0;
                }
            }
        }
        self.manner.answers.0.unwrap_or(info.ulNumDecodeSurfaces as i32)
    }

    fn decode(&mut self, params: &mut CUVIDPICPARAMS) -> i32 {
        self.coded.push(Coded {
            index: params.CurrPicIdx,
            mbs: (params.PicWidthInMbs, params.FrameHeightInMbs),
            field: (params.field_pic_flag, params.bottom_field_flag, params.second_field),
            reference: params.ref_pic_flag,
            intra: params.intra_pic_flag,
            slices: params.nNumSlices,
            bytes: params.nBitstreamDataLen,
        });
        if self.decoder != 0 {
            let status = self.api.call2("cuvidDecodePicture", self.decoder, std::ptr::from_mut(params));
            if status != 0 {
                self.fail("decode", status);
            }
        }
        self.manner.answers.1
    }

    fn display(&mut self, info: &CUVIDPARSERDISPINFO) -> i32 {
        let progressive = info.progressive_frame != 0;
        self.shown.push(Shown {
            index: info.picture_index,
            time: info.timestamp,
            progressive,
            top_first: info.top_field_first != 0,
            repeat: info.repeat_first_field,
            packet: self.packets,
            status: self.api.status(self.decoder, info.picture_index),
        });
        if self.manner.map && self.decoder != 0 {
            let both = self.manner.fields && !progressive && info.repeat_first_field >= 0;
            for second in 0..=c_int::from(both) {
                let mut how = zeroed::<CUVIDPROCPARAMS>();
                how.progressive_frame = info.progressive_frame;
                how.top_field_first = info.top_field_first;
                how.unpaired_field = c_int::from(info.repeat_first_field < 0);
                how.second_field = second;
                how.output_stream = std::ptr::without_provenance_mut(self.stream);
                self.take(info.picture_index, &mut how);
            }
        }
        self.manner.answers.2
    }

    fn take(&mut self, index: i32, how: &mut CUVIDPROCPARAMS) {
        match self.api.map(self.decoder, index, how) {
            Ok((at, pitch)) => {
                if self.stream != 0 {
                    self.api.wait(self.stream);
                }
                let planar = self.planar(at, pitch as usize);
                self.pictures.push(planar);
                self.pitches.push(pitch);
                assert_eq!(self.api.unmap(self.decoder, at), 0);
            }
            Err(status) => self.fail("map", status),
        }
    }

    /// What is mapped, as ffmpeg's yuv420p or yuv420p10le.
    fn planar(&self, at: u64, pitch: usize) -> Vec<u8> {
        let [width, height] = self.target;
        let bytes = if self.wide { 2 } else { 1 };
        let rows = height.next_multiple_of(2);
        let whole = self.api.download(at, pitch * rows * 3 / 2);
        let mut planes = [Vec::new(), Vec::new(), Vec::new()];
        for row in whole.chunks(pitch).take(height) {
            planes[0].extend_from_slice(&row[..width * bytes]);
        }
        for row in whole.chunks(pitch).skip(rows).take(height.div_ceil(2)) {
            for (i, sample) in row.chunks(bytes).take(width.next_multiple_of(2)).enumerate() {
                planes[1 + i % 2].extend_from_slice(sample);
            }
        }
        let mut all = planes.concat();
        if self.wide {
            // From the high bits to the low ones.
            for two in all.chunks_exact_mut(2) {
                let sample = u16::from_le_bytes([two[0], two[1]]);
                assert_eq!(sample & 63, 0, "the low bits are empty");
                two.copy_from_slice(&(sample >> 6).to_le_bytes());
            }
        }
        all
    }
}

impl Told {
    fn of(format: &CUVIDEOFORMAT) -> Told {
        let signal = &format.video_signal_description;
        // SAFETY: a byte of bits before the three colour numbers.
        let bits = unsafe { *std::ptr::from_ref(signal).cast::<u8>() };
        Told {
            codec: format.codec as u32,
            rate: (format.frame_rate.numerator, format.frame_rate.denominator),
            progressive: format.progressive_sequence == 1,
            depth: (format.bit_depth_luma_minus8 + 8, format.bit_depth_chroma_minus8 + 8),
            surfaces: format.min_num_decode_surfaces,
            coded: (format.coded_width, format.coded_height),
            area: {
                let area = &format.display_area;
                [area.left, area.top, area.right, area.bottom]
            },
            chroma: format.chroma_format as u32,
            aspect: (format.display_aspect_ratio.x, format.display_aspect_ratio.y),
            full_range: bits & 8 != 0,
            colour: [signal.color_primaries, signal.transfer_characteristics, signal.matrix_coefficients],
        }
    }
}

unsafe extern "C" fn on_sequence(user: *mut c_void, format: *mut CUVIDEOFORMAT) -> c_int {
    // SAFETY: the pointer that the parser was made with: a boxed `Caller`, which does nothing else meanwhile.
    let caller = unsafe { &mut *user.cast::<Caller>() };
    // SAFETY: the parser's structure, alive through the call.
    caller.sequence(unsafe { &*format })
}

unsafe extern "C" fn on_decode(user: *mut c_void, params: *mut CUVIDPICPARAMS) -> c_int {
    // SAFETY: as in `on_sequence`.
    let caller = unsafe { &mut *user.cast::<Caller>() };
    // SAFETY: as in `on_sequence`.
    caller.decode(unsafe { &mut *params })
}

unsafe extern "C" fn on_display(user: *mut c_void, info: *mut CUVIDPARSERDISPINFO) -> c_int {
    // SAFETY: as in `on_sequence`.
    let caller = unsafe { &mut *user.cast::<Caller>() };
    if info.is_null() {
        caller.ends += 1;
        return 1;
    }
    // SAFETY: as in `on_sequence`.
    caller.display(unsafe { &*info })
}

/// Bytes and presentation time of each.
pub(crate) type Packets = Vec<(Vec<u8>, i64)>;

/// A clip made by ffmpeg: pictures in decoding order with their times (90 kHz), as libavformat finds them.
pub(crate) struct Clip {
    pub(crate) path: PathBuf,
    pub(crate) packets: Packets,
}

impl Clip {
    pub(crate) fn make(name: &str, arguments: &str) -> Clip {
        let path = super::clips::clip_path(name, arguments);
        let packets = super::clips::oracle(&std::fs::read(&path).unwrap());
        let packets = packets.into_iter().filter(|packet| packet.video);
        let packets = packets.map(|packet| (packet.data, packet.pts.unwrap().cast_signed())).collect();
        Clip { path, packets }
    }

    /// AV1, which this ffmpeg writes into no transport stream: a temporal unit each.
    pub(crate) fn temporal_units(name: &str, arguments: &str) -> Clip {
        let path = super::clips::folder().join(format!("{name}.ivf"));
        let mut words: Vec<&str> = vec!["-v", "error", "-y", "-nostdin"];
        words.extend(arguments.split_whitespace());
        assert!(Command::new("ffmpeg").args(words).arg(&path).status().unwrap().success());
        let file = std::fs::read(&path).unwrap();
        let (mut rest, mut packets) = (&file[32..], Vec::new());
        while let Some((head, body)) = rest.split_first_chunk::<12>() {
            let size = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
            let time = i64::from_le_bytes(head[4..].try_into().unwrap());
            packets.push((body[..size].to_vec(), time));
            rest = &body[size..];
        }
        Clip { path, packets }
    }

    /// What ffmpeg decodes, in the order of display, `bytes` a picture.
    pub(crate) fn reference(&self, bytes: usize, format: &str) -> Vec<Vec<u8>> {
        let out = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-threads", "1", "-i"])
            .arg(&self.path)
            .args(["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", format, "-"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.stdout.len() % bytes, 0);
        out.stdout.chunks(bytes).map(<[u8]>::to_vec).collect()
    }

    /// In the order of display.
    pub(crate) fn times(&self) -> Vec<i64> {
        let mut times: Vec<i64> = self.packets.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        times
    }
}

pub(crate) fn bytes_of(width: usize, height: usize, wide: bool) -> usize {
    width * height * 3 / 2 * if wide { 2 } else { 1 }
}
