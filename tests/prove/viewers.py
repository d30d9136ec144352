#!/usr/bin/env python3
"""Rung and nginx with the same bytes as files: requests, CPU, blocked requests, live viewers. RUNG_VIEWERS_SECONDS: each step;
RUNG_VIEWERS_ONLY: nginx, blocked, live."""
import gzip
from edges import *

SECONDS = int(os.environ.get("RUNG_VIEWERS_SECONDS", 4 if SHORT else 15))
ROUNDS = 1 if SHORT else 3
CONNECTIONS = 32
STEPS = [100, 300] if SHORT else [250, 500, 750, 1000, 1500, 2000, 3000, 4000]
BLOCKED = [1000] if SHORT else [1000, 5000]
STATIC = """
sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000; access_log off; gzip_static on;
open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s; etag on;
server { listen 127.0.0.1:PORT backlog=4096; root @FOLDER@/www; add_header Cache-Control "public, max-age=86400, immutable"; }
"""


def put(file, body):
    """Another file, not other bytes in it: nginx keeps it open."""
    with open(file + ".part", "wb") as f:
        f.write(body)
    os.replace(file + ".part", file)


def mirror(client, channel, folder):
    """The parts and the playlist of now as files; (their paths, the playlist's)."""
    playlist = f"/live/{channel}/source.m3u8"
    text = client.text(playlist)
    parts = [f"/live/{channel}/{u}" for u in re.findall(r'#EXT-X-PART:[^\n]*URI="([^"]+)"', text)][-10:]
    for path in parts + [playlist]:
        file = os.path.join(folder, "www") + path
        os.makedirs(os.path.dirname(file), exist_ok=True)
        body = client.get(path)[1] if path in parts else text.encode()
        put(file, body)
        if path.endswith(".m3u8"):
            put(file + ".gz", gzip.compress(body, 6))
    return parts, playlist


def measure(what, port, pids, paths, idle, more=()):
    begin, since = cpu(pids), time.monotonic()
    got = viewers("ask", f"127.0.0.1:{port}", *paths, "--connections", CONNECTIONS, "--seconds", SECONDS, *more)
    used = max(cpu(pids) - begin - idle * (time.monotonic() - since), 0.01)
    if got["failed"] or set(got["statuses"]) != {"200"}:
        raise SystemExit(f"{what}: {got}")
    say(f"{what}: {got['requests'] / got['seconds']:.0f}/s, {used / got['requests'] * 1e6:.1f} us, own load {got['own_load']:.2f}")
    return got["requests"] / got["seconds"], used / got["requests"] * 1000, got["bytes"] / got["requests"], got["took"]["p99"]


def beside_nginx():
    print(f"### Requests, beside nginx with the same bytes as files\n\n{CONNECTIONS} kept connections ask one thing after the other for "
          f"{SECONDS} s, median of {ROUNDS}; CPU is the server's alone, the channel's own cost is taken off. nginx: one worker, sendfile, "
          "open_file_cache, gzip_static, no access log, files in memory.\n")
    print("| | mean bytes | Rung: a second, CPU-s per 1,000, p99 | nginx: a second, CPU-s per 1,000, p99 | CPU, x of nginx | requests a CPU-second, x of nginx | aim |")
    print("|---|---|---|---|---|---|---|")
    large = LIVE.replace('"live"', '"large"')
    with Daemon([LIVE, large]) as daemon, push(clip_720(), daemon.url("large")), on_air(daemon):
        client, port = Client(daemon.http), free_port()
        with Nginx(STATIC.replace("PORT", str(port)), port) as nginx:
            begin = cpu([daemon.pid])
            time.sleep(SECONDS)
            idle = (cpu([daemon.pid]) - begin) / SECONDS
            kinds = [("parts of 0.6 Mb/s", "live", (), 1.0), ("parts of 4 Mb/s", "large", (), 1.0), ("playlist", "live", (), 0.7),
                     ("playlist, gzip", "live", ("--gzip",), 0.7)]
            for kind, channel, more, aim in kinds:
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    # Those that are in the window now: a round is over before they leave it.
                    parts, playlist = mirror(client, channel, nginx.folder.name)
                    paths = parts if "parts" in kind else [playlist]
                    ours.append(measure(f"rung {kind}", daemon.http, [daemon.pid], paths, idle, more))
                    theirs.append(measure(f"nginx {kind}", port, nginx.pids, paths, 0, more))
                best = lambda all_: sorted(all_, key=lambda one: one[1])[len(all_) // 2]
                us, them = best(ours), best(theirs)
                ratio = them[1] / us[1]
                goals.append((f"LL-HLS, {kind}: requests per CPU-second", "nginx, the same bytes as files", f">= {aim} x", f"{ratio:.2f} x", ratio >= aim))
                print(f"| {kind} | {us[2]:.0f} | {us[0]:.0f}, {us[1]:.4f}, {us[3]:.1f} ms | {them[0]:.0f}, {them[1]:.4f}, {them[3]:.1f} ms | "
                      f"{1 / ratio:.2f} | {ratio:.2f} | >= {aim} {verdict(ratio >= aim)} |", flush=True)


def blocked():
    print("\n### Memory of requests that wait\n\nEach waits on its own connection for a version of the playlist that is two segments away.\n")
    print("| waiting | resident before, then | per 1,000 | failed |\n|---|---|---|---|")
    for count in BLOCKED:
        with Daemon([LIVE]) as daemon, on_air(daemon):
            # What is held of the session is full by then: growth is that of the requests.
            time.sleep(5 if SHORT else 70)
            before = rss([daemon.pid])
            command = [VIEWERS, "block", f"127.0.0.1:{daemon.http}", "/live/live/source.m3u8", "--requests", str(count), "--seconds",
                       str(max(10, SECONDS))]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            child.stderr.readline()
            waiting = lambda: re.search(r"^rung_http_blocked_requests\S* (\d+)", Client(daemon.metrics).text("/metrics"), re.M)
            wait_for(lambda: waiting() and int(waiting()[1]) >= count * 0.95, 30, "all requests to wait", 0.1)
            sizes = []
            for _ in range(20):
                sizes.append(rss([daemon.pid]))
                time.sleep(0.25)
            report = json.loads(child.communicate(timeout=120)[0])
        then = max(sizes)
        print(f"| {count} | {before / 2**20:.0f} MiB, {then / 2**20:.0f} MiB | {(then - before) / 2**20 / count * 1000:.1f} MiB | "
              f"{report['failed']} |", flush=True)


def live(more, name):
    """The largest number of viewers whose parts are at most 0.1 s late, nearly always; rows of all that were tried."""
    largest = 0
    for count in STEPS:
        with Daemon([LIVE]) as daemon, on_air(daemon):
            begin = cpu([daemon.pid])
            got = viewers("watch", f"127.0.0.1:{daemon.http}", "live", "--viewers", count, "--ramp", max(3, count / 200), "--seconds", SECONDS,
                          *more)
            used = cpu([daemon.pid]) - begin
        say(f"{count} {name}: {json.dumps(got)}")
        late = got["parts"]
        flawless = not got["errors"] and not any(got[k] for k in ("missed", "different", "without"))
        held = late["p99"] < 100 and flawless
        largest = count if held else largest
        if count == 1000:
            goals.append((f"fan-out of a part to 1,000 viewers ({name}), p99", "-", "<= 20 ms", f"{late['p99']:.0f} ms", late["p99"] <= 20))
        print(f"| {count} | {name} | {late['count'] / SECONDS + got['playlists']['count'] / SECONDS:.0f} | {got['bytes'] * 8 / SECONDS / 1e6:.0f} | "
              f"{late['p50']:.0f} / {late['p99']:.0f} / {late['max']:.0f} ms | {got['playlists']['p99']:.0f} ms | "
              f"{used / (SECONDS + max(3, count / 200)):.2f} | {got['own_load']:.2f} | {'none' if flawless else json.dumps(got['errors'])} |", flush=True)
        if late["p99"] > 400:
            break
    return largest


goals = []
ONLY = os.environ.get("RUNG_VIEWERS_ONLY", "nginx blocked live").split()
print(f"## Viewers\n\nServer and viewers share {os.cpu_count()} cores; the viewers' process has one thread.\n")
if "nginx" in ONLY:
    beside_nginx()
if "blocked" in ONLY:
    blocked()
if "live" in ONLY:
    print("\n### Live viewers of one channel, directly\n\n640x360 at 600 kb/s, `ultra`; of each track one connection waits for the next version of "
          "the playlist, one for the hinted part. Late: from the first byte that anybody has of a part to the last at a viewer.\n")
    print("| viewers | of | answers a second | Mb/s | part late p50 / p99 / largest | version late p99 | CPU-s/s of Rung | of the viewers | errors |")
    print("|---|---|---|---|---|---|---|---|---|")
    both = live((), "picture and sound")
    single = live(("--silent",), "picture")
    print(f"\nThe most that had 99 % of their parts within 100 ms: {both} with picture and sound, {single} with the picture alone.")
for found in goals:
    goal(*found)
