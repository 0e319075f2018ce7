#!/usr/bin/env bash
# The peers beside ours, on the same machine in one run: Debezium for the capture; Spark with Hudi, delta-rs and DuckDB for the merge.
# BENCH_PEER_ROWS (default 3,500,000) is the merge's table.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/spark.sh
scripts/debezium.sh
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
echo "## capture"
cargo --locked bench --quiet --bench capture_peers
echo "## merge"
cargo --locked bench --quiet --bench merge
HUDI_BUNDLE=$(ls "$cache"/jars/hudi-spark*.jar) "$cache/spark/bin/python" benches/peers/merge_peers.py "$cache/peers-data" "${BENCH_PEER_ROWS:-3500000}" 2>/dev/null
