#!/usr/bin/env bash
# The benchmarks of a machine with a GPU, from one carried program. Prints tables in Markdown for docs/BENCHMARKS.md.
#
#   device.sh --build     here: builds the program, and the crate's tests, into target/device/, stripped, to be carried
#                         with gpu/bench/
#   device.sh             there: the tests that want a GPU, then a 1B model on the first GPU against PyTorch eager and
#                         torch.compile; about 6 minutes
#   device.sh --dry-run   anywhere: the same with a tiny model on the CPU
#
# There it needs python3 with PyTorch 2.11 and safetensors, whose libtorch the program uses, and 6 GB in TMPDIR.
# Environment: PSYCHE_GPU_BENCH, another place of the program; PYTHON, PYTHONPATH; ROUNDS (8), counted rounds.
# Exit codes: 0 the tables were printed, 1 something failed, 2 wrong usage, 3 there is no usable GPU here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname "$(dirname "$here")")
program=${PSYCHE_GPU_BENCH:-$root/target/device/psyche-gpu-bench}

say() { printf 'device: %s\n' "$*" >&2; }
fail() { say "failed to $*"; exit 1; }

build() {
  cd "$root"
  # The one profile that everything here is built with (docs/decisions/0002-one-profile.md); it optimises this crate.
  cargo build --locked -p psyche-gpu --bin psyche-gpu-bench
  local tests
  tests=$(cargo test --locked -p psyche-gpu --lib --no-run --message-format=json | python3 -c '
import json, sys
built = [line for line in map(json.loads, sys.stdin) if line.get("executable") and line["profile"]["test"]]
print(built[-1]["executable"])')
  mkdir -p target/device
  strip -o target/device/psyche-gpu-bench "${CARGO_TARGET_DIR:-target}/debug/psyche-gpu-bench"
  strip -o target/device/psyche-gpu-tests "$tests"
  say "target/device/ has $(du -sm target/device | cut -f 1) MiB"
}

# The crate's tests that want a GPU; those that pass without one are not of interest here.
tests() {
  [ -x "$root/target/device/psyche-gpu-tests" ] || { say "the tests were not carried"; return; }
  LD_LIBRARY_PATH=$torch/lib "$root/target/device/psyche-gpu-tests" --nocapture --test-threads 1 cuda nccl device || fail "pass the tests"
}

# A machine of ours has PyTorch in the cache, not in its Python.
find_python() {
  if [ -z "${PYTHON:-}" ]; then
    PYTHON=$(command -v python3) || fail "find python3"
    if ! "$PYTHON" -c 'import torch, safetensors' 2>/dev/null && [ -x "$root/scripts/setup-python.sh" ]; then
      local line
      while IFS= read -r line; do export "${line?}"; done < <("$root/scripts/setup-python.sh" --where)
    fi
  fi
  export PYTHON
  torch=$("$PYTHON" -s -c 'import os, torch; print(os.path.dirname(torch.__file__))') || fail "import PyTorch with $PYTHON"
}

measure() { # command of the program
  [ -x "$program" ] || fail "find the program $program: make it with device.sh --build and carry it here"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  export PSYCHE_BENCH_PEERS=$here OMP_WAIT_POLICY=passive LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  echo "$(date -u +%F), $(nproc) cores, $("$PYTHON" -s -c 'import torch
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU", "PyTorch", torch.__version__, sep=", ")')"
  "$program" "$1" --work "$work" --rounds "${ROUNDS:-8}"
}

case ${1:-} in
  --build) build ;;
  --dry-run) find_python; measure dry-run ;;
  '')
    find_python
    "$PYTHON" -s -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null \
      || { say "there is no GPU here that PyTorch could use; nothing was measured"; exit 3; }
    tests
    measure device
    ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
