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
install "${missing[@]}"
maven_jars scripts/java/kcl.xml "$dir" "the Kinesis Client Library $version"
echo "$dir"
