#!/usr/bin/env bash
# Soak-tests the daemon with a constantly changing crowd: 100,000 clients, a tenth of which leave each second.
# The exit code is 0 if each client was pinged for exactly its time and memory did not grow.
#
#   benches/soak.sh [--for TIME] [OPTION...]      for example: benches/soak.sh --for 72h
#
# TIME must come first and defaults to 10m. All other options, such as --wire or --clients 50000, go to
# `wakeupd-bench`. The report is written to target/soak, as text and as JSON. Keep the machine otherwise idle.
set -euo pipefail
cd "$(dirname "$0")/.."

length=10m
if [[ ${1-} == --for ]]; then
    length=${2:?--for wants a time, such as 72h}
    shift 2
fi
reports=target/soak
report=$reports/$(date -u +%Y%m%dT%H%M%SZ)

clients=(--clients 100000)
[[ " $* " == *" --clients"* ]] && clients=()
cargo build --release --locked
mkdir -p "$reports"
CLIENT_EXPIRATION_SECONDS=10 target/release/wakeupd-bench "${clients[@]}" --register-in 2s \
    --heartbeat-every 3s --churn 10 --for "$length" --json="$report.json" "$@" | tee "$report.txt"
