#!/usr/bin/env bash
# libsrt with connection bonding, which Debian's packages leave out: built from Debian's own source package, with its test
# program, which is all that is kept: target/peers/srt-test-live. Changes nothing of the system but for the tools it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/target/peers
[ -x "$peers/srt-test-live" ] && exit 0
tools/packages.sh cmake dpkg-dev g++ make libssl-dev
rm -rf "$peers/build"
mkdir -p "$peers"/build/{lists/partial,cache,sources}
cd "$peers/build"
# The machine's package sources once more, as those of source packages.
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
  [ -f "$list" ] && sed -E 's/^(Types:.*)\bdeb\b( .*)?$/Types: deb-src/; s/^deb /deb-src /' "$list" >"sources/${list##*/}"
done
own=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$PWD/sources" -o "Dir::State::lists=$PWD/lists"
  -o "Dir::Cache=$PWD/cache" -o APT::Sandbox::User=root)
echo 'setup: building libsrt with bonding'
apt-get -qq "${own[@]}" update 2>/dev/null || true # another's package source may be out of reach
# The newest version that is to be had: an archive of security updates may keep no sources.
for version in $(apt-cache "${own[@]}" showsrc srt | sed -n 's/^Version: //p' | sort -Vr); do
  apt-get -qq "${own[@]}" source "srt=$version" >fetch.log 2>&1 && break
done
[ -d srt-*/ ] || { tail -3 fetch.log >&2; exit 1; }
cmake -S srt-*/ -B made -DCMAKE_BUILD_TYPE=Release -DENABLE_BONDING=ON -DENABLE_TESTING=ON -DENABLE_SHARED=OFF >cmake.log
cmake --build made --target srt-test-live -j "$(nproc)" >>cmake.log 2>&1 || { tail -20 cmake.log >&2; exit 1; }
mv made/srt-test-live "$peers/"
rm -rf "$peers/build"
