#!/usr/bin/env bash
# Sees to it that the Python packages that some tests and benchmarks hold the node against are there: PyTorch of the version
# whose libtorch the node links, Hugging Face's transformers, gguf and a small real model, as python.txt pins them, by sum.
# Nothing is installed outside the cache, and neither building nor running the node needs any of it.
#
#   setup-python.sh            fetches what is missing, about 2.2 GB; a run that was stopped goes on where it stopped
#   setup-python.sh --where    says where they are, one NAME=value a line: PYTHON, PYTHONPATH, SMOLLM2_GGUF; fetches nothing
#
# Environment: PSYCHE_CACHE (default ~/.cache/psyche) keeps them; pip's own settings are respected.
# Exit codes: 0 they are there, 1 they are not and the reason was printed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

cache=${PSYCHE_CACHE:-$HOME/.cache/psyche}
key=$(grep -v '^#' "$here/python.txt" | sha256sum | cut -c 1-12)
root=$cache/python-$key

say() { printf 'python: %s\n' "$*"; }
fail() { printf 'python: failed to %s\n' "$*" >&2; exit 1; }

# The first Python that has wheels. Its version is part of where they are: native modules fit one version only.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  fail "find Python 3.11 to 3.14; Debian 12 and Ubuntu 24.04 have it (apt-get install python3 python3-pip)"
}

python=$(find_python)
dest=$root/$("$python" -c 'import sys, platform; print("py-%d.%d-%s" % (*sys.version_info[:2], platform.machine()))')

if [ "${1:-}" = --where ]; then
  [ -d "$dest" ] || fail "find PyTorch and transformers in $dest: run scripts/setup-python.sh (or make python), which fetches them"
  printf 'PYTHON=%s\nPYTHONPATH=%s\nSMOLLM2_GGUF=%s\n' "$python" "$dest/packages" "$(echo "$dest"/*.gguf)"
  exit 0
fi
[ -d "$dest" ] && { say "PyTorch and transformers are in $dest"; exit 0; }

case "$(uname -s) $(uname -m)" in
  "Linux x86_64") ;;
  *) fail "fetch PyTorch for $(uname -s) on $(uname -m): only Linux on x86_64 is pinned here" ;;
esac
"$python" -m pip --version >/dev/null 2>&1 || fail "find pip for $python (on Debian: apt-get install python3-pip)"

started=$SECONDS
"$python" "$here/fetch_python.py" "$dest"
say "PyTorch and transformers are in $dest, after $((SECONDS - started)) s"
