#!/usr/bin/env python3
"""The daemon killed, and stopped, under publishers that reconnect: how soon viewers see the slate, and the source, again."""
import json
import os
import re
import signal
import subprocess
import time
from figures import *

ROUNDS = 2 if SHORT else 5
CHANNELS = [('ladder', 'transcode'), ('both', 'hybrid'), ('source', 'transmux')]


def edge(text):
    """Number of the last media part that is listed and can be had; None without one."""
    parts = [line for line in text.splitlines() if line.startswith("#EXT-X-PART:") and "GAP" not in line]
    match = re.search(r"/p(\d+)\.(\d+)\.m4s", parts[-1]) if parts else None
    return (int(match[1]), int(match[2])) if match else None


def sessions(client):
    status = json.loads(client.text("/status.json"))
    return {c["name"]: (c["session"], c["state"]) for c in status["channels"]}


def browser(daemon, seconds):
    script = os.path.join(os.path.dirname(__file__), "..", "browser", "run.mjs")
    url = f"http://127.0.0.1:{daemon.http}/watch/ladder"
    return subprocess.Popen(["node", script, "--url", url, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)


def again(daemon):
    """Another process at the same addresses; seconds until it is ready."""
    file = os.path.join(daemon.folder.name, "rung.toml")
    text = open(file).read()
    for port in (daemon.srt, daemon.http):
        text = text.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)
    with open(file, "w") as config:
        config.write(text)
    began = time.monotonic()
    with open(daemon.log, "a") as log:
        daemon.child = subprocess.Popen(
            [RUNG, "serve", "--config", file], stdout=subprocess.PIPE, stderr=log, text=True, cwd=daemon.folder.name)
    for line in daemon.child.stdout:
        if line.strip() == "ready":
            return time.monotonic() - began
    raise SystemExit(open(daemon.log).read())


def one(daemon, how):
    client = Client(daemon.http)
    wait_for(lambda: all(state == "live" for _, state in sessions(client).values()), 40, "all channels to be live")
    before, last = sessions(client), edge(client.text("/live/ladder/360p.m3u8"))
    client.close()
    daemon.child.send_signal(how)
    daemon.child.wait()
    ready = again(daemon)
    since, client = time.monotonic(), Client(daemon.http)

    def slate():
        found = edge(client.text("/live/ladder/360p.m3u8"))
        return found and found > last

    wait_for(slate, 10, "the slate")
    slate_after = time.monotonic() - since
    wait_for(lambda: all(state == "live" for _, state in sessions(client).values()), 40, "every source to be back")
    back = time.monotonic() - since
    same = {name: session for name, (session, _) in sessions(client).items()} == {
        name: session for name, (session, _) in before.items()}
    client.close()
    return ready, slate_after, back, same


tables = [f'name = "{name}"\nkind = "{kind}"\nend_on_eos = false\npreset = "ultrafast"\n'
          + ("" if kind == "transmux" else 'ladder = [{ name = "360p", height = 360, bitrate = 800000 }]\n')
          for name, kind in CHANNELS]
print("## Restart\n")
print(f"{len(CHANNELS)} channels (ladder, both, source untouched) whose publishers reconnect by themselves; {ROUNDS} times each.\n")
print("| how | ready after s | slate s after ready: median, largest | all sources live again | same session, numbers go on | aim |")
print("|---|---|---|---|---|---|")
with Daemon(tables) as daemon:
    file = clip_720()
    publishers = [push(file, daemon.url(name)) for name, _ in CHANNELS]
    wait_for(lambda: "EXT-X-PART:" in Client(daemon.http).text("/live/ladder/360p.m3u8"), 30, "the ladder")
    time.sleep(3)
    viewer = browser(daemon, 20 * ROUNDS * 2)
    for name, how in (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        rounds = []
        for _ in range(ROUNDS):
            time.sleep(5)
            rounds.append(one(daemon, how))
        ready, slate_after, back, same = zip(*rounds)
        held = verdict(max(slate_after) <= 2.0)
        print(f"| {name} | {median(ready):.2f} | {median(slate_after):.2f}, {max(slate_after):.2f} | {median(back):.1f} s | "
              f"{sum(same)} of {ROUNDS} | slate <= 2 s {held} |")
    report = json.loads(viewer.communicate(timeout=400)[0])
    print(f"\nA browser on the ladder meanwhile ({report['seconds'] if 'seconds' in report else 20 * ROUNDS * 2} s): "
          f"{report['fatal']} fatal errors, {report['starts']} player starts, {report['stalls']} stalls, "
          f"{report['stalled_ms'] / 1000:.1f} s in all for {2 * ROUNDS} restarts.")
    for publisher in publishers:
        publisher.stop()
