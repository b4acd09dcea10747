#!/usr/bin/env bash
# The page in a real Chromium, against the program that cargo built. Three minutes at most.
set -euo pipefail
cd "$(dirname "$0")"

packages=()
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  packages+=(chromium)
fi
if [ ${#packages[@]} -gt 0 ]; then
  sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
# By a signal first: it ends its daemons and its browser then.
exec timeout --kill-after=20 180 node run.mjs "$@"
