#!/usr/bin/env bash
# What the tests need that build networks of their own (net/tests/nat): root, iproute2, nftables. Installs the packages where that
# is possible without asking anybody; says what is missing where it is not.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
  echo "network namespaces: only root can make them" >&2
  exit 1
fi
packages=()
command -v ip >/dev/null || packages+=(iproute2)
command -v nft >/dev/null || packages+=(nftables)
if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "network namespaces: install ${packages[*]}" >&2; exit 1; }
  { apt-get update -qq && apt-get install -y -qq "${packages[@]}"; } >/dev/null \
    || { echo "network namespaces: apt-get install ${packages[*]} failed" >&2; exit 1; }
fi
probe="psyche-probe-$$"
ip netns add "$probe" 2>/dev/null || { echo "network namespaces: this container may not make them (CAP_SYS_ADMIN, CAP_NET_ADMIN)" >&2; exit 1; }
ip netns del "$probe"
