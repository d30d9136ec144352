//! Which GPUs there are and what each can do, as the driver tells it. Opens a context and encode sessions for as long as it
//! asks, and gives everything back.

use rung::media::track::Codec;
use rung::pixels::protocol::{DecodeCaps, EncodeCaps, GpuCaps};
use std::sync::Arc;

use super::Depth;
use super::cuda::{Device, GpuName, Module, slot};
use super::error::Error;
use super::ladder;
use super::load::{Absent, Driver};
use super::nvdec;
use super::nvenc::{Api, Codec as Coded};
use super::watch::Watch;

/// More sessions than any ladder on one card needs.
const SESSIONS_TRIED: u32 = 32;

/// The GPUs of a driver of this version.
///
/// # Errors
/// Why there are none, in a sentence.
pub fn gpus(driver: &Arc<Driver>, version: Option<&str>) -> Result<Vec<GpuCaps>, Error> {
    (0..driver.gpus()?).map(|index| gpu(driver, version, index)).collect()
}

/// "12.4"
pub fn cuda_version(driver: &Driver) -> String {
    format!("{}.{}", driver.cuda_version / 1000, driver.cuda_version % 1000 / 10)
}

/// One that can not be used costs itself, not the others.
fn gpu(driver: &Arc<Driver>, version: Option<&str>, index: u32) -> Result<GpuCaps, Error> {
    let (pci, driver_version) = (slot(driver, index)?, version.map(str::to_owned));
    let known = |device: &Arc<Device>| {
        let ((free, total), (major, minor)) = (device.memory()?, device.capability()?);
        let (decode_engines, decode, missing) = decoders(device);
        Ok(GpuCaps {
            index,
            pci,
            name: device.name()?,
            driver: driver_version.clone(),
            cuda: cuda_version(driver),
            capability: format!("{major}.{minor}"),
            memory_bytes: total,
            memory_free_bytes: free,
            decode_engines,
            decode,
            encode: encoder(driver, device),
            unfit: kernels(device, (major, minor)).or(missing),
        })
    };
    let told: Result<GpuCaps, Error> = Device::open(driver, GpuName::Index(index)).and_then(|device| known(&device));
    Ok(told.unwrap_or_else(|error| GpuCaps {
        index,
        pci,
        name: "unknown".to_owned(),
        driver: driver_version.clone(),
        cuda: cuda_version(driver),
        capability: "unknown".to_owned(),
        memory_bytes: 0,
        memory_free_bytes: 0,
        decode_engines: 0,
        decode: Vec::new(),
        encode: Err(error.to_string()),
        unfit: Some(format!("it does not answer: {error}")),
    }))
}

/// Why the driver does not take the kernels for this GPU.
fn kernels(device: &Arc<Device>, (major, minor): (i32, i32)) -> Option<String> {
    let error = Module::load(device, ladder::PTX).and_then(|module| module.kernel(ladder::KERNEL)).err()?;
    let old = if (major, minor) < CAPABILITY_MIN {
        format!("its compute capability is {major}.{minor}, and 7.5 (Turing) is needed")
    } else {
        "its driver does not take Rung's kernels".to_owned()
    };
    Some(format!("{old} ({error})"))
}

/// Turing: what the kernels are made for.
const CAPABILITY_MIN: (i32, i32) = (7, 5);

/// Engines, and what they decode; or why not even H.264. A kind of stream that the driver can not be asked about is one
/// that it does not decode.
fn decoders(device: &Device) -> (u32, Vec<DecodeCaps>, Option<String>) {
    let kinds = [
        (Codec::H264, Depth::Eight),
        (Codec::H264, Depth::Ten),
        (Codec::H265, Depth::Eight),
        (Codec::H265, Depth::Ten),
        (Codec::Mpeg2Video, Depth::Eight),
    ];
    let mut engines = 0;
    let mut decodes = Vec::new();
    let mut missing = None;
    for (codec, depth) in kinds {
        let caps = match nvdec::caps(device, codec, depth) {
            Ok(caps) => caps,
            Err(error) => {
                missing.get_or_insert_with(|| format!("its decoder can not be asked: {error}"));
                continue;
            }
        };
        if caps.supported {
            engines = engines.max(caps.engines.max(1));
            let bits = depth.bits() as u8;
            decodes.push(DecodeCaps { codec, bits, width_max: caps.width_max, height_max: caps.height_max });
        }
    }
    let missing = missing.filter(|_| decodes.is_empty());
    (engines, decodes, missing)
}

fn encoder(driver: &Arc<Driver>, device: &Arc<Device>) -> Result<EncodeCaps, String> {
    let api = Api::open(driver).map_err(|absent: Absent| absent.to_string())?;
    let watch = Watch::new("probe");
    let refused = |error: Error| match error.code {
        1 | 2 => format!("this card has no encoder ({error})"),
        _ => error.to_string(),
    };
    let Some(caps) = api.caps(device, Coded::H264, &watch).map_err(refused)? else {
        return Err("this card's encoder makes no H.264".to_owned());
    };
    let hevc = api.caps(device, Coded::Hevc, &watch).map_err(refused)?;
    let sessions = api.sessions_available(device, SESSIONS_TRIED, &watch).map_err(refused)?;
    Ok(EncodeCaps {
        engines: caps.engines.max(1),
        sessions,
        sessions_tried: SESSIONS_TRIED,
        width_min: caps.width_min,
        height_min: caps.height_min,
        width_max: caps.width_max,
        height_max: caps.height_max,
        hevc: hevc.is_some(),
        hevc_width_max: hevc.map_or(0, |caps| caps.width_max),
        hevc_height_max: hevc.map_or(0, |caps| caps.height_max),
        bframes_max: caps.bframes_max,
        lookahead: caps.lookahead,
    })
}
