# Shared by the set-up scripts (sourced, not run): where tools are kept, and how a package is unpacked without touching the system.

cache=${BINLAKE_CACHE:-$HOME/.cache/binlake}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# once NAME: one set-up of NAME at a time, whoever calls it.
once() {
  exec 8>"$cache/.$1.lock"
  flock 8
}

# install PACKAGE…: the system's packages that are missing, as root; else says what to install. None: nothing to do.
install() {
  [ $# != 0 ] || return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: $*; install them (Debian and Ubuntu: sudo apt-get install $*)"
  say "installing $*"
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
}

# maven_jars POM DIR WHAT: the jars that POM depends on, in DIR/lib.
maven_jars() {
  once "$(basename "$2")"
  [ -e "$2/.complete" ] && return 0
  say "getting $3"
  rm -rf "$2"
  mkdir -p "$2"
  cp "$1" "$2/pom.xml"
  (cd "$2" && mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory=lib) >&2
  touch "$2/.complete"
}

# The Debian mirror that this machine uses, whichever way its sources are written.
debian_mirror() {
  { cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*//p' | tr ' ' '\n'
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p'
  } | grep -E '/debian/?$' | head -n 1
}

# unpack DIR SUITE PACKAGE…: the first of the packages that SUITE has, and all it needs, down to libc, below DIR/root. SUITE is a Debian
# suite, or `own` for this machine's sources. apt checks the signatures as always; nothing is installed, and root isn't needed.
unpack() {
  local dir=$1 suite=$2 package deb found chosen=; shift 2
  rm -rf "$dir/apt" "$dir/root"
  mkdir -p "$dir"/apt/lists/partial "$dir"/apt/archives/partial "$dir/root"
  : >"$dir/apt/status"
  local options=(-o "Dir::State::lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache=$dir/apt"
    -o "Dir::Cache::archives=$dir/apt/archives" -o APT::Install-Recommends=0 -o Acquire::Retries=3 -o Acquire::Languages=none)
  [ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
  if [ "$suite" != own ]; then
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror)
    [ -n "$mirror" ] && [ -r "$keyring" ] || return 1
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite" >"$dir/apt/sources.list"
    options+=(-o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null)
  fi
  apt-get -qq "${options[@]}" update >"$dir/apt/update.log" 2>&1 || { cat "$dir/apt/update.log" >&2; return 1; }
  for package in "$@"; do
    found=$(apt-cache "${options[@]}" policy "$package")
    if [[ $found =~ Candidate:\ [^\(] ]]; then chosen=$package; break; fi
  done
  [ -n "$chosen" ] || return 1
  say "unpacking $chosen into $dir"
  apt-get -qq "${options[@]}" -y --download-only install "$chosen" >/dev/null || return 1
  for deb in "$dir"/apt/archives/*.deb; do
    dpkg-deb -x "$deb" "$dir/root"
    # What was unpacked: checksum, name and version of each package.
    printf '%s  %s\n' "$(sha256sum <"$deb" | cut -d' ' -f1)" "$(dpkg-deb --show "$deb" | tr '\t' ' ')"
  done >"$dir/packages.txt"
  rm -rf "$dir/apt"
}

# loader DIR: how a program below DIR/root is started with the libraries that were unpacked beside it.
loader() {
  local root=$1/root ld
  ld=$(find "$root/usr/lib" "$root/lib" -maxdepth 2 -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
  [ -n "$ld" ] || return 1
  printf '%s --library-path %s' "$ld" "$(find "$root" -name 'lib*.so.*' -printf '%h\n' | sort -u | paste -sd:)"
}
