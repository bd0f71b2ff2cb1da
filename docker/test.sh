#!/usr/bin/env bash
# Builds the image from what `make build` has made, runs the compose testnet to its end, and again with a node and an endpoint
# that fail in the middle. Needs root where it has to install an engine (docker/local-base.sh).
#
# Exit codes: 0 everything held, 1 something did not, 3 no container engine can be had here (said in one line).
# Environment: STEPS (24); CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PSYCHE_IMAGE=psyche-client:test COMPOSE_PROJECT_NAME=psyche-test STEPS=${STEPS:-24} DOCKER_BUILDKIT=0
readonly NODES="node-1 node-2 node-3" ENDS_WITHIN=300 LEAVES_WITHIN=20
work=$(mktemp -d)
compose() { docker-compose "$@"; }
command -v docker-compose >/dev/null || { docker compose version >/dev/null 2>&1 && compose() { docker compose "$@"; }; }
say() { echo "docker/test.sh: $*"; }
fail() {
  say "FAILED: $*" >&2
  compose logs --no-color --tail 30 2>/dev/null | cut -c 1-240 >&2 || true
  exit 1
}
clean() {
  compose down --volumes --timeout 5 >/dev/null 2>&1 || true
  docker rm -f psyche-test-alone >/dev/null 2>&1 || true
  rm -rf "$work"
}

if ! docker/local-base.sh --engine >"$work/base" 2>&1; then
  say "no container engine can be had here: $(tail -n 1 "$work/base")"
  rm -rf "$work"
  exit 3
fi
trap clean EXIT
if ! docker run --rm debian:bookworm-slim apt-get update >"$work/network" 2>&1; then
  say "no image can be built here: containers reach no package archive: $(tail -n 1 "$work/network")"
  exit 3
fi

id_of() { compose ps -q "$1"; }
state_of() { docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$(id_of "$1")"; }

# Waits until a command succeeds.
within() { # seconds, what for, command …
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain until $what"
    sleep 0.5
  done
}
applied() { [ "$(compose logs --no-color "$1" 2>/dev/null | grep -c 'applied the results')" -ge "$2" ]; }
over() { local node; for node in $NODES; do case $(state_of "$node") in exited*) ;; *) return 1 ;; esac; done; }

# Every node ended well, and their logs say the same.
verdict() {
  local node
  for node in $NODES; do
    [ "$(state_of "$node")" = "exited 0" ] || fail "$node ended with $(state_of "$node")"
    docker cp "$(id_of "$node"):/data/psyche-data/events.jsonl" "$work/$node.jsonl" >/dev/null
  done
  say "$(python3 docker/check.py "$STEPS" "$work"/node-*.jsonl 2>&1)" || fail "$(python3 docker/check.py "$STEPS" "$work"/node-*.jsonl 2>&1)"
}

say "the image"
docker/build.sh --prebuilt --no-cuda --tag $PSYCHE_IMAGE >"$work/build" 2>&1 || { cat "$work/build" >&2; fail "the image was not built"; }
tail -n 1 "$work/build"

say "a node alone, as an operator starts it"
printf 'RPC=http://127.0.0.1:1\nRUN_ID="none"\nDATA_PARALLELISM=1\n' >"$work/.env"
alone() { docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network host --env-file "$work/.env" "$@"; }
code=0
alone $PSYCHE_IMAGE >"$work/alone" 2>&1 || code=$?
{ [ $code -eq 3 ] && grep -q WALLET_PRIVATE_KEY_PATH "$work/alone"; } || fail "without a key: exit code $code, $(cat "$work/alone")"
code=0
alone -e RAW_WALLET_PRIVATE_KEY="$(python3 -c 'print(list(range(64)))')" $PSYCHE_IMAGE >"$work/alone" 2>&1 || code=$?
[ $code -eq 3 ] || fail "with numbers that are no key: exit code $code, $(cat "$work/alone")"
[ "$(docker run --rm --entrypoint id $PSYCHE_IMAGE -u)" != 0 ] || fail "the image runs as root"

say "a whole run of $STEPS steps"
compose up -d >"$work/up" 2>&1 || { cat "$work/up" >&2; fail "the services do not come up"; }
within $ENDS_WITHIN "the run was over" over
verdict

say "another one, in which a node dies and comes back, an endpoint stops, and a node is stopped by its operator"
compose down --volumes >/dev/null 2>&1
compose up -d >"$work/up" 2>&1 || { cat "$work/up" >&2; fail "the services do not come up"; }
within $ENDS_WITHIN "the first steps were applied" applied node-1 3
docker kill --signal KILL "$(id_of node-2)" >/dev/null
compose stop rpc-1 >/dev/null 2>&1
docker start "$(id_of node-2)" >/dev/null
within $ENDS_WITHIN "steps were applied without rpc-1" applied node-3 8
if [ "$(state_of node-3)" = "running 0" ]; then
  docker stop --time $LEAVES_WITHIN "$(id_of node-3)" >/dev/null
  [ "$(state_of node-3)" = "exited 0" ] || fail "SIGTERM: node-3 ended with $(state_of node-3)"
  docker start "$(id_of node-3)" >/dev/null
fi
compose start rpc-1 >/dev/null 2>&1
within $ENDS_WITHIN "the run was over" over
verdict
say "passed in $SECONDS s"
