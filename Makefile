# Everything that Rung needs, from a bare Debian 12 with Rust: `make demo`, `make test`, `make prove`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The one list of packages. BUILD: to compile. RUN: for tests, figures and the demo's player.
BUILD_PACKAGES := build-essential pkg-config clang libclang-dev libavcodec-dev libavutil-dev libswscale-dev \
	libswresample-dev libavfilter-dev
RUN_PACKAGES := ffmpeg srt-tools chromium fonts-dejavu-core curl openssl python3 nginx-light varnish

# For `make players` alone.
PLAYER_PACKAGES := gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
	gstreamer1.0-libav vlc-bin vlc-plugin-base

# For `make interop`, beside those: OBS and a screen for it.
INTEROP_PACKAGES := obs-studio xvfb xauth

# A test or a bench may panic, print, read a clock, and use a part of what tests share.
TEST_LINTS := -A clippy::unwrap_used -A clippy::print_stdout -A clippy::print_stderr \
	-A clippy::disallowed_types -A clippy::disallowed_methods -A clippy::let_underscore_must_use -A dead_code

WEB := src/web
RELEASE := target/release

.PHONY: help setup setup-build setup-run web build demo test prove players bench interop gpu gpu-archive lint doc

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: setup-build setup-run ## install what building, testing and the demo need (asks nothing; quick the second time)

setup-build:
	@tools/packages.sh $(BUILD_PACKAGES)
	@$(MAKE) --no-print-directory web

setup-run:
	@tools/packages.sh $(RUN_PACKAGES)

web: $(WEB)/vendor/hls.min.js

$(WEB)/vendor/hls.min.js: $(WEB)/package-lock.json $(WEB)/vendor.mjs
	@tools/npm.sh ci --no-audit --no-fund --silent
	@tools/npm.sh run --silent vendor

build: setup-build ## both programs, optimised, into target/release
	cargo build --release

demo: build ## a live channel with a test picture; prints the page to open
	@exec $(RELEASE)/rung demo

test: setup ## the short form of every check (under 20 minutes on two cores)
	cargo fmt --check
	cargo clippy --workspace -- -D warnings
	cargo clippy --workspace --all-targets -- -D warnings $(TEST_LINTS)
	kernels/build.sh --check
	cargo build --workspace
	cargo test --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

prove: setup ## the long form of every check, and all figures into docs/figures.md
	@tools/packages.sh $(PLAYER_PACKAGES) $(INTEROP_PACKAGES)
	@tools/libsrt-bonding.sh
	cargo build --release --workspace
	RUNG_LONG=1 cargo test --release --workspace -- --test-threads=1
	tests/prove/run.sh

players: setup ## a live channel in ffmpeg, GStreamer and VLC, 30 s each
	@tools/packages.sh $(PLAYER_PACKAGES)
	cargo build --release
	@python3 tests/prove/plain.py --check

bench: setup ## what fast means: every cost beside its peer as a ratio, the short forms, into target/bench.md
	cargo build --release --workspace
	RUNG_SHORT=1 RUNG_FIGURES_FILE=target/bench.md RUNG_FIGURES="ladder scaling srt quic transmux latency viewers cdn api" tests/prove/run.sh
	@cat target/bench.md

interop: setup ## SRT beside srt-live-transmit, ffmpeg, GStreamer and OBS, a table; bonding beside libsrt
	@tools/packages.sh $(PLAYER_PACKAGES) $(INTEROP_PACKAGES)
	@tools/libsrt-bonding.sh
	cargo build --release
	cargo test --workspace --test srt_bond
	@python3 tests/prove/interop.py

gpu-archive: setup ## checks and benches for a machine that has an NVIDIA driver and nothing else: target/rung-gpu.tar.gz
	@tools/gpu-archive.sh

gpu: gpu-archive ## the same on this machine's own GPU, into target/gpu-results; says SKIP for what it lacks
	@OUT=$(CURDIR)/target/gpu-results target/gpu/rung-gpu/run.sh
