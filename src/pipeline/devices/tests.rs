//! Prices, balance, refusals: each row is a box and a channel that comes to it.

use super::*;
use crate::media::channel::ChannelName;
use crate::pixels::protocol::DecodeCaps;
use crate::time::Mono;
use std::time::Duration;

pub(crate) fn gpu(index: u32, sessions: u32) -> GpuCaps {
    let decodes = |codec, bits| DecodeCaps { codec, bits, width_max: 4096, height_max: 4096 };
    let encoder = EncodeCaps {
        engines: 2,
        sessions,
        sessions_tried: 64,
        width_min: 146,
        height_min: 50,
        width_max: 4096,
        height_max: 4096,
        hevc: true,
        hevc_width_max: 8192,
        hevc_height_max: 8192,
        bframes_max: 4,
        lookahead: true,
    };
    let bus = u8::try_from(index).unwrap() + 1;
    GpuCaps {
        index,
        pci: PciAddress { domain: 0, bus, device: 0 },
        name: "NVIDIA L4".to_owned(),
        driver: Some("550.54.14".to_owned()),
        cuda: "12.4".to_owned(),
        capability: "8.9".to_owned(),
        memory_bytes: 24_000_000_000,
        memory_free_bytes: 23_000_000_000,
        decode_engines: 4,
        decode: vec![
            decodes(Codec::H264, 8),
            decodes(Codec::H265, 8),
            decodes(Codec::H265, 10),
            decodes(Codec::Mpeg2Video, 8),
        ],
        encode: Ok(encoder),
        unfit: None,
    }
}

pub(crate) fn without_encoder(index: u32) -> GpuCaps {
    GpuCaps { encode: Err("this card has no encoder".to_owned()), name: "NVIDIA H100".to_owned(), ..gpu(index, 0) }
}

/// 1080p30 H.264 to four renditions.
pub(crate) fn channel() -> Request {
    Request {
        codec: Codec::H264,
        width: 1920,
        height: 1080,
        bits: 8,
        chroma_format: 1,
        rate: FrameRate::new(30_000, 1_000),
        renditions: [(1920, 1080), (1280, 720), (854, 480), (640, 360)].map(|(w, h)| (VideoCodec::H264, w, h)).to_vec(),
        held: 0,
    }
}

fn name() -> ChannelName {
    ChannelName::new("news").unwrap()
}

fn session(n: u64) -> SessionId {
    SessionId::new(ulid::Ulid::from_parts(n, 1))
}

fn placed(devices: &Devices, n: u64) -> Result<(Backend, Option<u32>), Refusal> {
    devices.place(&name(), &session(n), &channel(), BackendPolicy::Gpu, &[]).map(|p| (p.backend, p.gpu))
}

#[test]
fn several_gpus_are_filled_evenly_and_the_one_more_is_refused_by_name() {
    let devices = Devices::new(vec![gpu(0, 64), gpu(1, 64)]);
    let mut counts = [0, 0];
    let refusal = loop {
        match placed(&devices, counts[0] + counts[1]) {
            Ok((backend, gpu)) => {
                assert_eq!(backend, Backend::Gpu);
                counts[gpu.unwrap() as usize] += 1;
            }
            Err(refusal) => break refusal,
        }
    };
    // 109 Mpx/s a channel, 2 x 1,037 Mpx/s of encoding on a GPU, 85 % given out.
    assert_eq!(counts, [16, 16], "{refusal}");
    assert_eq!(refusal.resource, Resource::EncodeEngine);
    let words = refusal.to_string();
    assert!(words.contains("GPU 0: encode engines at ") && words.contains("GPU 1: encode engines"), "{words}");
    // Nothing was booked for it, and whoever leaves makes room for it.
    assert_eq!(devices.booked().iter().map(|(_, _, channels)| channels).sum::<usize>(), 32);
    devices.release(&session(7));
    assert!(placed(&devices, 99).is_ok());
}

#[test]
fn encode_sessions_are_counted_as_the_driver_allows_them() {
    let devices = Devices::new(vec![gpu(0, 8)]);
    assert!(placed(&devices, 1).is_ok() && placed(&devices, 2).is_ok());
    let refusal = placed(&devices, 3).unwrap_err();
    assert_eq!(refusal.resource, Resource::EncodeSessions);
    assert_eq!(refusal.to_string(), "GPU 0: 8 of 8 encode sessions are in use, this channel needs 4");
    // The same session again is no newcomer.
    assert!(placed(&devices, 2).is_ok());
}

#[test]
fn a_card_without_an_encoder_decodes_and_scales_but_not_where_all_of_it_must_be_on_the_gpu() {
    let devices = Devices::new(vec![without_encoder(0)]);
    let automatic = devices.room(&channel(), BackendPolicy::Auto, &[]).unwrap();
    assert_eq!((automatic.backend, automatic.gpu), (Backend::GpuDecode, Some(0)));
    let refusal = devices.room(&channel(), BackendPolicy::Gpu, &[]).unwrap_err();
    assert_eq!(refusal.to_string(), "GPU 0: this card has no encoder");
    let both = Devices::new(vec![without_encoder(0), gpu(1, 64)]);
    assert_eq!(both.room(&channel(), BackendPolicy::Auto, &[]).unwrap().gpu, Some(1));
}

#[test]
fn what_no_gpu_takes_runs_on_the_cpu_only_if_it_may_and_says_why() {
    let devices = Devices::new(vec![gpu(0, 64)]);
    let odd = Request { chroma_format: 2, ..channel() };
    let automatic = devices.room(&odd, BackendPolicy::Auto, &[]).unwrap();
    assert_eq!(automatic.backend, Backend::Software);
    assert!(
        automatic.why.starts_with("software, because GPU 0: its decoder does not take H.264 8 bit"),
        "{}",
        automatic.why
    );
    assert_eq!(devices.room(&odd, BackendPolicy::Gpu, &[]).unwrap_err().resource, Resource::Codec);
    assert_eq!(devices.room(&channel(), BackendPolicy::Software, &[]).unwrap().gpu, None);
    let none = Devices::default();
    assert_eq!(none.room(&channel(), BackendPolicy::Gpu, &[]).unwrap_err().to_string(), "there is no GPU");
    assert_eq!(none.room(&channel(), BackendPolicy::Auto, &[]).unwrap().backend, Backend::Software);
    let ten = Request { codec: Codec::H264, bits: 10, ..channel() };
    assert_eq!(devices.room(&ten, BackendPolicy::Gpu, &[]).unwrap_err().resource, Resource::Codec);
    let large = Request { width: 7680, height: 4320, ..channel() };
    assert!(
        devices
            .room(&large, BackendPolicy::Gpu, &[])
            .unwrap_err()
            .to_string()
            .contains("up to 4096x4096, not 7680x4320")
    );
}

#[test]
fn what_a_gpu_says_of_its_load_counts_where_it_is_more_than_what_is_booked() {
    let devices = Devices::new(vec![gpu(0, 64), gpu(1, 64)]);
    let told = |gpu, decode, encode| {
        (0..60).for_each(|_| devices.measured(gpu, Measured { decode, encode, memory: 0.1 }));
    };
    told(0, 0.1, 0.5);
    assert_eq!(placed(&devices, 1).unwrap().1, Some(1));
    devices.measured(1, Measured { decode: 0.1, encode: 0.1, memory: 0.1 });
    devices.measured(1, Measured { decode: 1.0, encode: 1.0, memory: 0.1 });
    assert_eq!(placed(&devices, 1).unwrap().1, Some(1), "a full second is no full GPU");
    told(0, 0.1, 0.84);
    told(1, 0.9, 0.1);
    let refusal = placed(&devices, 2).unwrap_err();
    assert!(refusal.to_string().contains("GPU 0: encode engines at 84 %"), "{refusal}");
    assert!(refusal.to_string().contains("GPU 1: decode engines at 90 %"), "{refusal}");
}

#[test]
fn an_ill_gpu_takes_nobody_until_it_is_well_and_faults_make_it_ill() {
    let devices = Devices::new(vec![gpu(0, 64), gpu(1, 64)]);
    devices.ill(0, "it fell off the bus");
    assert!((1..4).all(|n| placed(&devices, n).unwrap().1 == Some(1)));
    let other = devices.place(&name(), &session(1), &channel(), BackendPolicy::Gpu, &[1]).unwrap_err();
    assert!(other.to_string().contains("fell off the bus"), "{other}");
    for second in 0..3 {
        devices.fault(1, "nvEncLockBitstream hung", Mono(1) + Duration::from_secs(second));
    }
    assert!(
        placed(&devices, 5).unwrap_err().to_string().contains("within a minute, the last: nvEncLockBitstream hung")
    );
    devices.well(0);
    assert_eq!(placed(&devices, 6).unwrap().1, Some(0));
}

#[test]
fn hevc_costs_a_decoder_half_and_ten_bits_more_memory() {
    let price = |request: &Request| price(request, &gpu(0, 64), Backend::Gpu).unwrap();
    let (avc, hevc) = (price(&channel()), price(&Request { codec: Codec::H265, ..channel() }));
    assert!((avc.decode - 2.0 * hevc.decode).abs() < 1e-9, "{avc:?} {hevc:?}");
    let ten = price(&Request { codec: Codec::H265, bits: 10, ..channel() });
    assert!(ten.memory > hevc.memory && ten.encode == hevc.encode);
    assert_eq!(avc.sessions, 4);
}

#[test]
fn hevc_renditions_ask_more_of_an_engine_and_a_card_that_can_not_make_them_refuses_and_says_so() {
    let coded = |codec| channel().renditions.into_iter().map(|(_, w, h)| (codec, w, h)).collect::<Vec<_>>();
    let hevc = Request { renditions: coded(VideoCodec::Hevc), ..channel() };
    let price = |request: &Request| price(request, &gpu(0, 64), Backend::Gpu).unwrap();
    let (avc, all) = (price(&channel()), price(&hevc));
    assert!((all.encode / avc.encode - 1.0 / 0.7).abs() < 1e-9, "{avc:?} {all:?}");
    assert_eq!((all.sessions, all.decode), (avc.sessions, avc.decode));
    let mixed = Request { renditions: [channel().renditions, hevc.renditions.clone()].concat(), ..channel() };
    assert!((price(&mixed).encode - avc.encode - all.encode).abs() < 1e-9);

    let mut plain = gpu(0, 64);
    plain.encode.as_mut().unwrap().hevc = false;
    let devices = Devices::new(vec![plain.clone(), gpu(1, 64)]);
    assert_eq!(devices.room(&mixed, BackendPolicy::Gpu, &[]).unwrap().gpu, Some(1), "the card that can");
    let devices = Devices::new(vec![plain]);
    let refusal = devices.room(&mixed, BackendPolicy::Gpu, &[]).unwrap_err();
    assert_eq!(refusal.resource, Resource::Encoder);
    assert_eq!(refusal.to_string(), "GPU 0: its encoder makes no HEVC, and a rendition of 1920x1080 asks for it");
    assert!(devices.room(&channel(), BackendPolicy::Gpu, &[]).is_ok(), "H.264 is no matter");
    assert_eq!(devices.room(&mixed, BackendPolicy::Auto, &[]).unwrap().backend, Backend::GpuDecode);

    // Each codec has its own largest picture.
    let large = |codec| Request { renditions: vec![(codec, 7680, 4320)], ..channel() };
    assert!(devices.room(&large(VideoCodec::H264), BackendPolicy::Gpu, &[]).is_err());
    let devices = Devices::new(vec![gpu(0, 64)]);
    assert!(devices.room(&large(VideoCodec::Hevc), BackendPolicy::Gpu, &[]).is_ok());
    let refusal = devices.room(&large(VideoCodec::H264), BackendPolicy::Gpu, &[]).unwrap_err();
    assert!(refusal.to_string().contains("H.264 from 146x50 to 4096x4096, not 7680x4320"), "{refusal}");
}

#[test]
fn faults_far_apart_make_no_gpu_ill_and_an_illness_of_faults_passes() {
    let devices = Devices::new(vec![gpu(0, 64)]);
    let at = |seconds| Mono(1) + Duration::from_secs(seconds);
    assert!((0..10).all(|n| devices.fault(0, "a hang", at(n * 120)).is_none()));
    assert!(placed(&devices, 1).is_ok());
    let told: Vec<_> = (0..3).filter_map(|n| devices.fault(0, "a hang", at(2_000 + n))).collect();
    assert_eq!(told, ["3 processes on it came to a bad end within a minute, the last: a hang"]);
    assert!(placed(&devices, 1).is_err());
    devices.tick(at(2_100));
    assert!(placed(&devices, 1).is_err());
    devices.tick(at(2_302));
    assert!(placed(&devices, 1).is_ok());
}

#[test]
fn a_channel_that_had_no_room_is_refused_at_the_door_and_one_that_is_placed_is_not() {
    let devices = Devices::new(vec![gpu(0, 4)]);
    assert!(devices.welcome(&name()).is_ok(), "nothing is known of it yet");
    assert!(placed(&devices, 1).is_ok());
    assert!(devices.welcome(&name()).is_ok(), "it has its place");
    let other = ChannelName::new("sport").unwrap();
    devices.place(&other, &session(2), &channel(), BackendPolicy::Gpu, &[]).unwrap_err();
    let refusal = devices.welcome(&other).unwrap_err();
    assert!(refusal.to_string().contains("encode sessions"), "{refusal}");
    devices.place(&other, &session(2), &channel(), BackendPolicy::Auto, &[]).unwrap();
    devices.release(&session(2));
    assert!(devices.welcome(&other).is_ok());
}

#[test]
fn a_gpu_keeps_its_number_and_its_illness_whatever_the_driver_calls_it_later() {
    let devices = Devices::new(vec![gpu(0, 64), gpu(1, 64)]);
    devices.ill(1, "Xid 95");
    // The driver lost the first one: the second is now its first, and a third one came.
    let moved = GpuCaps { index: 0, ..gpu(1, 64) };
    let came = GpuCaps { index: 1, ..gpu(2, 64) };
    devices.found(vec![moved.clone(), came.clone()]);
    assert_eq!(devices.number(moved.pci), Some(1));
    assert_eq!(devices.number(came.pci), Some(2));
    assert_eq!(devices.slots(), (0..3).map(|n| (n, gpu(n, 0).pci)).collect());
    assert_eq!(devices.illness(1).as_deref(), Some("Xid 95"));
    assert_eq!((devices.illness(0), devices.illness(2)), (None, None));
}

#[test]
fn a_card_that_opened_every_session_that_was_tried_is_filled_by_its_engines() {
    let fill = |sessions: u32| {
        let devices = Devices::new(vec![gpu(0, sessions)]);
        (0..).map(|n| placed(&devices, n)).find_map(Result::err).expect("it fills up").resource
    };
    assert_eq!(fill(64), Resource::EncodeEngine);
    assert_eq!(fill(8), Resource::EncodeSessions);
    let few_tried = |caps: GpuCaps| {
        let encode = caps.encode.map(|encode| EncodeCaps { sessions_tried: 8, ..encode });
        GpuCaps { encode, ..caps }
    };
    let devices = Devices::new(vec![few_tried(gpu(0, 8))]);
    assert!((0..8).all(|n| placed(&devices, n).is_ok()), "32 sessions on it");
}

#[test]
fn a_gpu_that_can_not_be_used_says_why_and_one_that_has_been_found_keeps_its_sessions() {
    let unfit = GpuCaps { unfit: Some("its compute capability is 6.1".to_owned()), ..gpu(0, 64) };
    let devices = Devices::new(vec![unfit]);
    let refusal = placed(&devices, 1).unwrap_err();
    assert_eq!(
        (refusal.resource, refusal.to_string().as_str()),
        (Resource::Gpu, "GPU 0: its compute capability is 6.1")
    );
    assert_eq!(devices.illness(0).as_deref(), Some("its compute capability is 6.1"));
    devices.found(vec![gpu(0, 64)]);
    assert!(placed(&devices, 1).is_ok(), "its driver came up");
    // Asked again while it works it shows what is left.
    devices.found(vec![gpu(0, 4)]);
    assert!((2..10).all(|n| placed(&devices, n).is_ok()));
}

#[test]
fn what_keeps_a_channel_from_the_gpu_is_told() {
    let devices = Devices::default();
    let why = |devices: &Devices| devices.room(&channel(), BackendPolicy::Auto, &[]).unwrap().why;
    assert_eq!(why(&devices), "software, because there is no GPU");
    devices.absent("the NVIDIA driver is too old");
    assert_eq!(why(&devices), "software, because there is no GPU: the NVIDIA driver is too old");
    devices.found(vec![without_encoder(0)]);
    let told = why(&devices);
    assert!(
        told.starts_with("GPU 0, ") && told.contains("encoded on the CPU, because GPU 0: this card has no encoder"),
        "{told}"
    );
}
