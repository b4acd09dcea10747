#!/usr/bin/env bash
# What deploy/ has for Kubernetes and Compose, against what both publish, and its settings against the program that cargo
# built. Seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$PWD/target/deploy"

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
[ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r tests/deploy/requirements.txt
exec timeout --kill-after=20 120 "$folder/bin/python" tests/deploy/check.py "$PWD/target/debug/tailmark"
