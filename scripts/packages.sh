#!/usr/bin/env bash
# The system packages that building and testing need: a C compiler (for zstd and SQLite), Python's venv, openssl (for the tests' certificates).
# Installs what is missing as root, else says what to install. Quiet when there is nothing to do.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

missing=()
command -v cc >/dev/null || missing+=(build-essential)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
command -v openssl >/dev/null || missing+=(openssl)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
install "${missing[@]}"
command -v cargo >/dev/null || die "no Rust: install rustup, then the stable toolchain ($(sed -n 's/^rust-version = //p' "$(dirname "$0")/../Cargo.toml") or newer)"
