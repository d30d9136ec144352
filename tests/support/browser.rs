//! A viewer: headless Chromium on a page of Rung, and what it saw.

use std::process::{Command, Stdio};
use std::time::Duration;

use rung::time::SystemClock;
use serde::{Deserialize, Serialize};

/// What the viewer does.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seconds: u32,
    /// Longest wait for the first picture, seconds.
    pub(crate) start: u32,
    /// Renditions to switch to, evenly spread over the time; `auto` is one too.
    pub(crate) switch: Vec<String>,
    /// PNG to write at the end.
    pub(crate) screenshot: Option<String>,
    pub(crate) phone: bool,
    /// A sound track to choose at half time, by name.
    pub(crate) audio: Option<String>,
    /// Captions to show, by INSTREAM-ID.
    pub(crate) captions: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seconds: 10,
            start: 30,
            switch: Vec::new(),
            screenshot: None,
            phone: false,
            audio: None,
            captions: None,
        }
    }
}

/// What the viewer got. Times are seconds unless the name says otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BrowserReport {
    pub(crate) state: String,
    pub(crate) engine: Option<String>,
    pub(crate) first_frame_ms: Option<u64>,
    pub(crate) size: (u32, u32),
    pub(crate) stalls: u64,
    pub(crate) stalled_ms: u64,
    pub(crate) fatal: u64,
    pub(crate) errors: Vec<String>,
    /// Player starts: more than one means that it began again.
    pub(crate) starts: u64,
    /// Jumps to the live edge.
    pub(crate) jumps: u64,
    pub(crate) target_latency: Option<f64>,
    /// By PROGRAM-DATE-TIME.
    pub(crate) latency: Spread,
    /// By the clock burnt into the picture; empty where there is none.
    pub(crate) glass_to_glass: Spread,
    pub(crate) frames: Frames,
    pub(crate) longest_step_ms: u64,
    pub(crate) shown: u64,
    pub(crate) dropped: u64,
    pub(crate) levels: Vec<String>,
    pub(crate) level: Option<String>,
    pub(crate) switches: Vec<Switch>,
    pub(crate) audio: Audio,
    pub(crate) states: Vec<Step>,
    /// Of the metadata tracks.
    #[serde(default)]
    pub(crate) cues: Vec<MetadataCue>,
    pub(crate) tracks: Tracks,
    /// Errors in the browser's console.
    pub(crate) console: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) min: Option<f64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// What the counter strip said; a browser short of time skips pictures, it never shows them twice or backward.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Frames {
    pub(crate) seen: u64,
    pub(crate) unread: u64,
    pub(crate) first: Option<u64>,
    pub(crate) last: Option<u64>,
    pub(crate) skipped: u64,
    pub(crate) repeated: u64,
    pub(crate) backward: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Switch {
    pub(crate) to: String,
    pub(crate) ok: bool,
    pub(crate) took_ms: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Audio {
    /// Decoded, and not silent.
    pub(crate) playing: bool,
    pub(crate) decoded_bytes: u64,
    pub(crate) rms: f64,
}

/// What the player handed to the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetadataCue {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) start: f64,
    pub(crate) key: String,
    pub(crate) text: String,
    /// The number of the picture that is shown then, by the media times of all that were seen.
    pub(crate) picture: Option<u32>,
}

/// Sound tracks and captions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tracks {
    /// Names, and the one that plays.
    pub(crate) audios: Vec<String>,
    pub(crate) audio: Option<String>,
    pub(crate) services: Vec<Service>,
    /// What was shown, each when it changed.
    pub(crate) captions: Vec<String>,
    /// When the other sound track was chosen.
    pub(crate) chosen_ms: Option<u64>,
    pub(crate) tones: Vec<Tone>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// The loudest frequency at a moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tone {
    pub(crate) ms: u64,
    pub(crate) hz: u32,
}

/// A change of state, session or rendition, `ms` after the page was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) ms: u64,
    pub(crate) state: String,
    pub(crate) session: Option<String>,
    pub(crate) level: Option<String>,
}

/// Watches `url` and reports. Panics with the browser's words if no picture comes.
pub(crate) fn watch(url: &str, options: &Options) -> BrowserReport {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/run.mjs");
    let mut command = Command::new("node");
    command.args([script, "--url", url, "--seconds", &options.seconds.to_string()]);
    command.args(["--start", &options.start.to_string(), "--switch", &options.switch.join(",")]);
    if let Some(path) = &options.screenshot {
        command.args(["--screenshot", path]);
    }
    for (name, value) in [("--audio", &options.audio), ("--captions", &options.captions)] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    if options.phone {
        command.arg("--phone");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node starts");
    // Both pipes hold less than their buffer until the end: one line of report, a stack trace at most.
    let patience = Duration::from_secs(u64::from(options.seconds + options.start) + 60);
    let deadline = SystemClock::mono() + patience;
    while child.try_wait().expect("the child is ours").is_none() {
        if SystemClock::mono() > deadline {
            child.kill().expect("the child is ours");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let output = child.wait_with_output().expect("the child is ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the browser failed at {url} ({}):\n{said}", output.status);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("unreadable report ({e}): {}\n{said}", String::from_utf8_lossy(&output.stdout)))
}
