# shellcheck shell=bash
# Nodes as operators start them, on the compose testnet's chain: by the command of the page on joining a run, and by the one
# that docs/DOCKER.md gives.

# An image with what the run's nodes have to have on their disks, a volume with the same, keys, and .env files.
prepare() {
  local from=(-v "${COMPOSE_PROJECT_NAME}_shared:/data" --entrypoint sh) rpc_1 rpc_2
  rpc_1=$(address_of "$(id_of rpc-1)") rpc_2=$(address_of "$(id_of rpc-2)")
  docker run --rm "${from[@]}" --network "${COMPOSE_PROJECT_NAME}_testnet" -v "$PWD/docker/test:/test:ro" -v "$PWD/docker/testnet:/testnet:ro" \
    -e RPC=http://rpc-1:8899 -e WS_RPC=ws://rpc-1:8900 "$IMAGE" /test/owner.sh >"$work/owner" 2>&1 || fail "the owner: $(cat "$work/owner")"
  mkdir "$work/shared"
  docker run --rm "${from[@]}" "$IMAGE" -c 'tar -C /data -c model tokens -- *.json seed.peer seed.address mounted.address' | tar -C "$work/shared" -x
  cat >"$work/shared/Dockerfile" <<DOCKERFILE
FROM $IMAGE
COPY model /usr/share/psyche/model
COPY tokens /usr/share/psyche/tokens
ENV MODELS_DIR=/usr/share/psyche DATA_PATH=/usr/share/psyche/tokens/tokens.bin
DOCKERFILE
  docker build --tag "$NAME-run" "$work/shared" >"$work/run-image" 2>&1 || fail "the run's image: $(cat "$work/run-image")"
  cp "$work/shared/seed.json" "$work/key.json"
  install -o 10001 -m 0400 "$work/shared/mounted.json" "$work/id.json"
  cat >"$work/.env" <<ENV
RPC=http://$rpc_1:8899
WS_RPC=ws://$rpc_1:8900
RPC_2=http://$rpc_2:8899
WS_RPC_2=ws://$rpc_2:8900
RUN_ID=pair
NVIDIA_DRIVER_CAPABILITIES=all
DATA_PARALLELISM=1
TENSOR_PARALLELISM=1
MICRO_BATCH_SIZE=8
AUTHORIZER=$(cat "$work/shared/seed.address")
METRICS_BIND=127.0.0.1:19464
P2P_PORT=14001
ENV
}

# The command of the page on joining a run, but for the image's name; and for --gpus where the engine has none to give.
seed_command() {
  local refused
  if refused=$(docker run --rm --gpus all "$IMAGE" --version 2>&1); then
    seed=$(cd "$work" && docker run -d --env-file .env -e RAW_WALLET_PRIVATE_KEY="$(cat key.json)" --gpus all --network host "$NAME-run")
  else
    say "this engine has no GPUs to give, so the command runs without its --gpus all: $(grep -o 'could not select[^.]*' <<<"$refused")"
    seed=$(cd "$work" && docker run -d --env-file .env -e RAW_WALLET_PRIVATE_KEY="$(cat key.json)" --network host "$NAME-run")
  fi
  echo "$seed" >>"$work/containers"
}

# The documented command, with a volume of its own.
mounted() { # name, more options …
  local name=$1
  shift
  docker run -d --name "$name" --label "test=$NAME" --env-file "$work/.env" --network host \
    --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp --stop-timeout 30 \
    -v "$work/id.json:/run/secrets/id.json:ro" -e WALLET_PRIVATE_KEY_PATH=/run/secrets/id.json \
    -v "$name:/data" -e AUTHORIZER="$(cat "$work/shared/mounted.address")" -e P2P_PORT=14002 -e METRICS_BIND=127.0.0.1:19465 \
    -e BOOTSTRAP_PEERS="/ip4/127.0.0.1/tcp/14001/p2p/$(cat "$work/shared/seed.peer")" "$@" "$IMAGE" >>"$work/containers"
}

has_snapshot() { docker exec "$1" sh -c 'ls /data/psyche-data/snapshots | grep -qv "^\."' 2>/dev/null; }

alone() {
  local node=$NAME-mounted last
  prepare
  docker run --rm --network host "$IMAGE" can-join --rpc "$(sed -n 's/^RPC=//p' "$work/.env")" --run-id pair \
    --authorizer "$(cat "$work/shared/seed.address")" --pubkey "$(cat "$work/shared/seed.address")" >"$work/can-join" 2>&1 \
    || fail "can-join: $(cat "$work/can-join")"
  seed_command
  docker run --rm -v "$node:/data" -v "$work/shared:/from:ro" --entrypoint cp "$IMAGE" -r /from/model /from/tokens /data
  mounted "$node"
  # No chain, no health: it gives up, with the code for that.
  mounted "$NAME-deaf" -e RPC=http://127.0.0.1:1 -e WS_RPC=ws://127.0.0.1:1 -e RPC_2= -e WS_RPC_2= -e METRICS_BIND=127.0.0.1:19466 -e P2P_PORT=0
  within 120 "both operators' nodes trained" events_of "$seed" trained 2
  within 60 "both operators' nodes trained" events_of "$node" trained 2
  confined "$node" "the node with its key in a file"
  for one in "$seed" "$node"; do
    within 60 "an operator's node was healthy" is health_of "$one" healthy
  done
  docker exec "$node" psyche-solana-client status >"$work/status" || fail "status: $(cat "$work/status")"
  say "the command of the page and the documented one: both nodes joined, train and are healthy"

  within 120 "there was a snapshot" has_snapshot "$node"
  within 60 "a step was being trained" events_of "$node" training
  stops "$node" "a node at work"
  last=$(events_of "$node" left) || fail "the node did not leave in order: $last"
  say "it left in $(events_of "$node" interrupted)"
  docker logs "$node" 2>&1 | grep -q 'SIGTERM: finishing the micro-batch' || fail "the node did not say that it leaves"
  docker start "$node" >/dev/null
  within 120 "the node had resumed after step $last" events_of "$node" resumed "$last" >/dev/null
  say "started again after step $last, it went on $(events_of "$node" resumed "$last")"
  stops "$node" "the node that was started again"

  refuses 10 'wants client version' --env-file "$work/.env" -e RUN_ID=newer -v "$work/id.json:/run/secrets/id.json:ro" \
    -e WALLET_PRIVATE_KEY_PATH=/run/secrets/id.json -e AUTHORIZER="$(cat "$work/shared/mounted.address")" -e P2P_PORT=0 -e METRICS_BIND=off "$NAME-run"
  [ "$(state_of "$NAME-deaf")" = "exited 7" ] || fail "without a chain: $(state_of "$NAME-deaf")"
  if is health_of "$NAME-deaf" healthy; then fail "a node without a chain is healthy"; fi
  say "exit codes: 10 where the run wants another version, 7 where no endpoint answers"
}

# The node of the page's command has lost its chain in the meantime.
forsaken() {
  within 120 "a node without a chain was unhealthy" is health_of "$seed" unhealthy
  say "a node that lost its chain is unhealthy"
  stops "$seed" "a node without a chain"
  events_of "$seed" left >/dev/null || fail "the node of the page's command did not leave in order"
}

# Everything that was printed and logged.
secrets() {
  local one number=0 logs=()
  for one in $(compose ps -q) $(cat "$work/containers"); do
    number=$((number + 1))
    docker logs "$one" >"$work/log-$number" 2>&1
    logs+=("$work/log-$number")
    docker cp "$one:/data/psyche-data/events.jsonl" "$work/log-$number.jsonl" >/dev/null 2>&1 && logs+=("$work/log-$number.jsonl")
  done
  mkdir "$work/keys"
  cp "$work"/shared/*.json "$work/keys"
  rm -f "$work/keys/done"
  said=$(python3 docker/test/secrets.py "$work/keys" "${logs[@]}" 2>&1) || fail "secrets: $said"
  say "secrets: $said"
}
