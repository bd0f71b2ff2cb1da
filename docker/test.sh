#!/usr/bin/env bash
# Builds the image from what `make build` has made and tries it: what it is, the compose testnet to its end, nodes as
# operators start them, and the testnet again with a node and an endpoint that fail in the middle. Needs root where it has to
# install an engine (docker/local-base.sh), and to give key files to the node's user.
#
#   docker/test.sh [--image NAME]      tries an image that is there already
#
# Exit codes: 0 everything held, 1 something did not, 3 no container engine can be had here (said in one line).
# Environment: STEPS (24); REVISION, from which the image must be (HEAD); NAME (psyche-test), with which the names of all that
# it makes begin; CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-psyche-test} IMAGE=
case ${1:-} in
  '') ;;
  --image) IMAGE=${2:?--image needs a name} ;;
  *) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
export PSYCHE_IMAGE=${IMAGE:-psyche-client:test} COMPOSE_PROJECT_NAME=$NAME STEPS=${STEPS:-24} DOCKER_BUILDKIT=0
readonly ENDS_WITHIN=300 LEAVES_WITHIN=20
work=$(mktemp -d)
chmod 755 "$work"
: >"$work/containers"
for part in lib image compose alone; do
  # shellcheck source=/dev/null
  . docker/test/$part.sh
done
clean() {
  # shellcheck disable=SC2046 # names are words
  docker rm -f -v $(cat "$work/containers") >/dev/null 2>&1 || true
  docker volume rm "$NAME-mounted" "$NAME-deaf" >/dev/null 2>&1 || true
  for project in "$NAME" "$NAME-2"; do
    COMPOSE_PROJECT_NAME=$project compose down --volumes --timeout 5 >/dev/null 2>&1 || true
  done
  docker rmi "$NAME-run" >/dev/null 2>&1 || true
  rm -rf "$work"
}

if ! docker/local-base.sh --engine >"$work/base" 2>&1; then
  say "no container engine can be had here: $(tail -n 1 "$work/base")"
  rm -rf "$work"
  exit 3
fi
trap clean EXIT
if [ -z "$IMAGE" ]; then
  if ! docker run --rm debian:bookworm-slim apt-get update >"$work/network" 2>&1; then
    say "no image can be built here: containers reach no package archive: $(tail -n 1 "$work/network")"
    exit 3
  fi
  IMAGE=$PSYCHE_IMAGE
  docker/build.sh --prebuilt --no-cuda --tag "$IMAGE" >"$work/build" 2>&1 || { cat "$work/build" >&2; fail "the image was not built"; }
  tail -n 1 "$work/build"
fi

say "the image"
image_checks "${REVISION:-$(git rev-parse HEAD)}"
say "a whole run of $STEPS steps"
undisturbed
say "nodes as operators start them"
alone
secrets
# Its network stays, so that nobody else gets the addresses at which the chain was.
compose stop --timeout 5 >/dev/null 2>&1
export COMPOSE_PROJECT_NAME=$NAME-2
say "another run, in which a node dies and comes back, an endpoint stops, and a node is stopped by its operator"
disturbed
forsaken
say "passed in $SECONDS s"
