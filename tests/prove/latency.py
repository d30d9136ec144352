#!/usr/bin/env python3
"""Start-up of a session, and true glass-to-glass latency in Chromium with hls.js, by the clock burnt into the picture."""
import json
import re
import subprocess
import threading
import time
from figures import *

TRIES = 3 if SHORT else 5
SRT_LATENCY = 0.12
# Mode, seconds listed before the viewer comes (at a session's very start players sit closer), seconds watched, promise.
GLASS = [("ultra", 4, 60 if SHORT else 600, (2, 4)), ("low", 14, 30 if SHORT else 60, (8, 10)),
         ("normal", 36, 40 if SHORT else 90, (20, 30))]


def publish(daemon, channel, file):
    """A publisher, and the moment at which it was on air."""
    process = Process([RUNG, "push", "--loop", file, daemon.url(channel)], stdout=subprocess.PIPE, text=True)
    for line in process.child.stdout:
        if "on air" in line:
            moment = time.monotonic()
            # The rest is read so that it never blocks.
            threading.Thread(target=process.child.stdout.read, daemon=True).start()
            return process, moment
    raise SystemExit("the publisher was refused")


def first_parts(client, channel, names, moment, old):
    """Seconds until each playlist listed a part of a session other than `old`; and that session."""
    found, session = {}, None
    while len(found) < len(names):
        for name in names:
            if name in found:
                continue
            match = re.search(r'EXT-X-PART:.*URI="(se_\w+)/', client.text(f"/live/{channel}/{name}.m3u8"))
            if match and match[1] != old:
                found[name], session = time.monotonic() - moment, match[1]
        if time.monotonic() > moment + 20:
            raise SystemExit(f"no part of {channel} within 20 s: {found}")
        time.sleep(0.004)
    return found, session


def start_up():
    """{what: [seconds from on air until every rendition listed a part]} for first and later sessions."""
    ladder, source = clip_540(), clip_720()
    channels = [('name = "ladder"\nmode = "ultra"\n' + TEST_LADDER), 'name = "source"\nmode = "ultra"\nkind = "transmux"']
    rows = []
    with Daemon(channels) as daemon:
        for channel, file, names in [("ladder", ladder, ["540p", "360p", "216p", "a-und-1"]),
                                     ("source", source, ["source", "a-und-1"])]:
            client, old, times = Client(daemon.http), None, []
            for _ in range(1 + TRIES):
                publisher, moment = publish(daemon, channel, file)
                found, old = first_parts(client, channel, names, moment, old)
                times.append((min(found.values()), max(found.values())))
                publisher.stop()
                wait_for(lambda: "ENDLIST" in client.text(f"/live/{channel}/{names[0]}.m3u8"), 30, "the session's end")
            rows.append((channel, times[0], [median(t[i] for t in times[1:]) for i in (0, 1)]))
            say(f"{channel}: {times}")
    return rows


def watch(mode, listed, seconds):
    """What headless Chromium saw of the demo."""
    with Daemon(demo=["--mode", mode]) as daemon:
        client = Client(daemon.http)
        names = wait_for(lambda: renditions(client, "demo")[0], 60, "the demo's ladder")
        playlist = lambda: client.text(f"/live/demo/{names[0]}.m3u8")
        wait_for(lambda: sum(map(float, re.findall(r"#EXTINF:([\d.]+)", playlist()))) >= listed, 90, "a window", 0.5)
        script = os.path.join(ROOT, "tests", "browser", "run.mjs")
        command = ["node", script, "--url", f"http://127.0.0.1:{daemon.http}/watch/demo", "--seconds", str(seconds),
                   "--start", "90"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 240)
        if output.returncode != 0:
            raise SystemExit(output.stderr)
        return json.loads(output.stdout), daemon.said[0]


print("## Latency\n")
print("Start-up: seconds from the publisher's connection until a part is listed. The first IDR is given to the demuxer "
      f"{SRT_LATENCY:.2f} s (SRT's latency) after the connection at the earliest; that much is taken off. Later sessions "
      f"find the channel's stored source profile; median of {TRIES}.\n")
print("| channel | first session: any / all renditions | later sessions: any / all | aim |\n|---|---|---|---|")
for channel, first, later in start_up():
    first, later = [t - SRT_LATENCY for t in first], [t - SRT_LATENCY for t in later]
    print(f"| {channel} (`ultra`) | {first[0]:.2f} / {first[1]:.2f} s | {later[0]:.2f} / {later[1]:.2f} s | <= 0.90 "
          f"{verdict(later[0] <= 0.9)} |")
print("\nTrue glass-to-glass in Chromium with hls.js, from drawing to the screen, by the picture's own clock:\n")
print("| mode | watched s | median | p95 | largest | aim | stalls | fatal errors | frames not read | first picture ms |")
print("|---|---|---|---|---|---|---|---|---|---|")
found = []
for mode, listed, seconds, (low, high) in GLASS:
    report, what = watch(mode, listed, seconds)
    say(f"{mode}: {json.dumps(report)[:1500]}")
    glass, frames = report["glass_to_glass"], report["frames"]
    aim, held = ("<= 3.0", glass["p50"] <= 3.0) if mode == "ultra" else (f"{low}-{high}", low <= glass["p50"] <= high)
    found.append((f"true latency in a browser, `{mode}`, median", f"{low}-{high} s promised", f"{aim} s", f"{glass['p50']:.2f} s", held))
    calm = report["stalls"] == 0 and report["fatal"] == 0
    print(f"| {mode} | {seconds} | {glass['p50']:.2f} | {glass['p95']:.2f} | {glass['max']:.2f} | {aim} {verdict(held)} | "
          f"{report['stalls']} {verdict(calm)} | {report['fatal']} | {frames['unread']} of {frames['seen']} | "
          f"{report['first_frame_ms']} |")
print(f"\n{what}.")
for goals in found:
    goal(*goals)
