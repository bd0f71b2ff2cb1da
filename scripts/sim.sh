#!/usr/bin/env bash
# Runs of several engines against the real state machine, under a seeded scheduler with virtual time.
#
#   sim.sh SEEDS [SEED] [TEST]      SEEDS runs of the mixed scenario and a tenth of that of every other; or the one run of
#                                   SEED, event by event. TEST narrows both down to the tests whose names contain it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=$1 seed=${2:-} test=${3:-sim_}
if [ -n "$seed" ]; then
  [ "$test" != sim_ ] || { echo "sim: name the scenario, too: make sim SEED=$seed TEST=…" >&2; exit 2; }
  export SIM_SEED=$seed
else
  export SIM_SEEDS=$seeds
fi
# A scenario uses every core itself, so they take turns; progress is told as they go.
exec cargo test --locked -p psyche-actors --test sim_rounds -- --nocapture --test-threads=1 "$test"
