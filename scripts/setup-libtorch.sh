#!/usr/bin/env bash
# Sees to it that there is a libtorch 2.11 to link against, and says in one line where it is.
#
#   setup-libtorch.sh [DEST]      DEST is .libtorch in the repository's root by default
#
# In this order: LIBTORCH, where it is set; DEST, where it is filled already; an importable PyTorch 2.11 (DEST becomes a
# link to it); else a CPU-capable libtorch of 500 MB from the package index, by way of scripts/fetch_libtorch.py.
#
# Environment: LIBTORCH; PSYCHE_CACHE (default ~/.cache/psyche) keeps the downloads; pip's own settings are respected.
# Exit codes: 0 there is a libtorch, 1 there is none and the reason was printed.
set -euo pipefail

version=2.11
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
dest=${1:-$(dirname "$here")/.libtorch}

say() { printf 'libtorch: %s\n' "$*"; }
fail() { printf 'libtorch: failed to %s\n' "$*" >&2; exit 1; }

# The version of the libtorch in a folder, from the file of the official archives or from its headers.
version_of() {
  local header=$1/include/torch/headeronly/version.h
  if [ -f "$1/build-version" ]; then
    cut -d+ -f1 "$1/build-version"
  elif [ -f "$header" ]; then
    awk '$1 == "#define" && $2 ~ /^TORCH_VERSION_(MAJOR|MINOR|PATCH)$/ { v = v (v == "" ? "" : ".") $3 } END { print v }' "$header"
  fi
}

usable() { # folder
  [ -e "$1/lib/libtorch_cpu.so" ] && case $(version_of "$1") in "$version" | "$version".*) ;; *) false ;; esac
}

if [ -n "${LIBTORCH:-}" ]; then
  usable "$LIBTORCH" && { say "LIBTORCH names version $(version_of "$LIBTORCH"), nothing to do"; exit 0; }
  found=$(version_of "$LIBTORCH")
  fail "use the folder that LIBTORCH names: it holds ${found:+version }${found:-no libtorch}, $version is needed (unset it to have one fetched)"
fi

usable "$dest" && { say "version $(version_of "$dest") is in place, nothing to do"; exit 0; }

command -v python3 >/dev/null || fail "find python3: install it, or set LIBTORCH to a libtorch $version"

# Printed only by a PyTorch that really loads; a broken or absent one prints nothing.
installed=$(python3 -c 'import os, torch; print(os.path.dirname(os.path.abspath(torch.__file__)))' 2>/dev/null || true)
if [ -n "$installed" ] && usable "$installed"; then
  if [ -e "$dest" ] && [ ! -L "$dest" ]; then
    fail "link $dest to the installed PyTorch: a folder of another version is there, remove it first"
  fi
  ln -sfn "$installed" "$dest"
  say "using the installed PyTorch $(version_of "$installed")"
  exit 0
fi

case "$(uname -s) $(uname -m)" in
  "Linux x86_64") ;;
  *) fail "fetch a libtorch for $(uname -s) on $(uname -m): only Linux on x86_64 is pinned here; set LIBTORCH to a libtorch $version" ;;
esac
python3 -m pip --version >/dev/null 2>&1 || fail "find pip for python3 (on Debian: apt-get install python3-pip)"

exec python3 "$here/fetch_libtorch.py" "$dest"
