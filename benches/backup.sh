#!/usr/bin/env bash
# Backups and restores of a release daemon's log beside a plain copy of the same bytes, in turns; and what a
# publisher notices of a backup.
# usage: benches/backup.sh [MB] [ROUNDS]     (2000 and 3 by default; takes three times MB of the disk)
set -euo pipefail
cd "$(dirname "$0")/.."
mb=${1:-2000} rounds=${2:-3}
[ -n "${TAILMARK:-}" ] || cargo build --release --locked --quiet
program=${TAILMARK:-target/release/tailmark}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tailmark-backup.XXXXXX")
addr=127.0.0.1:50973
daemon=0 other=0
finish() {
  for pid in $other $daemon; do if [ "$pid" != 0 ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi; done
  rm -rf "$dir"
}
trap finish EXIT
export TAILMARK_ADDR=http://$addr

start() {
  rm -f "$dir/out"
  "$program" serve --data-dir "$dir/log" --listen $addr --log-level warn >"$dir/out" 2>&1 &
  daemon=$!
  until grep -qs '^ready' "$dir/out"; do
    kill -0 $daemon || { cat "$dir/out"; exit 1; }
    sleep 0.05
  done
}
# Seconds that a command takes, until what it wrote is on disk.
seconds() { local begun; begun=$(date +%s.%N); "$@" >/dev/null 2>&1; sync -f "$dir"; echo "$(date +%s.%N) $begun" | awk '{ printf "%.2f", $1 - $2 }'; }
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
# p50 and p99 of a publisher, in ms.
publisher() {
  "$program" bench append --events 1000 --publishes 3000 --json |
    python3 -c 'import json, sys; p = json.load(sys.stdin)["latency"]; print(p["p50_ms"], p["p99_ms"])'
}

start
# Compresses by a quarter.
head -c $((mb * 1000000)) /dev/urandom | base64 -w 300 | "$program" upload --topic bench - >/dev/null 2>&1
# What is full is sealed by then.
sleep 10
echo "== $(nproc) cores, $(uname -sr), $(du -sh "$dir/log/segments" | cut -f1) sealed"

# One after the other; the one that is under way ends with it. Each has a place of its own: where a file system discards
# what is removed, to remove a backup costs a publisher more than to take it.
back_up() {
  local one=0 nth=0
  trap 'kill $one 2>/dev/null; wait $one 2>/dev/null; exit 0' TERM
  mkdir "$dir/beside.to"
  while :; do
    nth=$((nth + 1))
    "$program" backup "$dir/beside.to/$nth" --data-dir "$dir/log" "$@" >/dev/null 2>&1 & one=$!
    wait $one || true
  done
}
# What was written to get here is on disk.
sync -f "$dir"
# Of a few thousand publishes few make the 99th percentile, so more rounds.
publish() { local it; it=$(publisher); echo "publisher, p50 and p99 in ms, $1: $it"; echo "${it#* }" >>"$dir/$2"; }
put_away() { kill $other; wait $other 2>/dev/null || true; other=0; rm -rf "$dir/beside.to"; sync -f "$dir"; }
for _ in $(seq $((rounds * 3))); do
  publish alone alone
  back_up & other=$!
  sleep 0.5
  publish "beside backups" beside
  put_away
  back_up --rate unlimited & other=$!
  sleep 0.5
  publish "beside backups with --rate unlimited" beside_unlimited
  put_away
done
for what in alone beside beside_unlimited; do echo "p99 $what, ms: median $(median <"$dir/$what")"; done
kill $daemon; wait $daemon || true
daemon=0

# A plain copy that is durable too, of the same bytes, just before each.
for round in $(seq "$rounds"); do
  rm -rf "$dir/to"
  seconds cp -a "$dir/log" "$dir/copy" >>"$dir/copies"; echo >>"$dir/copies"
  rm -rf "$dir/copy"; sync -f "$dir"
  seconds "$program" backup "$dir/to" --data-dir "$dir/log" >>"$dir/backups"; echo >>"$dir/backups"
done
rm -rf "$dir/log"; sync -f "$dir"
for round in $(seq "$rounds"); do
  seconds cp -a "$dir/to" "$dir/copy" >>"$dir/copies_of_backup"; echo >>"$dir/copies_of_backup"
  rm -rf "$dir/copy"; sync -f "$dir"
  seconds "$program" restore "$dir/to" --data-dir "$dir/back" >>"$dir/restores"; echo >>"$dir/restores"
  rm -rf "$dir/back"; sync -f "$dir"
done
for what in copies backups copies_of_backup restores; do
  echo "$what, s: $(paste -sd' ' "$dir/$what"), median $(median <"$dir/$what")"
done
