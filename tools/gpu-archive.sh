#!/usr/bin/env bash
# Packs what checks and measures a real GPU on a machine that has the driver and nothing else: target/rung-gpu.tar.gz.
# tools/gpu-archive.sh; RUNG_AV=no leaves out libavcodec, which only the encoder's double needs.
set -euo pipefail
cd "$(dirname "$0")/.."
max=$((60 * 1000 * 1000))
# A folder of its own: programs without libav must not take the place of those with it.
export CARGO_TARGET_DIR=target/gpu
made=target/gpu/rung-gpu
rm -rf "$made"
mkdir -p "$made/lib"

# Apart, or the doubles would bring their features to the worker.
cargo build --release -p rung-worker --no-default-features --bin rung-worker
cargo build --release -p rung-gpu
cargo test --release -p rung-worker --no-default-features --test kernels --no-run 2>&1 | tee target/gpu/kernels.log
kernels=$(sed -n 's/.*Executable tests.kernels.rs (\(.*\))/\1/p' target/gpu/kernels.log)
cp target/gpu/release/rung-worker target/gpu/release/rung-gpu "$made/"
cp "$kernels" "$made/kernels-test"
cp tools/gpu-run.sh "$made/run.sh"
git rev-parse --short HEAD >"$made/version" 2>/dev/null || echo unknown >"$made/version"
if [ "${RUNG_AV:-yes}" != no ]; then
    cargo build --release -p rung-double-encode
    cp target/gpu/release/librung_double_encode.so "$made/lib/"
fi
strip "$made/rung-worker" "$made/rung-gpu" "$made/kernels-test" "$made"/lib/*.so 2>/dev/null || true

clips=target/gpu/clips
if [ ! -e "$clips/done" ] || [ tools/gpu-clips.sh -nt "$clips/done" ]; then
    rm -rf "$clips"
    tools/gpu-clips.sh "$clips"
    touch "$clips/done"
fi
mkdir "$made/clips"
cp "$clips"/*.ts "$clips"/*.crc "$made/clips/"

# All that the encoder's double is linked with, but libc's own family, packed hard: run.sh unpacks it where it can.
if [ -e "$made/lib/librung_double_encode.so" ]; then
    needed=$(ldd "$made/lib/librung_double_encode.so" | awk '$3 ~ /^\// { print $3 }' |
        grep -Ev '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so')
    mkdir "$made/lib/av"
    for library in $needed; do cp -L "$library" "$made/lib/av/"; done
    mv "$made/lib/librung_double_encode.so" "$made/lib/av/"
    tar -C "$made/lib" --sort=name --owner=0 --group=0 --mtime=@0 -cJf "$made/lib/av.tar.xz" av
fi
# The newest version of glibc that any of these names.
newest() { objdump -T "$@" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | tr _ ' '; }
programs=("$made/rung-gpu" "$made/rung-worker" "$made/kernels-test")
libraries=$(objdump -p "${programs[@]}" | awk '/NEEDED/ { print $2 }' | sort -u | tr '\n' ' ')
echo "needs $(newest "${programs[@]}") or newer, and $libraries" >"$made/needs"
if [ -d "$made/lib/av" ]; then
    echo "the encoder's double needs $(newest "$made"/lib/av/*) or newer" >>"$made/needs"
    rm -rf "$made/lib/av"
fi
cat "$made/needs"

tar -C target/gpu --sort=name --owner=0 --group=0 -czf target/rung-gpu.tar.gz rung-gpu
size=$(stat -c %s target/rung-gpu.tar.gz)
if [ "$size" -gt "$max" ]; then
    echo "target/rung-gpu.tar.gz has $size bytes, more than $max: RUNG_AV=no makes a smaller one" >&2
    exit 1
fi
echo "target/rung-gpu.tar.gz: $((size / 1000000)) MB. There: tar -xzf rung-gpu.tar.gz && rung-gpu/run.sh"
