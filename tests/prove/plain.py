#!/usr/bin/env python3
"""ffmpeg, GStreamer and VLC as plain HLS clients of a live ladder, at `ultra` and at `low`: decoded frames, lost ones, and what
they complain about. RUNG_PLAIN_SECONDS: each. `make players` runs it with the release build."""
import shlex
import sys
from figures import *

SECONDS = int(os.environ.get("RUNG_PLAIN_SECONDS", 15 if SHORT else 30))
MODES = ["ultra"] if SHORT else ["ultra", "low"]
RATE = 25
# What these programs say when media is wrong, not when they are late or ask about a window that they have not got.
WRONG = re.compile(r"error|corrupt|invalid|missing|non-existing|concealing|decode_slice|no frame|not-negotiated|failed|could not"
                   r"|cannot|status: 4|status: 5|monoton", re.I)
# What they say of this machine.
OTHER = re.compile(r"dbus|pulse|alsa|vdpau|va-api|vaapi|libva|drm|lua|xcb|display|x11|globalhotkeys|inhibit|plugin|cache|skins|"
                   r"interface|upnp|keystore|not supposed|opengl|glx|XDG|mtp|v4l|deinterlace|video output creation|hardware", re.I)


def run(command, seconds, feed=None, interrupt=False):
    """(output, seconds that it ran): interrupted or fed with a text when its time is over."""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.PIPE if feed else subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        if feed:
            time.sleep(seconds)
        out, _ = child.communicate(feed, timeout=30 if feed else seconds if interrupt else seconds + 60)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        try:
            out, _ = child.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
    return out, time.monotonic() - begin


def complaints(text):
    return [line.strip() for line in text.splitlines() if WRONG.search(line) and not OTHER.search(line)]


def ffmpeg(url):
    command = f"ffmpeg -hide_banner -nostdin -loglevel warning -progress pipe:1 -t {SECONDS} -i {url} -f null -"
    out, took = run(shlex.split(command), SECONDS)
    frames = [int(n) for n in re.findall(r"^frame=(\d+)", out, re.M)]
    said = [line for line in complaints(out) if "=" not in line.split(" ")[0]]
    return frames[-1] if frames else 0, 0, said, took


def gstreamer(pipeline):
    def play(url):
        out, took = run(["gst-launch-1.0", "-v", *shlex.split(pipeline.replace("URL", url))], SECONDS, interrupt=True)
        rendered = re.findall(r"rendered: (\d+), dropped: (\d+)", out)
        frames, dropped = rendered[-1] if rendered else (0, 0)
        said = [line for line in complaints(out) if line.startswith(("ERROR", "WARNING", "Additional"))]
        return int(frames), int(dropped), said, took
    return play


def vlc(url):
    command = ["vlc", "-I", "oldrc", "--rc-fake-tty", "--no-color", "--vout", "dummy", "--aout", "dummy", "--avcodec-hw", "none",
               "--no-video-title-show", "-v", url]
    if os.geteuid() == 0:
        # It does not run as root.
        command = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", "HOME=/tmp", *command]
    out, took = run(command, SECONDS, feed="stats\nquit\n")
    count = lambda what: int((re.findall(what + r"\s*:\s*(\d+)", out) or [0])[-1])
    # What it is in the middle of when it has to go is no trouble; and its table of statistics is no complaint.
    said = [line for line in complaints(out.split("stats: returned", 1)[0]) if not line.startswith(("|", "+"))]
    lost = count("frames lost") + count("demux corrupted") + count("discontinuities")
    return count("frames displayed"), lost, said, took


def version(command, pattern):
    try:
        out = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30)
        return re.search(pattern, out.stdout + out.stderr)[1]
    except (OSError, TypeError):
        return None


GST = version("gst-launch-1.0 --version", r"GStreamer (\S+)")
COUNTING = "fpsdisplaysink text-overlay=false video-sink=fakesink"
# The older hlsdemux of 1.22 starts its clock at the window's beginning, not at the media's decode time, and so waits for as long
# as the session is old: its pictures are decoded as they come.
ONLY = os.environ.get("RUNG_PLAIN_ONLY", "")
CLIENTS = [
    ("ffmpeg", version("ffmpeg -version", r"version (\S+)"), ffmpeg),
    ("GStreamer playbin3 (hlsdemux2)", GST, gstreamer(f"playbin3 uri=URL video-sink='{COUNTING}' audio-sink='fakesink sync=true'")),
    ("GStreamer souphttpsrc ! hlsdemux", GST, gstreamer(f"souphttpsrc location=URL ! hlsdemux ! decodebin ! {COUNTING} sync=false")),
    ("VLC", version("setpriv --reuid nobody --regid nogroup --clear-groups vlc --version" if os.geteuid() == 0 else "vlc --version",
                    r"VLC version (\S+)"), vlc),
]
failed = []
print("## Plain HLS clients\n")
print(f"A live ladder (540p 360p 216p, 25 a second), {SECONDS} s each, sinks that throw away. Frames: decoded, and what {SECONDS} s have less "
      "the start; lost: dropped, corrupt or discontinuous by the client's own count.\n")
print("| client | version | mode | decoded frames | lost | complaints |")
print("|---|---|---|---|---|---|")
for mode in MODES:
    with Daemon([f'name = "live"\nmode = "{mode}"\n' + TEST_LADDER]) as daemon, push(clip_540(), daemon.url("live")):
        client = Client(daemon.http)
        wait_for(lambda: client.text("/live/live/540p.m3u8").count("#EXTINF") >= 6, 90, "a window")
        for name, number, play in (c for c in CLIENTS if c[0].startswith(ONLY)):
            if number is None:
                print(f"| {name} | not installed | {mode} | - | - | - |", flush=True)
                failed.append(name)
                continue
            frames, lost, said, took = play(f"http://127.0.0.1:{daemon.http}/live/live/index.m3u8")
            say(f"{name} {mode}: {frames} frames, {lost} lost in {took:.1f} s; {said[:8]}")
            # A plain client may need six seconds for its first picture.
            if frames < (SECONDS - 8) * RATE or said:
                failed.append(f"{name} at {mode}")
            print(f"| {name} | {number} | {mode} | {frames} | {lost} | {f'{len(said)}, e.g. `{said[0][:120]}`' if said else 'none'} |", flush=True)
print(f"\nEvery client decoded what it should and complained about nothing: {verdict(not failed)}{' (' + ', '.join(failed) + ')' if failed else ''}.")
if failed and "--check" in sys.argv:
    raise SystemExit(1)
