//! The kernel's log, followed from now on: its device, or in tests a file that grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Where the kernel's log is read.
pub(super) const DEVICE: &str = "/dev/kmsg";

pub(super) struct KernelLog {
    file: File,
    kind: Kind,
    /// The number of the last record, or the bytes up to the end of the last whole line.
    position: u64,
    partial: Vec<u8>,
}

enum Kind {
    /// One record a read, each with a number; readable when there is another one.
    Records { skip_to: u64 },
    /// Readable always: to be looked at now and then.
    Text,
}

impl KernelLog {
    /// Follows what comes from now on, or behind `after`: a position of an earlier follower.
    ///
    /// # Errors
    /// A sentence: why it is not read, and what that costs.
    pub(super) fn open(path: &Path, after: Option<u64>) -> Result<KernelLog, String> {
        let open = || {
            let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
            let records = file.metadata()?.file_type().is_char_device();
            let (kind, position) = match (records, after) {
                (true, Some(number)) => (Kind::Records { skip_to: number }, number),
                (true, None) => {
                    file.seek(SeekFrom::End(0))?;
                    (Kind::Records { skip_to: 0 }, 0)
                }
                (false, after) => {
                    let end = file.metadata()?.len();
                    let from = after.map_or(end, |at| at.min(end));
                    (Kind::Text, file.seek(SeekFrom::Start(from))?)
                }
            };
            Ok(KernelLog { file, kind, position, partial: Vec::new() })
        };
        open().map_err(|error: io::Error| {
            format!(
                "the kernel's log is not read ({}: {error}): GPU errors come from NVML alone, which misses cards that \
                 vanish; give Rung CAP_SYSLOG",
                path.display()
            )
        })
    }

    /// To wait for more; `None`: look again after a while.
    pub(super) fn readable(&self) -> Option<BorrowedFd<'_>> {
        matches!(self.kind, Kind::Records { .. }).then(|| self.file.as_fd())
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Lines that came, up to `LINES_MAX` of them; never waits.
    pub(super) fn take(&mut self) -> Vec<String> {
        match self.kind {
            Kind::Records { skip_to } => self.take_records(skip_to),
            Kind::Text => self.take_text(),
        }
    }

    fn take_records(&mut self, skip_to: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut bytes = [0; RECORD_MAX];
        for _ in 0..LINES_MAX {
            let length = match self.file.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => length,
                // The kernel overwrote what was to be read next: the one after it comes.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let Some((number, text)) = record(&String::from_utf8_lossy(&bytes[..length])) else { continue };
            if number > skip_to {
                self.position = number;
                lines.extend(text);
            }
        }
        lines
    }

    fn take_text(&mut self) -> Vec<String> {
        let mut bytes = [0; RECORD_MAX];
        let mut lines = Vec::new();
        while lines.len() < LINES_MAX {
            let length = match self.file.read(&mut bytes) {
                Ok(length) if length > 0 => length,
                _ => break,
            };
            self.partial.extend_from_slice(&bytes[..length]);
            while let Some(end) = memchr::memchr(b'\n', &self.partial) {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                self.position += line.len() as u64;
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.partial.len() > LINE_MAX {
                self.position += self.partial.len() as u64;
                self.partial.clear();
            }
        }
        lines
    }
}

/// `6,339,5140900,-;text`, then lines of another kind that begin with a space. A line break within the text is `\x0a`.
fn record(text: &str) -> Option<(u64, Vec<String>)> {
    let (head, body) = text.split_once(';')?;
    let number = head.split(',').nth(1)?.parse().ok()?;
    let message = body.lines().next().unwrap_or("");
    Some((number, message.split("\\x0a").map(str::to_owned).collect()))
}

/// Largest record of the kernel, bytes.
const RECORD_MAX: usize = 16 << 10;
/// A line longer than that is nobody's.
const LINE_MAX: usize = 64 << 10;
/// Lines taken at once: what floods the log does not keep the monitor from its other work.
const LINES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_record_is_its_number_and_its_lines() {
        let text = "4,339,5140900,-;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: fallen off\n SUBSYSTEM=pci\n";
        let lines = vec!["NVRM: The NVIDIA GPU 0000:b3:00.0".to_owned(), "NVRM: fallen off".to_owned()];
        assert_eq!(record(text), Some((339, lines)));
        assert_eq!(record("no header"), None);
        assert_eq!(record("6,x,1,-;text"), None);
    }

    #[test]
    fn only_what_comes_later_is_read_and_a_successor_goes_on_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        let mut log = KernelLog::open(&path, None).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(log.take(), Vec::<String>::new());
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(log.take(), ["one"]);
        file.write_all(b"o\n").unwrap();
        let mut later = KernelLog::open(&path, Some(log.position())).unwrap();
        assert_eq!(log.take(), ["two"]);
        assert_eq!(later.take(), ["two"]);
        assert_eq!(later.position(), log.position());
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "").unwrap();
        let mut log = KernelLog::open(&path, None).unwrap();
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(log.take(), Vec::<String>::new());
        assert!(log.partial.len() <= LINE_MAX, "{}", log.partial.len());
        let missing = KernelLog::open(&folder.path().join("none"), None).err().unwrap();
        assert!(missing.contains("not read") && missing.contains("No such file"), "{missing}");
    }
}
