//! The driver's structures and numbers, as its headers cuviddec.h and nvcuvid.h (API 12.1) have them.
//!
//! Structures that a caller fills with enumerations are written here with plain integers, because reading a number that
//! a Rust enumeration does not know is undefined; their layout is compared with the SDK's when this is compiled. The
//! numbers are written from the headers and from nowhere else.
#![expect(unsafe_code, reason = "zeroed structures of the driver")]

use nvidia_video_codec_sdk::sys::{cuviddec as dec, nvcuvid as cuv};
use std::ffi::{c_int, c_void};
use std::mem::{offset_of, size_of};

pub(crate) use cuv::{_CUVIDPARSERDISPINFO as DispInfo, _CUVIDSOURCEDATAPACKET as DataPacket};
pub(crate) use dec::_CUVIDRECONFIGUREDECODERINFO as ReconfigureInfo;
pub(crate) use dec::{_CUVIDPICPARAMS as PicParams, _CUVIDPROCPARAMS as ProcParams};
pub(crate) use dec::{CUVIDH264PICPARAMS, CUVIDHEVCPICPARAMS, CUVIDMPEG2PICPARAMS};

/// CUresult.
pub(crate) type Status = u32;

pub(crate) const SUCCESS: Status = 0;
pub(crate) const INVALID_VALUE: Status = 1;
pub(crate) const OUT_OF_MEMORY: Status = 2;
pub(crate) const INVALID_CONTEXT: Status = 201;
pub(crate) const MAP_FAILED: Status = 205;
pub(crate) const SHARED_OBJECT_INIT_FAILED: Status = 303;
pub(crate) const INVALID_HANDLE: Status = 400;
pub(crate) const NOT_SUPPORTED: Status = 801;
pub(crate) const UNKNOWN: Status = 999;

/// cudaVideoCodec.
pub(crate) const MPEG2: u32 = 1;
pub(crate) const H264: u32 = 4;
pub(crate) const HEVC: u32 = 8;
pub(crate) const AV1: u32 = 11;

/// cudaVideoChromaFormat.
pub(crate) const CHROMA_420: u32 = 1;

/// cudaVideoSurfaceFormat.
pub(crate) const NV12: u32 = 0;
pub(crate) const P016: u32 = 1;

/// cudaVideoDeinterlaceMode.
pub(crate) const WEAVE: u32 = 0;
pub(crate) const ADAPTIVE: u32 = 2;

/// CUvideopacketflags.
pub(crate) const PKT_ENDOFSTREAM: u64 = 0x01;
pub(crate) const PKT_TIMESTAMP: u64 = 0x02;
pub(crate) const PKT_DISCONTINUITY: u64 = 0x04;
pub(crate) const PKT_ENDOFPICTURE: u64 = 0x08;
pub(crate) const PKT_NOTIFY_EOS: u64 = 0x10;

/// cuvidDecodeStatus.
pub(crate) const STATUS_INVALID: u32 = 0;
pub(crate) const STATUS_SUCCESS: u32 = 2;
pub(crate) const STATUS_ERROR: u32 = 8;
pub(crate) const STATUS_CONCEALED: u32 = 9;

/// No decoder is created with more.
pub(crate) const DECODE_SURFACES_MAX: u64 = 32;

/// CUVIDEOFORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: u32,
    pub(crate) frame_rate: [u32; 2],
    pub(crate) progressive_sequence: u8,
    pub(crate) bit_depth_luma_minus8: u8,
    pub(crate) bit_depth_chroma_minus8: u8,
    pub(crate) min_num_decode_surfaces: u8,
    pub(crate) coded_width: u32,
    pub(crate) coded_height: u32,
    /// Left, top, right, bottom.
    pub(crate) display_area: [i32; 4],
    pub(crate) chroma_format: u32,
    pub(crate) bitrate: u32,
    pub(crate) display_aspect_ratio: [i32; 2],
    /// Three bits of video_format, then the full range flag.
    pub(crate) signal: u8,
    pub(crate) color_primaries: u8,
    pub(crate) transfer_characteristics: u8,
    pub(crate) matrix_coefficients: u8,
    pub(crate) seqhdr_data_length: u32,
}

/// CUVIDEOFORMATEX.
#[repr(C)]
pub(crate) struct FormatEx {
    pub(crate) format: Format,
    pub(crate) raw_seqhdr_data: [u8; 1024],
}

pub(crate) type SequenceCallback = Option<unsafe extern "C" fn(*mut c_void, *mut Format) -> c_int>;
pub(crate) type DecodeCallback = Option<unsafe extern "C" fn(*mut c_void, *mut PicParams) -> c_int>;
pub(crate) type DisplayCallback = Option<unsafe extern "C" fn(*mut c_void, *mut DispInfo) -> c_int>;

/// CUVIDPARSERPARAMS.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ParserParams {
    pub(crate) codec: u32,
    pub(crate) max_num_decode_surfaces: u32,
    pub(crate) clock_rate: u32,
    pub(crate) error_threshold: u32,
    pub(crate) max_display_delay: u32,
    pub(crate) annexb: u32,
    pub(crate) reserved1: [u32; 4],
    pub(crate) user_data: *mut c_void,
    pub(crate) sequence: SequenceCallback,
    pub(crate) decode: DecodeCallback,
    pub(crate) display: DisplayCallback,
    pub(crate) operating_point: *mut c_void,
    pub(crate) sei: *mut c_void,
    pub(crate) reserved2: [*mut c_void; 5],
    pub(crate) ext_video_info: *mut FormatEx,
}

/// CUVIDDECODECREATEINFO.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CreateInfo {
    pub(crate) width: u64,
    pub(crate) height: u64,
    pub(crate) num_decode_surfaces: u64,
    pub(crate) codec: u32,
    pub(crate) chroma_format: u32,
    pub(crate) creation_flags: u64,
    pub(crate) bit_depth_minus8: u64,
    pub(crate) intra_decode_only: u64,
    pub(crate) max_width: u64,
    pub(crate) max_height: u64,
    pub(crate) reserved1: u64,
    pub(crate) display_area: [i16; 4],
    pub(crate) output_format: u32,
    pub(crate) deinterlace_mode: u32,
    pub(crate) target_width: u64,
    pub(crate) target_height: u64,
    pub(crate) num_output_surfaces: u64,
    pub(crate) lock: usize,
    pub(crate) target_rect: [i16; 4],
    pub(crate) enable_histogram: u64,
    pub(crate) reserved2: [u64; 4],
}

/// CUVIDDECODECAPS.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Caps {
    pub(crate) codec: u32,
    pub(crate) chroma_format: u32,
    pub(crate) bit_depth_minus8: u32,
    pub(crate) reserved1: [u32; 3],
    pub(crate) is_supported: u8,
    pub(crate) num_nvdecs: u8,
    pub(crate) output_format_mask: u16,
    pub(crate) max_width: u32,
    pub(crate) max_height: u32,
    pub(crate) max_mb_count: u32,
    pub(crate) min_width: u16,
    pub(crate) min_height: u16,
    pub(crate) is_histogram_supported: u8,
    pub(crate) counter_bit_depth: u8,
    pub(crate) max_histogram_bins: u16,
    pub(crate) reserved3: [u32; 10],
}

/// CUVIDGETDECODESTATUS.
#[repr(C)]
pub(crate) struct DecodeStatus {
    pub(crate) status: u32,
    pub(crate) reserved: [u32; 31],
    pub(crate) reserved_pointers: [*mut c_void; 8],
}

/// Structures of the driver for which all bytes zero are a value: integers, and pointers that are never followed.
///
/// # Safety
/// The type holds nothing else.
pub(crate) unsafe trait Zero: Copy {}
// SAFETY: integers, arrays and unions of them, raw pointers.
unsafe impl Zero for PicParams {}
// SAFETY: as above.
unsafe impl Zero for CUVIDH264PICPARAMS {}
// SAFETY: as above.
unsafe impl Zero for CUVIDHEVCPICPARAMS {}
// SAFETY: as above.
unsafe impl Zero for CUVIDMPEG2PICPARAMS {}

pub(crate) fn zeroed<T: Zero>() -> T {
    // SAFETY: `Zero` says that this is a value.
    unsafe { std::mem::zeroed() }
}

/// A number as the driver's plain int; what does not fit is as large or small as an int can be.
pub(crate) fn int(value: impl Into<i64>) -> c_int {
    let value = value.into();
    c_int::try_from(value).unwrap_or(if value < 0 { c_int::MIN } else { c_int::MAX })
}

macro_rules! same_layout {
    ($ours:ty, $theirs:ty, $bytes:literal, $($field:ident = $their_field:ident),+) => {
        const _: () = assert!(size_of::<$ours>() == size_of::<$theirs>() && size_of::<$ours>() == $bytes);
        $(const _: () = assert!(offset_of!($ours, $field) == offset_of!($theirs, $their_field));)+
    };
}

same_layout!(
    Format,
    cuv::CUVIDEOFORMAT,
    64,
    frame_rate = frame_rate,
    progressive_sequence = progressive_sequence,
    coded_width = coded_width,
    display_area = display_area,
    chroma_format = chroma_format,
    bitrate = bitrate,
    display_aspect_ratio = display_aspect_ratio,
    signal = video_signal_description,
    seqhdr_data_length = seqhdr_data_length
);
const _: () = assert!(size_of::<FormatEx>() == size_of::<cuv::CUVIDEOFORMATEX>());
same_layout!(
    ParserParams,
    cuv::_CUVIDPARSERPARAMS,
    136,
    max_num_decode_surfaces = ulMaxNumDecodeSurfaces,
    clock_rate = ulClockRate,
    error_threshold = ulErrorThreshold,
    max_display_delay = ulMaxDisplayDelay,
    user_data = pUserData,
    sequence = pfnSequenceCallback,
    decode = pfnDecodePicture,
    display = pfnDisplayPicture,
    ext_video_info = pExtVideoInfo
);
same_layout!(
    CreateInfo,
    dec::_CUVIDDECODECREATEINFO,
    176,
    num_decode_surfaces = ulNumDecodeSurfaces,
    codec = CodecType,
    chroma_format = ChromaFormat,
    bit_depth_minus8 = bitDepthMinus8,
    max_width = ulMaxWidth,
    display_area = display_area,
    output_format = OutputFormat,
    deinterlace_mode = DeinterlaceMode,
    target_width = ulTargetWidth,
    num_output_surfaces = ulNumOutputSurfaces,
    lock = vidLock,
    target_rect = target_rect,
    enable_histogram = enableHistogram
);
same_layout!(
    Caps,
    dec::_CUVIDDECODECAPS,
    88,
    chroma_format = eChromaFormat,
    is_supported = bIsSupported,
    output_format_mask = nOutputFormatMask,
    max_width = nMaxWidth,
    max_mb_count = nMaxMBCount,
    min_width = nMinWidth,
    max_histogram_bins = nMaxHistogramBins
);
same_layout!(DecodeStatus, dec::_CUVIDGETDECODESTATUS, 192, status = decodeStatus, reserved = reserved);
const _: () = assert!(size_of::<PicParams>() == 4280 && size_of::<ProcParams>() == 264);
