#!/usr/bin/env bash
# The streams that the GPU's checks and benches read: tools/gpu-clips.sh FOLDER [small]
# Transport streams of 25 pictures a second, and the Adler-32 of each picture as libavcodec decodes it, in the order of
# display. `small`: 320x180 and a few frames, for a driver's double.
set -euo pipefail
folder=${1:?usage: $0 FOLDER [small]}
if [ "${2:-}" = small ]; then
    size=320x180 half=256x144 large=480x270 fields=320x192 frames=30 rate=1M
else
    size=1920x1080 half=1280x720 large=3840x2160 fields=1920x1080 frames=50 rate=5M
fi
mkdir -p "$folder"

# NAME SIZE PIXELS ENCODER...: moving edges and grain, as broadcasts have.
moving() {
    local name=$1 size=$2 pixels=$3
    shift 3
    make "$name" "testsrc2=s=$size:r=25,noise=c0s=6:c0f=t:all_seed=7,format=$pixels" "$@"
    ffmpeg -nostdin -v error -i "$folder/$name.ts" -map 0:v -pix_fmt "$pixels" -fps_mode passthrough -f framecrc - |
        sed -n 's/^0,.*0x//p' >"$folder/$name.crc"
}

# NAME SIZE PIXELS ENCODER...: plain grey whose level names the frame: 20 + 5 * (N mod 40).
grey() {
    local name=$1 size=$2 pixels=$3
    shift 3
    make "$name" "color=s=16x16:r=25,format=yuv420p,geq=lum='20+mod(N\,40)*5':cb=128:cr=128,scale=$size:flags=neighbor,format=$pixels" "$@"
}

make() {
    local name=$1 source=$2
    shift 2
    ffmpeg -nostdin -v error -y -f lavfi -i "$source" -frames:v "$frames" "$@" -muxdelay 0 -f mpegts "$folder/$name.ts.part"
    mv "$folder/$name.ts.part" "$folder/$name.ts"
}

x264=(-c:v libx264 -preset veryfast -flags +cgop -g 25 -b:v "$rate" -maxrate "$rate" -bufsize "$rate")
x265=(-c:v libx265 -preset veryfast -b:v "$rate" -x265-params log-level=none:keyint=25:open-gop=0)
moving h264 "$size" yuv420p "${x264[@]}" -bf 2
moving h264-no-b "$size" yuv420p "${x264[@]}" -bf 0 -tune zerolatency
moving h264-half "$half" yuv420p "${x264[@]}" -bf 0
moving hevc "$size" yuv420p "${x265[@]}"
moving hevc-no-b "$size" yuv420p -c:v libx265 -preset veryfast -b:v "$rate" -x265-params log-level=none:keyint=25:open-gop=0:bframes=0
moving hevc-10 "$size" yuv420p10le "${x265[@]}" -profile:v main10
frames=25 moving hevc-large "$large" yuv420p "${x265[@]}"
grey mpeg2 "$size" yuv420p -c:v mpeg2video -g 12 -bf 2 -q:v 2
grey h264-fields "$fields" yuv420p "${x264[@]}" -bf 0 -flags +ilme+ildct+cgop -x264-params tff=1
grey mpeg2-fields "$fields" yuv420p -c:v mpeg2video -g 12 -bf 2 -q:v 2 -flags +ilme+ildct -top 1
