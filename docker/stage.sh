#!/bin/sh
# What the stages of docker/Dockerfile do: libtorch | manifests | tools | compile | strip. Not for use outside of it.
set -eu

root=/opt/psyche

packages() {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/*
}

# libtorch into $root/libtorch, its CUDA half into $root/cuda (an empty folder without CUDA).
libtorch() {
  mkdir -p $root/libtorch $root/cuda
  if [ -e /fetch/libtorch.tar ]; then
    tar -C $root/libtorch -xf /fetch/libtorch.tar
  else
    packages ca-certificates python3 python3-pip
    PSYCHE_CACHE=/fetch/cache python3 /fetch/fetch_libtorch.py $root/libtorch
  fi
  if [ -e /fetch/cuda.tar ]; then
    tar -C $root/cuda -xf /fetch/cuda.tar
  elif [ "${CUDA:-1}" = 1 ]; then
    command -v pip3 >/dev/null || packages ca-certificates python3 python3-pip
    PSYCHE_CACHE=/fetch/cache python3 /fetch/fetch_libtorch.py --cuda $root/cuda
  fi
  rm -rf /fetch/cache /fetch/*.tar
}

# Everything that decides what dependencies are compiled, and an empty source for every target.
manifests() {
  mkdir /manifests
  [ -e /src/Cargo.toml ] || return 0
  cd /src
  cp -r Cargo.toml Cargo.lock /manifests
  for optional in rust-toolchain.toml .cargo; do
    [ ! -e $optional ] || cp -r $optional /manifests
  done
  find . -mindepth 2 -name Cargo.toml -not -path './programs/*' | while read -r manifest; do
    crate=$(dirname "$manifest")
    mkdir -p "/manifests/$crate"
    cp "$manifest" "/manifests/$crate"
    (cd "$crate" && find . -name '*.rs' \( -path './build.rs' -o -path './src/lib.rs' -o -path './src/main.rs' -o -path './src/bin/*' \
      -o -path './benches/*' -o -path './examples/*' -o -path './tests/*' \)) | while read -r source; do
      mkdir -p "/manifests/$crate/$(dirname "$source")"
      case $source in
        */lib.rs) : >"/manifests/$crate/$source" ;;
        *) echo 'fn main() {}' >"/manifests/$crate/$source" ;;
      esac
    done
  done
}

prebuilt() { [ -x /stage/psyche-solana-client ]; }

tools() {
  prebuilt || packages ca-certificates g++ make perl python3
}

compile() {
  if prebuilt; then return; fi
  cd /src
  # Sources that come later must look younger than what was compiled from their empty places.
  find . -name '*.rs' -exec touch {} +
  LIBTORCH=$root/libtorch CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 \
    cargo build --locked --workspace --bin psyche-solana-client --examples
}

strip_program() {
  mkdir -p /out
  if prebuilt; then
    cp /stage/psyche-solana-client /out/
  else
    strip -o /out/psyche-solana-client /target/debug/psyche-solana-client
  fi
  chmod 755 /out/psyche-solana-client
}

case $1 in
  libtorch) libtorch ;;
  manifests) manifests ;;
  tools) tools ;;
  compile) compile ;;
  strip) strip_program ;;
  *) echo "stage.sh: unknown stage $1" >&2; exit 2 ;;
esac
