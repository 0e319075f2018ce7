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
install "${missing[@]}"
maven_jars scripts/java/dynamodb-local.xml "$dir" "DynamoDB Local $version"
echo "$dir"
