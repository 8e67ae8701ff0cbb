#!/usr/bin/env bash
# Measures the data for the figure in the documentation: the daemon and its peer with increasing numbers of
# clients.
#
#   benches/figures.sh [TIME] [CLIENTS...]      for example: benches/figures.sh 30s 1000 10000 100000
#
# The reports are written to target/figures. To plot them:
#
#   python3 benches/plot.py \
#       wakeupd='target/figures/wakeupd-*.json' peer='target/figures/peer-*.json' > docs/performance.svg
#
# Requires root for the virtual wire, and the packages iproute2 and nftables. Each measurement is
# repeated three times, and the figure shows the median. Keep the machine otherwise idle.
set -euo pipefail
cd "$(dirname "$0")/.."

length=${1:-10s}
clients=("${@:2}")
((${#clients[@]})) || clients=(1000 10000 100000 200000 400000 600000 1000000 2000000)
reports=target/figures
bench=target/release/wakeupd-bench

if ((EUID)); then
    echo "benches/figures.sh: run it as root, which the virtual wire needs" >&2
    exit 1
fi
cargo build --release --locked --bins --example peer
mkdir -p "$reports"

measure() {
    local label=$1 program=$2 clients=$3 run=$4 file status=0
    # All clients must register before the first ones send their next heartbeats.
    local register_in=$((clients / 50000 + 2))
    register_in=$((register_in < 32 ? register_in : 32))
    file=$reports/$label-$clients-$run.json
    "$bench" --wire --json --program "$program" --clients "$clients" \
        --register-in "${register_in}s" --for "$length" >"$file.part" || status=$?
    # A run with missed pings still counts; a run without a report does not.
    if [[ ! -s $file.part ]]; then
        rm "$file.part"
        echo "benches/figures.sh: $label with $clients clients could not be measured" >&2
        return "$status"
    fi
    mv "$file.part" "$file"
    echo "$file"
}

for number in "${clients[@]}"; do
    for run in 1 2 3; do
        measure wakeupd target/release/wakeupd "$number" "$run"
        measure peer target/release/examples/peer "$number" "$run"
    done
done
