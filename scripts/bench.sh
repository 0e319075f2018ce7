#!/usr/bin/env bash
# All benchmarks of our own, on this machine, and what machine it is. Quiet it first: the load average is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
printf '%s, %s cores, %s MiB, load average %s\n\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
  "$(($(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo) / 1024))" "$(cut -d' ' -f1-3 /proc/loadavg)"
for bench in $(sed -n '/^\[\[bench\]\]/{n;s/name = "\(.*\)"/\1/p}' Cargo.toml | grep -v _peers); do
  echo "## $bench"
  cargo --locked bench --quiet --bench "$bench"
  echo
done
