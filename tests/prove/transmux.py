#!/usr/bin/env python3
"""Ten transmux channels of 4 Mb/s 720p against ten `ffmpeg -c copy -f hls`, each over SRT, one after the other."""
import os
import shutil
import time
from figures import *

CHANNELS = 10
# The window (15 segments of 2 s) and what stays available behind it for as long again [HLS 6.2.2] are full before the
# measuring starts.
FILL, MEASURE = (70, 15) if SHORT else (75, 30)
LISTED_SECONDS, HELD_SECONDS = 30, 62


def measure(pids, name):
    time.sleep(FILL)
    begin, start = cpu(pids), time.monotonic()
    time.sleep(MEASURE)
    per_second = (cpu(pids) - begin) / (time.monotonic() - start)
    memory = rss(pids) / 2**20
    say(f"{name}: {per_second:.4f} CPU-s/s, {memory:.0f} MiB, load {os.getloadavg()[0]:.1f}")
    return per_second, memory


def ours(clip):
    names = [f"ch-{n + 1}" for n in range(CHANNELS)]
    with Daemon([f'name = "{n}"\nkind = "transmux"\nmode = "ultra"' for n in names]) as daemon:
        with push(clip, daemon.url("ch-{n}"), "--streams", str(CHANNELS)):
            client = Client(daemon.http)
            for name in names:
                wait_for(lambda: client.text(f"/live/{name}/index.m3u8"), 30, f"channel {name}")
            got = measure([daemon.pid], "rung")
            alive = sum("#EXT-X-PART:" in client.text(f"/live/{n}/source.m3u8") for n in names)
            if alive != CHANNELS:
                raise SystemExit(f"only {alive} channels were on air at the end")
            return got


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
        return measure([p.pid for p in listeners], "ffmpeg")
    finally:
        for process in pushers + listeners:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


clip_path = clip_720()
ours_cpu, ours_rss = ours(clip_path)
peer_cpu, peer_rss = peers(clip_path)
per_second = os.path.getsize(clip_path) / 20 * CHANNELS / 2**20
media, listed = per_second * HELD_SECONDS, per_second * LISTED_SECONDS
print("## Ten transmux channels, 720p 4 Mb/s, SRT in, LL-HLS out\n")
print(f"Steady state over {MEASURE} s; ffmpeg writes plain HLS (no parts) to memory-backed files.\n")
print("| | CPU-s per second | x of ffmpeg | aim | RSS MiB | aim |\n|---|---|---|---|---|---|")
print(f"| rung serve, one process | {ours_cpu:.4f} | {ours_cpu / peer_cpu:.2f} | <= 0.085 {verdict(ours_cpu <= 0.085)} | "
      f"{ours_rss:.0f} | <= {media * 1.3:.0f} {verdict(ours_rss <= media * 1.3)} |")
print(f"| ten ffmpeg -c copy -f hls | {peer_cpu:.4f} | 1.00 | - | {peer_rss:.0f} + {listed:.0f} of files | - |")
print(f"\nThe aim for memory is the media held plus 30 %: {HELD_SECONDS} s are held, {media:.0f} MiB; half of it is listed, "
      f"the other half left the playlist no longer ago than its length [HLS 6.2.2]. RSS / media held: {ours_rss / media:.2f}.")
