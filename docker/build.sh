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
# Environment: BASE, RUST (images to build from), CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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

context=.
if [ -n "$prebuilt" ]; then
  program=${CARGO_TARGET_DIR:-target}/debug/psyche-solana-client
  [ -x "$program" ] || { echo "docker/build.sh: there is no $program: make build" >&2; exit 1; }
  scripts/setup-libtorch.sh >&2
  libtorch=${LIBTORCH:-.libtorch}
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  mkdir -p "$context/dist" "$context/docker" "$context/scripts"
  cp docker/Dockerfile docker/stage.sh "$context/docker"
  cp scripts/fetch_libtorch.py scripts/wheels.py scripts/python.txt "$context/scripts"
  strip -o "$context/dist/psyche-solana-client" "$program"
  # Sorted and without times, so that the same files are the same layer.
  tar -C "$libtorch" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$context/dist/libtorch.tar" lib
  if [ "$cuda" = 1 ]; then
    python3 scripts/fetch_libtorch.py --cuda "$context/cuda" >&2
    tar -C "$context/cuda" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$context/dist/cuda.tar" .
    rm -rf "$context/cuda"
  fi
  arguments+=(--build-arg "RUST=${BASE:-debian:bookworm-slim}")
elif [ -n "${RUST:-}" ]; then
  arguments+=(--build-arg "RUST=$RUST")
fi
docker build --tag "$tag" "${arguments[@]}" --file "$context/docker/Dockerfile" "$context"
docker image inspect --format "docker/build.sh: $tag is {{.Size}} bytes" "$tag"
