#!/usr/bin/env bash
# All tests of the workspace, with nextest where it is installed and with cargo's own runner elsewhere, then doc tests.
#
#   test.sh [PROFILE]      a profile of .config/nextest.toml: default, ci, sim, chaos
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${1:-default}

# Narrow profiles leave the foreign clients and PyTorch out. Where they can't be fetched all other tests still run; theirs
# fail.
case $profile in
  default | ci)
    scripts/setup-clients.sh >&2 \
      || echo "test: WITHOUT the real Solana clients, see above: the tests of real_clients WILL FAIL until \`make clients\` succeeds" >&2
    scripts/setup-python.sh >&2 \
      || echo "test: WITHOUT PyTorch and transformers, see above: tests that compare with them WILL FAIL until \`make python\` succeeds" >&2
    scripts/setup-namespaces.sh >&2 \
      || echo "test: WITHOUT network namespaces, see above: the tests of members behind NAT WILL FAIL" >&2
    ;;
esac

if command -v cargo-nextest >/dev/null; then
  cargo nextest run --locked --workspace --profile "$profile"
else
  echo "test: WITHOUT cargo-nextest, so profiles and test groups have no effect" >&2
  cargo test --locked --workspace --lib --bins --tests
fi
# Narrow profiles pick tests by name; documentation belongs to the complete ones.
case $profile in default | ci) cargo test --quiet --locked --workspace --doc ;; esac
