//! The double of libnvidia-ml, asked through the product's bindings and by calls that break its contracts. Each test runs
//! in a process of its own: settings, faults and initialisation are a process's.
#![expect(unsafe_code, reason = "calls that the bindings would not make")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/double.rs"]
mod double;

use std::ffi::c_void;
use std::process::Stdio;

use double::Driver;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EncoderType, RetirementCause};
use nvml_wrapper::error::NvmlError;

fn open() -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(double::folder().join("libnvidia-ml.so.1").as_os_str()).init()
}

#[test]
fn cards_are_found_by_every_name_and_tell_what_the_settings_say() {
    let driver = Driver::new()
        .gpus(2)
        .setting("gpu1.uuid", "GPU-second")
        .setting("gpu1.serial", "0123")
        .setting("gpu1.pci", "0001:c1:1f.0")
        .setting("gpu1.sessions", 3)
        .setting("gpu1.session_fps", 50)
        .setting("gpu1.encoder_capacity", 64)
        .setting("gpu1.retired", 2);
    driver.pass("names_and_values");
    driver.assert_clean();
}

#[test]
#[ignore = "run in a process of its own by cards_are_found_by_every_name_and_tell_what_the_settings_say"]
fn names_and_values() {
    let nvml = open().unwrap();
    assert_eq!(nvml.device_count().unwrap(), 2);
    let found = [
        nvml.device_by_index(1),
        nvml.device_by_uuid("GPU-second"),
        #[expect(deprecated, reason = "a call of the driver all the same")]
        nvml.device_by_serial("0123"),
        nvml.device_by_pci_bus_id("00000001:C1:1F.0"),
    ];
    for device in found {
        let device = device.unwrap();
        assert_eq!((device.index().unwrap(), device.uuid().unwrap().as_str()), (1, "GPU-second"));
        assert_eq!((device.serial().unwrap().as_str(), device.minor_number().unwrap()), ("0123", 1));
        assert_eq!(device.pci_info().unwrap().bus_id, "00000001:C1:1F.0");
    }
    assert!(matches!(nvml.device_by_uuid("GPU-none"), Err(NvmlError::NotFound)));
    assert!(matches!(nvml.device_by_index(2), Err(NvmlError::InvalidArg)));
    let device = nvml.device_by_index(1).unwrap();
    assert_eq!(device.encoder_capacity(EncoderType::HEVC).unwrap(), 64);
    let sessions = device.encoder_sessions().unwrap();
    assert_eq!((sessions.len(), sessions[2].average_fps), (3, 50));
    assert_eq!(device.retired_pages(RetirementCause::DoubleBitEccError).unwrap().len(), 2);
    assert!(device.is_ecc_enabled().unwrap().currently_enabled);
    drop(nvml);
}

#[test]
fn an_event_comes_once_to_those_who_asked_for_it() {
    let mut driver = Driver::new().gpus(2).setting("event", "0:xid:13").setting("gpu1.events", 8);
    let child = driver.command("events").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waiting = || driver.count("live event sets") == 2;
    while !waiting() {
        std::thread::yield_now();
    }
    driver.set("event", "1:xid:79");
    double::passed("events", &child.wait_with_output().unwrap());
    driver.assert_clean();
}

#[test]
#[ignore = "run in a process of its own by an_event_comes_once_to_those_who_asked_for_it"]
fn events() {
    let nvml = open().unwrap();
    let (first, second) = (nvml.device_by_index(0).unwrap(), nvml.device_by_index(1).unwrap());
    let other = first.register_events(EventTypes::DOUBLE_BIT_ECC_ERROR, nvml.create_event_set().unwrap()).unwrap();
    let set = second.register_events(EventTypes::CRITICAL_XID_ERROR, nvml.create_event_set().unwrap()).unwrap();
    let event = set.wait(30_000).unwrap();
    assert_eq!(event.device.index().unwrap(), 1, "the one from before was for nobody");
    assert!(format!("{:?}", event.event_data).contains("79"), "{event:?}");
    assert!(matches!(set.wait(50), Err(NvmlError::Timeout)), "once");
    assert!(matches!(other.wait(50), Err(NvmlError::Timeout)), "another card's");
}

#[test]
fn broken_contracts_get_the_driver_s_answer_and_are_named() {
    let driver = Driver::new().setting("gpu0.events", 8);
    driver.pass("contracts");
    let broken = driver.broken();
    for call in [
        "nvmlDeviceGetCount_v2: not between nvmlInit and nvmlShutdown",
        "nvmlDeviceGetTemperature: no handle of a GPU",
        "nvmlDeviceGetMemoryInfo_v2: version 0x1",
        "nvmlDeviceRegisterEvents: kinds that",
        "nvmlEventSetFree: no such event set",
    ] {
        assert!(broken.iter().any(|sentence| sentence.starts_with(call)), "{call}: {broken:?}");
    }
    assert_eq!(driver.count("live initialisations"), 0);
    // Left behind on purpose: it is counted.
    assert_eq!(driver.count("live event sets"), 1);
}

type Call2 = unsafe extern "C" fn(*mut c_void, *mut c_void) -> u32;

#[test]
#[ignore = "run in a process of its own by broken_contracts_get_the_driver_s_answer_and_are_named"]
fn contracts() {
    // SAFETY: the double's initialisers do nothing.
    let library = unsafe { libloading::Library::new(double::folder().join("libnvidia-ml.so.1")) }.unwrap();
    let call = |name: &str, first: *mut c_void, second: *mut c_void| {
        // SAFETY: every call of this test takes two pointers, or fewer.
        let call: Call2 = unsafe { *library.get::<Call2>(name.as_bytes()).unwrap() };
        // SAFETY: null, numbers that are never followed, or values of this test that are large enough.
        unsafe { call(first, second) }
    };
    let nothing = std::ptr::null_mut;
    let mut room = [0u64; 64];
    let out: *mut c_void = room.as_mut_ptr().cast();
    assert_eq!(call("nvmlDeviceGetCount_v2", out, nothing()), 1, "UNINITIALIZED");
    assert_eq!(call("nvmlSystemGetNVMLVersion", out, 64 as *mut c_void), 0, "answered before the start as well");
    assert_eq!(call("nvmlSystemGetNVMLVersion", out, 4 as *mut c_void), 7, "INSUFFICIENT_SIZE");
    assert_eq!(call("nvmlInit_v2", nothing(), nothing()), 0);
    assert_eq!(call("nvmlInit_v2", nothing(), nothing()), 0, "again: it counts");
    assert_eq!(call("nvmlShutdown", nothing(), nothing()), 0);
    assert_eq!(call("nvmlDeviceGetCount_v2", out, nothing()), 0);
    assert_eq!(call("nvmlDeviceGetCount_v2", nothing(), nothing()), 2, "INVALID_ARGUMENT");
    assert_eq!(call("nvmlDeviceGetHandleByIndex_v2", nothing(), out), 0);
    let device = room[0] as *mut c_void;
    let out: *mut c_void = room.as_mut_ptr().cast();
    assert_eq!(call("nvmlDeviceGetTemperature", 7 as *mut c_void, nothing()), 2);
    room[0] = 1;
    let out_memory: *mut c_void = room.as_mut_ptr().cast();
    assert_eq!(call("nvmlDeviceGetMemoryInfo_v2", device, out_memory), 25, "ARGUMENT_VERSION_MISMATCH");
    assert_eq!(call("nvmlEventSetCreate", out, nothing()), 0);
    assert_eq!(call("nvmlDeviceRegisterEvents", device, 2 as *mut c_void), 3, "NOT_SUPPORTED");
    assert_eq!(call("nvmlEventSetFree", 7 as *mut c_void, nothing()), 2);
    assert_eq!(call("nvmlShutdown", nothing(), nothing()), 0);
    assert_eq!(call("nvmlShutdown", nothing(), nothing()), 1);
    std::mem::forget(library);
}
