#!/usr/bin/env python3
"""hls.js and Shaka, as they come, on one channel at `ultra` with a forced switch every 20 s: on a calm source, and on one
that wraps its 33 bits, jumps, dies, comes back and closes. RUNG_PLAYERS_SECONDS: how long each."""
import json
import os
import signal
import subprocess
import threading
import time
from figures import *
from restamp import WRAP, restamp

SECONDS = int(os.environ.get("RUNG_PLAYERS_SECONDS", 60 if SHORT else 900))
CHANNEL = 'name = "live"\nmode = "ultra"\nend_on_eos = false\ntakeover = "newest"\n' + TEST_LADDER


def players(daemon):
    script = os.path.join(ROOT, "tests", "browser", "players.mjs")
    url = f"http://127.0.0.1:{daemon.http}/live/live/index.m3u8"
    command = ["node", script, "--url", url, "--seconds", str(SECONDS), "--every", "20"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 180)
    if output.returncode != 0:
        raise SystemExit(output.stderr)
    report = json.loads(output.stdout)
    for name, got in report["players"].items():
        say(f"{name}: {json.dumps({k: v for k, v in got.items() if k != 'errors'})[:3000]}\n{got['errors'][:20]}")
    return report


class Story(threading.Thread):
    """A publisher with a life: (seconds from the beginning, what it does). Each life has a file of its own."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        at = lambda share: 8 + SECONDS * share
        self.daemon_, self.told, self.over = daemon, [], threading.Event()
        clip = clip_540()
        make = lambda name, *rest: restamp(clip, os.path.join(SCRATCH, name), *rest)
        # The first wraps at 15 % and jumps an hour at 30 %, in the middle of one connection.
        self.lives = [
            (0, at(0.45), signal.SIGKILL, make("life-1.ts", WRAP - int(at(0.15) * 90_000), at(0.45) + 40, [(at(0.3), 3600 * 90_000)])),
            # An encoder that starts anew at the same PTS each time, away for three seconds, then for seven.
            (at(0.45) + 3, at(0.65), signal.SIGKILL, make("life-2.ts", 900_000, at(0.2) + 40)),
            (at(0.65) + 7, at(0.85), signal.SIGTERM, make("life-3.ts", 900_000, at(0.2) + 40)),
            # One that closed its connection and goes on behind the wrap.
            (at(0.85) + 3, at(1.0) + 60, signal.SIGTERM, make("life-4.ts", WRAP - 5 * 90_000, at(0.15) + 100)),
        ]

    def run(self):
        begin = time.monotonic()
        for comes, goes, how, file in self.lives:
            self.over.wait(max(0, begin + comes - time.monotonic()))
            if self.over.is_set():
                return
            publisher = Process([RUNG, "push", "--quiet", file, self.daemon_.url("live")])
            self.told.append(f"{time.monotonic() - begin:.0f} s: on air")
            self.over.wait(max(0, begin + goes - time.monotonic()))
            publisher.stop(how)
            self.told.append(f"{time.monotonic() - begin:.0f} s: {how.name}")


def row(what, name, got):
    stalls, switches = got["stalls"], got["switches"]
    done = [s["ms"] for s in switches if s["ok"]]
    stalled = sum(s["ms"] or 0 for s in stalls) / 1000
    errors = ", ".join(f"{n} x{c}" for n, c in sorted(got["counts"].items())) or "none"
    # hls.js tells of requests that it takes back itself, too.
    calm = not stalls and not got["console"] and all(e["what"].startswith("aborted") for e in got["errors"])
    latency = got["latency"]
    return (f"| {what} | {name} {got['version'].lstrip('v')} | {len(stalls)}, {stalled:.1f} s | {got['fatal']} | {errors} | "
            f"{verdict(calm)} | {latency['p50']:.2f} / {latency['p95']:.2f} / {latency['max']:.2f} s | {len(done)} of {len(switches)}, "
            f"{(median(done) if done else 0) / 1000:.1f} s | {got['frames']}, {got['dropped']} | {got['gaps']} of {got['samples']} | "
            f"{got['first_ms']} ms |")


rows, told, faults = [], [], ""
with Daemon([CHANNEL]) as daemon:
    with push(clip_540(), daemon.url("live")):
        client = Client(daemon.http)
        wait_for(lambda: client.text("/live/live/540p.m3u8").count("#EXTINF") >= 4, 60, "a window")
        report = players(daemon)
        rows += [row("calm", name, got) for name, got in report["players"].items()]
with Daemon([CHANNEL]) as daemon:
    story = Story(daemon)
    story.start()
    client = Client(daemon.http)
    wait_for(lambda: client.text("/live/live/540p.m3u8").count("#EXTINF") >= 3, 60, "a window")
    report = players(daemon)
    rows += [row("troubled", name, got) for name, got in report["players"].items()]
    story.over.set()
    story.join()
    told = story.told
    log = open(daemon.log).read()
    times = lambda code: log.count(f'code="{code}"')
    faults = f"{times('input_lost')} times lost, {times('input_restored')} times back"
print(f"## Players in Chromium {report['browser']}, `ultra`\n")
print(f"hls.js and Shaka side by side on one channel (ladder 540p 360p 216p from 540p25), {SECONDS} s each time, a forced switch of "
      "each every 20 s. Stall: the playhead stands for 0.25 s. Latency: the page's clock less PROGRAM-DATE-TIME. Gaps: samples "
      "(five a second) with a hole in what is buffered ahead.\n")
print("| source | player | stalls | fatal | errors told | no stall, no error | latency median / p95 / largest | switches done, median | frames, "
      "dropped | gaps | first picture |")
print("|---|---|---|---|---|---|---|---|---|---|---|")
print("\n".join(rows))
print(f"\nTroubled: the source's 33 bits wrap at 15 % of the time, it jumps an hour at 30 %, is killed at 45 % for 3 s and at 65 % for 7 s "
      f"(starting at the same PTS again), closes at 85 % for 3 s and wraps once more ({'; '.join(told)}; the daemon's log: {faults}).")
