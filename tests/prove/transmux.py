#!/usr/bin/env python3
"""Ten transmux channels of 4 Mb/s 720p against ten `ffmpeg -c copy -f hls`, each over SRT, one after the other; then a hundred.

RUNG_TRANSMUX_SECONDS: how long Rung is measured (600).
"""
import os
import re
import shutil
import time
from figures import *

CHANNELS, MANY = 10, 100
# The window (15 segments of 2 s) and what stays available behind it for as long again [HLS 6.2.2] are full before the
# measuring starts.
FILL, MEASURE, PEER = (70, 15, 15) if SHORT else (75, int(os.environ.get("RUNG_TRANSMUX_SECONDS", 600)), 30)
LISTED_SECONDS, HELD_SECONDS = 30, 62


def measure(pids, name, seconds):
    time.sleep(FILL)
    begin, start = cpu(pids), time.monotonic()
    time.sleep(seconds)
    per_second = (cpu(pids) - begin) / (time.monotonic() - start)
    memory = rss(pids) / 2**20
    say(f"{name}: {per_second:.4f} CPU-s/s, {memory:.0f} MiB, load {os.getloadavg()[0]:.1f}")
    return per_second, memory


def ours(clip, channels):
    """CPU-seconds a second, MiB, and packets of the contribution links that never came."""
    names = [f"ch-{n + 1}" for n in range(channels)]
    with Daemon([f'name = "{n}"\nkind = "transmux"\nmode = "ultra"' for n in names]) as daemon:
        with push(clip, daemon.url("ch-{n}"), "--streams", str(channels)):
            client = Client(daemon.http)
            for name in names:
                wait_for(lambda: client.text(f"/live/{name}/index.m3u8"), 30, f"channel {name}")
            per_second, memory = measure([daemon.pid], f"rung, {channels}", MEASURE)
            alive = sum("#EXT-X-PART:" in client.text(f"/live/{n}/source.m3u8") for n in names)
            if alive != channels:
                raise SystemExit(f"only {alive} channels were on air at the end")
            metrics = Client(daemon.metrics).text("/metrics")
            lost = re.findall(r'^rung_ingest_lost_packets_total{.*kind="dropped".*} (\d+)', metrics, re.M)
            return per_second, memory, sum(map(int, lost))


def peers(clip):
    folder = "/dev/shm/rung-figures" if os.path.isdir("/dev/shm") else os.path.join(SCRATCH, "hls")
    shutil.rmtree(folder, ignore_errors=True)
    listeners, pushers = [], []
    try:
        for n in range(CHANNELS):
            out = os.path.join(folder, str(n))
            os.makedirs(out)
            listen = f"srt://127.0.0.1:{21000 + n}?mode=listener&latency=120000"
            command = ["ffmpeg", "-nostdin", "-v", "error", "-i", listen, "-c", "copy", "-bsf:a", "aac_adtstoasc", "-f", "hls", "-hls_time", "2",
                       "-hls_list_size", "15", "-hls_flags", "delete_segments", "-hls_segment_type", "fmp4",
                       os.path.join(out, "index.m3u8")]
            listeners.append(Process(command))
        time.sleep(1)
        pushers = [push(clip, f"srt://127.0.0.1:{21000 + n}") for n in range(CHANNELS)]
        for n in range(CHANNELS):
            wait_for(lambda: os.path.exists(f"{folder}/{n}/index.m3u8"), 30, f"ffmpeg {n}")
        return measure([p.pid for p in listeners], "ffmpeg", PEER)
    finally:
        for process in pushers + listeners:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def held(channels):
    return os.path.getsize(clip_path) / 20 * channels / 2**20 * HELD_SECONDS


def row(name, channels, got, aim):
    per_second, memory, lost = got
    most = held(channels) * 1.3
    of = f"{per_second / peer_cpu:.2f}" if channels == CHANNELS else "-"
    limit = f"<= {aim} {verdict(per_second <= aim)}" if aim else "-"
    print(f"| {name} | {per_second:.4f} | {of} | {limit} | {memory:.0f} | <= {most:.0f} {verdict(memory <= most)} | {lost} |")


clip_path = clip_720()
few, many = ours(clip_path, CHANNELS), ours(clip_path, MANY)
peer_cpu, peer_rss = peers(clip_path)
print("## Transmux channels, 720p 4 Mb/s, SRT in, LL-HLS out\n")
print(f"Steady state over {MEASURE} s (ffmpeg: {PEER} s, plain HLS without parts, into memory-backed files).\n")
print("| | CPU-s per second | x of ten ffmpeg | aim | RSS MiB | aim | packets that never came |\n|---|---|---|---|---|---|---|")
row(f"rung serve, {CHANNELS} channels", CHANNELS, few, 0.055)
row(f"rung serve, {MANY} channels", MANY, many, None)
files = held(CHANNELS) / HELD_SECONDS * LISTED_SECONDS
print(f"| {CHANNELS} ffmpeg -c copy -f hls | {peer_cpu:.4f} | 1.00 | - | {peer_rss:.0f} + {files:.0f} of files | - | - |")
print(f"\nThe aim for memory is the media held plus 30 %: {HELD_SECONDS} s are held, half of it listed, the other half left the playlist "
      f"no longer ago than its length [HLS 6.2.2]. RSS / media held: {few[1] / held(CHANNELS):.2f}, {many[1] / held(MANY):.2f}.")
goal(f"{CHANNELS} transmux channels of 4 Mb/s, CPU-seconds per second", f"{CHANNELS} ffmpeg: {peer_cpu:.3f}", "<= 0.055", f"{few[0]:.3f}", few[0] <= 0.055)
for channels, got in ((CHANNELS, few), (MANY, many)):
    goal(f"{channels} transmux channels of 4 Mb/s, resident memory", f"media held: {held(channels):.0f} MiB", "<= 1.30 x",
         f"{got[1] / held(channels):.2f} x", got[1] <= held(channels) * 1.3)
