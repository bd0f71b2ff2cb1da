#!/usr/bin/env bash
# rustc for our own crates with coverage counters, as RUSTC_WORKSPACE_WRAPPER: what others wrote is not compiled again.
set -euo pipefail

counters=(-Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=3
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters)
case " $* " in
  *" --crate-name psyche_"*" --crate-type lib "*)
    # The fuzzer reads the counters; it is not counted itself.
    [[ " $* " == *" --crate-name psyche_fuzz "* ]] || exec "$@" "${counters[@]}"
    ;;
esac
exec "$@"
