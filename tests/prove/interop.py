#!/usr/bin/env python3
"""SRT beside foreign ends: srt-live-transmit, ffmpeg, GStreamer and OBS as callers, listeners and in rendezvous.

Prints a table: a row for each case, a column for each peer. A case holds if Rung's log says what is expected of it and
nothing of two seconds of media was lost. `--only obs,ffmpeg` asks these peers only.
"""
import shutil
import socket
from figures import *

BOX, OWN, WRONG = "correct-horse-battery", "a-channels-own-staple", "not-the-passphrase"
SETTLE, PATIENCE = 2.0, 15
# (name, channel, what the peer is asked for, what the log must say). A number is the code of a refusal.
CALLERS = [
    ("in clear, short stream id", "open", {}, "in clear"),
    ("in clear, long stream id", "open", {"id": "#!::r={channel},k={key},m=publish"}, "in clear"),
    ("leg b", "open", {"id": "{channel}/{key}/b"}, "leg b"),
    ("AES-128", "own", {"passphrase": OWN, "pbkeylen": 16}, "AES-128"),
    ("AES-192", "own", {"passphrase": OWN, "pbkeylen": 24}, "AES-192"),
    ("AES-256", "own", {"passphrase": OWN, "pbkeylen": 32}, "AES-256"),
    ("keys renewed each 600 packets", "own", {"passphrase": OWN, "pbkeylen": 32, "kmrefreshrate": 600, "kmpreannounce": 150}, "AES-256"),
    ("latency 20 ms asked, 120 granted", "open", {"latency": 20}, "latency 120 ms"),
    ("latency 2 s asked and granted", "open", {"latency": 2000}, "latency 2000 ms"),
    ("payloads of 1456 bytes", "open", {"payload": 1456}, "in clear"),
    ("packet filter, 10 columns of 5 rows", "open", {"filter": "fec,cols:10,rows:5,arq:onreq"}, "in clear"),
    ("wrong passphrase", "own", {"passphrase": WRONG, "pbkeylen": 16}, 10),
    ("no passphrase where one is wanted", "own", {}, 11),
    ("a passphrase where none is wanted", "open", {"passphrase": OWN, "pbkeylen": 16}, 11),
    ("wrong key", "open", {"id": "{channel}/" + "z" * 26}, 1401),
    ("unknown channel", "open", {"id": "nowhere/{key}"}, 1401),
]
# (name, mode of the peer, what the channel's `pull` says, what the peer is asked for, what the log must say)
CALLED = [
    ("is called: in clear", "listener", {}, {}, "in clear"),
    ("is called: AES-128", "listener", {"passphrase": OWN, "pbkeylen": 16}, {"passphrase": OWN, "pbkeylen": 16}, "AES-128"),
    ("is called: AES-256", "listener", {"passphrase": OWN, "pbkeylen": 32}, {"passphrase": OWN, "pbkeylen": 32}, "AES-256"),
    ("is called: latency 1 s", "listener", {"latency": 1000}, {}, "latency 1000 ms"),
    ("is called: packet filter", "listener", {}, {"filter": "fec,cols:10,rows:5,arq:onreq"}, "in clear"),
    ("is called with a wrong passphrase", "listener", {"passphrase": WRONG}, {"passphrase": OWN, "pbkeylen": 16}, ("pull_failed", "passphrase")),
    ("meets the port (rendezvous), AES-128", "rendezvous", {"mode": "rendezvous", "passphrase": OWN}, {"passphrase": OWN, "pbkeylen": 16}, "AES-128"),
]
# Where a peer of a rendezvous is: libsrt meets from the number that it calls.
MEETING = "127.0.0.2"


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Peer:
    """One foreign end: what it cannot be asked for, and how it is started."""

    lacks, modes = (), ("caller", "listener", "rendezvous")

    def there(self):
        return shutil.which(self.program) is not None

    def version(self):
        raise NotImplementedError

    def start(self, mode, host, port, asked):
        """`asked`: stream id, passphrase, pbkeylen and so on. An object with `stop`."""
        raise NotImplementedError


class LiveTransmit(Peer):
    """It reads UDP, which ffmpeg sends it."""

    name, program = "srt-live-transmit", "srt-live-transmit"

    def __init__(self, clip):
        self.clip = clip

    def version(self):
        said = subprocess.run([self.program, "-version"], capture_output=True, text=True)
        return re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)[0]

    def start(self, mode, host, port, asked):
        udp, options = free_port(), {k: v for k, v in asked.items() if k not in ("id", "payload", "filter")}
        for ours, theirs in (("id", "streamid"), ("payload", "payloadsize"), ("filter", "packetfilter")):
            if ours in asked:
                options[theirs] = asked[ours]
        if mode == "rendezvous":
            options["adapter"] = MEETING
        to = f"srt://{host}:{port}?mode={mode}&transtype=live" + "".join(f"&{k}={v}" for k, v in options.items())
        relay = Process([self.program, "-q", "-chunk", str(asked.get("payload", 1316)), f"udp://127.0.0.1:{udp}", to],
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        size = min(asked.get("payload", 1316), 1316)
        feed = Process(["ffmpeg", "-nostdin", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", self.clip, "-c", "copy", "-f", "mpegts",
                        f"udp://127.0.0.1:{udp}?pkt_size={size}"])
        return Several(feed, relay)


class Ffmpeg(Peer):
    name, program = "ffmpeg", "ffmpeg"
    lacks, modes = ("kmrefreshrate", "filter"), ("caller", "listener")

    def __init__(self, clip):
        self.clip = clip

    def version(self):
        return subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout.split()[2]

    def start(self, mode, host, port, asked):
        # In the address: on the command line `-streamid` means something else.
        options = {"mode": mode}
        for ours, theirs in (("id", "streamid"), ("passphrase", "passphrase"), ("pbkeylen", "pbkeylen"), ("payload", "payload_size")):
            if ours in asked:
                options[theirs] = asked[ours]
        if "latency" in asked:
            options["latency"] = asked["latency"] * 1000
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return Process(["ffmpeg", "-nostdin", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", self.clip, "-c", "copy", "-f", "mpegts",
                        f"srt://{host}:{port}?{query}"])


class GStreamer(Peer):
    name, program = "GStreamer", "gst-launch-1.0"
    lacks = ("kmrefreshrate", "filter", "payload")

    def __init__(self, clip):
        self.clip = clip

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True).stdout.split()[2]

    def start(self, mode, host, port, asked):
        options = [f"uri=srt://{host}:{port}?mode={mode}"]
        if mode == "rendezvous":
            options += [f"localaddress={MEETING}", f"localport={port}"]
        for ours, theirs in (("id", "streamid"), ("passphrase", "passphrase"), ("pbkeylen", "pbkeylen"), ("latency", "latency")):
            if ours in asked:
                options.append(f"{theirs}={asked[ours]}")
        return Process([self.program, "-q", "filesrc", f"location={self.clip}", "!", "tsparse", "set-timestamps=true", "alignment=7", "!",
                        "srtsink", "wait-for-connection=true", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Obs(Peer):
    """Its picture is one colour; it has a screen of its own (Xvfb) and a home that is thrown away."""

    name, program = "OBS", "obs"
    lacks = ("kmrefreshrate", "filter", "payload")
    modes = ("caller", "listener")

    def there(self):
        return super().there() and shutil.which("xvfb-run") is not None

    def version(self):
        return re.search(r"\d+\.\d+\S*", subprocess.run(["obs", "--version"], capture_output=True, text=True).stdout)[0]

    def start(self, mode, host, port, asked):
        home = tempfile.TemporaryDirectory(prefix="rung-obs-")
        root = os.path.join(home.name, ".config", "obs-studio")
        profile = os.path.join(root, "basic", "profiles", "rung")
        os.makedirs(profile)
        os.makedirs(os.path.join(root, "basic", "scenes"))
        options = {k: v for k, v in asked.items() if k in ("passphrase", "pbkeylen")}
        if "id" in asked:
            options["streamid"] = asked["id"]
        if "latency" in asked:
            options["latency"] = asked["latency"] * 1000
        server = f"srt://{host}:{port}?mode={mode}" + "".join(f"&{k}={v}" for k, v in options.items())
        files = {
            os.path.join(root, "global.ini"): "[General]\nFirstRun=true\nEnableAutoUpdates=false\nInfoIncrement=1\n"
                                              "[Basic]\nProfile=rung\nProfileDir=rung\nSceneCollection=rung\nSceneCollectionFile=rung\n",
            os.path.join(profile, "basic.ini"): "[General]\nName=rung\n[Output]\nMode=Simple\nReconnect=false\n[SimpleOutput]\nVBitrate=1500\n"
                                                "ABitrate=128\nStreamEncoder=x264\nPreset=ultrafast\n[Video]\nBaseCX=640\nBaseCY=360\n"
                                                "OutputCX=640\nOutputCY=360\nFPSCommon=25 PAL\n[Audio]\nSampleRate=48000\n",
            os.path.join(profile, "service.json"): json.dumps({"type": "rtmp_custom", "settings": {"server": server, "key": "", "use_auth": False}}),
            os.path.join(profile, "streamEncoder.json"): json.dumps({"keyint_sec": 1}),
        }
        # Without a collection of scenes OBS makes one, and does not begin to stream.
        colour = {"id": "color_source", "versioned_id": "color_source_v3", "name": "Colour", "settings": {"width": 640, "height": 360, "color": 0xFF00A0FF}}
        item = {"name": "Colour", "id": 1, "visible": True, "pos": {"x": 0, "y": 0}, "scale": {"x": 1, "y": 1}}
        scene = {"id": "scene", "versioned_id": "scene", "name": "Scene", "settings": {"id_counter": 1, "items": [item]}}
        scenes = {"name": "rung", "current_scene": "Scene", "current_program_scene": "Scene", "scene_order": [{"name": "Scene"}],
                  "current_transition": "Fade", "transition_duration": 300, "sources": [colour, scene], "groups": [], "quick_transitions": [],
                  "transitions": []}
        files[os.path.join(root, "basic", "scenes", "rung.json")] = json.dumps(scenes)
        for path, text in files.items():
            with open(path, "w") as f:
                f.write(text)
        command = ["xvfb-run", "-a", "-s", "-screen 0 1024x768x24", "obs", "--multi", "--startstreaming", "--profile", "rung", "--collection", "rung",
                   "--minimize-to-tray", "--disable-updater", "--disable-missing-files-check"]
        environment = {**os.environ, "HOME": home.name, "XDG_CONFIG_HOME": os.path.join(home.name, ".config"), "LIBGL_ALWAYS_SOFTWARE": "1",
                       "XDG_RUNTIME_DIR": home.name}
        child = Process(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return Screen(child, home)


class Several:
    def __init__(self, *processes):
        self.processes = processes

    def stop(self):
        for process in self.processes:
            process.stop()


class Screen:
    """OBS, its X server and its home."""

    def __init__(self, process, home):
        self.process, self.home = process, home

    def stop(self):
        below = children(self.process.pid)
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        time.sleep(0.5)
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.stop()
        self.home.cleanup()


class Log:
    """What the daemon has written since this was made."""

    def __init__(self, daemon):
        self.file = open(daemon.log)
        self.file.seek(0, os.SEEK_END)
        self.seen = ""

    def line(self, event, what=""):
        """The newest line of this event that says this. Repeats are gathered, so that one may tell of what came before, too."""
        self.seen += self.file.read()
        lines = [line for line in self.seen.splitlines() if event in line and what in line]
        return lines[-1] if lines else None

    def close(self):
        self.file.close()


def run(daemon, peer, mode, expected, host, port, asked):
    """What a cell of the table says."""
    if any(name in peer.lacks for name in asked) or mode not in peer.modes:
        return "cannot"
    log = Log(daemon)
    started = peer.start(mode, host, port, asked)
    try:
        if isinstance(expected, tuple):
            event, what = expected
            wait_for(lambda: log.line(event, what), PATIENCE, f"{peer.name}: {event} ({what})")
            return f"refused: {what}"
        if isinstance(expected, int):
            wait_for(lambda: log.line("publisher_refused", f" {expected}: "), PATIENCE, f"{peer.name}: refusal {expected}")
            return f"refused, {expected}"
        line = wait_for(lambda: log.line("publisher_connected"), PATIENCE, f"{peer.name}: a publisher")
        if expected not in line:
            return f"**{line}**"
        time.sleep(SETTLE)
        started.stop()
        closed = wait_for(lambda: log.line("publisher_closed"), PATIENCE, f"{peer.name}: its end")
        received, dropped = (int(re.search(rf"(\d+) {what}", closed)[1]) for what in ("received", "dropped"))
        return f"{received} packets" if received > 50 and dropped == 0 else f"**{received} received, {dropped} dropped**"
    except SystemExit as error:
        return f"**{error}**"
    finally:
        started.stop()
        log.close()


def publishing(daemon, peer, case):
    _, channel, asked, expected = case
    stream_id = asked.get("id", "{channel}/{key}").format(channel=channel, key=KEY)
    return run(daemon, peer, "caller", expected, "127.0.0.1", daemon.srt, {**asked, "id": stream_id})


def called(daemon, api, peer, case):
    """The peer listens, or meets the port, and the channel's `pull` is its address."""
    _, mode, address, asked, expected = case
    port, host = (daemon.srt, MEETING) if mode == "rendezvous" else (free_port(), "127.0.0.1")
    pull = f"srt://{host}:{port}?" + "&".join(f"{name}={value}" for name, value in address.items())
    api.want(200, "PATCH", "/v1/channels/pulled", {"pull": pull.rstrip("?")})
    try:
        return run(daemon, peer, mode, expected, "127.0.0.1", port, asked)
    finally:
        api.want(200, "PATCH", "/v1/channels/pulled", {"pull": None})


def one_peer(peer):
    """A cell for each case. Each peer has a daemon of its own: wrong keys count against its address."""
    channel = 'name = "{}"\nkind = "transmux"\nmode = "ultra"\ntakeover = "newest"\nreconnect_window_s = 0\n'
    own = os.path.join(SCRATCH, "own.passphrase")
    with open(own, "w") as f:
        f.write(OWN)
    with Daemon([channel.format("open"), channel.format("own") + f'passphrase_file = "{own}"', channel.format("pulled")]) as daemon:
        api, cells = Api(daemon.http, daemon.admin_token()), []
        for case in CALLERS:
            if case[3] == 1401:
                # Some try again at once: a box of its own, which does not know the address yet.
                with Daemon([channel.format("open")]) as another:
                    cells.append(publishing(another, peer, case))
            else:
                cells.append(publishing(daemon, peer, case))
            say(f"{peer.name}: calls: {case[0]}: {cells[-1]}")
        for case in CALLED:
            cells.append(called(daemon, api, peer, case))
            say(f"{peer.name}: {case[0]}: {cells[-1]}")
        return cells


def main():
    clip = clip_720()
    only = sys.argv[sys.argv.index("--only") + 1].lower().split(",") if "--only" in sys.argv else None
    peers = [LiveTransmit(clip), Ffmpeg(clip), GStreamer(clip), Obs()]
    peers = [peer for peer in peers if only is None or peer.name.lower() in only]
    for peer in [peer for peer in peers if not peer.there()]:
        say(f"SKIP {peer.name}: {peer.program} is not installed (`make interop` installs it)")
        peers.remove(peer)
    columns = [one_peer(peer) for peer in peers]
    names = [f"calls: {case[0]}" for case in CALLERS] + [case[0] for case in CALLED]
    print("## SRT beside foreign ends\n")
    print("Two seconds of 4 Mb/s each (OBS: one colour); `cannot`: the peer has no such option.\n")
    print("| the peer | " + " | ".join(f"{peer.name} {peer.version()}" for peer in peers) + " |")
    print("|---" * (len(peers) + 1) + "|")
    for name, *cells in zip(names, *columns):
        print(f"| {name} | " + " | ".join(cells) + " |")
    wrong = sum("**" in cell for cells in columns for cell in cells)
    print(f"\n{sum(map(len, columns))} cells, {wrong} of them wrong.")
    if wrong:
        raise SystemExit(1)


main()
