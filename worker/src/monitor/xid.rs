//! The driver's numbered errors: how the kernel's log writes them, and what helps against each.

use rung::pixels::health::{GpuFault, PciAddress, Remedy, What};
use rung::time::Mono;
use std::time::Duration;

/// What helps against a numbered error. A number that is not named here is counted and watched.
pub(super) fn remedy_of(xid: u32) -> Remedy {
    match xid {
        // A process was killed, or fell with another error that has its own number.
        45 => Remedy::FollowsKill,
        // A fault of one process's work: push buffer, shader and class errors, page faults, stopped channels.
        8 | 11 | 13 | 25 | 31 | 32 | 43 | 69 | 80 => Remedy::RestartWorkers,
        // One engine gave up one process's work: copy engines, security and video processors, JPEG, optical flow, …
        39..=41 | 60 | 70..=72 | 75..=77 | 82 | 85 | 86 | 99..=105 | 126..=135 | 139 => Remedy::RestartWorkers,
        // … NVENC, …
        47 | 65 | 73 | 142 => Remedy::RestartWorkers,
        // … NVDEC.
        68 | 83 | 84 | 88 | 89 | 96..=98 => Remedy::RestartWorkers,
        // A memory error that was contained: it hit one process, and the others' memory is sound.
        94 => Remedy::RestartWorkers,
        // Memory errors that were not contained, or could not be mapped out.
        48 | 64 | 95 | 140 => Remedy::DrainAndReset,
        // Firmware, scheduler and micro-controllers that stopped or time out.
        46 | 61 | 62 | 109 | 110 | 119 | 120 | 143 | 158 => Remedy::DrainAndReset,
        79 => Remedy::Reboot,
        // 63: a bad row was mapped out as it should be. 74: NVLink, which carries nothing of Rung's. 92: many corrected errors.
        _ => Remedy::Watch,
    }
}

/// What helps against anything that is told of a GPU.
pub(super) fn remedy(what: What) -> Remedy {
    match what {
        What::Xid(xid) => remedy_of(xid),
        What::SingleBit => Remedy::Watch,
        What::DoubleBit => Remedy::DrainAndReset,
        What::OffTheBus => Remedy::Reboot,
    }
}

/// Reads the kernel's lines. Some of the driver's messages go over several: the card is named before what happened.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The card that was named last, and the driver's lines since.
    named: Option<(PciAddress, u32)>,
}

impl Lines {
    /// One line, without what the log puts in front of it or with it.
    pub(super) fn read(&mut self, line: &str) -> Option<GpuFault> {
        let (_, said) = line.split_once("NVRM:")?;
        let said = said.trim();
        let fault = match said.strip_prefix("Xid (") {
            Some(rest) => numbered(rest, said),
            None => self.fallen(said),
        };
        self.named = match (address_in(said), self.named) {
            (Some(address), _) => Some((address, 0)),
            (None, Some((address, lines))) if lines < NAMED_LINES => Some((address, lines + 1)),
            _ => None,
        };
        fault
    }

    fn fallen(&self, said: &str) -> Option<GpuFault> {
        if !said.contains("fallen off the bus") {
            return None;
        }
        let gpu = address_in(said).or(self.named.map(|(address, _)| address))?;
        let what = What::OffTheBus;
        Some(GpuFault { gpu, what, remedy: remedy(what), pid: None, text: shortened(said) })
    }
}

/// `PCI:0000:3b:00): 79, pid=1234, name=…, GPU has fallen off the bus.`
fn numbered(rest: &str, said: &str) -> Option<GpuFault> {
    let (place, rest) = rest.split_once("):")?;
    let gpu = place.trim().trim_start_matches("PCI:").parse().ok()?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    let xid: u32 = digits.parse().ok()?;
    let remedy = if xid == ACTION_CHANGED { action_in(rest) } else { remedy_of(xid) };
    Some(GpuFault { gpu, what: What::Xid(xid), remedy, pid: pid_in(rest), text: shortened(said) })
}

/// The driver's own word for what helps: `GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)`.
pub(super) const ACTION_CHANGED: u32 = 154;

fn action_in(text: &str) -> Remedy {
    match text.rsplit_once(" to ").map(|(_, action)| action) {
        Some(action) if action.contains("Reboot") => Remedy::Reboot,
        Some(action) if action.contains("Reset") => Remedy::DrainAndReset,
        _ => Remedy::Watch,
    }
}

/// `pid=1234` or `pid='1234'`; `<unknown>` is none.
fn pid_in(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("pid=")?;
    let digits: String = after.trim_start_matches('\'').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn address_in(text: &str) -> Option<PciAddress> {
    let words = text.split(|c: char| c.is_whitespace() || c == '(' || c == ')' || c == ',');
    words.map(|word| word.trim_start_matches("PCI:").trim_end_matches(':')).find_map(|word| word.parse().ok())
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Lines of the driver after which a card that was named is no longer the one that is spoken of.
const NAMED_LINES: u32 = 3;
/// Characters of the kernel's words that are handed on.
const TEXT_MAX: usize = 300;

/// Who told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Nvml,
    KernelLog,
}

/// NVML's events and the kernel's log tell the same errors: each counts once.
#[derive(Debug, Default)]
pub(super) struct Once {
    told: Vec<(PciAddress, What, Source, Mono)>,
}

/// So long after one source the other one tells the same.
const TOGETHER: Duration = Duration::from_secs(5);
const TOLD_MAX: usize = 256;

impl Once {
    /// Whether this is told for the first time.
    pub(super) fn is_new(&mut self, now: Mono, gpu: PciAddress, what: What, source: Source) -> bool {
        self.told.retain(|(_, _, _, at)| now - *at < TOGETHER);
        let what = match what {
            // Only the log's line says which action; the event must not hide it.
            What::Xid(ACTION_CHANGED) => return source == Source::KernelLog,
            // The number and the words, in either source: one and the same end.
            What::Xid(79) | What::OffTheBus => {
                let known = self.told.iter().any(|(of, what, _, _)| (*of, *what) == (gpu, What::OffTheBus));
                if known {
                    return false;
                }
                What::OffTheBus
            }
            what => what,
        };
        let other = |told: &(PciAddress, What, Source, Mono)| (told.0, told.1) == (gpu, what) && told.2 != source;
        if let Some(at) = self.told.iter().position(other) {
            self.told.swap_remove(at);
            return false;
        }
        if self.told.len() < TOLD_MAX {
            self.told.push((gpu, what, source, now));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    #[test]
    fn every_class_has_its_remedy() {
        for (xids, remedy) in [
            (&[13, 31, 43, 69, 94, 68, 47][..], Remedy::RestartWorkers),
            (&[45][..], Remedy::FollowsKill),
            (&[48, 95, 64, 61, 62, 119, 120, 109][..], Remedy::DrainAndReset),
            (&[79][..], Remedy::Reboot),
            (&[63, 74, 92, 0, 7, 9_999][..], Remedy::Watch),
        ] {
            for xid in xids {
                assert_eq!(remedy_of(*xid), remedy, "Xid {xid}");
            }
        }
        assert_eq!(remedy(What::DoubleBit), Remedy::DrainAndReset);
        assert_eq!(remedy(What::OffTheBus), Remedy::Reboot);
    }

    #[test]
    fn the_kernel_s_lines_of_several_drivers_are_understood() {
        let mut lines = Lines::default();
        let line = "6,339,5140900,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";
        let fault = lines.read(line).unwrap();
        assert_eq!((fault.gpu, fault.what, fault.remedy), (address("0000:3b:00"), What::Xid(79), Remedy::Reboot));
        assert_eq!((fault.pid, fault.text.starts_with("Xid (PCI:0000:3b:00): 79")), (None, true));

        let fault = lines.read("[ 12.5] NVRM: Xid (0000:01:00): 31, Ch 0000000b, engmask 00000120").unwrap();
        assert_eq!((fault.gpu, fault.what), (address("0000:01:00"), What::Xid(31)));

        let fault = lines.read("NVRM: Xid (PCI:0001:C1:1f): 13, pid=4711, name=rung-worker, Graphics").unwrap();
        assert_eq!((fault.gpu, fault.pid), (address("0001:c1:1f"), Some(4711)));
        assert_eq!(lines.read("NVRM: Xid (PCI:0000:3b:00): 13, pid='42', name=x").unwrap().pid, Some(42));
    }

    #[test]
    fn a_card_that_vanishes_without_a_number_is_seen_over_several_lines_and_in_one() {
        let mut lines = Lines::default();
        assert_eq!(lines.read("[ 1843.3] NVRM: The NVIDIA GPU 0000:b3:00.0"), None);
        assert_eq!(lines.read("               NVRM: (PCI ID: 10de:26b5) installed in this system has"), None);
        let fault = lines.read("               NVRM: fallen off the bus and is not responding to commands.").unwrap();
        assert_eq!((fault.gpu, fault.what), (address("0000:b3:00"), What::OffTheBus));
        let fault = lines.read("NVRM: GPU at PCI:0000:af:00: GPU has fallen off the bus.").unwrap();
        assert_eq!(fault.gpu, address("0000:af:00"));
        let fault = lines.read("NVRM: GPU 0000:5e:00.0: GPU has fallen off the bus.").unwrap();
        assert_eq!(fault.gpu, address("0000:5e:00"));
        for _ in 0..=NAMED_LINES {
            assert_eq!(lines.read("NVRM: something else"), None);
        }
        assert_eq!(lines.read("NVRM: fallen off the bus"), None, "nobody knows which card that is");
    }

    #[test]
    fn lines_of_others_and_broken_lines_are_nothing() {
        let mut lines = Lines::default();
        for line in [
            "",
            "usb 1-1: device descriptor read",
            "NVRM:",
            "NVRM: Xid (",
            "NVRM: Xid (PCI:0000:3b:00)",
            "NVRM: Xid (PCI:0000:3b:00): ",
            "NVRM: Xid (PCI:0000:3b:00): many, pid=1",
            "NVRM: Xid (PCI:0000:3b:00): 99999999999999, pid=1",
            "NVRM: Xid (nowhere): 79, x",
            "Xid (PCI:0000:3b:00): 79, without the driver's name",
        ] {
            assert_eq!(lines.read(line), None, "{line}");
        }
    }

    #[test]
    fn the_driver_s_own_word_for_what_helps_is_taken() {
        let mut lines = Lines::default();
        for (to, remedy) in [
            ("0x0 (None)", Remedy::Watch),
            ("0x1 (GPU Reset Required)", Remedy::DrainAndReset),
            ("0x4 (Drain and Reset)", Remedy::DrainAndReset),
            ("0x3 (Drain P2P)", Remedy::Watch),
            ("0x2 (Node Reboot Required)", Remedy::Reboot),
        ] {
            let line = format!(
                "NVRM: Xid (PCI:0000:3b:00): 154, pid=1, GPU recovery action changed from 0x2 (Node Reboot Required) to {to}"
            );
            assert_eq!(lines.read(&line).unwrap().remedy, remedy, "{to}");
        }
    }

    #[test]
    fn what_two_sources_tell_counts_once_and_what_one_repeats_counts_again() {
        let mut once = Once::default();
        let (a, b) = (address("0000:01:00"), address("0000:02:00"));
        let at = |ms: u64| Mono(1_000_000_000 + ms * 1_000_000);
        assert!(once.is_new(at(0), a, What::Xid(31), Source::Nvml));
        assert!(!once.is_new(at(10), a, What::Xid(31), Source::KernelLog));
        assert!(once.is_new(at(20), a, What::Xid(31), Source::KernelLog), "the next one");
        assert!(once.is_new(at(30), a, What::Xid(31), Source::KernelLog), "and one more");
        assert!(!once.is_new(at(40), a, What::Xid(31), Source::Nvml));
        assert!(once.is_new(at(40), b, What::Xid(31), Source::Nvml), "another card");
        assert!(once.is_new(at(6_000), b, What::Xid(31), Source::KernelLog), "much later");
        assert!(once.is_new(at(7_000), a, What::Xid(79), Source::KernelLog));
        assert!(!once.is_new(at(7_001), a, What::OffTheBus, Source::KernelLog));
        assert!(!once.is_new(at(7_002), a, What::Xid(79), Source::Nvml));
        assert!(!once.is_new(at(7_002), a, What::Xid(ACTION_CHANGED), Source::Nvml));
        assert!(once.is_new(at(7_003), a, What::Xid(ACTION_CHANGED), Source::KernelLog));
    }
}
