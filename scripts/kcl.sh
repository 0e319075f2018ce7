#!/usr/bin/env bash
# Amazon's own Java for `make test-kcl` in the cache, by Maven: the Kinesis Client Library (kcl, the default) or the aggregation of records (kpl). Prints the
# folder. Needs a JDK. usage: scripts/kcl.sh [kcl|kpl]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

what=${1:-kcl}
version=$(sed -n 's:.*<version>\([0-9]*\.[0-9.]*\)</version>.*:\1:p' "scripts/java/$what.xml")
dir=$cache/$what-$version
missing=()
command -v javac >/dev/null || missing+=(default-jdk-headless)
[ -e "$dir/.complete" ] || command -v mvn >/dev/null || missing+=(maven)
install "${missing[@]}"
maven_jars "scripts/java/$what.xml" "$dir" "$what $version"
echo "$dir"
