#!/usr/bin/env python3
"""A client that openapi-python-client makes of the served document takes a channel through its whole life: created, published
to, live, stopped, deleted. Whatever the generator warns of, and whatever answer it cannot read, is a failure."""
import json
import sys
import time
import venv
from figures import *

GENERATOR = "openapi-python-client==0.29.1"
FOLDER = os.path.join(TARGET, "openapi-client")
PYTHON = os.path.join(FOLDER, "bin", "python")
PACKAGES = os.path.join(FOLDER, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
PACKAGE = "rung_client"
did = []


def install():
    """The generator in an environment of its own, thrown away with the build."""
    marker = os.path.join(FOLDER, GENERATOR)
    if not os.path.exists(marker):
        say(f"installing {GENERATOR}")
        venv.create(FOLDER, with_pip=True, clear=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", GENERATOR], check=True)
        open(marker, "w").close()


def generate(daemon):
    """The client's folder, made of the document that this daemon serves; and how many operations it has."""
    document = os.path.join(FOLDER, "openapi.json")
    status, text = Client(daemon.http).get("/v1/openapi.json")
    if status != 200:
        raise SystemExit(f"/v1/openapi.json: {status}")
    with open(document, "wb") as f:
        f.write(text)
    config = os.path.join(FOLDER, "config.yaml")
    with open(config, "w") as f:
        f.write(f"package_name_override: {PACKAGE}\npost_hooks: []\n")
    out = os.path.join(FOLDER, "client")
    command = [os.path.join(FOLDER, "bin", "openapi-python-client"), "generate", "--path", document, "--config", config,
               "--output-path", out, "--overwrite", "--fail-on-warning"]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode or "arning" in made.stdout:
        raise SystemExit(f"the generator stumbles:\n{made.stdout}")
    operations = [o for item in json.loads(text)["paths"].values() for o in item.values()]
    modules = [f for _, _, files in os.walk(os.path.join(out, PACKAGE, "api")) for f in files if f != "__init__.py"]
    names = sorted(f"{o['operationId']}.py" for o in operations)
    if sorted(modules) != names:
        raise SystemExit(f"operations left out: {set(names) - set(modules)}")
    numbered = [f for f in os.listdir(os.path.join(out, PACKAGE, "models")) if re.search(r"_type_\d|_item\.py$", f)]
    if numbered:
        raise SystemExit(f"schemas without a name of their own: {numbered}")
    return out, len(operations)


def step(name, begun):
    did.append((name, (time.monotonic() - begun) * 1000))
    return time.monotonic()


def want(answer, status, kind):
    """What an answer holds, if it is the one that is due."""
    if answer.status_code != status or (kind and not isinstance(answer.parsed, kind)):
        raise SystemExit(f"{answer.status_code} {answer.parsed} {answer.content[:300]}: {status} {kind} was due")
    return answer.parsed


def drive(daemon, out):
    sys.path[:0] = [out, PACKAGES]
    from rung_client import AuthenticatedClient, models
    from rung_client.api.channels import (create_channel, delete_channel, get_channel, get_channel_inputs, list_channels,
                                          put_channel_renditions, rotate_channel_key, stop_channel, update_channel)
    from rung_client.api.events import list_events
    from rung_client.api.sessions import get_session, list_channel_sessions
    from rung_client.api.system import get_system
    from rung_client.api.templates import create_template
    client = AuthenticatedClient(f"http://127.0.0.1:{daemon.http}", daemon.admin_token(), raise_on_unexpected_status=True)
    now = time.monotonic()
    new = models.NewChannel(name="generated", kind=models.ChannelKind.TRANSMUX, slate=models.SlateBlack.BLACK)
    made = want(create_channel.sync_detailed(client=client, body=new, idempotency_key="once"), 201, models.ChannelWithKey)
    again = want(create_channel.sync_detailed(client=client, body=new, idempotency_key="once"), 201, models.ChannelWithKey)
    assert made.stream_key == again.stream_key and made.state == models.ChannelState.IDLE and made.session is None
    now = step("create, and once more under its Idempotency-Key", now)

    rotated = want(rotate_channel_key.sync_detailed("generated", client=client), 200, models.ChannelWithKey)
    assert len(rotated.stream_keys) == 2
    grace = models.Rotation(grace_s=0)
    key = want(rotate_channel_key.sync_detailed("generated", client=client, body=grace), 200, models.ChannelWithKey).stream_key
    ladder = models.NewTemplate(name="one", ladder=[models.Rendition(name="360p", height=360, bitrate=800_000)])
    template = want(create_template.sync_detailed(client=client, body=ladder), 201, models.Template)
    assert [r.height for r in template.ladder] == [360]
    none = models.NewRenditions(ladder=None)
    want(put_channel_renditions.sync_detailed("generated", client=client, body=none), 200, models.Renditions)
    seen = get_channel.sync_detailed("generated", client=client)
    etag, patch = seen.headers["ETag"], models.ChannelPatch(max_duration_s=3600, ladder=None)
    changed = want(update_channel.sync_detailed("generated", client=client, body=patch, if_match=etag), 200,
                   models.ChangedChannel)
    assert changed.max_duration_s == 3600 and changed.ladder is None and changed.revision > seen.parsed.revision
    stale = want(update_channel.sync_detailed("generated", client=client, body=patch, if_match=etag), 412, models.Problem)
    assert stale.code == models.ProblemCode.REVISION_MISMATCH
    now = step("rotate its key, make a template, change it with If-Match and with one that is stale", now)

    inputs = want(get_channel_inputs.sync_detailed("generated", client=client), 200, models.Inputs).inputs
    with push(clip_540(), inputs[0].url.replace("KEY", key)):
        def live():
            channel = want(get_channel.sync_detailed("generated", client=client), 200, models.Channel)
            if channel.session is None:
                return None
            session = want(get_session.sync_detailed(channel.session, client=client), 200, models.Session)
            return session if session.state == models.SessionState.LIVE else None
        session = wait_for(live, 20, "a live session")
        now = step("publish to the URL of its inputs: `live`", now)
        page = want(list_channels.sync_detailed(client=client, state=models.ListedState.ACTIVE, limit=1), 200, models.PageChannel)
        assert [c.id for c in page.items] == [made.id] and page.next_ is None
        playlist = Client(daemon.http)
        wait_for(lambda: "#EXTINF" in playlist.text(f"/live/generated/source.m3u8"), 20, "a segment")
        now = step("a segment that players see", now)
        refused = want(delete_channel.sync_detailed("generated", client=client), 409, models.Problem)
        assert refused.code == models.ProblemCode.CHANNEL_ACTIVE
        stopped = want(stop_channel.sync_detailed("generated", client=client, prefer="wait=10"), 200, models.Channel)
        assert stopped.state == models.ChannelState.STOP and stopped.session is None
    ended = want(get_session.sync_detailed(session.id, client=client), 200, models.Session)
    assert ended.state == models.SessionState.ENDED and ended.ended_reason == models.EndedReason.USER_STOP
    assert "#EXT-X-ENDLIST" in playlist.text("/live/generated/source.m3u8")
    now = step("stop, with `Prefer: wait`: ended", now)

    listed = want(list_channel_sessions.sync_detailed("generated", client=client), 200, models.PageSession)
    assert [s.id for s in listed.items] == [session.id]
    told = want(list_events.sync_detailed(client=client, channel="generated", limit=200), 200, models.PageEvent)
    names = [e.type_ for e in reversed(told.items)]
    for name in ("channel.created", "session.created", "session.live", "session.ended", "channel.stopped"):
        assert name in names, names
    want(get_system.sync_detailed(client=client), 200, models.System)
    now = step(f"its session and its {len(names)} events, the box", now)
    want(delete_channel.sync_detailed("generated", client=client), 204, None)
    gone = want(get_channel.sync_detailed("generated", client=client), 404, models.Problem)
    assert gone.code == models.ProblemCode.NOT_FOUND
    step("delete: 404 from then on", now)


install()
with Daemon([]) as daemon:
    made, operations = generate(daemon)
    drive(daemon, made)
print("## A generated client\n")
print(f"{GENERATOR} makes a client of the {operations} operations that `rung serve` describes, without a warning. Answers are"
      " read into its own types.\n")
print("| step | ms |\n|---|---|")
for name, ms in did:
    print(f"| {name} | {ms:.0f} |")
