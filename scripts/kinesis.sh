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
if [ ${#missing[@]} != 0 ]; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (sudo apt-get install ${missing[*]})"
  say "installing ${missing[*]}"
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
fi
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
