# shellcheck shell=bash
# The compose testnet: a run that nobody disturbs, and one in which a node and an endpoint fail.

readonly NODES="node-1 node-2 node-3"

up() { compose up -d >"$work/up" 2>&1 || { cat "$work/up" >&2; fail "the services do not come up"; }; }
over() { local node; for node in $NODES; do case $(state_of "$(id_of "$node")") in exited*) ;; *) return 1 ;; esac; done; }

# Every node ended well, and their logs say the same.
verdict() {
  local node
  for node in $NODES; do
    [ "$(state_of "$(id_of "$node")")" = "exited 0" ] || fail "$node ended with $(state_of "$(id_of "$node")")"
    docker cp "$(id_of "$node"):/data/psyche-data/events.jsonl" "$work/$node.jsonl" >/dev/null
  done
  say "$(python3 docker/check.py "$STEPS" "$work"/node-*.jsonl 2>&1)" || fail "$(python3 docker/check.py "$STEPS" "$work"/node-*.jsonl 2>&1)"
}

# What differs from the image, apart from the places at which volumes and files were mounted.
changes_of() { # container
  docker diff "$1" | while read -r _kind path; do
    docker inspect --format '{{range .Mounts}}{{println .Destination}}{{end}}' "$1" | grep -q "^$path\(/\|$\)" || echo "$path"
  done
}

# A node at work may do nothing, and writes nowhere but in its volume.
confined() { # container, who it is
  local set status changed
  set=$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{json .HostConfig.CapDrop}} {{.Config.User}}' "$1")
  [ "$set" = 'true false ["ALL"] 10001:10001' ] || fail "$2 runs with $set"
  status=$(docker exec "$1" cat /proc/1/status)
  for line in 'Uid:.10001.10001.10001.10001' 'CapPrm:.0*' 'CapEff:.0*' 'CapBnd:.0*' 'NoNewPrivs:.1'; do
    grep -qx "$line" <<<"$status" || fail "the process of $2 is not as it should be ($line)"
  done
  [ "$(docker inspect --format '{{range .Mounts}}{{if .RW}}{{.Destination}} {{end}}{{end}}' "$1")" = "/data " ] || fail "$2 has other volumes to write to than /data"
  changed=$(changes_of "$1")
  [ -z "$changed" ] || fail "$2 has changed its image: $changed"
  if docker exec "$1" touch /usr/local/bin/more 2>/dev/null; then fail "$2 can write to its image"; fi
  docker exec "$1" test -s /data/psyche-data/events.jsonl || fail "$2 has written nothing to /data"
}

undisturbed() {
  local node
  up
  within "$ENDS_WITHIN" "the first step was applied" applied node-1 1
  for node in $NODES; do
    confined "$(id_of "$node")" "$node"
  done
  say "nodes at work are user 10001, without capabilities, and have written to /data alone"
  for node in $NODES; do
    within 60 "$node was healthy" is health_of "$(id_of "$node")" healthy
  done
  say "nodes at work are healthy"
  within "$ENDS_WITHIN" "the run was over" over
  verdict
}

disturbed() {
  up
  within "$ENDS_WITHIN" "the first steps were applied" applied node-1 3
  docker kill --signal KILL "$(id_of node-2)" >/dev/null
  compose stop rpc-1 >/dev/null 2>&1
  docker start "$(id_of node-2)" >/dev/null
  within "$ENDS_WITHIN" "steps were applied without rpc-1" applied node-3 8
  if [ "$(state_of "$(id_of node-3)")" = "running 0" ]; then
    stops "$(id_of node-3)" node-3
    docker start "$(id_of node-3)" >/dev/null
  fi
  compose start rpc-1 >/dev/null 2>&1
  within "$ENDS_WITHIN" "the run was over" over
  verdict
}
