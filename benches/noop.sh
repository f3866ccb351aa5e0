#!/usr/bin/env bash
# CPU time of a run with nothing to do, over generated pipelines of 100, 1,000 and 10,000 local downloads, and the
# engine's cost of a trivial node (the first run over those nodes, durable records included).
#
#     cargo build --release && benches/noop.sh
#
# Goals: 30, 50 and 300 ms of CPU time; 5 ms a node (benches/trivial.sh measures that with workers).
#
# Measured on two cores of an AMD EPYC that others used as well, best of 15, user + system time in ms:
#
#   nodes    records read each time    records remembered (docs/decisions/0008-memos.md)
#     100             3-4                       3-4
#   1,000           17-18                     12-14
#  10,000         150-154                     88-96
set -euo pipefail
qpipe=$(cd "$(dirname "$0")/.." && pwd)/target/release/qpipe
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset QPIPE_CACHE
TIMEFORMAT='%R %U %S'

for count in 100 1000 10000; do
  mkdir -p "$folder/$count/data"
  cd "$folder/$count"
  { echo "version: 1"; echo "name: noop"; echo "nodes:"; } > noop.yaml
  for ((i = 0; i < count; i++)); do
    echo "{\"text\": \"$i\"}" > "data/$i.jsonl"
    echo "  node$i: { kind: download, data: data/$i.jsonl }" >> noop.yaml
  done
  first=$({ time "$qpipe" run noop.yaml > /dev/null 2>&1; } 2>&1)
  # A file hashed within its clock's resolution of being written is hashed once more.
  sleep 3
  "$qpipe" run noop.yaml > /dev/null 2>&1
  best=
  for _ in 1 2 3 4 5; do
    measured=$({ time "$qpipe" run noop.yaml > /dev/null 2>&1; } 2>&1)
    cpu=$(awk '{ printf "%.0f", ($2 + $3) * 1000 }' <<< "$measured")
    if [ -z "$best" ] || [ "$cpu" -lt "$best" ]; then best=$cpu; fi
  done
  awk -v n="$count" -v best="$best" '{ printf "%6d nodes: nothing to do %4d ms CPU (best of 5); first run %.2f ms a node (wall)\n", n, best, $1 * 1000 / n }' <<< "$first"
done
