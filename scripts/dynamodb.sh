#!/usr/bin/env bash
# DynamoDB Local (Amazon's own stand-in, for tests) in the cache, by Maven. Prints its folder. Needs Java 17 or newer, which Debian has by default.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=$(sed -n 's:.*<version>\([0-9]*\.[0-9.]*\)</version>.*:\1:p' scripts/java/dynamodb-local.xml)
dir=$cache/dynamodb-$version
missing=()
command -v java >/dev/null || missing+=(default-jre-headless)
[ -e "$dir/.complete" ] || command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} != 0 ]; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (sudo apt-get install ${missing[*]})"
  say "installing ${missing[*]}"
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
fi
once dynamodb
if ! [ -e "$dir/.complete" ]; then
  say "getting DynamoDB Local $version"
  rm -rf "$dir"
  mkdir -p "$dir"
  cp scripts/java/dynamodb-local.xml "$dir/pom.xml"
  (cd "$dir" && mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory=lib) >&2
  touch "$dir/.complete"
fi
echo "$dir"
