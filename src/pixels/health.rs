//! What `rung-worker --monitor` tells the daemon of the machine's GPUs: postcard values, framed as in `protocol`. The
//! daemon says nothing; it ends a monitor by closing the socket, or by killing it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Changed with every incompatible change.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromMonitor {
    /// At once, before anything is asked of the driver.
    Hello { version: u32, pid: u32, kernel_log: KernelLog },
    /// NVML answers.
    Opened(Box<Opened>),
    /// Once a second: every GPU of `Opened`, in that order.
    Report {
        gpus: Vec<GpuReading>,
        /// How far the kernel's log was read: a successor goes on behind it.
        kernel_log: Option<u64>,
    },
    /// At once, from NVML's events and the kernel's log.
    Fault(GpuFault),
    /// The driver's libraries were replaced under the running kernel module; a sentence for the operator.
    Upgraded { what: String },
    /// No GPU can be watched. The monitor ends; for all but `Failed` another one would find the same.
    Unavailable { why: Unavailable, what: String },
}

/// Whether the kernel's log is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelLog {
    /// From behind this record on.
    Read { position: u64 },
    /// The sentence says why not, and what is lost by that.
    Closed { what: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unavailable {
    /// No library, or no kernel module.
    NoDriver,
    /// A driver that sees no GPU.
    NoGpu,
    /// Kernel module and library are of different versions.
    Mismatch,
    /// This user may not ask the driver.
    Refused,
    /// NVML said something else; it may say better later.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub driver: String,
    pub nvml: String,
    /// Major * 1000 + minor * 10.
    pub cuda: Option<u32>,
    pub gpus: Vec<GpuCard>,
    /// A sentence for each GPU that NVML counts and can not open.
    pub closed: Vec<String>,
    /// A sentence: what the monitor gave up.
    pub sandbox: String,
}

/// What does not change about a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCard {
    /// NVML's number, which may be another one after the next start.
    pub index: u32,
    pub pci: PciAddress,
    pub name: String,
    pub uuid: String,
    pub memory_bytes: u64,
    /// The driver keeps the card set up while nobody uses it.
    pub persistent: Option<bool>,
}

/// Where a card is plugged in: kernel, NVML and CUDA all name it by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuReading {
    pub pci: PciAddress,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Values(Box<GpuValues>),
    /// NVML: the card fell off the bus or cannot be reached.
    Lost,
    /// NVML: the card wants a reset before it can be used.
    ResetRequired,
    /// NVML answered something that it should not; its words.
    Unreadable(String),
}

/// `None`: this card, or its driver, does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuValues {
    /// Percent of the last period in which a kernel ran.
    pub utilization: Option<u32>,
    /// Percent of the encoder's and the decoder's time.
    pub encoder: Option<u32>,
    pub decoder: Option<u32>,
    pub memory_used_bytes: Option<u64>,
    pub memory_total_bytes: Option<u64>,
    pub temperature_celsius: Option<u32>,
    pub power_milliwatts: Option<u32>,
    pub clock_mhz: Option<u32>,
    pub video_clock_mhz: Option<u32>,
    /// Why the clocks are lower than they could be.
    pub throttled: Vec<Throttle>,
    /// Encoder sessions of every process, and their mean frame rate.
    pub encoder_sessions: Option<u32>,
    pub encoder_fps: Option<u32>,
    /// Memory errors since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    /// Pages taken out of use for double errors, in the card's life.
    pub retired_pages: Option<u32>,
    /// Pages wait for a reset to be taken out of use.
    pub pages_pending: Option<bool>,
    pub pcie_replays: Option<u32>,
}

/// Reasons that cost throughput. An idle card's low clocks are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Throttle {
    /// The power limit.
    Power,
    /// Too warm: the driver slows it down.
    Warm,
    /// Too hot: the card slows itself down.
    Hot,
    /// The power supply asks for it.
    PowerBrake,
    /// The card's own protection, without a better word.
    Hardware,
}

/// Something went wrong on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuFault {
    pub gpu: PciAddress,
    pub what: What,
    pub remedy: Remedy,
    /// The process that it happened to, if the kernel said so.
    pub pid: Option<u32>,
    /// The kernel's words; empty if NVML told it.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum What {
    /// A numbered error of the driver.
    Xid(u32),
    /// NVML: a memory error that was corrected.
    SingleBit,
    /// NVML: a memory error that was not.
    DoubleBit,
    /// The kernel: "fallen off the bus", with or without a number.
    OffTheBus,
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Remedy {
    /// Nothing: it comes of a process that ended.
    FollowsKill,
    /// Nothing yet.
    Watch,
    /// The workers that it happened to start anew; the card is well.
    RestartWorkers,
    /// Its channels go elsewhere, then the card is reset.
    DrainAndReset,
    /// Only a reboot brings it back.
    Reboot,
}

impl Throttle {
    pub fn name(self) -> &'static str {
        match self {
            Throttle::Power => "power-limit",
            Throttle::Warm => "warm",
            Throttle::Hot => "hot",
            Throttle::PowerBrake => "power-brake",
            Throttle::Hardware => "hardware",
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::FollowsKill => "it follows the end of a process: nothing to do",
            Remedy::Watch => "nothing to do yet",
            Remedy::RestartWorkers => "its workers start anew",
            Remedy::DrainAndReset => {
                "its channels go elsewhere; then stop Rung and reset the card (nvidia-smi -r), or reboot"
            }
            Remedy::Reboot => "only a reboot brings it back",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Xid(xid) => write!(f, "Xid {xid}"),
            What::SingleBit => f.write_str("a memory error that was corrected"),
            What::DoubleBit => f.write_str("a memory error that could not be corrected"),
            What::OffTheBus => f.write_str("fallen off the bus"),
        }
    }
}

/// As the kernel writes it: `0000:3b:00`.
impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

/// `0000:3b:00`, `00000000:3B:00.0`: the function's number is left out.
impl FromStr for PciAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<PciAddress, ()> {
        let slot = text.split_once('.').map_or(text, |(slot, _function)| slot);
        let mut fields = slot.split(':');
        let (Some(domain), Some(bus), Some(device), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(());
        };
        let wide = domain.len() >= 4 && bus.len() == 2 && device.len() == 2;
        let (Ok(domain), Ok(bus), Ok(device), true) =
            (u32::from_str_radix(domain, 16), u8::from_str_radix(bus, 16), u8::from_str_radix(device, 16), wide)
        else {
            return Err(());
        };
        Ok(PciAddress { domain, bus, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_one_address_however_it_is_written() {
        let address = PciAddress { domain: 0, bus: 0x3b, device: 0 };
        for text in ["0000:3b:00", "0000:3B:00.0", "00000000:3B:00.0"] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        assert_eq!(address.to_string(), "0000:3b:00");
        for text in ["", "3b:00", "0000:3b", "0000:3b:00:1", "0000:3g:00", "0000:3b0:00", "10de:26b5"] {
            assert_eq!(text.parse::<PciAddress>(), Err(()), "{text}");
        }
    }
}
