//! The structs of libnvcuvid that the driver and Rung fill for each other. Enums are the numbers that they are on the
//! wire: the bindings' own would be undefined behaviour for a value that they do not know. The tests hold each struct
//! against the bindings, field by field.
#![expect(unsafe_code, reason = "structs of the driver begin as zeros")]

use std::ffi::{c_int, c_short, c_uchar, c_uint, c_ulong, c_ulonglong, c_ushort, c_void};

pub type Parser = *mut c_void;
pub type Decoder = *mut c_void;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rectangle {
    pub left: c_short,
    pub top: c_short,
    pub right: c_short,
    pub bottom: c_short,
}

/// CUVIDDECODECAPS.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DecoderCaps {
    pub codec: u32,
    pub chroma: u32,
    pub depth_minus_8: c_uint,
    pub reserved_1: [c_uint; 3],
    pub is_supported: c_uchar,
    pub engines: c_uchar,
    pub output_formats: c_ushort,
    pub width_max: c_uint,
    pub height_max: c_uint,
    pub macroblocks_max: c_uint,
    pub width_min: c_ushort,
    pub height_min: c_ushort,
    pub histogram: [c_uchar; 2],
    pub histogram_bins_max: c_ushort,
    pub reserved_3: [c_uint; 10],
}

/// CUVIDDECODECREATEINFO.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CreateInfo {
    pub width: c_ulong,
    pub height: c_ulong,
    pub decode_surfaces: c_ulong,
    pub codec: u32,
    pub chroma: u32,
    pub creation_flags: c_ulong,
    pub depth_minus_8: c_ulong,
    pub intra_only: c_ulong,
    pub width_max: c_ulong,
    pub height_max: c_ulong,
    pub reserved_1: c_ulong,
    pub shown: Rectangle,
    pub output_format: u32,
    pub deinterlace: u32,
    pub target_width: c_ulong,
    pub target_height: c_ulong,
    pub output_surfaces: c_ulong,
    pub lock: *mut c_void,
    pub target: Rectangle,
    pub histogram: c_ulong,
    pub reserved_2: [c_ulong; 4],
}

/// CUVIDPROCPARAMS.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcParams {
    pub progressive_frame: c_int,
    pub second_field: c_int,
    pub top_field_first: c_int,
    pub unpaired_field: c_int,
    pub reserved_flags: [c_uint; 2],
    pub raw_input: c_ulonglong,
    pub raw_input_pitch: c_uint,
    pub raw_input_format: c_uint,
    pub raw_output: c_ulonglong,
    pub raw_output_pitch: c_uint,
    pub reserved_1: c_uint,
    pub output_stream: *mut c_void,
    pub reserved: [c_uint; 46],
    pub histogram: *mut c_ulonglong,
    pub reserved_2: *mut c_void,
}

/// CUVIDGETDECODESTATUS.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DecodeStatus {
    pub status: u32,
    pub reserved: [c_uint; 31],
    pub pointers: [*mut c_void; 8],
}

/// CUVIDEOFORMAT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VideoFormat {
    pub codec: u32,
    pub frame_rate: [c_uint; 2],
    pub progressive_sequence: c_uchar,
    pub depth_minus_8: c_uchar,
    pub chroma_depth_minus_8: c_uchar,
    pub decode_surfaces_min: c_uchar,
    pub coded_width: c_uint,
    pub coded_height: c_uint,
    /// Left, top, right, bottom.
    pub shown: [c_int; 4],
    pub chroma: u32,
    pub bitrate: c_uint,
    pub aspect: [c_int; 2],
    pub signal: [c_uchar; 4],
    pub sequence_data_length: c_uint,
}

/// CUVIDPARSERDISPINFO.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DisplayInfo {
    pub picture_index: c_int,
    pub progressive_frame: c_int,
    pub top_field_first: c_int,
    pub repeat_first_field: c_int,
    pub timestamp: i64,
}

/// CUVIDSOURCEDATAPACKET.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub flags: c_ulong,
    pub payload_size: c_ulong,
    pub payload: *const c_uchar,
    pub timestamp: i64,
}

/// CUVIDPARSERPARAMS.
#[repr(C)]
pub struct ParserParams {
    pub codec: u32,
    pub decode_surfaces_max: c_uint,
    pub clock_rate: c_uint,
    pub error_threshold: c_uint,
    pub display_delay_max: c_uint,
    pub bits: c_uint,
    pub reserved_1: [c_uint; 4],
    pub user: *mut c_void,
    pub on_sequence: Option<unsafe extern "C" fn(*mut c_void, *mut VideoFormat) -> c_int>,
    pub on_decode: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub on_display: Option<unsafe extern "C" fn(*mut c_void, *mut DisplayInfo) -> c_int>,
    pub on_operating_point: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub on_sei: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub reserved_2: [*mut c_void; 5],
    pub extended: *mut c_void,
}

macro_rules! zeros {
    ($($name:ident),*) => {$(
        impl Default for $name {
            /// All zeros, as the driver wants reserved fields.
            fn default() -> $name {
                // SAFETY: integers, pointers and optional functions: zeros are a value of each.
                unsafe { std::mem::zeroed() }
            }
        }
    )*};
}

zeros!(DecoderCaps, CreateInfo, ProcParams, DecodeStatus, ParserParams);

#[cfg(test)]
mod tests {
    use super::*;
    use nvidia_video_codec_sdk::sys::cuviddec as dec;
    use nvidia_video_codec_sdk::sys::nvcuvid as vid;
    use std::mem::offset_of;

    macro_rules! same {
        ($ours:ty, $theirs:ty, $bytes:literal: $($our:ident = $their:ident),*) => {
            assert_eq!(size_of::<$ours>(), $bytes, stringify!($ours));
            assert_eq!(size_of::<$theirs>(), $bytes, stringify!($theirs));
            assert_eq!(align_of::<$ours>(), align_of::<$theirs>(), stringify!($ours));
            $(assert_eq!(offset_of!($ours, $our), offset_of!($theirs, $their), stringify!($our));)*
        };
    }

    #[test]
    fn our_structs_lie_in_memory_as_the_driver_s_do() {
        same!(DecoderCaps, dec::CUVIDDECODECAPS, 88: codec = eCodecType, chroma = eChromaFormat,
            depth_minus_8 = nBitDepthMinus8, is_supported = bIsSupported, engines = nNumNVDECs,
            output_formats = nOutputFormatMask, width_max = nMaxWidth, height_max = nMaxHeight,
            macroblocks_max = nMaxMBCount, width_min = nMinWidth, height_min = nMinHeight);
        same!(CreateInfo, dec::CUVIDDECODECREATEINFO, 176: width = ulWidth, height = ulHeight,
            decode_surfaces = ulNumDecodeSurfaces, codec = CodecType, chroma = ChromaFormat,
            depth_minus_8 = bitDepthMinus8, width_max = ulMaxWidth, height_max = ulMaxHeight, shown = display_area,
            output_format = OutputFormat, deinterlace = DeinterlaceMode, target_width = ulTargetWidth,
            target_height = ulTargetHeight, output_surfaces = ulNumOutputSurfaces, target = target_rect);
        same!(ProcParams, dec::CUVIDPROCPARAMS, 264: progressive_frame = progressive_frame,
            second_field = second_field, top_field_first = top_field_first, unpaired_field = unpaired_field,
            output_stream = output_stream);
        same!(DecodeStatus, dec::CUVIDGETDECODESTATUS, 192: status = decodeStatus);
        same!(VideoFormat, vid::CUVIDEOFORMAT, 64: codec = codec, progressive_sequence = progressive_sequence,
            depth_minus_8 = bit_depth_luma_minus8, decode_surfaces_min = min_num_decode_surfaces,
            coded_width = coded_width, coded_height = coded_height, shown = display_area, chroma = chroma_format,
            sequence_data_length = seqhdr_data_length);
        same!(DisplayInfo, vid::CUVIDPARSERDISPINFO, 24: picture_index = picture_index,
            progressive_frame = progressive_frame, top_field_first = top_field_first,
            repeat_first_field = repeat_first_field, timestamp = timestamp);
        same!(Packet, vid::CUVIDSOURCEDATAPACKET, 32: flags = flags, payload_size = payload_size, payload = payload,
            timestamp = timestamp);
        same!(ParserParams, vid::CUVIDPARSERPARAMS, 136: codec = CodecType, decode_surfaces_max = ulMaxNumDecodeSurfaces,
            clock_rate = ulClockRate, error_threshold = ulErrorThreshold, display_delay_max = ulMaxDisplayDelay,
            user = pUserData, on_sequence = pfnSequenceCallback, on_decode = pfnDecodePicture,
            on_display = pfnDisplayPicture);
    }
}
