#!/usr/bin/env python3
"""The API beside live media in one daemon with thousands of channels: what creating, listing and starting with them costs,
requests a second, the time until a session is on disk, and what media feels of it all with 1,000 event streams open and clients
that do not read."""
import multiprocessing
import resource
import selectors
import socket
import threading
import time
from figures import *

CHANNELS = int(os.environ.get("RUNG_CHANNELS", 2_000 if SHORT else 10_000))
STREAMS = 1_000
SECONDS = 3 if SHORT else 10
MEDIA_SECONDS = 20 if SHORT else 120
PUBLISHES = int(os.environ.get("RUNG_PUBLISHES", 20 if SHORT else 200))
# A token may ask 100 times a second: many of them show what the daemon can do.
TOKENS = 250
# A row of the table ends with so many answers, or channels made, if it does not end before: their rates hold, and the box is not full.
ANSWERS, CREATES = 20_000, 2_000
# Requests a second beside media; one in ten is a change, of which every stream hears.
LOAD = 200
ALL_SCOPES = ["channels:write", "sessions:read", "tokens:admin", "nodes:admin"]


class Asker:
    """One kept connection that is asked by its owner's selector: a request at a time, answers by Content-Length."""

    def __init__(self, port, next_request):
        self.next_request, self.buffer, self.outcome = next_request, b"", None
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask()

    def ask(self):
        self.begun = time.monotonic()
        self.socket.sendall(self.next_request(self))

    def heard(self):
        """(status, head, seconds) once an answer is whole."""
        got = self.socket.recv(1 << 18)
        if not got:
            raise SystemExit("the daemon closed a connection")
        self.buffer += got
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.buffer[:end]
        found = re.search(rb"(?i)content-length: (\d+)", head)
        if len(self.buffer) < end + 4 + (int(found[1]) if found else 0):
            return None
        self.buffer = b""
        return int(head[9:12]), head, time.monotonic() - self.begun


def request(method, path, token, body=None, more=""):
    text = "" if body is None else json.dumps(body)
    length = f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n" if text else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}{more}\r\n{text}".encode()


def swarm(port, connections, next_request, enough, due=(200, 201, 204)):
    """Answers' times. `enough(count, begun)` ends it."""
    select, took, begun = selectors.DefaultSelector(), [], time.monotonic()
    askers = [Asker(port, next_request) for _ in range(connections)]
    for asker in askers:
        select.register(asker.socket, selectors.EVENT_READ, asker)
    while not enough(len(took), begun):
        for key, _ in select.select(1):
            outcome = key.data.heard()
            if outcome is None:
                continue
            status, key.data.outcome, seconds = outcome
            if status not in due:
                raise SystemExit(f"an answer of {status}: {outcome[1].decode()}")
            took.append(seconds)
            key.data.ask()
    for asker in askers:
        asker.socket.close()
    return took, time.monotonic() - begun


def at(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def ms(seconds):
    return f"{seconds * 1000:.1f}"


class Turns:
    """The next token, the next name."""

    def __init__(self, tokens):
        self.tokens, self.asked, self.made = tokens, 0, 0

    def token(self):
        self.asked += 1
        return self.tokens[self.asked % len(self.tokens)]

    def create(self, _):
        self.made += 1
        return request("POST", "/v1/channels", self.token(), {"name": f"c{self.made}", "kind": "transmux"})


def make_tokens(daemon):
    """Each of them makes the next one: none asks too often."""
    tokens = [daemon.admin_token()]
    for n in range(TOKENS):
        api = Api(daemon.http, tokens[-1])
        tokens.append(api.want(201, "POST", "/v1/tokens", {"name": f"t{n}", "scopes": ALL_SCOPES})["secret"])
        api.connection.close()
    return tokens[1:]


def patcher(turns):
    """Changes to a channel of each connection's own, each for the revision that the one before made."""
    taken = iter(range(1, 1 << 30))

    def patch(asker):
        if asker.outcome is None:
            asker.channel, asker.count = f"c{next(taken)}", 0
            return request("GET", f"/v1/channels/{asker.channel}", turns.token())
        etag = re.search(rb'(?i)etag: ("\d+")', asker.outcome)[1].decode()
        asker.count += 1
        body = {"max_duration_s": 60 + asker.count % 1000}
        return request("PATCH", f"/v1/channels/{asker.channel}", turns.token(), body, f"If-Match: {etag}\r\n")

    return patch


def throughput(daemon, turns):
    """Rows of the table of requests a second."""
    kinds = [
        ("GET list, 50 of it", lambda _: request("GET", "/v1/channels", turns.token())),
        ("GET one", lambda _: request("GET", f"/v1/channels/c{1 + turns.asked % CHANNELS}", turns.token())),
        ("PATCH with If-Match", None),
        ("POST create", turns.create),
    ]
    for name, next_request in kinds:
        for connections in (1, 16):
            begin = cpu([daemon.pid])
            most = CREATES if next_request == turns.create else ANSWERS
            took, seconds = swarm(daemon.http, connections, next_request or patcher(turns),
                                  lambda count, begun: count >= most or time.monotonic() - begun > SECONDS)
            used = cpu([daemon.pid]) - begin
            yield (f"| {name} | {connections} | {len(took) / seconds:.0f} | {ms(at(took, .5))} | {ms(at(took, .99))} |"
                   f" {used / len(took) * 1e6:.0f} |")
            say(f"{name}, {connections}: {len(took) / seconds:.0f}/s")


def walk(daemon, token):
    """Every channel, 200 a page: times of the pages, and how many channels."""
    api, took, seen, cursor = Api(daemon.http, token), [], 0, ""
    while cursor is not None:
        begun = time.monotonic()
        page = api.want(200, "GET", f"/v1/channels?limit=200{cursor and '&cursor=' + cursor}")
        took.append(time.monotonic() - begun)
        seen, cursor = seen + len(page["items"]), page["next"]
    return took, seen


def publishes(daemon, file):
    """Publishers that come, one after the other, each to a channel of its own: the time from their admission to their session
    on disk, by the daemon's own histogram."""
    opened = Histogram(daemon.metrics, "rung_session_open_seconds")
    for n in range(1, PUBLISHES + 1):
        with Process([RUNG, "push", "--quiet", "--loop", file, daemon.url(f"publish{n % 20}")]):
            wait_for(lambda: opened.counted() >= n, 20, f"session {n}")
    return opened


def follow(port, tokens, streams, pipe):
    """Event streams in a process of their own. Told a marker, it answers at once, and again when the last of them has seen it:
    how long that took."""
    select, opened, heard = selectors.DefaultSelector(), 0, {}
    for n in range(streams):
        stream = socket.create_connection(("127.0.0.1", port))
        stream.sendall(request("GET", "/v1/events/stream", tokens[n % len(tokens)]))
        select.register(stream, selectors.EVENT_READ, n)
    got, size, marker, missing, asked = {n: b"" for n in range(streams)}, 0, None, set(), 0.0
    while True:
        for key, _ in select.select(0.05):
            piece = key.fileobj.recv(1 << 18)
            if not piece:
                raise SystemExit("an event stream ended")
            size += len(piece)
            text = got[key.data] + piece
            if key.data not in heard and b"retry:" in text:
                heard[key.data] = True
                if len(heard) == streams:
                    pipe.send(("open", streams))
            if marker and key.data in missing and marker in text:
                missing.discard(key.data)
                if not missing:
                    pipe.send(("heard", time.monotonic() - asked))
                    marker = None
            got[key.data] = text[-1_000:]
        while pipe.poll():
            told = pipe.recv()
            if told == "stop":
                pipe.send(("bytes", size))
                return
            marker, asked, missing = told, time.monotonic(), set(range(streams))
            pipe.send(("ready", None))


def hear(pipe, what, limit=60):
    if not pipe.poll(limit):
        raise SystemExit(f"waited {limit} s for the event streams: {what}")
    found, value = pipe.recv()
    assert found == what, found
    return value


class Hostile:
    """Clients that cost: one that asks for every event and every channel and reads nothing, one that sends a body a byte at a
    time. The daemon closes them: they come again."""

    def __init__(self, daemon, tokens):
        self.daemon, self.tokens, self.stop = daemon, tokens, threading.Event()
        self.threads = [threading.Thread(target=self.again, args=(one,), daemon=True) for one in (self.deaf, self.slow)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def again(self, one):
        while not self.stop.is_set():
            stream = socket.socket()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stream.connect(("127.0.0.1", self.daemon.http))
            try:
                one(stream)
            except OSError:
                # Closed, as it has to be.
                pass
            stream.close()

    def deaf(self, stream):
        stream.sendall(request("GET", "/v1/events/stream", self.tokens[0], more="Last-Event-ID: 0\r\n"))
        self.stop.wait(30)

    def slow(self, stream):
        head = request("POST", "/v1/channels", self.tokens[1], more="Content-Length: 100000\r\n")
        stream.sendall(head)
        while not self.stop.wait(1):
            stream.sendall(b" ")


def beside_media(daemon, turns):
    """LOAD requests a second in an even stream: nine in ten read, one changes. Their times."""
    took, statuses, api, n, begun = [], {}, {}, 0, time.monotonic()
    revisions = {}
    while time.monotonic() - begun < MEDIA_SECONDS:
        wait = begun + n / LOAD - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        token = turns.token()
        client = api.setdefault(token, Api(daemon.http, token))
        asked = time.monotonic()
        if n % 10 == 0:
            status, _, _ = client.ask("PATCH", f"/v1/channels/c{1 + n % 500}", {"max_duration_s": 60 + n % 1000})
        elif n % 10 == 5:
            status, _, _ = client.ask("GET", "/v1/channels")
        else:
            status, _, _ = client.ask("GET", f"/v1/channels/c{1 + n % CHANNELS}")
        took.append(time.monotonic() - asked)
        statuses[status] = statuses.get(status, 0) + 1
        n += 1
    if set(statuses) != {200}:
        raise SystemExit(f"answers beside media: {statuses}")
    return took, n / (time.monotonic() - begun)


def lateness(daemon):
    return {name: Histogram(daemon.metrics, "rung_part_publish_lateness_seconds", f'channel="{name}"')
            for name in ("one", "ladder")}


def media(daemon, tokens, turns):
    """Part lateness of two live channels: alone, with everything else, alone again."""
    rows, notes = [], []

    def phase(name, work):
        late, begin = lateness(daemon), cpu([daemon.pid])
        outcome = work()
        used = (cpu([daemon.pid]) - begin) / MEDIA_SECONDS
        p99 = {channel: histogram.quantile(.99) for channel, histogram in late.items()}
        parts = sum(histogram.counted() for histogram in late.values())
        rows.append((name, p99, used, rss([daemon.pid]), parts))
        say(f"{name}: {p99}")
        return outcome

    phase("alone", lambda: time.sleep(MEDIA_SECONDS))
    ours, theirs = multiprocessing.Pipe()
    follower = multiprocessing.Process(target=follow, args=(daemon.http, tokens, STREAMS, theirs), daemon=True)
    follower.start()
    try:
        hear(ours, "open")
        with Hostile(daemon, tokens):
            took, rate = phase("with the load", lambda: beside_media(daemon, turns))
            heard = []
            api = Api(daemon.http, tokens[2])
            for n in range(5):
                ours.send(f'"max_duration_s":{70_000 + n}'.encode())
                hear(ours, "ready")
                api.want(200, "PATCH", "/v1/channels/c1", {"max_duration_s": 70_000 + n})
                heard.append(hear(ours, "heard"))
        ours.send("stop")
        size = hear(ours, "bytes")
    finally:
        follower.terminate()
        follower.join()
    phase("alone again", lambda: time.sleep(MEDIA_SECONDS))
    notes.append(f"Requests beside media: {rate:.0f} a second, p50 {ms(at(took, .5))} ms, p99 {ms(at(took, .99))} ms."
                 f" {STREAMS} event streams took {size / 1e6:.0f} MB; a change reaches the last of them"
                 f" {ms(median(heard))} ms after it is asked for (median of {len(heard)}).")
    return rows, notes


soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
file = clip_540()
tables = ['name = "one"\nkind = "transmux"\nend_on_eos = true', 'name = "ladder"\n' + TEST_LADDER + "end_on_eos = true"]
tables += [f'name = "publish{n}"\nkind = "transmux"\nend_on_eos = true' for n in range(20)]

print("## The API\n")
first = Daemon(tables)
few_ready, few_rss = first.ready_after, rss([first.pid])
with first:
    tokens = make_tokens(first)
    turns = Turns(tokens)
    begin = cpu([first.pid])
    took, seconds = swarm(first.http, 16, turns.create, lambda count, _: count >= CHANNELS)
    used = cpu([first.pid]) - begin
    made, many_rss = len(took), rss([first.pid])
    say(f"{made} channels in {seconds:.1f} s")
    folder = first.leave()
second = Daemon(tables, folder=folder)
with second as daemon:
    begin = cpu([daemon.pid])
    time.sleep(SECONDS)
    idle = (cpu([daemon.pid]) - begin) / SECONDS
    pages, listed = walk(daemon, tokens[0])
    print(f"{listed} channels in the book of `rung serve`; one Python process asks over kept connections on loopback.\n")
    print("| | |\n|---|---|")
    print(f"| create, 16 connections | {made / seconds:.0f} channels a second, p99 {ms(at(took, .99))} ms,"
          f" {used / made * 1e6:.0f} CPU-us each |")
    print(f"| ready with {len(tables)} channels, with {listed} | {few_ready:.2f} s, {daemon.ready_after:.2f} s |")
    print(f"| resident with {len(tables)} channels, after creating the rest, after a restart |"
          f" {few_rss / 2**20:.0f} MiB, {many_rss / 2**20:.0f} MiB, {rss([daemon.pid]) / 2**20:.0f} MiB |")
    print(f"| CPU of the daemon with nothing to do | {idle:.4f} CPU-s/s |")
    print(f"| list all, 200 a page | {len(pages)} pages in {sum(pages):.2f} s, p50 {ms(at(pages, .5))} ms,"
          f" p99 {ms(at(pages, .99))} ms |\n")
    print("| requests | connections | a second | p50, ms | p99, ms | daemon CPU-us each |\n|---|---|---|---|---|---|")
    for row in throughput(daemon, turns):
        print(row)
    opened = publishes(daemon, file)
    print(f"\nFrom a publisher's admission to its session on disk ({opened.counted():.0f} publishers):"
          f" p50 {ms(opened.quantile(.5))} ms, p99 {ms(opened.quantile(.99))} ms.\n")
    with push(file, daemon.url("one")), push(file, daemon.url("ladder")):
        client = Client(daemon.http)
        for name, playlist in (("one", "source"), ("ladder", "216p")):
            wait_for(lambda: client.text(f"/live/{name}/{playlist}.m3u8").count("#EXTINF") > 4, 60, f"segments of {name}")
        rows, notes = media(daemon, tokens, turns)
print(f"Media beside it: two channels on air (source; test ladder), {LOAD} requests a second, {STREAMS} event streams, a"
      f" client that reads nothing and one that sends a byte a second; {MEDIA_SECONDS} s each.\n")
print("| | part lateness p99, source, ms | test ladder, ms | daemon CPU-s/s | resident, MiB | parts |\n|---|---|---|---|---|---|")
for name, p99, used, resident, parts in rows:
    print(f"| {name} | {ms(p99['one'])} | {ms(p99['ladder'])} | {used:.3f} | {resident / 2**20:.0f} | {parts:.0f} |")
quiet = {name: max(rows[0][1][name], rows[2][1][name]) for name in ("one", "ladder")}
added = max(rows[1][1][name] - quiet[name] for name in quiet)
print(f"\nLateness with the load within 20 ms of that without: {verdict(added <= 0.02)} ({added * 1000:+.1f} ms)."
      f" {' '.join(notes)}")
goal("the daemon with nothing to do, CPU", "one core", "<= 0.20 %", f"{idle * 100:.2f} %", idle <= 0.002)
goal(f"the daemon with {len(tables)} channels and nothing to do, resident memory", "-", "<= 40 MiB", f"{few_rss / 2**20:.0f} MiB", few_rss <= 40 * 2**20)
