# shellcheck shell=bash
# What the parts of docker/test.sh share. Expects IMAGE, NAME and work to be set.

compose() { docker-compose "$@"; }
command -v docker-compose >/dev/null || { docker compose version >/dev/null 2>&1 && compose() { docker compose "$@"; }; }
say() { echo "docker/test.sh: $*"; }
fail() {
  say "FAILED: $*" >&2
  { compose logs --no-color --tail 30 || true; } 2>/dev/null | cut -c 1-240 >&2
  for one in $(docker ps -aq --filter "name=^$NAME-" --filter "label=test=$NAME"); do
    docker inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' "$one" >&2
    docker logs --tail 30 "$one" 2>&1 | cut -c 1-240 >&2
  done
  exit 1
}

id_of() { compose ps -q "$1"; } # service
state_of() { docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$1"; } # container
health_of() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
address_of() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

# Waits until a command succeeds.
within() { # seconds, what for, command …
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain until $what"
    sleep 0.5
  done
}
is() { [ "$("$1" "$2" 2>/dev/null)" = "$3" ]; } # function, its argument, what it prints
applied() { [ "$(compose logs --no-color "$1" 2>/dev/null | grep -c 'applied the results')" -ge "$2" ]; } # service, steps

# The event log of a container as far as it goes, and a question about it (events.py).
events_of() { # container, question …
  local container=$1 log
  shift
  log=$(mktemp -p "$work")
  docker cp "$container:/data/psyche-data/events.jsonl" "$log" >/dev/null 2>&1 && python3 docker/test/events.py "$log" "$@"
}

# Stops a container as an operator does. What the engine would do after 20 s is not to help: it gets longer.
stops() { # container, who it is
  local began=$EPOCHREALTIME took
  docker stop --time $((LEAVES_WITHIN * 2)) "$1" >/dev/null
  took=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }")
  [ "$(state_of "$1")" = "exited 0" ] || fail "SIGTERM: $2 ended with $(state_of "$1")"
  awk "BEGIN { exit !($took < $LEAVES_WITHIN) }" || fail "SIGTERM: $2 took $took s, $LEAVES_WITHIN are allowed"
  say "SIGTERM: $2 left with exit code 0 after $took s"
}
