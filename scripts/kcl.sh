#!/usr/bin/env bash
# The Kinesis Client Library (Amazon's own consumer, for `make test-kcl`) in the cache, by Maven. Prints its folder. Needs a JDK.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

version=$(sed -n 's:.*<version>\([0-9]*\.[0-9.]*\)</version>.*:\1:p' scripts/java/kcl.xml)
dir=$cache/kcl-$version
missing=()
command -v javac >/dev/null || missing+=(default-jdk-headless)
[ -e "$dir/.complete" ] || command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} != 0 ]; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (sudo apt-get install ${missing[*]})"
  say "installing ${missing[*]}"
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
fi
once kcl
if ! [ -e "$dir/.complete" ]; then
  say "getting the Kinesis Client Library $version"
  rm -rf "$dir"
  mkdir -p "$dir"
  cp scripts/java/kcl.xml "$dir/pom.xml"
  (cd "$dir" && mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory=lib) >&2
  touch "$dir/.complete"
fi
echo "$dir"
