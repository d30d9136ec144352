"""What the programs on viewers and caches share: rung-viewers, nginx and Varnish on loopback."""
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from figures import *

VIEWERS = os.path.join(TARGET, "release", "rung-viewers")
# A rendition of a channel for phones: half a megabit, and sound.
SOURCE = ("-f lavfi -i testsrc2=s=640x360:r=25 -f lavfi -i sine=r=48000 -t 20 -c:v libx264 -preset superfast -pix_fmt yuv420p"
          " -g 50 -sc_threshold 0 -bf 0 -b:v 600k -maxrate 600k -bufsize 600k -c:a aac -b:a 96k -ac 2")
LIVE = 'name = "live"\nmode = "ultra"\nkind = "transmux"'


def source():
    return clip("360p-600k.ts", SOURCE)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def viewers(task, *arguments, threads=1):
    """The report of rung-viewers."""
    command = [VIEWERS, "--threads", str(threads), task, *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if output.returncode != 0:
        raise SystemExit(f"{command}: {output.stderr}")
    return json.loads(output.stdout)


class Tap:
    """A relay to `port` that counts requests."""

    def __init__(self, port):
        command = [VIEWERS, "tap", f"127.0.0.1:{port}"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.child.stdout.readline().rsplit(":", 1)[1])

    def counts(self):
        """Ends it."""
        return json.loads(self.child.communicate("", timeout=30)[0])


def settled(port, child):
    def open_():
        if child.poll() is not None:
            raise SystemExit(f"{child.args} ended: {child.returncode}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    wait_for(open_, 15, f"{child.args[0]}")


class Edge(Process):
    """A server in a folder of its own, `folder`, that works in processes below its own."""

    @property
    def pids(self):
        return children(self.pid)

    def stop(self, how=signal.SIGTERM):
        super().stop(how)
        self.folder.cleanup()


class Nginx(Edge):
    """nginx with `http`, the inside of an http block, on the port that it says; its files in memory."""

    def __init__(self, http, port, workers=1):
        self.folder = tempfile.TemporaryDirectory(prefix="rung-nginx-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        os.chmod(self.folder.name, 0o755)
        inside = lambda name: os.path.join(self.folder.name, name)
        self.port, self.log = port, inside("error.log")
        temporary = "\n".join(f"{t}_temp_path {inside(t)};" for t in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;\n" if os.geteuid() == 0 else ""
        with open(inside("nginx.conf"), "w") as f:
            f.write(f"{user}daemon off;\nworker_processes {workers};\npid {inside('pid')};\nerror_log {self.log} warn;\n"
                    f"worker_rlimit_nofile 60000;\nevents {{ worker_connections 25000; }}\nhttp {{\n{temporary}\n"
                    f"include /etc/nginx/mime.types;\n{http.replace('@FOLDER@', self.folder.name)}\n}}\n")
        super().__init__(["nginx", "-e", self.log, "-p", self.folder.name, "-c", inside("nginx.conf")])
        settled(port, self.child)


def caching_nginx(origin, workers=1):
    """nginx with docs/nginx/rung.conf in front of the port `origin`."""
    port = free_port()
    with open(os.path.join(ROOT, "docs", "nginx", "rung.conf")) as f:
        recipe = f.read()
    for found, wanted in (("server 127.0.0.1:8080;", f"server 127.0.0.1:{origin};"), ("listen 80 ", f"listen 127.0.0.1:{port} "),
                          ("/var/cache/nginx/rung", "@FOLDER@/cache")):
        if found not in recipe:
            raise SystemExit(f"the recipe has no {found}")
        recipe = recipe.replace(found, wanted)
    return Nginx(recipe, port, workers)


class Varnish(Edge):
    """Varnish with docs/varnish/rung.vcl in front of the port `origin`."""

    def __init__(self, origin):
        self.folder, self.port = tempfile.TemporaryDirectory(prefix="rung-varnish-"), free_port()
        # It gives up its rights and then reads in it.
        os.chmod(self.folder.name, 0o755)
        with open(os.path.join(ROOT, "docs", "varnish", "rung.vcl")) as f:
            recipe = f.read()
        vcl = os.path.join(self.folder.name, "rung.vcl")
        with open(vcl, "w") as f:
            f.write(recipe.replace('"8080"', f'"{origin}"'))
        command = ["varnishd", "-F", "-n", os.path.join(self.folder.name, "work"), "-a", f"127.0.0.1:{self.port}", "-f", vcl,
                   "-s", "malloc,256m", "-p", "thread_pool_min=200", "-p", "thread_pool_max=5000", "-p", "listen_depth=4096"]
        super().__init__(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        settled(self.port, self.child)


def on_air(daemon, name="live", rendition="source"):
    """A publisher, once there is a window."""
    publisher = push(source(), daemon.url(name))
    client = Client(daemon.http)
    wait_for(lambda: client.text(f"/live/{name}/{rendition}.m3u8").count("#EXTINF") >= 4, 60, "a window")
    return publisher


def asked(counts, what):
    """How often each address that `what` finds was asked for."""
    return [n for uri, n in counts.items() if re.search(what, uri)]
