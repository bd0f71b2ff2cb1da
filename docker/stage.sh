#!/bin/sh
# What the stages of docker/Dockerfile do: libtorch | manifests | tools | compile [CRATE…] | program. Not for use outside of it.
set -eu

root=/opt/psyche

# Debian's packages, and trust in the certificates that the builder of the image names.
packages() {
  if [ -n "${CERTIFICATES:-}" ]; then
    mkdir -p /usr/local/share/ca-certificates
    # One file each: OpenSSL finds no second certificate in a file.
    printf '%s\n' "$CERTIFICATES" \
      | awk '/BEGIN CERTIFICATE/ { n++ } n { print >("/usr/local/share/ca-certificates/builder-" n ".crt") }'
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*
}

# What the node loads into $root/libtorch, what it is compiled against into $root/sdk (empty where nothing is compiled), the
# CUDA half into $root/cuda (empty without CUDA).
libtorch() {
  mkdir -p $root/libtorch $root/sdk $root/cuda
  if [ -e /fetch/libtorch.tar ]; then
    tar -C $root/sdk -xf /fetch/libtorch.tar
  else
    packages ca-certificates python3 python3-pip
    PSYCHE_CACHE=/fetch/cache python3 /fetch/fetch_libtorch.py $root/sdk
  fi
  if prebuilt; then
    mv $root/sdk/lib $root/libtorch
  else
    # Links: the same bytes once.
    cp -al $root/sdk/lib $root/libtorch
  fi
  if [ -e /fetch/cuda.tar ]; then
    tar -C $root/cuda -xf /fetch/cuda.tar
  elif [ "${CUDA:-1}" = 1 ]; then
    command -v pip3 >/dev/null || packages ca-certificates python3 python3-pip
    PSYCHE_CACHE=/fetch/cache python3 /fetch/fetch_libtorch.py --cuda $root/cuda
  fi
  rm -rf /fetch/cache /fetch/*.tar
}

# The files of the targets that a manifest names itself; cargo refuses a manifest whose files are missing.
targets() { # Cargo.toml
  awk '
    function tell() { if (folder != "") print path != "" ? path : folder "/" name ".rs"; folder = name = path = "" }
    /^\[/ { tell() }
    /^\[\[bin\]\]/ { folder = "src/bin" }
    /^\[\[(bench|example|test)\]\]/ { folder = $0 ~ /bench/ ? "benches" : $0 ~ /example/ ? "examples" : "tests" }
    folder != "" && /^name *=/ { split($0, part, "\""); name = part[2] }
    folder != "" && /^path *=/ { split($0, part, "\""); path = part[2] }
    END { tell() }
  ' "$1"
}

# Everything that decides what dependencies are compiled, and nothing else: an empty source for every target.
manifests() {
  mkdir /manifests
  [ -e /src/Cargo.toml ] || return 0
  cd /src
  cp -r Cargo.toml Cargo.lock /manifests
  for optional in rust-toolchain.toml .cargo; do
    [ ! -e $optional ] || cp -r $optional /manifests
  done
  for manifest in */Cargo.toml; do
    crate=$(dirname "$manifest")
    [ "$crate" != programs ] || continue
    mkdir -p "/manifests/$crate/src"
    cp "$manifest" "/manifests/$crate"
    [ ! -e "$crate/src/lib.rs" ] || echo '//! Empty.' >"/manifests/$crate/src/lib.rs"
    for source in src/main.rs build.rs $(targets "$manifest"); do
      [ -e "$crate/$source" ] || continue
      mkdir -p "$(dirname "/manifests/$crate/$source")"
      printf '//! Empty.\nfn main() {}\n' >"/manifests/$crate/$source"
    done
  done
}

prebuilt() { [ -e /stage/prebuilt ] || [ -e /fetch/prebuilt ]; }

tools() {
  prebuilt || packages ca-certificates g++ make perl python3
}

# Compiles the program with the crates that are there; what is not there yet is empty, which takes no time.
compile() { # crates that have just come
  if prebuilt; then return; fi
  cd /src
  # Sources must look younger than what was compiled from their empty places, whatever their own times are. In whole seconds:
  # a layer keeps no more, and what looks changed is compiled again.
  now=@$(date +%s)
  for crate; do
    find "$crate" -type f -exec touch -d "$now" {} +
  done
  # The program is stripped when it is linked, so nobody has to make what is stripped.
  LIBTORCH=$root/libtorch CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never \
    CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_STRIP=symbols \
    cargo build --locked --package psyche-solana-client --bin psyche-solana-client
}

program() {
  mkdir -p /out
  if prebuilt; then
    cp /stage/psyche-solana-client /out/
  else
    ln /target/debug/psyche-solana-client /out/
  fi
  chmod 755 /out/psyche-solana-client
}

case $1 in
  libtorch | manifests | tools | program) "$1" ;;
  compile) shift && compile "$@" ;;
  *) echo "stage.sh: unknown stage $1" >&2; exit 2 ;;
esac
