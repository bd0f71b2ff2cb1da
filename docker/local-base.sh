#!/usr/bin/env bash
# Makes the image debian:bookworm-slim out of Debian's archive, for machines that can pull no image: a minimal system that
# takes its place, not the same bytes. Does nothing where the image is there already.
#
#   docker/local-base.sh            needs root, a running engine, and debootstrap (apt-get install debootstrap)
#   docker/local-base.sh --engine   installs an engine of Debian's first where there is none, and starts it
#
# Environment: DEBIAN_MIRROR (default: the first one of this machine's own sources, or debootstrap's).
set -euo pipefail

readonly IMAGE=debian:bookworm-slim SUITE=bookworm
fail() { echo "docker/local-base.sh: $*" >&2; exit 1; }

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

[ "${1:-}" != --engine ] || engine
docker info >/dev/null 2>&1 || fail "no engine answers: start one (dockerd), or run this with --engine"
if docker image inspect "$IMAGE" >/dev/null 2>&1; then
  echo "docker/local-base.sh: $IMAGE is here"
  exit 0
fi
[ "$(id -u)" -eq 0 ] || fail "debootstrap needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
echo "docker/local-base.sh: making $IMAGE, about a minute …"
# shellcheck disable=SC2046 # no mirror is no word
debootstrap --variant=minbase "$SUITE" "$folder" $(mirror) >"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; fail "debootstrap failed"; }
rm -rf "$folder.log" "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder"/usr/share/doc/* "$folder"/usr/share/man/*
tar -C "$folder" -c . | docker import --change 'CMD ["bash"]' - "$IMAGE" >/dev/null
echo "docker/local-base.sh: $IMAGE is made"
