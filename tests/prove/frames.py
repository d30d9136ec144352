#!/usr/bin/env python3
"""Frame accuracy: every frame's burnt-in counter read from the published segments of all renditions; lip sync."""
import array
import re
import struct
import subprocess
import tempfile
import threading
import time
from figures import *

SECONDS = 60 if SHORT else 600
RATE = 25
# The foot of the picture as 34 x 2 mean values: clock strip above, counter strip below.
STRIPS = "crop=iw:ih/6:0:ih*10/12,scale=34:2:flags=area,format=gray"


def crc8(value):
    crc = 0
    for byte in value.to_bytes(3, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1 & 0xFF
    return crc


def strip(row):
    """The 24-bit value of 34 blocks, or None."""
    white, black = row[0], row[1]
    if white - black < 60:
        return None
    bits = 0
    for level in row[2:]:
        bits = bits << 1 | (level > (white + black) / 2)
    return bits >> 8 if crc8(bits >> 8) == bits & 0xFF else None


def boxes(data, at=0, end=None):
    end = len(data) if end is None else end
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, at + size
        at += size


def tfdt(segment):
    """Decode time of a segment's first sample."""
    for kind, start, end in boxes(segment):
        if kind == b"moof":
            for inner, start, end in boxes(segment, start, end):
                if inner == b"traf":
                    for leaf, at, _ in boxes(segment, start, end):
                        if leaf == b"tfdt":
                            return struct.unpack_from(">Q" if segment[at] else ">I", segment, at + 4)[0]
    raise SystemExit("a segment without a decode time")


class Track(threading.Thread):
    """Follows one media playlist and writes init section and segments to a decoder."""

    def __init__(self, port, channel, name, until, decode):
        super().__init__(daemon=True)
        self.client, self.path, self.until = Client(port), f"/live/{channel}/{name}.m3u8", until
        self.name, self.first, self.problems, self.segments = name, None, [], 0
        self.out = tempfile.TemporaryFile()
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", "-", *decode, "-"]
        self.decoder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out)

    def run(self):
        seen, init = None, None
        while time.monotonic() < self.until:
            text = self.client.text(self.path)
            number = int(re.search(r"MEDIA-SEQUENCE:(\d+)", text)[1])
            if init is None:
                init = re.search(r'EXT-X-MAP:URI="([^"]+)"', text)[1]
                self.decoder.stdin.write(self.fetch(init))
            elif init not in text:
                self.problems.append("another init section")
            uris = [u for u in re.findall(r"^(?!#)(\S+)$", text, re.M)]
            for n, uri in enumerate(uris, number):
                # A listener joins at the edge; what was listed before it came is not its business.
                if seen is None and n < number + len(uris) - 1:
                    continue
                if seen is not None and n <= seen:
                    continue
                if seen is not None and n != seen + 1:
                    self.problems.append(f"segment {n} after {seen}")
                seen, data = n, self.fetch(uri)
                if self.first is None:
                    self.first = tfdt(data)
                self.decoder.stdin.write(data)
                self.segments += 1
            time.sleep(0.5)
        self.decoder.stdin.close()
        if self.decoder.wait() != 0:
            self.problems.append("ffmpeg failed")

    def fetch(self, uri):
        path = uri if uri.startswith("/") else self.path.rsplit("/", 1)[0] + "/" + uri
        status, body = self.client.get(path)
        if status != 200:
            self.problems.append(f"{uri}: {status}")
        return body

    def bytes(self):
        self.out.seek(0)
        return self.out.read()


def judge(track):
    """(frames, missing, doubled, out of order, unreadable, first counter)"""
    raw = track.bytes()
    missing = doubled = disorder = unread = 0
    first = last = None
    for at in range(0, len(raw), 68):
        value = strip(raw[at + 34:at + 68])
        if value is None:
            unread += 1
            last = None if last is None else last + 1
            continue
        first = value if first is None else first
        if last is not None:
            doubled += value == last
            disorder += value < last
            missing += max(0, value - last - 1)
        last = value
    return len(raw) // 68, missing, doubled, disorder, unread, first


def beeps(track):
    """Sample indices at which the loud 1 kHz beep begins."""
    samples = array.array("f", track.bytes())
    found, n = [], 24_000
    while n < len(samples):
        if abs(samples[n]) > 0.15:
            # Into a beep that was under way one does not count.
            if max(abs(s) for s in samples[n - 480:n]) < 0.15:
                found.append(n)
            n += 43_000
        else:
            n += 1
    return found


with Daemon(demo=["--mode", "ultra"]) as daemon:
    client = Client(daemon.http)
    wait_for(lambda: len(renditions(client, "demo")[0]) == 3, 30, "the demo's ladder")
    video, audio = renditions(client, "demo")
    wait_for(lambda: "#EXTINF" in client.text(f"/live/demo/{video[0]}.m3u8"), 30, "a segment")
    until = time.monotonic() + SECONDS
    passthrough = ["-fps_mode", "passthrough"]
    tracks = [Track(daemon.http, "demo", v, until, ["-vf", STRIPS, *passthrough, "-f", "rawvideo"]) for v in video]
    sound = Track(daemon.http, "demo", audio[0], until, ["-f", "f32le", "-ac", "1"])
    for track in [*tracks, sound]:
        track.start()
    for track in [*tracks, sound]:
        track.join()

print(f"## Frame accuracy over {SECONDS} s (test picture, ladder {' '.join(video)}, 25 fps)\n")
print("| rendition | segments | frames | missing | doubled | out of order | unreadable | trouble |")
print("|---|---|---|---|---|---|---|---|")
whole = True
for track in tracks:
    frames, missing, doubled, disorder, unread, first = judge(track)
    whole &= not (missing or doubled or disorder or unread or track.problems) and frames >= (SECONDS - 8) * RATE
    print(f"| {track.name} | {track.segments} | {frames} | {missing} | {doubled} | {disorder} | {unread} | "
          f"{'; '.join(track.problems) or 'none'} |")
print(f"\nNo frame missing, doubled or out of order: {verdict(whole)}.\n")
# By the last rendition's clock. The picture flashes in every frame whose counter is a multiple of the rate; the beep begins with the same second.
origin = tracks[-1].first / (RATE * 1000) - first / RATE
offsets = []
for sample in beeps(sound):
    at = sound.first / 48_000 + sample / 48_000 - origin
    offsets.append((at - round(at)) * 1000)
worst = max(offsets, key=abs)
print(f"A/V offset, beep against flash, {len(offsets)} beeps: median {median(offsets):+.1f} ms, worst {worst:+.1f} ms; "
      f"aim 20 ms {verdict(abs(worst) <= 20 and len(offsets) > SECONDS / 2)}. "
      f"Sound trouble: {'; '.join(sound.problems) or 'none'}.")
