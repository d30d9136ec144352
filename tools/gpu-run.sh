#!/bin/sh
# Checks and measures the GPU of this machine: run.sh [--short] [--driver-folder PATH]. Needs the NVIDIA driver, and nothing
# else. Results go to $OUT, or to the folder results here: gpu.md for docs/hardware.md, and the log.
# RUNG_REQUIRE=cuda,nvdec,nvenc makes a failure of what is skipped. Ends with 1 if anything failed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/results}
mkdir -p "$out"
log=$out/gpu.log
: >"$log"

say() { printf '%s\n' "$*" | tee -a "$log"; }

# With the status of the command, whatever tee says.
logged() {
    { { "$@" 2>&1; echo $? >"$out/status"; } | tee -a "$log"; }
    status=$(cat "$out/status")
    rm -f "$out/status"
    return "$status"
}

say "Rung's GPU checks, $(cat "$here/version" 2>/dev/null || echo unknown), $(date -u +%FT%TZ), $(uname -srm)"
say "$(cat "$here/needs" 2>/dev/null)"
if ! "$here/rung-gpu" --help >/dev/null 2>"$out/start.err"; then
    say "SKIP start: the programs do not start here: $(head -n 1 "$out/start.err")"
    rm -f "$out/start.err"
    [ -z "${RUNG_REQUIRE:-}" ] && exit 0 || exit 1
fi
rm -f "$out/start.err"
if command -v nvidia-smi >/dev/null 2>&1; then nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || true; fi

# The encoder's double, for cards without an encoder.
unpacked=$here/lib/av
if [ -e "$here/lib/av.tar.xz" ] && [ ! -d "$unpacked" ]; then
    tar -C "$here/lib" -xJf "$here/lib/av.tar.xz" 2>/dev/null ||
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' \
            "$here/lib/av.tar.xz" "$here/lib" 2>/dev/null ||
        say "SKIP encoder: neither xz nor python3 unpacks the encoder's double"
fi

failed=0
folder=
next=
for argument in "$@"; do
    [ "$next" = yes ] && folder=$argument
    next=
    [ "$argument" = --driver-folder ] && next=yes
done
say "== The kernels' own tests, on the card"
libraries=
"$here/kernels-test" --list >/dev/null 2>&1 || libraries=$unpacked
if LD_LIBRARY_PATH=${libraries:-${LD_LIBRARY_PATH:-}} "$here/kernels-test" --list >/dev/null 2>&1; then
    RUNG_GPU=${folder:-real} LD_LIBRARY_PATH=${libraries:-${LD_LIBRARY_PATH:-}} \
        logged "$here/kernels-test" --nocapture --test-threads=4 || failed=1
else
    say "SKIP kernels: their tests need libstdc++"
fi
logged "$here/rung-gpu" all --clips "$here/clips" --encode-double "$unpacked/librung_double_encode.so" --out "$out" "$@" ||
    failed=1
say "results: $out"
exit $failed
