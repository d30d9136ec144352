#!/usr/bin/env python3
"""Coverage-guided fuzzing of every target of tests/fuzz: libFuzzer, built by stable Rust with its flags for coverage.

RUNG_FUZZ_SECONDS: for each target (10 in the short form, 120 in the long one). RUNG_FUZZ_TARGETS: only these. What is found
lies in target/fuzz-runs/<target>/found and fails the run; what covers more than the kept corpus in
target/fuzz-runs/<target>/corpus.
"""
import concurrent.futures
import glob
import re
import shutil
from figures import *

SECONDS = int(os.environ.get("RUNG_FUZZ_SECONDS", "10" if SHORT else "120"))
MEMORY_MIB, INPUT_SECONDS = 1024, 10
FLAGS = ["-Cpasses=sancov-module"] + [f"-Cllvm-args=-sanitizer-coverage-{what}" for what in
                                      ("level=4", "inline-8bit-counters", "pc-table", "trace-compares")]
WORK = os.path.join(TARGET, "fuzz-runs")


def build():
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True))[1]
    # With a target named, the flags are not for build scripts and macros.
    flags = " ".join([os.environ.get("RUSTFLAGS", ""), *FLAGS]).strip()
    subprocess.run(["cargo", "build", "--quiet", "-p", "rung-fuzz", "--features", "guided", "--bin", "guided", "--profile",
                    "fuzz", "--target", host], env={**os.environ, "RUSTFLAGS": flags}, cwd=ROOT, check=True)
    # The table is told by the plain program, of whatever profile there is.
    tables = [os.path.join(TARGET, profile, "rung-fuzz") for profile in ("release", "debug")]
    if not any(map(os.path.exists, tables)):
        subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "rung-fuzz"], cwd=ROOT, check=True)
    return next(filter(os.path.exists, tables)), os.path.join(TARGET, host, "fuzz", "guided")


def number(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def run(target, table, guided):
    folder = os.path.join(WORK, target)
    found = os.path.join(folder, "found")
    shutil.rmtree(found, ignore_errors=True)
    for name in ("corpus", "found"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    words = os.path.join(folder, "words")
    with open(words, "w") as out:
        subprocess.run([table, "dictionary", target], stdout=out, check=True)
    dictionary = [f"-dict={words}"] if os.path.getsize(words) else []
    longest = subprocess.check_output([table, "longest", target], text=True).strip()
    kept = os.path.join(ROOT, "tests", "fuzz", "corpus", target)
    command = [guided, f"-max_total_time={SECONDS}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={INPUT_SECONDS}",
               f"-max_len={longest}", *dictionary, f"-artifact_prefix={found}/", "-print_final_stats=1",
               "-verbosity=1", os.path.join(folder, "corpus"), kept]
    end = time.monotonic() + SECONDS + 300
    with open(os.path.join(folder, "log"), "w+") as log:
        child = subprocess.Popen(command, env={**os.environ, "RUNG_FUZZ_TARGET": target}, stdout=log, stderr=log)
        while child.poll() is None:
            if time.monotonic() > end:
                child.kill()
                child.wait()
                raise SystemExit(f"{target} does not end: see {log.name}")
            time.sleep(0.2)
        log.seek(0)
        text = log.read()
    inputs = [path for path in glob.glob(found + "/*") if not os.path.basename(path).startswith("slow-unit")]
    return {
        "target": target,
        "inputs": inputs or ([log.name] if child.returncode else []),
        "runs": number(r"stat::number_of_executed_units:\s*(\d+)", text) or number(r"#(\d+)\s", text),
        "edges": number(r"cov: (\d+)", text),
        "began": int((re.findall(r"INITED cov: (\d+)", text) or ["0"])[0]),
        "corpus": number(r"corp: (\d+)/", text),
        "rss": number(r"stat::peak_rss_mb:\s*(\d+)", text),
    }


table, guided = build()
names = os.environ.get("RUNG_FUZZ_TARGETS", "").split() or subprocess.check_output([table, "list"], text=True).split()
begin = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    jobs = [pool.submit(run, name, table, guided) for name in names]
    rows = []
    for job in jobs:
        rows.append(job.result())
        say(f"{rows[-1]['target']}: {rows[-1]['runs']} runs, {rows[-1]['edges']} edges")
print("## Fuzzing, guided by coverage\n")
print(f"libFuzzer, stable Rust, every sum checked; {SECONDS} s for each target, {os.cpu_count()} at a time, at most {MEMORY_MIB} MiB and "
      f"{INPUT_SECONDS} s an input. Edges: of the kept corpus, and in the end; they count those of the start too (some hundreds).\n")
print("| target | runs | a second | edges | inputs that cover more | peak RSS, MiB | failures |\n|---|---|---|---|---|---|---|")
for row in rows:
    print(f"| {row['target']} | {row['runs']:,} | {row['runs'] // max(SECONDS, 1):,} | {row['began']:,}, {row['edges']:,} | {row['corpus']:,} | "
          f"{row['rss']} | {len(row['inputs'])} |")
total = sum(row["runs"] for row in rows)
print(f"\n{len(rows)} targets, {total:,} runs in {(time.monotonic() - begin) / 60:.0f} minutes, "
      f"{sum(len(row['inputs']) for row in rows)} failures.")
failed = [path for row in rows for path in row["inputs"]]
if failed:
    raise SystemExit("failures:\n" + "\n".join(failed))
