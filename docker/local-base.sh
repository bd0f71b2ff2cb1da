#!/usr/bin/env bash
# Makes the images that docker/Dockerfile builds from, for machines that can pull no image. They take the originals' place,
# and are not the same bytes. Does nothing where they are there already.
#
#   docker/local-base.sh            debian:bookworm-slim out of Debian's archive; needs root, a running engine, and debootstrap
#                                   (apt-get install debootstrap)
#   docker/local-base.sh --engine   installs an engine of Debian's first where there is none, and starts it
#   docker/local-base.sh --rust     also the image with the Rust compiler: the former, this machine's toolchain, and the crates
#                                   of Cargo.lock that cargo has downloaded here, so that no registry has to be reached
#
# Environment: DEBIAN_MIRROR (default: the first one of this machine's own sources, or debootstrap's); CARGO_HOME.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly IMAGE=debian:bookworm-slim SUITE=bookworm
folder= container=
say() { echo "docker/local-base.sh: $*"; }
fail() { say "$*" >&2; exit 1; }
clean() {
  [ -z "$folder" ] || rm -rf "$folder" "$folder.log"
  [ -z "$container" ] || docker rm "$container" >/dev/null
}
trap clean EXIT

# The engine's own packages, and what builds the base.
engine() {
  if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null || ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "there is no apt-get: install Docker, docker-compose and debootstrap by hand"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io docker-compose debootstrap iptables
  fi
  docker info >/dev/null 2>&1 && return
  local log=/var/log/dockerd.log
  setsid dockerd >"$log" 2>&1 </dev/null &
  for _ in $(seq 100); do
    docker info >/dev/null 2>&1 && return
    sleep 0.3
  done
  tail -n 5 "$log" >&2
  fail "the engine does not come up; its log is $log"
}

mirror() {
  if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR" && return; fi
  local found
  found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) bookworm main.*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
  echo "$found"
}

debian() {
  if docker image inspect "$IMAGE" >/dev/null 2>&1; then say "$IMAGE is here" && return; fi
  [ "$(id -u)" -eq 0 ] || fail "debootstrap needs root"
  command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
  folder=$(mktemp -d)
  chmod 755 "$folder"
  say "making $IMAGE, about a minute …"
  # shellcheck disable=SC2046 # no mirror is no word
  debootstrap --variant=minbase "$SUITE" "$folder" $(mirror) >"$folder.log" 2>&1 \
    || { tail -n 20 "$folder.log" >&2; fail "debootstrap failed"; }
  rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder"/usr/share/doc/* "$folder"/usr/share/man/*
  tar -C "$folder" -c . | docker import --change 'CMD ["bash"]' - "$IMAGE" >/dev/null
  say "$IMAGE is made"
}

# What compiles for this machine itself: no documentation, no other targets.
toolchain() { # sysroot, where it goes
  local host
  host=$("$1/bin/rustc" -vV | sed -n 's/^host: //p')
  (cd "$1" && tar -c --owner=0 --group=0 --numeric-owner --transform "s,^,$2/," bin/cargo bin/rustc lib/*.so* "lib/rustlib/$host")
}

# What cargo has downloaded: the registries' indices, and the archives of the crates that are locked. No configuration and no
# credentials: those are this machine's.
downloads() { # cargo's folder, where they go
  local locked
  locked=$(awk -F '"' '/^name = /{ name = $2 } /^version = /{ version = $2 } /^source = "(registry|sparse)/{ print name "-" version ".crate" }' Cargo.lock)
  (cd "$1" && {
    find registry/index -type f ! -name .cargo-index-lock
    find registry/cache -name '*.crate' | awk 'NR == FNR { want[$0]; next } { name = $0; sub(".*/", "", name) } name in want' <(echo "$locked") -
  } | tar -c --owner=0 --group=0 --numeric-owner --transform "s,^,$2/," --files-from -)
}

rust() {
  local image wanted found sysroot cargo=${CARGO_HOME:-$HOME/.cargo}
  image=$(sed -n 's/^ARG RUST=//p' docker/Dockerfile)
  if docker image inspect "$image" >/dev/null 2>&1; then say "$image is here" && return; fi
  wanted=${image#rust:} wanted=${wanted%%-*}
  command -v rustc >/dev/null || fail "there is no rustc here to take into $image"
  found=$(rustc --version | cut -d ' ' -f 2)
  case $found in "$wanted".*) ;; *) fail "$image wants Rust $wanted, this machine's is $found" ;; esac
  say "making $image out of $IMAGE and this machine's Rust $found, about a minute …"
  sysroot=$(rustc --print sysroot)
  container=$(docker create "$IMAGE")
  toolchain "$sysroot" usr/local/rust | docker cp - "$container:/"
  [ ! -d "$cargo/registry/index" ] || downloads "$cargo" usr/local/cargo | docker cp - "$container:/"
  docker commit --change 'ENV CARGO_HOME=/usr/local/cargo' \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$container" "$image" >/dev/null
  say "$image is made"
}

[ "${1:-}" != --engine ] || engine
docker info >/dev/null 2>&1 || fail "no engine answers: start one (dockerd), or run this with --engine"
debian
[ "${1:-}" != --rust ] || rust
