#!/usr/bin/env bash
# What topics cost a release daemon: processor time and memory, with a topic of its own for each event.
# usage: benches/topics.sh [MILLIONS]     (2 by default; a million takes about 0.3 GB)
set -euo pipefail
cd "$(dirname "$0")/.."
millions=${1:-2}
[ -n "${TAILMARK:-}" ] || cargo build --release --locked --quiet
program=${TAILMARK:-target/release/tailmark}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tailmark-topics.XXXXXX")
addr=127.0.0.1:50972
daemon=0
finish() { if [ "$daemon" != 0 ]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; fi; rm -rf "$dir"; }
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
stop() { kill $daemon; wait $daemon || true; }
# Processor time in ms, resident memory and its peak in MB.
cpu() { awk '{ print ($14 + $15) * 10 }' /proc/$daemon/stat; }
memory() { awk '/VmRSS/ { r = $2 } /VmHWM/ { h = $2 } END { printf "%d MB resident, %d at most", r / 1024, h / 1024 }' /proc/$daemon/status; }
cost() { # words, then a command
  local words=$1 before; shift
  before=$(cpu)
  "$@"
  echo "$words: $((($(cpu) - before))) ms of the daemon's processors; $(memory)"
}
# So many topics that no neighbours in time are neighbours in name.
names() {
  awk -v n=$((millions * 1000000)) 'BEGIN { for (i = 0; i < n; i++) { at = (i * 7919) % n
    printf "{\"topic\":\"site.%d.device.%08d\",\"body\":\"%0200d\"}\n", at % 97, at, i } }'
}
upload() { names | "$program" upload --format jsonl - >/dev/null 2>&1; }
list() { "$program" topics --json "$@" | wc -l; }
settle() { until "$program" status --json | grep -q '"unsealed_slots":"\?1'; do sleep 1; done 2>/dev/null; }

echo "== $(nproc) cores, $(uname -sr), $millions million topics"
start
cost "uploaded" upload
sleep 5
cost "listed, what was not sealed indexed first" list
cost "listed again" list
stop
start
echo "started again: $(memory)"
cost "a hundred by prefix" list --prefix site.5.device.0000
cost "listed" list
cost "one pattern of $millions million" list 'site.5.*.*'
cost "a topic by name" list site.5.device.00000005
cost "a pattern that nothing matches" list '*.*.*.none'
stop
du -sh "$dir/log" | cut -f1
