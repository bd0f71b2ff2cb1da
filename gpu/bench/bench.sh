#!/usr/bin/env bash
# Benchmarks, with the peers that they are held against. Prints tables in Markdown for docs/BENCHMARKS.md.
#
#   bench.sh            everything, about 10 minutes on two quiet cores
#   bench.sh NAME …     some of step, layouts, all-reduce, and those of cargo bench: codec, collectives, weights, snapshot
#   bench.sh net        the network against its peers, half an hour more; blobs, gossip, averaging and rounds are its parts
#
# Environment: ROUNDS (8), the counted rounds of each contest; CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export OMP_WAIT_POLICY=passive
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

peers() {
  scripts/setup-python.sh >&2
  local line
  while IFS= read -r line; do export "${line?}"; done < <(scripts/setup-python.sh --where)
  export PSYCHE_BENCH_PEERS=$PWD/gpu/bench
}

ours() { # command
  cargo build --locked --quiet -p psyche-gpu --bin psyche-gpu-bench
  [ -n "${PSYCHE_BENCH_PEERS:-}" ] || peers
  echo "bench: $1 …" >&2
  case $1 in
    all-reduce) "$target/debug/psyche-gpu-bench" all-reduce --rounds "${ROUNDS:-8}" ;;
    *) "$target/debug/psyche-gpu-bench" "$1" --work "$work" --rounds "${ROUNDS:-8}" ;;
  esac
}

echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), load $(cut -d ' ' -f 1 /proc/loadavg)"
[ $# -gt 0 ] || set -- step layouts all-reduce ''
for name in "$@"; do
  case $name in
    step | layouts | all-reduce) ours "$name" ;;
    net) net/bench/bench.sh ;;
    blobs | gossip | averaging | rounds) net/bench/bench.sh "$name" ;;
    *) cargo bench --locked --profile dev --workspace --bench "${name:-*}" ;;
  esac
done
