#!/usr/bin/env bash
# npm in src/web: the one that is installed, else the distribution's.
set -euo pipefail
cd "$(dirname "$0")/../src/web"
command -v npm >/dev/null || ../../tools/packages.sh nodejs npm
exec npm "$@"
