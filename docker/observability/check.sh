#!/usr/bin/env bash
# Checks configuration, alert rules and dashboard with Prometheus's own tools.
#
#   check.sh                   promtool: the configuration, the rules, and alerts.test.yml, which plays nodes that fare badly
#   check.sh --live PROGRAM    the same, then a real Prometheus looks at a testnet of PROGRAM (psyche-solana-client)
#
# Exit codes: 0 everything held, 1 something did not, 3 promtool (or, with --live, prometheus) is not installed here; Debian
# has both in the package prometheus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

missing() { echo "docker/observability/check.sh: no $1 here: what follows was NOT checked: $2"; exit 3; }
command -v promtool >/dev/null || missing promtool "alert rules and the configuration of Prometheus"
run() { promtool "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run check config prometheus.yml
run check rules alerts.yml
run test rules alerts.test.yml
echo "docker/observability/check.sh: the configuration can be read, and every alert fires when it should"
[ "${1:-}" = --live ] || exit 0
command -v prometheus >/dev/null || missing prometheus "targets, and the dashboard's queries"
echo "docker/observability/check.sh: $(python3 live.py "${2:?--live needs the program}")"
