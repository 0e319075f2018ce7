#!/usr/bin/env bash
# Finds a MySQL or MariaDB server for the tests and the demo, and prints the path of a `mysqld` that runs with its own options only.
# Looks for: the server on the PATH; else the distribution's package; else (Debian) another suite's; packages are unpacked into the
# cache, not installed: no service is started, and root isn't needed. Beside `mysqld` lies `template`, a data folder made ready
# (root without a password), to be copied. Does nothing the second time.
# usage: scripts/mysql.sh [mysql|mariadb]
set -euo pipefail
. "$(dirname "$0")/lib.sh"

kind=${1:-mysql}
dir=$cache/$kind
run=$dir/mysqld

# wrapper COMMAND [OPTIONS]: writes the cache's `mysqld`, which reads no option files of the machine.
wrapper() {
  mkdir -p "$dir"
  printf '#!/bin/sh\nexec %s --no-defaults %s "$@"\n' "$1" "${2:-}" >"$run.new"
  chmod +x "$run.new"
  "$run.new" --version >"$dir/version.txt" && mv "$run.new" "$run"
}

# A server that the machine has: the right kind, and not too old.
on_path() {
  local name program version
  for name in mysqld mariadbd /usr/sbin/mysqld /usr/sbin/mariadbd; do
    program=$(command -v "$name") || continue
    version=$("$program" --no-defaults --version 2>/dev/null) || continue
    case "$kind:$version" in
      mariadb:*MariaDB*) ;;
      mysql:*MariaDB*) continue ;;
      mysql:*" 8."* | mysql:*" 9."*) ;;
      *) continue ;;
    esac
    # A security profile of the system's may keep it from other folders than its own: then the template fails, and we go on.
    wrapper "$program" && share=$(dirname "$program")/../share/mysql && template && return 0
  done
  return 1
}

# from SUITE PACKAGE…: unpacked from a suite's package.
from() {
  local start server plugins root=$dir/root/usr
  unpack "$dir" "$@" && start=$(loader "$dir") || return 1
  for server in "$root/sbin/mysqld" "$root/sbin/mariadbd"; do [ -x "$server" ] && break; done
  share=$root/share/mysql
  plugins=$(find "$root/lib" -type d -name plugin | head -n 1)
  wrapper "$start $server" "--basedir=$root --lc-messages-dir=$share --character-sets-dir=$share/charsets --plugin-dir=$plugins" && template
}

# An initialised data folder. auto.cnf, the server's identity, is left out: each copy makes its own.
template() {
  local new=$dir/template.new
  rm -rf "$new"
  local options=(--datadir="$new" --log-error="$dir/template.log")
  [ "$(id -u)" != 0 ] || options+=(--user=root)
  if grep -q MariaDB "$dir/version.txt"; then
    mkdir -p "$new/mysql"
    { printf 'use mysql;\nSET @auth_root_socket=NULL;\n'
      cat "$share"/mysql_{system_tables,performance_tables,system_tables_data}.sql
    } | "$run" "${options[@]}" --bootstrap --innodb-log-file-size=8M --max-allowed-packet=8M >/dev/null 2>&1
  else
    "$run" "${options[@]}" --initialize-insecure --innodb-redo-log-capacity=8M
  fi || return 1
  rm -f "$new/auto.cnf"
  mv "$new" "$dir/template"
}

find_server() {
  local share=
  rm -rf "$dir"
  if [ "$kind" = mariadb ]; then
    on_path || from bookworm mariadb-server-core || from own mariadb-server-core \
      || die "no MariaDB server could be had: install MariaDB 10.6 or newer; what was tried is in $dir"
  elif ! { on_path || from own mysql-server-core mysql-server-core-8.4 mysql-server-core-8.0 || from sid mysql-server-core; }; then
    say "no MySQL server could be had: MariaDB stands in for it"
    "$0" mariadb >/dev/null
    mkdir -p "$dir"
    cp -a "$cache"/mariadb/{mysqld,version.txt,template} "$dir/"
  fi
  say "$(cat "$dir/version.txt")"
}

if ! [ -d "$dir/template" ] || ! "$run" --version >/dev/null 2>&1; then
  once "$kind"
  [ -d "$dir/template" ] && "$run" --version >/dev/null 2>&1 || find_server
fi
echo "$run"
