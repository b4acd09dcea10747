#!/usr/bin/env bash
# Fetches the vendored libraries anew: web/vendor/update.sh [uplot version]
# Without a version: the one that is there, to check that nothing was changed.
set -euo pipefail
cd "$(dirname "$0")"
version=${1:-$(cat uplot/VERSION)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "uplot@$version" >/dev/null && tar xzf "uplot-$version.tgz")
cp "$work/package/dist/uPlot.esm.js" "$work/package/dist/uPlot.min.css" "$work/package/LICENSE" uplot/
echo "$version" > uplot/VERSION
