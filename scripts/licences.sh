#!/usr/bin/env bash
# Every dependency's licence must go with Apache-2.0: each one's SPDX expression needs an alternative made of the licences below.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" | python3 -c '
import json, re, sys

ALLOWED = {
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD", "Unicode-3.0", "Unicode-DFS-2016", "CC0-1.0", "MIT-0",
    "BSL-1.0", "Unlicense", "CDLA-Permissive-2.0", "MPL-2.0", "LLVM-exception", "OpenSSL",
}

def fits(expression):
    """Reads the expression as Python: a licence is whether it is allowed, WITH counts as AND."""
    text = expression.replace("/", " OR ")
    text = re.sub(r"[A-Za-z0-9.+-]+", lambda m: {"OR": " or ", "AND": " and ", "WITH": " and "}.get(m[0], str(m[0] in ALLOWED)), text)
    return re.fullmatch(r"(?:True|False|or|and|[() ])+", text) is not None and eval(text)

packages = [p for p in json.load(sys.stdin)["packages"] if p["source"]]
bad = [p for p in packages if not fits(p["license"] or "none")]
for p in bad:
    print("licence of", p["name"], p["version"], "is", p["license"], file=sys.stderr)
counted = len(packages)
print(f"licences: {counted} dependencies, all fit" if not bad else f"licences: {len(bad)} of {counted} do not fit")
sys.exit(bool(bad))
'
