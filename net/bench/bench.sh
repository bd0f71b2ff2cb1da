#!/usr/bin/env bash
# The network against its peers, in the same run and in turns. Prints tables in Markdown for docs/BENCHMARKS.md.
#
#   bench.sh            everything, about half an hour on two quiet cores
#   bench.sh NAME …     some of blobs, gossip, averaging, rounds
#
# blobs and averaging run over the loopback interface, and over a network of 50 Mbit/s, 80 ms and 1 % loss where this machine
# lets root make one; averaging needs CPython 3.11 for hivemind. What can't be had here is said, and the others still run.
#
# Environment: ROUNDS, the counted rounds of each contest; NETWORK=loopback|shaped for one of the two; PSYCHE_CACHE.
# Exit codes: 0 everything asked for was measured, 1 something failed, 3 something can't be had here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${PSYCHE_CACHE:-$HOME/.cache/psyche}
# Optimised, both sides alike, and apart from everything else that is built.
bench_target=${NET_BENCH_TARGET:-$cache/net-bench}
bench=$bench_target/release/psyche-net-bench
network=${NETWORK:-both}
code=0

missing() { echo "bench: NOT MEASURED: $*" >&2; code=3; }
rounds() { echo "${ROUNDS:-$1}"; }

build() {
  [ -n "${built:-}" ] && return
  CARGO_TARGET_DIR=$bench_target cargo build --locked --quiet --release --manifest-path net/bench/Cargo.toml
  built=yes
}

# Why there is no shaped network here; nothing if there is one.
no_network() {
  [ "$(id -u)" = 0 ] || { echo "only root can make network namespaces"; return; }
  [ -e /dev/net/tun ] || { echo "there is no /dev/net/tun"; return; }
  { command -v ip && command -v tc; } >/dev/null || echo "ip or tc is not installed (package iproute2)"
}

# On each of the networks: COMMAND ROUNDS-ON-LOOPBACK ROUNDS-SHAPED ARGUMENT …
over_networks() {
  local what=$1 near=$2 far=$3 reason
  shift 3
  [ "$network" = shaped ] || "$bench" "$what" --rounds "$(rounds "$near")" "$@"
  [ "$network" != loopback ] || return 0
  reason=$(no_network)
  [ -z "$reason" ] || { missing "$what on the shaped network: $reason"; return 0; }
  "$bench" "$what" --shaped --rounds "$(rounds "$far")" "$@"
}

# Sets $python to a Python that has hivemind.
hivemind() {
  local key
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    { missing "averaging: hivemind's wheels are pinned for CPython 3.11, which python3 is not here"; return 1; }
  scripts/setup-python.sh >&2 || { missing "averaging: PyTorch can't be fetched"; return 1; }
  export PYTHONPATH
  PYTHONPATH=$(scripts/setup-python.sh --where | sed -n 's/^PYTHONPATH=//p')
  key=$(grep -v '^#' net/bench/hivemind.txt | sha256sum | cut -c 1-12)
  python=$cache/hivemind-$key/bin/python
  [ ! -x "$python" ] || return 0
  local fresh
  fresh=$(mktemp -d "$cache/hivemind.XXXXXX")
  { python3 -m venv "$fresh" && env -u PYTHONPATH "$fresh/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps --require-hashes --requirement net/bench/hivemind.txt >&2; } ||
    { rm -rf "$fresh"; missing "averaging: hivemind can't be installed; pip's reason stands above"; return 1; }
  mv "$fresh" "$cache/hivemind-$key"
}

echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), load $(cut -d ' ' -f 1 /proc/loadavg)"
[ $# -gt 0 ] || set -- blobs gossip averaging rounds
for name in "$@"; do
  echo "bench: $name …" >&2
  case $name in
    blobs)
      build
      over_networks blobs 5 5
      ;;
    gossip)
      build
      "$bench" gossip --rounds "$(rounds 5)"
      ;;
    averaging)
      if hivemind; then
        build
        over_networks averaging 5 5 --python "$python" --script net/bench/averaging.py
      fi
      ;;
    rounds) net/bench/rounds.sh ;;
    *) echo "bench: unknown: $name" >&2; exit 2 ;;
  esac
done
exit $code
