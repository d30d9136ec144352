#!/usr/bin/env python3
"""Growth of the daemon's memory with three channels on air and viewers coming and going."""
import random
import re
import threading
import time
from figures import *

# What is held of three sessions (62 s each) is full well before the first.
FROM, TO = (120, 300) if SHORT else (300, 1800)
VIEWERS = 6
stop = threading.Event()
watched = [0]


def visit(daemon, channel, seconds):
    """A viewer as hls.js is one: blocking reloads, every new part of one rendition and of the sound."""
    client = Client(daemon.http)
    try:
        video, audio = renditions(client, channel)
        if not video:
            return time.sleep(1)
        names, seen, end = [random.choice(video), *audio[:1]], set(), time.monotonic() + seconds
        while time.monotonic() < end and not stop.is_set():
            for name in names:
                text = client.text(f"/live/{channel}/{name}.m3u8")
                msn = int(re.search(r"MEDIA-SEQUENCE:(\d+)", text)[1]) + text.count("#EXTINF")
                part = text.rsplit("#EXTINF", 1)[-1].count("#EXT-X-PART:")
                for uri in re.findall(r'#EXT-X-PART:[^\n]*URI="([^"]+)"', text)[-3:]:
                    if uri not in seen:
                        seen.add(uri)
                        client.get(f"/live/{channel}/{uri}")
                if "CAN-BLOCK-RELOAD" in text:
                    client.text(f"/live/{channel}/{name}.m3u8?_HLS_msn={msn}&_HLS_part={part}")
                else:
                    time.sleep(1)
        watched[0] += 1
    except (OSError, TypeError, http.client.HTTPException):
        # The next visit shows whether the daemon is well.
        time.sleep(1)
    finally:
        client.close()


def come_and_go(daemon, seed):
    chance = random.Random(seed)
    while not stop.is_set():
        visit(daemon, chance.choice(["ladder", "one", "two"]), chance.uniform(2, 20))



channels = ['name = "ladder"\nmode = "ultra"\n' + TEST_LADDER, 'name = "one"\nmode = "ultra"\nkind = "transmux"',
            'name = "two"\nmode = "low"\nkind = "transmux"']
samples, workers = [], []
with Daemon(channels) as daemon, push(clip_540(), daemon.url("ladder")), push(clip_720(), daemon.url("one")), \
        push(clip_720(), daemon.url("two")):
    viewers = [threading.Thread(target=come_and_go, args=(daemon, n), daemon=True) for n in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    start = time.monotonic()
    while time.monotonic() < start + TO + 30:
        time.sleep(2)
        at = time.monotonic() - start
        samples.append((at, rss([daemon.pid]) / 2**20))
        workers.append((at, rss(children(daemon.pid)) / 2**20))
    stop.set()
    for viewer in viewers:
        viewer.join(30)


def around(series, at):
    return median([mib for t, mib in series if at - 30 <= t <= at + 30])


early, late = around(samples, FROM), around(samples, TO)
growth = late / early - 1
print(f"## Memory from minute {FROM // 60} to {TO // 60}\n")
print("Three channels on air (a ladder of three, two transmux of 4 Mb/s), "
      f"{VIEWERS} viewers at a time, {watched[0]} visits of 2 to 20 s. Medians of a minute.\n")
print("| process | early MiB | late MiB | growth | aim |\n|---|---|---|---|---|")
print(f"| rung serve | {early:.1f} | {late:.1f} | {growth * 100:+.1f} % | <= 2 % {verdict(growth <= 0.02)} |")
before, after = around(workers, FROM), around(workers, TO)
print(f"| rung-worker | {before:.1f} | {after:.1f} | {(after / before - 1) * 100:+.1f} % | <= 2 % "
      f"{verdict(after / before <= 1.02)} |")
minutes = [f"{around(samples, at):.0f}" for at in range(60, TO + 1, 60 if SHORT else 300)]
print(f"\nrung serve over time, MiB: {', '.join(minutes)}; largest {max(m for _, m in samples):.1f}.")
