# shellcheck shell=bash
# What can be said of the image without a chain: labels, user, and what a node without a usable key does.

label() { docker image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$IMAGE"; }

labels() { # revision
  local version name
  version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
  [ "$(label version)" = "$version" ] || fail "the label says version $(label version), Cargo.toml $version"
  [ "$(docker run --rm "$IMAGE" --version)" = "psyche-solana-client $version" ] || fail "the program in the image is not $version"
  [ "$(label revision)" = "$1" ] || fail "the label says revision $(label revision), it was built from $1"
  for name in title description created licenses; do
    case $(label $name) in '' | unknown | '<no value>') fail "there is no label $name" ;; esac
  done
  say "labels: version $version, revision $1"
}

# A node that can't start says why and ends with the code for it.
refuses() { # exit code, what it says, options of docker run …
  local wanted=$1 said=$2 code=0
  shift 2
  docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network host --env-file "$work/none.env" "$@" \
    >"$work/refused" 2>&1 || code=$?
  { [ $code -eq "$wanted" ] && grep -q "$said" "$work/refused"; } || fail "instead of exit code $wanted: $code, $(cat "$work/refused")"
}

image_checks() { # revision
  labels "$1"
  [ "$(docker run --rm --entrypoint id "$IMAGE" -u)" = 10001 ] || fail "the image's user is not 10001"
  printf 'RPC=http://127.0.0.1:1\nRUN_ID="none"\nDATA_PARALLELISM=1\n' >"$work/none.env"
  refuses 3 WALLET_PRIVATE_KEY_PATH "$IMAGE"
  refuses 3 'no private key' -e RAW_WALLET_PRIVATE_KEY="$(python3 -c 'print(list(range(64)))')" "$IMAGE"
  docker run --rm --entrypoint sh "$IMAGE" -c 'psyche-solana-client wallet new --out id.json >/dev/null && cat id.json' >"$work/open.json" 2>"$work/wallet"
  chmod 0444 "$work/open.json"
  refuses 3 'names a file that cannot be used' -v "$work/open.json:/run/secrets/id.json:ro" \
    -e WALLET_PRIVATE_KEY_PATH=/run/secrets/id.json "$IMAGE"
}
