#!/usr/bin/env python3
"""What a request costs the daemon: a swarm of kept connections on loopback asks for parts and playlists of a live channel."""
import re
import threading
import time
from figures import *

SECONDS, CONNECTIONS = (5, 4) if SHORT else (15, 8)


def swarm(daemon, paths):
    """(requests, bytes, CPU-seconds of the daemon beyond its idle load)"""
    counts, stop = [], time.monotonic() + SECONDS

    def ask():
        client, asked, size = Client(daemon.http), 0, 0
        while time.monotonic() < stop:
            status, body = client.get(paths[asked % len(paths)])
            if status != 200:
                raise SystemExit(f"{paths[asked % len(paths)]}: {status}")
            asked, size = asked + 1, size + len(body)
        counts.append((asked, size))

    begin = cpu([daemon.pid])
    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(n for n, _ in counts), sum(b for _, b in counts), cpu([daemon.pid]) - begin


with Daemon(['name = "one"\nmode = "ultra"\nkind = "transmux"']) as daemon, push(clip_720(), daemon.url("one")):
    client = Client(daemon.http)
    wait_for(lambda: client.text("/live/one/source.m3u8").count("#EXTINF") > 8, 60, "a window")
    begin = cpu([daemon.pid])
    time.sleep(SECONDS)
    idle = cpu([daemon.pid]) - begin
    rows = []
    for what in ("parts", "playlists"):
        text = client.text("/live/one/source.m3u8")
        parts = [f"/live/one/{u}" for u in re.findall(r'#EXT-X-PART:[^\n]*URI="([^"]+)"', text)]
        asked, size, used = swarm(daemon, parts[-10:] if what == "parts" else ["/live/one/source.m3u8"])
        rows.append((what, asked, size, max(used - idle, 0.01)))
print("## Serving, HTTP/1.1 on loopback\n")
print(f"{CONNECTIONS} connections for {SECONDS} s; the channel's own cost ({idle / SECONDS:.4f} CPU-s/s) is taken off.\n")
print("| | requests | mean bytes | requests per CPU-second | us per request |\n|---|---|---|---|---|")
for what, asked, size, used in rows:
    print(f"| {what} | {asked} | {size // asked} | {asked / used:.0f} | {used / asked * 1e6:.1f} |")
