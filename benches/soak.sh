#!/usr/bin/env bash
# Lets a crowd that changes all the time have the daemon for long: 100,000 clients, of whom a tenth leaves each
# second. The exit code is 0 if everybody was pinged for their time and no longer, and memory did not grow.
#
#   benches/soak.sh [--for TIME] [OPTION...]      for example: benches/soak.sh --for 72h
#
# TIME comes first and is 10m unless said otherwise; any other option goes to `wakeupd-bench`, as --wire or --clients 50000. The
# report goes to target/soak, as text and as JSON. Leave the machine alone meanwhile.
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
