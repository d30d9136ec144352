#!/usr/bin/env python3
"""Requests made up from the OpenAPI document, good and bad ones, against `rung serve`: see schemathesis.sh, which does it."""
from figures import *

SECONDS = 30 if SHORT else 180
LOG = os.path.join(SCRATCH, "schemathesis.log")


def answers(daemon):
    """Answers that the daemon counted, by status."""
    found = re.findall(r'^rung_http_requests_total{([^}]*)} (\d+)', Client(daemon.metrics).text("/metrics"), re.M)
    counts = {}
    for labels, count in found:
        code = re.search(r'code="([^"]+)"', labels)[1]
        counts[code] = counts.get(code, 0) + int(count)
    return counts


with Daemon([]) as daemon:
    token = os.path.join(daemon.folder.name, "rung-data", "admin.token")
    script = os.path.join(ROOT, "tests", "prove", "schemathesis.sh")
    with open(LOG, "w") as log:
        ran = subprocess.run([script, f"http://127.0.0.1:{daemon.http}", token, str(SECONDS)], stdout=log, stderr=log)
    alive = daemon.child.poll() is None
    counts = answers(daemon) if alive else {}
    status, _, _ = Api(daemon.http, daemon.admin_token()).ask("GET", "/v1/system") if alive else (0, None, None)
text = open(LOG).read()
if ran.returncode or not alive or status != 200:
    say(text[-8_000:])
    raise SystemExit(f"schemathesis: {ran.returncode}, the daemon {'lives' if alive else 'is gone'}, /v1/system: {status}")
errors = sum(count for code, count in counts.items() if code.startswith("5"))
cases = sum(int(found) for found in re.findall(r"(\d+) generated", text))
if errors:
    raise SystemExit(f"answers by status: {counts}")
print("## Made-up requests\n")
print("Schemathesis asks `rung serve` what its OpenAPI document allows and what it does not; every check of it but three: a schema"
      " cannot say that a name is taken, and who asks too often without a token is asked to wait.\n")
print("| | |\n|---|---|")
print(f"| cases made up | {cases} |")
print(f"| answers by status | {', '.join(f'{code}: {count}' for code, count in sorted(counts.items()))} |")
print(f"| 5xx, and answers that the document does not describe | {verdict(errors == 0)}: none |")
