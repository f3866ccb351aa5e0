#!/usr/bin/env bash
# The engine's cost of a trivial node, durable publish included: wall time a node of generated pipelines of 100, 1,000
# and 10,000 nodes that the tests' worker (no libtorch, three small files a node) computes at once. Half of the nodes
# read one of the others, so that their keys are made and looked up while the run goes on. Then one parameter of all
# of them changes: everything runs again, with something to be compared with.
#
#     cargo build --release --examples && benches/trivial.sh [NODES...]
#
# Goal: 5 ms a node, flat to 10,000. TMPDIR decides which disk is measured.
#
# Measured on two cores of an AMD EPYC that others used as well, TMPDIR=/dev/shm, so that no disk is waited for: 0.4 to
# 0.7 ms a node at 1,000 and at 10,000 nodes, in the first run and in the changed one. A disk adds its flushes.
set -euo pipefail
release=$(cd "$(dirname "$0")/.." && pwd)/target/release
export QPIPE_WORKER=$release/examples/fake_worker QPIPE_DEVICE=cpu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset QPIPE_CACHE
TIMEFORMAT='%R %U %S'

# Seeds below 2,000 mean mischief to the worker.
pipeline() {
  echo "version: 1"
  echo "name: trivial"
  echo "nodes:"
  echo "  base: { kind: download, model: model }"
  echo "  data: { kind: download, data: rows.jsonl }"
  for ((i = 2000; i < 2000 + $1 / 2; i++)); do
    echo "  adapter$i: { kind: sft, model: base, data: data, lora: { rank: 4 }, steps: $2, seed: $i }"
    echo "  merged$i: { kind: sft-merge, model: base, adapter: adapter$i }"
  done
}

[ $# -gt 0 ] || set -- 100 1000 10000
for nodes in "$@"; do
  mkdir -p "$folder/$nodes/model"
  cd "$folder/$nodes"
  echo '{}' > model/config.json
  echo 'weights' > model/model.safetensors
  echo '{"text": "a"}' > rows.jsonl
  for steps in 1 2; do
    pipeline "$nodes" "$steps" > trivial.yaml
    measured=$({ time "$release/qpipe" run trivial.yaml > /dev/null 2>&1; } 2>&1)
    what=$([ "$steps" = 1 ] && echo "first run  " || echo "changed run")
    awk -v n="$nodes" -v what="$what" '{ printf "%6d nodes, %s: %.2f ms a node (wall), %.2f ms CPU with the workers\n", n, what, $1 * 1000 / n, ($2 + $3) * 1000 / n }' <<< "$measured"
  done
done
