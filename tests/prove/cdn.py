#!/usr/bin/env python3
"""Viewers through caching proxies with the recipes of docs/cdn.md: what the origin is asked, and how late parts are.
RUNG_CDN_VIEWERS and RUNG_CDN_SECONDS: how many and how long;
RUNG_CDN_ONLY: nginx, varnish."""
from edges import *

COUNT = int(os.environ.get("RUNG_CDN_VIEWERS", 300 if SHORT else 2000))
SECONDS = int(os.environ.get("RUNG_CDN_SECONDS", 10 if SHORT else 60))
CORES = os.cpu_count() or 1


def through(name, make):
    with Daemon([LIVE]) as daemon, on_air(daemon):
        tap = Tap(daemon.http)
        with make(tap.port) as edge:
            arguments = [f"127.0.0.1:{edge.port}", "live", "--origin", f"127.0.0.1:{daemon.http}", "--viewers", COUNT, "--ramp",
                         max(5, COUNT / 100), "--seconds", SECONDS]
            origin, own = cpu([daemon.pid]), cpu(edge.pids)
            report = viewers("watch", *arguments)
            origin, own = cpu([daemon.pid]) - origin, cpu(edge.pids) - own
        counts = tap.counts()
    say(f"{name}: {json.dumps(report)}")
    parts, versions, plain = asked(counts, r"\.m4s"), asked(counts, "_HLS_msn"), asked(counts, r"\.m3u8$")
    late, lists = report["parts"], report["playlists"]
    most = max(parts + versions)
    errors = ", ".join(f"{k} x{v}" for k, v in report["errors"].items()) or "none"
    flaws = [f"{report[k]} {k}" for k in ("missed", "different", "without") if report[k]]
    # Two tracks of 2.5 parts a second each; nginx looks for what it waits for each half second.
    share = late["count"] / (COUNT * 2 * 2.5 * SECONDS)
    flaws += [f"**only {share:.0%} of the parts**"] * (share < 0.85) + ["**parts late beyond 1.5 s**"] * (late["p99"] > 1500)
    print(f"| {name} | {len(parts)}: {sum(parts) / len(parts):.3f}, {max(parts)} | {len(versions)}: {sum(versions) / len(versions):.3f}, "
          f"{max(versions)} | <= 1 {verdict(most <= 1)} | {sum(plain)} | {late['p50']:.0f} / {late['p99']:.0f} / {late['max']:.0f} ms | "
          f"{lists['p50']:.0f} / {lists['p99']:.0f} ms | {report['bytes'] * 8 / SECONDS / 1e6:.0f} | {own:.1f}, {origin:.1f} | "
          f"{report['own_load']:.2f} | {'; '.join([errors] + flaws)} |", flush=True)


print(f"## {COUNT} viewers of one channel through a cache\n")
print(f"Each viewer follows 640x360 at 600 kb/s and its sound at `ultra` on four kept connections, as a player that uses preload "
      f"hints: {SECONDS} s after all have come. Requests are counted by a relay in front of the origin. Late: from the first byte that "
      "anybody has of a part (a witness at the origin among them) to the last byte at a viewer. Everything shares "
      f"{CORES} cores.\n")
print("| cache | parts asked at the origin: each, most | playlist versions: each, most | aim | plain playlists (each viewer asks for "
      "two as it comes) | part late p50 / p99 / largest | version late p50 / p99 | Mb/s | CPU-s of the cache, of Rung | load of the "
      "viewers | errors |")
print("|---|---|---|---|---|---|---|---|---|---|---|")
ONLY = os.environ.get("RUNG_CDN_ONLY", "nginx varnish").split()
if "nginx" in ONLY:
    through("nginx, one worker", caching_nginx)
    through("nginx, two workers", lambda port: caching_nginx(port, 2))
if "varnish" in ONLY:
    through("Varnish", Varnish)
print("\nnginx looks every 500 ms whether what it waits for is there (`proxy_cache_lock`), which no directive changes: hence its p50 and "
      "p99. Varnish and Fastly wake whoever waits.")
