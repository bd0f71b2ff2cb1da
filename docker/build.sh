#!/usr/bin/env bash
# Builds the node's image.
#
#   docker/build.sh [--tag NAME] [--no-cuda] [--prebuilt]
#
#   --tag NAME    the image's name (psyche-client:latest)
#   --no-cuda     without libtorch's CUDA half: 3 GB less, trains on CPUs only
#   --prebuilt    with the program and the libtorch that `make build` has made on this machine (Debian 12's glibc or an older
#                 one): a minute instead of half an hour
#
# Environment:
#   BASE, RUST                images to build from (debian:bookworm-slim, rust:1.95-slim-bookworm)
#   CERTIFICATES              folder with *.crt that downloads have to trust besides Debian's (the machine's own ones:
#                             /usr/local/share/ca-certificates); the image does not get them
#   DOCKER_BUILD_OPTIONS      options for docker build, such as "--cpu-shares 128 --cpuset-cpus 0" for the classic builder:
#                             as many compilers run at once as there are cores in the set
#   CARGO_TARGET_DIR, LIBTORCH  where --prebuilt finds the program and libtorch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CRATES="messages protocol gpu localnet chain data net actors programs/elf cli"
tag=psyche-client:latest cuda=1 prebuilt=
usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=${2:?--tag needs a name}; shift ;;
    --no-cuda) cuda=0 ;;
    --prebuilt) prebuilt=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "docker/build.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
docker info >/dev/null 2>&1 || { echo "docker/build.sh: no container engine answers; start one, or see docker/local-base.sh --engine" >&2; exit 1; }

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
arguments=(--build-arg "CUDA=$cuda" --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
  --build-arg "CREATED=$(git log -1 --format=%cI 2>/dev/null || echo unknown)")
[ -z "${BASE:-}" ] || arguments+=(--build-arg "BASE=$BASE")

# A folder with what takes the place of the sources.
prebuilt_context() { # folder
  local program=${CARGO_TARGET_DIR:-target}/debug/psyche-solana-client crate
  [ -x "$program" ] || { echo "docker/build.sh: there is no $program: make build" >&2; exit 1; }
  scripts/setup-libtorch.sh >&2
  mkdir -p "$1/dist" "$1/docker" "$1/scripts"
  for crate in $CRATES; do mkdir -p "$1/$crate"; done
  cp docker/Dockerfile docker/stage.sh "$1/docker"
  cp scripts/fetch_libtorch.py scripts/wheels.py scripts/python.txt "$1/scripts"
  : >"$1/dist/prebuilt"
  strip -o "$1/dist/psyche-solana-client" "$program"
  # Sorted and without times, so that the same files are the same layer.
  tar -C "${LIBTORCH:-.libtorch}" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$1/dist/libtorch.tar" lib
  if [ "$cuda" = 1 ]; then
    python3 scripts/fetch_libtorch.py --cuda "$1/cuda" >&2
    tar -C "$1/cuda" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$1/dist/cuda.tar" .
    rm -rf "$1/cuda"
  fi
}

context=.
if [ -n "$prebuilt" ]; then
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  prebuilt_context "$context"
  arguments+=(--build-arg "RUST=${BASE:-debian:bookworm-slim}")
else
  [ -z "${RUST:-}" ] || arguments+=(--build-arg "RUST=$RUST")
  certificates=$(cat "${CERTIFICATES:-/usr/local/share/ca-certificates}"/*.crt 2>/dev/null || true)
  [ -z "$certificates" ] || arguments+=(--build-arg "CERTIFICATES=$certificates")
fi
# shellcheck disable=SC2086 # the options are words
docker build --tag "$tag" "${arguments[@]}" ${DOCKER_BUILD_OPTIONS:-} --file "$context/docker/Dockerfile" "$context"
docker image inspect --format "docker/build.sh: $tag is {{.Size}} bytes" "$tag"
