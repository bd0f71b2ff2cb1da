#!/usr/bin/env bash
# Builds the three on-chain programs to SBF bytecode, reproducibly, from the package registries alone.
#
#   build.sh [--arch v3|v0] [--check] [--out DIR]
#
#   (no option)  build, write elf/*.so and elf/SHA256SUMS
#   --arch       SBPF version, v3 by default; v0 goes to elf-v0/, which is not committed
#   --check      rebuild and compare with the committed sums: exit 0 equal, 1 different,
#                3 where Debian's rustc-web cannot be had here
#   --out DIR    write the .so files there instead
#
# Environment: PSYCHE_SBF_TOOLS (default ~/.cache/psyche/sbf) holds compiler, linker and target folder and is filled
# when empty; PSYCHE_COORDINATOR_ID, PSYCHE_AUTHORIZER_ID, PSYCHE_TREASURER_ID compile in other program ids.
#
# Exit codes: 0 done, 1 --check found a difference, 2 wrong usage or a failed build, 3 no compiler.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(dirname "$here")
tools=${PSYCHE_SBF_TOOLS:-$HOME/.cache/psyche/sbf}
programs=(coordinator authorizer treasurer)

# The compiler: rustc 1.96.0 with its own LLVM 22 and library sources. The sums pin the exact packages.
rust_version=1.96.0
debs=(
  "libllvm22 1:22.1.8-1~deb12u1 729ec3e943d320515c2bbdc96acfffd7ce34861e62bd5c42726bf586d644dfe2"
  "libstd-rust-web-1.96 1.96.0+dfsg1-1~deb12u2 3755f30434ae29574c91b0beb86632bee401607b0ac35c3e52810f9a53fae0d1"
  "libstd-rust-web-dev 1.96.0+dfsg1-1~deb12u2 e38dbeaaad673fc63fb47c5140cf34da271ac71c3ecafc828b762c2fb01fe77a"
  "rust-web-src 1.96.0+dfsg1-1~deb12u2 9de8597c464d0a9283672973ed7e50092b49a92b95861429043fe8b57468a208"
  "rustc-web 1.96.0+dfsg1-1~deb12u2 8fefe1d6377fe4082f5a9d2a47e095e2d20319eaab9754bd2f0275155c9adf90"
)
# Libraries that LLVM loads at run time and that a bare image may lack; they leave no trace in what is built.
runtime_libs=(libz3-4 libedit2 libxml2 libicu72 libbsd0 libmd0)
linker_version=0.2.6

say() { printf 'programs/build.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }
no_compiler() { say "NO COMPILER: $*; the on-chain programs were neither built nor compared"; exit 3; }

arch=v3 check=false out=
while [ $# -gt 0 ]; do
  case $1 in
    --arch) arch=${2:-}; shift 2 || fail "--arch needs v3 or v0" ;;
    --arch=*) arch=${1#*=}; shift ;;
    --check) check=true; shift ;;
    --out) out=${2:-}; shift 2 || fail "--out needs a folder" ;;
    --out=*) out=${1#*=}; shift ;;
    *) fail "unknown option $1" ;;
  esac
done
# v4 code generation emits opcodes that the linker refuses, so v3 it is; v0 takes what the v2 CPU has.
case $arch in v3) cpu=v3 ;; v0) cpu=v2 ;; *) fail "--arch must be v3 or v0" ;; esac

lib_path=$tools/rustweb/usr/lib/x86_64-linux-gnu
rust_src=$tools/rustweb/usr/lib/rustlib/src/rust
compiler_runs() {
  [ -f "$rust_src/library/core/src/lib.rs" ] \
    && LD_LIBRARY_PATH=$lib_path "$tools/rustweb/usr/bin/rustc" --version 2>/dev/null | grep -qF "rustc $rust_version "
}

linker_runs() {
  LD_LIBRARY_PATH=$lib_path "$tools/tools/bin/sbpf-linker" --version >/dev/null 2>&1 \
    && grep -qF "\"sbpf-linker $linker_version " "$tools/tools/.crates.toml"
}

fetch_deb() { # name[=version] -> a .deb in the current folder
  apt-get download -q "$1" >&2 2>/dev/null
}

install_compiler() {
  [ "$(uname -m)" = x86_64 ] || no_compiler "rustc-web is pinned for x86_64, this is $(uname -m)"
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || no_compiler "there is no apt here to take rustc-web from"
  mkdir -p "$tools/debs"
  cd "$tools/debs"
  local entry name version sum file
  for entry in "${debs[@]}"; do
    read -r name version sum <<<"$entry"
    file=$(ls "${name}"_*.deb 2>/dev/null | head -1 || true)
    if [ -z "$file" ] || ! echo "$sum  $file" | sha256sum --status -c; then
      rm -f "${name}"_*.deb
      fetch_deb "$name=$version" || { apt-get update -qq >&2 2>/dev/null || true; fetch_deb "$name=$version"; } \
        || no_compiler "apt has no $name $version"
      file=$(ls "${name}"_*.deb | head -1)
      echo "$sum  $file" | sha256sum --status -c || no_compiler "the sha256 of $name $version is not the pinned one"
    fi
    dpkg -x "$file" "$tools/rustweb"
  done
  compiler_runs && return
  for name in "${runtime_libs[@]}"; do
    fetch_deb "$name" && dpkg -x "$(ls "${name}"_*.deb | head -1)" "$tools/rustweb" || true
  done
  compiler_runs || no_compiler "rustc-web was unpacked but does not run ($(LD_LIBRARY_PATH=$lib_path "$tools/rustweb/usr/bin/rustc" --version 2>&1 | head -1))"
}

install_linker() {
  mkdir -p "$tools/fakellvm/lib"
  ln -sfn "$lib_path/libLLVM.so.22.1" "$tools/fakellvm/lib/libLLVM.so"
  say "building sbpf-linker $linker_version (three minutes, once)"
  (cd "$tools" && LLVM_PREFIX=$tools/fakellvm LD_LIBRARY_PATH=$lib_path CARGO_TARGET_DIR=$tools/target-linker \
    cargo install sbpf-linker --version "$linker_version" --locked --no-default-features \
    --features bpf-linker/llvm-22 --root "$tools/tools") || fail "sbpf-linker $linker_version could not be built"
}

build() { # folder for the .so files
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} target=$tools/target
  local stack="--bpf-stack-size=4096,--disable-movsx,--disable-ldsx,-inline-threshold=3000"
  local flags=(
    -C "target-cpu=$cpu" -C target-feature=+allows-misaligned-mem-access
    -C "link-arg=--arch=$arch" -C "link-arg=--llvm-args=$stack" -C link-arg=--deploy=false
    -C link-arg=--disable-math-builtins
    # No path of this machine may reach the output (panic messages carry file names).
    "--remap-path-prefix=$repo=psyche" "--remap-path-prefix=$rust_src=rust"
    "--remap-path-prefix=$(readlink -f "$rust_src")=rust"
    # The compiler resolves links to its own folder, and those only.
    "--remap-path-prefix=$(readlink -f "$tools/rustweb")/usr/lib/rustlib/src/rust=rust"
  )
  # The folder to remap exists only once the sources are there.
  (cd "$here" && cargo fetch --locked --quiet) || fail "the sources of the dependencies could not be fetched"
  local registry
  for registry in "$cargo_home"/registry/src/*/; do flags+=("--remap-path-prefix=${registry%/}=crates"); done
  local name
  for name in "${programs[@]}"; do
    # RUSTC_BOOTSTRAP is what building core from source takes.
    (cd "$here" && env -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER -u CARGO_BUILD_TARGET \
      LD_LIBRARY_PATH="$lib_path" RUSTC="$tools/rustweb/usr/bin/rustc" RUSTC_BOOTSTRAP=1 \
      CARGO_TARGET_DIR="$target" CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f'; printf '%s' "${flags[*]}")" \
      CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER="$tools/tools/bin/sbpf-linker" \
      cargo rustc --release --locked --package "psyche-$name" --lib --crate-type cdylib --target bpfel-unknown-none \
      -Zbuild-std=core,alloc -Zbuild-std-features=compiler-builtins-mem) || fail "psyche-$name did not build"
    install -m 644 -D "$target/bpfel-unknown-none/release/libpsyche_$name.so" "$1/$name.so"
  done
}

if $check; then
  (cd "$here/elf" && sha256sum --quiet --check SHA256SUMS) || { say "the committed programs are not those of elf/SHA256SUMS"; exit 1; }
fi
# Two builds at once would install into each other's half-made tools.
mkdir -p "$tools"
exec 9>"$tools/lock"
if command -v flock >/dev/null; then flock 9; fi
compiler_runs || install_compiler
linker_runs || install_linker
exec 9>&-

if $check; then
  unset PSYCHE_COORDINATOR_ID PSYCHE_AUTHORIZER_ID PSYCHE_TREASURER_ID
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
  build "$out"
  (cd "$out" && sha256sum --check "$here/elf/SHA256SUMS") || { say "the committed programs are not what the sources build"; exit 1; }
  say "the committed programs are what the sources build"
  exit 0
fi
[ -n "$out" ] || out=$here/elf$([ "$arch" = v3 ] || echo "-$arch")
build "$out"
(cd "$out" && sha256sum "${programs[@]/%/.so}" | tee SHA256SUMS)
