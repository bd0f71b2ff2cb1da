#!/bin/sh
# Makes everything that the compose file's nodes need: weights, tokens, wallets, a token, a run with a treasury, and the
# authorization of each node. Runs once, in the node's image; what is there already stays.
#
# Needs RPC, WS_RPC (an endpoint of the chain), SHARED (a folder for what the nodes read), NODES_SEE (where they see it), HERE
# (this folder). The text is /text/kjv.txt.
# NODES names the nodes; NODE_<name> their layout as "dp tp rpc", the last one the host of the endpoint that they ask first.
set -eu

cd "$SHARED"
export RUN_ID="${RUN_ID:-testnet}"
client() { psyche-solana-client "$@"; }
say() { echo "setup: $*"; }

[ ! -e done ] || { say "the run is there already"; exit 0; }

say "making tokens and initial weights"
[ -e tokens/tokens.bin ] || client tokenize --text /text/kjv.txt --vocab-size 4096 --out tokens
[ -e model/config.json ] || client init-model --config "$HERE/config.json" --seed 1 --out model

wallet() { # name
  [ -e "$1.json" ] || client wallet new --out "$1.json" >/dev/null
  client wallet airdrop --sol 10 --wallet-private-key-path "$1.json" >/dev/null
}
address() { client wallet address --wallet-private-key-path "$1.json"; }

wallet owner
mint=$(client wallet create-token --decimals 6 --supply 1000000 --wallet-private-key-path owner.json | tail -n 1)
say "the owner is $(address owner), the token $mint"
client create-run --treasurer-collateral-mint "$mint" --wallet-private-key-path owner.json
sed "s/@STEPS@/${STEPS:-40}/g" "$HERE/run.toml" >run.toml
client update-config --config-path run.toml --name "Compose testnet" --wallet-private-key-path owner.json
client set-future-epoch-rates --earning-rate-total-shared 2.52 --wallet-private-key-path owner.json
client treasurer-top-up-rewards --collateral-amount 1000 --wallet-private-key-path owner.json

bootstrap=
for name in $NODES; do
  wallet "$name"
  # The operator's own wallet is authorized, and the node's is its delegate: so is a node run whose key can be lost.
  client join-authorization-create --authorizer "$(address "$name")" --wallet-private-key-path owner.json
  eval "layout=\$NODE_$(echo "$name" | tr - _)"
  # shellcheck disable=SC2086 # the layout is three words
  set -- $layout
  other=rpc-1
  [ "$3" = rpc-2 ] || other=rpc-2
  {
    echo "RPC=http://$3:8899"
    echo "WS_RPC=ws://$3:8900"
    echo "RPC_2=http://$other:8899"
    echo "WS_RPC_2=ws://$other:8900"
    echo "RUN_ID=$RUN_ID"
    echo "AUTHORIZER=$(address "$name")"
    echo "WALLET_PRIVATE_KEY_PATH=$NODES_SEE/$name.json"
    echo "DATA_PARALLELISM=$1"
    echo "TENSOR_PARALLELISM=$2"
    echo "MICRO_BATCH_SIZE=2"
    echo "DATA_PATH=$NODES_SEE/tokens/tokens.bin"
    echo "MODELS_DIR=$NODES_SEE"
    echo "P2P_PORT=4001"
    echo "BOOTSTRAP_PEERS=$bootstrap"
    echo "CLAIM_REWARDS=auto"
  } >"$name.env"
  [ -n "$bootstrap" ] \
    || bootstrap=/dns4/$name/tcp/4001/p2p/$(client show-static-p2p-identity --wallet-private-key-path "$name.json" | tail -n 1)
done

client set-paused --resume --wallet-private-key-path owner.json
: >done
say "the run $RUN_ID waits for its nodes"
