#!/usr/bin/env bash
# A Python environment in the cache with exactly the packages of a requirements file (versions are pinned, pip checks their hashes
# against the index). Made anew when the file changes; quiet when there is nothing to do.
# usage: scripts/python.sh REQUIREMENTS [NAME]
set -euo pipefail
. "$(dirname "$0")/lib.sh"

requirements=$1 name=${2:-python}
dir=$cache/$name
once "$name"
if ! cmp -s "$requirements" "$dir/requirements.txt" || ! "$dir/bin/python" -c '' 2>/dev/null; then
  say "making the Python environment $dir"
  rm -rf "$dir"
  python3 -m venv "$dir"
  "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$requirements"
  "$dir/bin/pip" check >&2
  cp "$requirements" "$dir/requirements.txt"
fi
