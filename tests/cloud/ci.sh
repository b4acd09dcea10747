#!/usr/bin/env bash
# Backups in a store of S3's kind, by the program with the feature `cloud`: whole ones, cuts, a store that is gone for a
# while and for good, a bucket that runs full.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$PWD/target/cloud"

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
[ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r tests/cloud/requirements.txt
cargo build --locked --bin tailmark --features cloud
exec timeout --kill-after=20 600 "$folder/bin/python" tests/cloud/test_s3.py "$PWD/target/debug/tailmark"
