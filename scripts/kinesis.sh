#!/usr/bin/env bash
# A stand-in for Kinesis in the cache (kinesis-local, from npm, one file of JavaScript without dependencies), and Node.js if the machine has none. Prints the
# file that Node.js runs. Quiet when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=0.6.2
dir=$cache/kinesis-local-$version
main=$dir/node_modules/kinesis-local/main.js
missing=()
command -v node >/dev/null || missing+=(nodejs)
[ -e "$main" ] || command -v npm >/dev/null || missing+=(npm)
install "${missing[@]}"
if ! [ -e "$main" ]; then
  once kinesis-local
  if ! [ -e "$main" ]; then
    say "getting kinesis-local $version"
    rm -rf "$dir"
    mkdir -p "$dir"
    npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix "$dir" "kinesis-local@$version" >&2
  fi
fi
echo "$main"
