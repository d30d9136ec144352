"""What the programs of `make prove` share: the daemon, publishers, a small HTTP client, CPU and memory of processes.

Each program prints one Markdown section; progress goes to standard error. RUNG_SHORT=1 chooses the short form.
"""
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
RUNG = os.path.join(TARGET, "release", "rung")
SCRATCH = os.path.join(TARGET, "figures")
SHORT = os.environ.get("RUNG_SHORT") == "1"
KEY = "abcdefghijklmnopqrstuvwx12"
TEST_LADDER = """ladder = [{ name = "540p", height = 540, bitrate = 1800000 }, \
{ name = "360p", height = 360, bitrate = 900000 }, { name = "216p", height = 216, bitrate = 400000 }]
preset = "ultrafast"
"""
os.makedirs(SCRATCH, exist_ok=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


def wait_for(probe, limit, what, step=0.02):
    """Polls until `probe` gives something true."""
    end = time.monotonic() + limit
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise SystemExit(f"waited {limit} s for {what}")
        time.sleep(step)


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def verdict(held):
    return "held" if held else "**missed**"


def goal(measure, limit, wanted, seen, held):
    """A row of the table that `run.sh` puts in front of all figures. Markdown shows nothing of it where it stands."""
    print(f"<!-- goal: {measure} | {limit} | {wanted} | {seen} {verdict(held)} -->")


class Process:
    """A child that is stopped by its own id when the program is over, whatever happens."""

    def __init__(self, command, **more):
        more.setdefault("stdin", subprocess.DEVNULL)
        self.child = subprocess.Popen(command, **more)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, how=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
        self.child.wait()


class Daemon(Process):
    """`rung serve` with these `[[bootstrap.channel]]` tables, or `rung demo`, on free ports.

    `folder`: that of a daemon which has left it; this one finds its state again.
    """

    def __init__(self, channels=None, demo=None, folder=None):
        self.folder = folder or tempfile.TemporaryDirectory(prefix="rung-figures-")
        self.log = os.path.join(self.folder.name, "log")
        if demo is None:
            with open(os.path.join(self.folder.name, "test.key"), "w") as f:
                f.write(KEY)
            config = os.path.join(self.folder.name, "rung.toml")
            with open(config, "w") as f:
                for table in ("srt", "http", "metrics"):
                    f.write(f'[{table}]\nlisten = "127.0.0.1:0"\n')
                f.write("[quic]\nenabled = false\n")
                for channel in channels:
                    f.write(f'[[bootstrap.channel]]\nkey_file = "test.key"\n{channel}\n')
            command = [RUNG, "serve", "--config", config]
        else:
            command = [RUNG, "demo", "--http", "127.0.0.1:0", "--srt", "127.0.0.1:0", *demo]
        begun = time.monotonic()
        with open(self.log, "a") as log:
            super().__init__(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.said = []
        for line in self.child.stdout:
            self.said.append(line.rstrip())
            if self.said[-1] == "ready":
                break
        else:
            raise SystemExit(f"{command}: {self.said} {open(self.log).read()}")
        self.ready_after = time.monotonic() - begun
        text = "\n".join(self.said)
        self.http = int(re.search(r"(?:http .*?|localhost):(\d+)", text)[1])
        found = re.search(r"srt +\S*:(\d+) ", text)
        self.srt = int(found[1]) if found else None
        found = re.search(r"metrics +\S*:(\d+) ", text)
        self.metrics = int(found[1]) if found else None

    def admin_token(self):
        with open(os.path.join(self.folder.name, "rung-data", "admin.token")) as f:
            return f.read().strip()

    def url(self, channel):
        return f"srt://127.0.0.1:{self.srt}?streamid={channel}/{KEY}"

    def leave(self):
        """Stops it; what it kept stays for the next one."""
        super().stop()
        folder, self.folder = self.folder, None
        return folder

    def stop(self, how=signal.SIGTERM):
        super().stop(how)
        if self.folder:
            self.folder.cleanup()


def push(file, url, *more):
    return Process([RUNG, "push", "--quiet", "--reconnect", "--loop", *more, file, url])


class Client:
    """One kept HTTP/1.1 connection."""

    def __init__(self, port):
        self.port = port
        self.connection = None

    def get(self, path, timeout=15):
        for again in (True, False):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
                self.connection.request("GET", path)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if not again:
                    raise

    def text(self, path):
        """The body of a 200 answer, else nothing."""
        status, body = self.get(path)
        return body.decode() if status == 200 else ""

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Api:
    """The daemon's REST API on one kept connection."""

    def __init__(self, port, token):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        self.headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method, path, body=None, headers=()):
        """(status, headers, JSON)"""
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, {**self.headers, **dict(headers)})
        answer = self.connection.getresponse()
        got = answer.read()
        return answer.status, answer.headers, json.loads(got) if got else None

    def want(self, status, method, path, body=None):
        """The JSON of an answer that must have this status."""
        found, _, got = self.ask(method, path, body)
        if found != status:
            raise SystemExit(f"{method} {path}: {found} {got}")
        return got


class Histogram:
    """What a histogram of the daemon counted since this was made."""

    def __init__(self, port, series, labels=""):
        self.port, self.series, self.labels = port, series, labels
        self.before = self.read()

    def read(self):
        """Observations up to each bound."""
        text = Client(self.port).text("/metrics")
        found = re.findall(rf"^{self.series}_bucket{{([^}}]*)}} (\S+)$", text, re.M)
        counts = {}
        for labels, count in found:
            if self.labels in labels:
                bound = float(re.search(r'le="([^"]+)"', labels)[1].replace("+Inf", "inf"))
                counts[bound] = counts.get(bound, 0) + float(count)
        return counts

    def counted(self):
        return self.delta()[-1][1] if self.delta() else 0

    def delta(self):
        return sorted((bound, count - self.before.get(bound, 0)) for bound, count in self.read().items())

    def quantile(self, q):
        """Seconds, linear within a bucket; what is beyond the last bound is the last bound."""
        rows, low, seen = self.delta(), 0.0, 0.0
        wanted = q * (rows[-1][1] if rows else 0)
        for bound, count in rows:
            if count >= wanted and count > seen:
                return low if bound == float("inf") else low + (bound - low) * (wanted - seen) / (count - seen)
            low, seen = bound, max(seen, count)
        return 0.0


def renditions(client, channel):
    """Names of video and audio playlists in the multivariant playlist; the variant of sound alone is audio."""
    text = client.text(f"/live/{channel}/index.m3u8")
    video = re.findall(r"^(?!#)(\S+)\.m3u8", text, re.M)
    audio = re.findall(r'TYPE=AUDIO[^\n]*URI="([^"]+)\.m3u8', text)
    video, audio = [os.path.basename(v) for v in video], [os.path.basename(a) for a in audio]
    return [v for v in video if v not in audio], audio


def children(pid):
    """Ids of all processes below `pid`."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    found += [int(child)] + children(int(child))
    except OSError:
        pass
    return found


def cpu(pids):
    """User and system seconds of these processes, with the children that they have waited for."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += sum(int(n) for n in fields[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def rss(pids):
    """Resident memory, bytes; a process that is gone has none."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as f:
                total += int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        except OSError:
            pass
    return total


def clip(name, arguments):
    """A transport stream made once by ffmpeg."""
    path = os.path.join(SCRATCH, name)
    if not os.path.exists(path):
        say(f"making {name}")
        part = path + ".part"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments.split(), "-f", "mpegts", part]
        subprocess.run(command, check=True)
        os.rename(part, path)
    return path


def clip_720():
    """720p25, 4 Mb/s video, 2 s GOPs, AAC."""
    return clip("720p-4m.ts", "-f lavfi -i testsrc2=s=1280x720:r=25,noise=alls=10:allf=t -f lavfi -i sine=r=48000"
                " -t 20 -c:v libx264 -preset superfast -pix_fmt yuv420p -g 50 -sc_threshold 0 -bf 2 -b:v 4M -minrate 4M"
                " -maxrate 4M -bufsize 4M -x264-params nal-hrd=cbr -c:a aac -b:a 128k -ac 2")


def clip_540():
    """960x540p25, the source of the test ladder."""
    return clip("540p-2m.ts", "-f lavfi -i testsrc2=s=960x540:r=25 -f lavfi -i sine=r=48000 -t 20 -c:v libx264"
                " -preset superfast -pix_fmt yuv420p -g 50 -sc_threshold 0 -bf 0 -b:v 2M -maxrate 2M -bufsize 2M"
                " -c:a aac -b:a 128k -ac 2")
