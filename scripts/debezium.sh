#!/usr/bin/env bash
# Debezium's jars in the cache, by Maven; quiet when they are there. Needs Java and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
once debezium
if ! [ -e "$cache/debezium" ]; then
  say "getting Debezium"
  mvn -q -B -C -f benches/peers/debezium/pom.xml dependency:copy-dependencies "-DoutputDirectory=$cache/debezium" >&2
fi
