#!/usr/bin/env bash
# Takes every figure and writes docs/figures.md. Each program prints one Markdown section to standard output; its lines
# `<!-- goal: … -->` become rows of the table in front.
#   RUNG_FIGURES_FILE   another file than docs/figures.md
#   RUNG_SHORT=1   the short forms (about ten minutes instead of an hour)
#   RUNG_FIGURES="ladder frames"   only these; the others keep their last section
set -euo pipefail
cd "$(dirname "$0")/../.."
names=(ladder scaling srt interop quic transmux latency players plain viewers cdn frames memory restart serve api client schemathesis fuzz)
target=${CARGO_TARGET_DIR:-target}
scratch=$target/figures
mkdir -p "$scratch" docs
[ -x "$target/release/rung-worker" ] || cargo build --release --workspace

take() {
  case $1 in
    ladder)
      printf '## The default ladder from a natural 1080p30 8 Mb/s clip\n\n'
      RUNG_ROUNDS=${RUNG_ROUNDS:-${RUNG_SHORT:+1}} cargo bench --quiet --workspace --bench ladder ;;
    scaling)
      printf '## Scaling on the CPU, beside swscale\n\n```\n'
      cargo bench --quiet --workspace --bench scale
      printf '```\n' ;;
    srt)
      printf '## SRT: receiving alone, and over lossy paths\n\nPublishers of 4 Mb/s over loopback, CPU of the receiver alone; libsrt is a `srt-live-transmit` for each.\n\n```\n'
      cargo bench --quiet --workspace --bench srt_receive
      printf '```\n\nlibsrt sends 6 Mb/s through a relay that delays, loses and reorders; three receivers beside each other.\n\n'
      cargo bench --quiet --workspace --bench srt_loss ;;
    quic) cargo bench --quiet --workspace --bench quic_loss ;;
    *) python3 "tests/prove/$1.py" ;;
  esac
}

failed=()
for name in ${RUNG_FIGURES:-${names[*]}}; do
  echo "--- $name ($(date -u +%H:%M), load $(cut -d' ' -f1 /proc/loadavg))" >&2
  if { take "$name" && printf '\n_Taken %s, load average %s._\n' "$(date -u '+%F %H:%M UTC')" "$(cut -d' ' -f1-2 /proc/loadavg)"; } >"$scratch/$name.part"; then
    mv "$scratch/$name.part" "$scratch/$name.md"
  else
    failed+=("$name")
  fi
done

x264=$(ffmpeg -v quiet -f lavfi -i color=s=64x64:d=0.04 -c:v libx264 -f h264 - | strings | grep -om1 'x264 - core [0-9]*' || echo 'x264: unknown')
{
  printf '# Figures\n\n'
  printf 'Written by `make prove` on %s. CPU is user plus system time of all processes of a side; ratios come from one run on one machine.\n\n' "$(date -u +%F)"
  printf -- '- machine: %s, %s cores, %s MiB\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo)"
  printf -- '- kernel: %s\n' "$(uname -sr)"
  printf -- '- peers: %s; %s; %s\n' "$(ffmpeg -version | head -1 | cut -d' ' -f1-3)" "$x264" "$(chromium --version 2>/dev/null | head -1 || true)"
  printf -- '- rung: %s, %s\n' "$("$target/release/rung" --version)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no git')"
  printf '\n| measure | peer or limit | aim | seen |\n|---|---|---|---|\n'
  for name in "${names[@]}"; do
    if [ -s "$scratch/$name.md" ]; then sed -n 's/^<!-- goal: \(.*\) -->$/| \1 |/p' "$scratch/$name.md"; fi
  done
  for name in "${names[@]}"; do
    if [ -s "$scratch/$name.md" ]; then printf '\n'; sed '/^<!-- goal: /d' "$scratch/$name.md"; fi
  done
} >"${RUNG_FIGURES_FILE:-docs/figures.md}"
if [ ${#failed[@]} -gt 0 ]; then
  echo "no figures from: ${failed[*]}" >&2
  exit 1
fi
