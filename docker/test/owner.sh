#!/bin/sh
# Two more runs on the compose testnet's chain, by its owner, in the node's image: `pair` begins with two clients, `newer`
# wants a client that does not exist. The wallets `seed` and `mounted` are authorized for both.
#
# Needs RPC, WS_RPC, and the folder that docker/testnet/setup.sh has filled as working directory.
set -eu

client() { psyche-solana-client "$@"; }
export WALLET_PRIVATE_KEY_PATH=owner.json
for name in seed mounted; do
  client wallet new --out $name.json >/dev/null
  client wallet airdrop --sol 10 --wallet-private-key-path $name.json >/dev/null
  client join-authorization-create --authorizer "$(client wallet address --wallet-private-key-path $name.json)"
done
# Batches that take seconds, and epochs short enough that a snapshot is soon written.
sed -e 's/^init_min_clients = .*/init_min_clients = 2/; s/^global_batch_size_\(start\|end\) = .*/global_batch_size_\1 = 64/' \
  -e 's/@STEPS@/2000/g' /testnet/run.toml >pair.toml
for run in pair newer; do
  version=test
  [ $run = pair ] || version=99.0.0
  client create-run --run-id $run --client-version $version
  client update-config --run-id $run --config-path pair.toml
  client set-paused --run-id $run --resume
done
client show-static-p2p-identity --run-id pair --wallet-private-key-path seed.json | tail -n 1 >seed.peer
client wallet address --wallet-private-key-path seed.json >seed.address
client wallet address --wallet-private-key-path mounted.json >mounted.address
