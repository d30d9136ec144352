#!/bin/sh
# Makes kernels/scale.ptx from kernels/*.cu and *.h with clang 14 (no CUDA toolkit needed), so that the same text comes
# out wherever it runs. `--check`: makes it anew and compares, changes nothing.
set -eu
export LC_ALL=C
cd "$(dirname "$0")"

case "${1:-}" in
'' | --check) ;;
*) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac

clang=$(command -v clang++-14 || true)
if [ -z "$clang" ]; then
    echo "SKIP clang-14 is not installed"
    # Making it is impossible then, checking it only left out.
    [ "${1:-}" = --check ] && exit 0 || exit 1
fi

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$clang" -x cuda --cuda-device-only --cuda-gpu-arch=sm_75 -nocudainc -nocudalib -nogpuinc -O3 -std=c++14 -S \
    -Wall -Wextra -Werror scale.cu -o "$made/body.ptx"
{
    echo "// Made by kernels/build.sh. The SHA-256 of what it was made of:"
    sha256sum *.cu *.h | sed 's|^|// |'
    cat "$made/body.ptx"
} > "$made/scale.ptx"

if [ "${1:-}" = --check ]; then
    cmp "$made/scale.ptx" scale.ptx || { echo "kernels/scale.ptx is not what its sources make: run kernels/build.sh" >&2; exit 1; }
    echo "kernels/scale.ptx is what its sources make"
else
    mv "$made/scale.ptx" scale.ptx
fi
