#!/usr/bin/env bash
# Says everything at once that this machine lacks for a build, with the command that mends it. Silent when all is there.
set -euo pipefail

missing=()
packages=()
need() { # what it is for, Debian's package, a command that succeeds where it is there
  local what=$1 package=$2
  shift 2
  "$@" >/dev/null 2>&1 || { missing+=("$what"); packages+=("$package"); }
}

need "a C compiler (cc)" gcc command -v cc
need "a C++ compiler (c++)" g++ command -v c++
need "make" make command -v make
need "python3" python3 command -v python3
# The local chain brings an OpenSSL of its own, and that is configured by perl.
need "perl with its core modules" perl perl -MFindBin -MIPC::Cmd -MTime::Piece -e 1

if ! command -v cargo >/dev/null; then
  missing+=("the Rust toolchain (cargo)")
else
  have=$(cargo --version | awk '{ print $2 }')
  want=$(awk -F '"' '/^rust-version/ { print $2; exit }' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")
  if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" != "$want" ]; then
    missing+=("Rust $want or newer, this is $have (rustup update)")
  fi
fi

[ ${#missing[@]} -eq 0 ] && exit 0
printf 'this machine lacks: %s\n' "${missing[@]}" >&2
[ ${#packages[@]} -eq 0 ] || printf 'on Debian and Ubuntu: apt-get install %s\n' "${packages[*]}" >&2
exit 1
