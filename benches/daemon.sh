#!/usr/bin/env bash
# The figures of docs/performance.md: a release daemon on a fresh data directory, one client, loopback.
# usage: benches/daemon.sh [GIGABYTES]     (2 by default; needs about twice that on disk)
set -euo pipefail
cd "$(dirname "$0")/.."
gigabytes=${1:-2}
events=$((gigabytes * 5000000))            # of 200 bytes
cargo build --release --locked --quiet
program=target/release/tailmark
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tailmark-bench.XXXXXX")
addr=127.0.0.1:50971
daemon=0
finish() { [ "$daemon" = 0 ] || kill "$daemon" 2>/dev/null || true; rm -rf "$dir"; }
trap finish EXIT

start() {
  rm -f "$dir/out"
  begun=$(date +%s%N)
  "$program" serve --data-dir "$dir/log" --listen $addr --log-level warn >"$dir/out" 2>&1 &
  daemon=$!
  until grep -q '^ready' "$dir/out"; do
    kill -0 $daemon || { cat "$dir/out"; exit 1; }
  done
  echo "ready after $((($(date +%s%N) - begun) / 1000000)) ms"
}
memory() { awk '/VmHWM/ {printf "peak resident memory %.0f MB\n", $2 / 1024}' /proc/$daemon/status; }

export TAILMARK_ADDR=http://$addr
echo "== $(nproc) cores, $(uname -sr), $gigabytes GB of 200-byte events, durable"
start
for round in 1 2 3; do "$program" bench append --events $((events / 3)); done
memory
for round in 1 2 3; do "$program" bench replay; done
memory
"$program" status | grep -E 'head  |on disk|segments'
echo "== killed, then opened again"
kill -9 $daemon; wait $daemon 2>/dev/null || true
start
"$program" bench replay --resumes 0
kill $daemon; wait $daemon || true
echo "== stopped, then opened again"
start
kill $daemon; wait $daemon || true
daemon=0
