#!/usr/bin/env bash
# Each fuzz target for a few seconds on the corpus in the repository: FUZZ_SECONDS, 10 if not set.
set -euo pipefail
cd "$(dirname "$0")"
command -v g++ >/dev/null || { echo "g++ is missing: libFuzzer is C++"; exit 1; }
for target in $(./run); do
  printf '%-12s' "$target"
  log=$(mktemp)
  if ! RUST_BACKTRACE=0 ./run "$target" "${FUZZ_SECONDS:-10}" >"$log" 2>&1; then
    tail -40 "$log"
    echo "found by $target; again: fuzz/run $target 0 FILE"
    exit 1
  fi
  grep -E 'DONE' "$log" | sed 's/.*DONE *//'
  rm "$log"
done
