#!/usr/bin/env bash
# Everything about the sources that a machine can judge without running the node. All checks run; the first failure does
# not hide the others.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
check() { # name, command …
  local name=$1 started=$SECONDS
  shift
  if "$@"; then
    echo "check: $name ok ($((SECONDS - started)) s)"
  else
    echo "check: $name FAILED" >&2
    failed+=("$name")
  fi
}

# clippy-driver as wrapper of our own crates only: dependencies are those that `make test` has compiled, whereas
# `cargo clippy` would go through all of them again in another mode.
lint() {
  RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__" \
    cargo test --quiet --locked --workspace --no-run
}

check formatting cargo fmt --all --check
# A workspace of its own; `cargo fmt --all` there would go through this one again.
check "formatting of the programs" find programs net/bench -name '*.rs' -not -path '*/target/*' -exec rustfmt --edition 2024 --check {} +
check lints lint
check architecture cargo test --quiet --locked --workspace --test architecture
observability() {
  local code=0
  docker/observability/check.sh || code=$?
  # 3: promtool is not installed here, which the script has said.
  [ "$code" -eq 0 ] || [ "$code" -eq 3 ]
}
check "alert rules" observability
# cargo-deny looks at what every platform builds with, and a build has only downloaded this one's: on a new machine the
# others' crates are still missing.
dependencies() {
  cargo fetch --locked --quiet && cargo deny --locked --offline --log-level error check licenses bans sources
}
if command -v cargo-deny >/dev/null; then
  check "licences and bans" dependencies
else
  echo "check: WITHOUT cargo-deny, so bans and sources are not checked (licences are, by the architecture tests)" >&2
fi

[ ${#failed[@]} -eq 0 ] || { printf 'check: %d of the checks failed: %s\n' "${#failed[@]}" "${failed[*]}" >&2; exit 1; }
