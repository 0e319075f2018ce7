#!/usr/bin/env bash
# Spark 3.5 with Hudi 0.15 in the cache: PySpark in a Python environment of its own, the bundle by Maven. Needs Java 11 or 17.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

hudi=0.15.0
bundle=hudi-spark3.5-bundle_2.12-$hudi.jar
missing=()
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
install "${missing[@]}"
scripts/python.sh tests/readers/requirements-spark.txt spark
if ! [ -e "$cache/jars/$bundle" ]; then
  say "getting $bundle"
  mvn -q -B -C dependency:copy "-Dartifact=org.apache.hudi:${bundle%%_*}_2.12:$hudi" "-DoutputDirectory=$cache/jars" >&2
fi
