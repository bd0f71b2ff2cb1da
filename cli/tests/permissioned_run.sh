#!/usr/bin/env bash
# The life of a permissioned run, from an empty chain to claimed rewards, with the commands that its owner and a member type.
# Needs psyche-solana-client in PATH. Works in a folder of its own, which goes away, and prints every command with its output.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
cd "$folder"
chain=
finish() {
  [ -z "$chain" ] || { kill "$chain" && wait "$chain"; } 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

say() { printf '\n# %s\n' "$*"; }

# Prints a command and what it prints; its exit code must be the one that is expected.
expect() { # code, arguments …
  local wanted=$1 code=0
  shift
  printf '\n$ psyche-solana-client'
  printf ' %q' "$@"
  echo
  psyche-solana-client "$@" 2>&1 || code=$?
  [ "$code" -eq 0 ] || echo "[exit code $code]"
  [ "$code" -eq "$wanted" ] || { echo "expected exit code $wanted" >&2; exit 1; }
}
run() { expect 0 "$@"; }

address() { psyche-solana-client wallet address --wallet-private-key-path "$1"; }

cat >config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32,
 "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 2, "rms_norm_eps": 0.00001,
 "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32", "vocab_size": 300}
JSON
cp "$here/run.toml" .
for _ in $(seq 80); do echo "In the beginning God created the heaven and the earth."; done >text.txt
psyche-solana-client tokenize --text text.txt --vocab-size 300 --out tokens >/dev/null 2>&1
psyche-solana-client init-model --config config.json --seed 7 --out model >/dev/null 2>&1

say "A chain of our own, whose clock runs eight times as fast; an owner, an operator, and an outsider."
mkfifo where
psyche-solana-client localnet --rpc-port 0 --ws-port 0 --chain-speed 8 >where 2>chain.log &
chain=$!
{ read -r rpc && read -r websocket; } <where || { cat chain.log >&2; exit 1; }
export "${rpc?}" "${websocket?}" RUN_ID=night-school
for name in owner operator outsider; do
  run wallet new --out $name.json
  run wallet airdrop --sol 5 --wallet-private-key-path $name.json
done
operator=$(address operator.json) owner=$(address owner.json) outsider=$(address outsider.json)

say "The owner makes a token for rewards and a run that only those whom it authorizes may join, and starts it."
run wallet create-token --decimals 6 --supply 1000 --wallet-private-key-path owner.json | tee made
mint=$(tail -n 1 made)
run create-run --treasurer-collateral-mint "$mint" --wallet-private-key-path owner.json
run update-config --config-path run.toml --name "Night school" --wallet-private-key-path owner.json
run set-future-epoch-rates --earning-rate-total-shared 2.5 --wallet-private-key-path owner.json
run set-paused --resume --wallet-private-key-path owner.json
run list-runs

say "An outsider is refused, and told why."
expect 5 can-join --pubkey "$outsider"

say "The owner authorizes the operator; the outsider is still nobody's delegate."
run join-authorization-create --authorizer "$operator" --wallet-private-key-path owner.json
expect 5 can-join --authorizer "$operator" --pubkey "$outsider"

say "The operator names the outsider as its delegate: now the join would succeed."
run join-authorization-delegate --join-authority "$owner" --delegates-added "$outsider" --wallet-private-key-path operator.json
run join-authorization-read --join-authority "$owner" --authorizer "$operator"
run can-join --authorizer "$operator" --pubkey "$outsider"

say "The treasury gets less than an epoch pays, so that we see what happens then."
run treasurer-top-up-rewards --collateral-amount 1 --wallet-private-key-path owner.json

say "The outsider joins and trains to the run's end, as its .env says."
cat >.env <<ENV
$rpc
$websocket
RUN_ID=night-school
AUTHORIZER=$operator
WALLET_PRIVATE_KEY_PATH=outsider.json
NVIDIA_DRIVER_CAPABILITIES=all
DATA_PARALLELISM=1
TENSOR_PARALLELISM=2
MICRO_BATCH_SIZE=2
DATA_PATH=tokens/tokens.bin
P2P_BIND=127.0.0.1
ENV
run train --env-file .env | tee log | grep -E '^\$|joined|trained|applied|the run is over' | sed -E 's/^[^ ]+Z +//'
grep -q 'trained a batch' log
expect 11 can-join --authorizer "$operator" --pubkey "$outsider"

say "A member of the epoch says where the weights are kept; nobody else may."
expect 15 checkpoint --repo night-school/weights --wallet-private-key-path operator.json
run checkpoint --repo night-school/weights --wallet-private-key-path outsider.json
run checkpoint --repo night-school/weights --wallet-private-key-path outsider.json
psyche-solana-client json-dump-run | grep -q '"repo_id": "night-school/weights"'

say "It claims: the treasury pays what it holds. Topped up, it pays the rest; then nothing is left."
run treasurer-claim-rewards --wallet-private-key-path outsider.json
run treasurer-top-up-rewards --collateral-amount 10 --wallet-private-key-path owner.json
run treasurer-claim-rewards --wallet-private-key-path outsider.json
run treasurer-claim-rewards --wallet-private-key-path outsider.json
run wallet balance --mint "$mint" --wallet-private-key-path outsider.json
