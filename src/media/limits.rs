//! Capacities and time-outs that more than one module uses. What an operator may change is in `control::config`.

use std::time::Duration;

/// Largest PES packet or access unit taken, bytes.
pub const ACCESS_UNIT_BYTES_MAX: usize = 16 << 20;
/// Units waiting for a worker, per channel: a longer queue is dropped to the next random access point.
pub const WORKER_QUEUE_BYTES: usize = 4 << 20;
pub const WORKER_QUEUE_SPAN: Duration = Duration::from_millis(500);
/// Units kept since the last random access point for a respawned worker.
pub const PRIME_SPAN: Duration = Duration::from_secs(20);
pub const PRIME_BYTES: usize = 16 << 20;
/// A software worker that reports no progress for this long is replaced.
pub const WORKER_SILENCE_SOFTWARE: Duration = Duration::from_millis(1_500);
/// A GPU worker that reports no progress for this long is replaced, with everything that runs in its process.
pub const WORKER_SILENCE_GPU: Duration = Duration::from_millis(500);
/// A call into a driver that takes longer has hung: the process ends.
pub const DRIVER_CALL_MAX: Duration = Duration::from_millis(500);
/// From the start of a shared worker to its readiness: drivers take their time, on boxes with many cards above all.
pub const WORKER_START_GPU: Duration = Duration::from_secs(20);
/// Channels of one shared worker: what one crash costs at most.
pub const WORKER_SEATS_MAX: usize = 8;
/// Largest control message, bytes.
pub const CONTROL_BYTES_MAX: usize = 4 << 10;
/// A worker message's largest length, bytes.
pub const MESSAGE_BYTES_MAX: usize = ACCESS_UNIT_BYTES_MAX + (1 << 16);
/// Surfaces between scaler and encoder, per rendition.
pub const ENCODER_INPUT_FRAMES: usize = 4;

/// A publisher without a byte for this long is gone.
pub const PEER_IDLE: Duration = Duration::from_secs(5);
/// Without a byte from any publisher for this long a session's input is lost.
pub const INPUT_LOST: Duration = Duration::from_secs(2);
/// The longest reconnect window that a channel may have.
pub const RECONNECT_WINDOW_MAX: Duration = Duration::from_secs(1_800);
/// How far back the viewers of a channel may go at most.
pub const WINDOW_S_MAX: u32 = 21_600;
/// Media that one channel may hold for a window of its own, at the rates of its renditions.
pub const WINDOW_BYTES_MAX: u64 = 4 << 30;
/// Largest slate file, bytes.
pub const SLATE_BYTES_MAX: usize = 4 << 20;
/// A leg silent for this long gives way to a newcomer (`takeover = "if-silent"`).
pub const TAKEOVER_SILENCE: Duration = Duration::from_secs(2);
/// From accept without any media to the end of the session.
pub const NO_MEDIA: Duration = Duration::from_secs(15);
/// From the first media byte to a known program.
pub const PROBE: Duration = Duration::from_secs(10);
/// A session in `error` for this long is over.
pub const ERROR_TIMEOUT: Duration = Duration::from_secs(60);
/// An operator may let a session wait this long for its publisher at most, seconds.
pub const RECONNECT_WINDOW_S_MAX: u32 = 1_800;
/// A session's longest life by default, seconds.
pub const MAX_DURATION_S: u32 = 12 * 3_600;
/// A deleted channel is remembered this long.
pub const TOMBSTONE: Duration = Duration::from_secs(30 * 86_400);
/// Channels of one box.
pub const CHANNELS_MAX: usize = 20_000;
/// ENDLIST playlists stay this long after the end.
pub const LINGER: Duration = Duration::from_secs(60);

/// Largest JPEG that is taken from a worker, bytes.
pub const PICTURE_BYTES_MAX: usize = 2 << 20;
/// Storyboard sheets of a session; more than one while the playlist window spans two, or a worker was replaced.
pub const STORYBOARD_SHEETS_MAX: usize = 8;
/// Versions of sheets that the storyboard no longer names: half a minute of them, for whoever holds an older one.
pub const STORYBOARD_STALE: usize = 3;
/// All that of one session, bytes.
pub const STORYBOARD_BYTES_MAX: usize = 8 << 20;
/// Requests that wait for a channel's snapshot.
pub const SNAPSHOTS_MAX: usize = 64;
/// A snapshot comes within this, or not.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(3);

/// A viewer whose socket takes nothing for this long is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(10);
/// HTTP connections at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Of these from one address, unless it is trusted: behind one there may be a whole provider's viewers.
pub const CONNECTIONS_PER_ADDRESS: usize = 4_000;
/// TLS handshakes under way at once.
pub const HANDSHAKES_MAX: usize = 2_000;
/// Tracks of one program that are looked at.
pub const TRACKS_MAX: usize = 16;

/// Largest timed ID3 tag, bytes.
pub const TAG_BYTES_MAX: usize = 16 << 10;
/// Tags of one part, and bytes of them; what is over goes with the next part.
pub const PART_TAGS_MAX: usize = 16;
pub const PART_TAG_BYTES_MAX: usize = 64 << 10;
/// Tags that wait for their part, of a rendition: of more the oldest go.
pub const TAGS_WAITING_MAX: usize = 64;
