#!/usr/bin/env bash
# What a round costs each node, from 4 to 256 of them, counted in the simulation of actors/tests/sim; a table in Markdown, and
# the same as columns for a plot in $ROUNDS_OUT, if that is set.
#
# The crate whose processor time is counted is compiled with optimisation, beside the one that tests use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Another cargo, where one builds with settings of its own.
read -ra CARGO <<<"${CARGO_COMMAND:-cargo}"
optimised=(--config 'profile.dev.package.psyche-actors.opt-level=3')
output=$(SIM_COST=${NODES:-4,8,16,32,64,128,256} "${CARGO[@]}" test "${optimised[@]}" --quiet --locked -p psyche-actors \
  --test sim_rounds -- --nocapture --exact sim_what_a_node_says_in_a_round_does_not_grow_with_the_nodes)
lines=$(grep '^cost ' <<<"$output" | cut -d ' ' -f 2-)
if [ -n "${ROUNDS_OUT:-}" ]; then
  { echo "# nodes rounds said heard heard_kB fetched fetched_kB transactions states engine_us"; echo "$lines"; } >"$ROUNDS_OUT"
fi
echo
echo "Each node, each round, in simulation without faults"
echo
echo "| nodes | rounds | messages said | heard | kB heard | blobs fetched | kB fetched | transactions | account readings | engine, CPU-ms |"
echo "|---|---|---|---|---|---|---|---|---|---|"
awk '{ printf "| %d | %d | %.1f | %.1f | %.2f | %.1f | %.2f | %.2f | %.1f | %.3f |\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 / 1000 }' <<<"$lines"
