#!/bin/bash
# Samples the parts in several processes on this machine with GNU parallel, and merges them.
set -euo pipefail

# The job, and the number of processes at a time.
IMAGES=${IMAGES:-60000} SEED=${SEED:-1} SHARDS=${SHARDS:-16}
PARTS=${PARTS:-parts} OUT=${OUT:-synthetic/train} JOBS=${JOBS:-$(nproc)}

mkdir -p "$PARTS"
# A part that fails is tried three times. What is missing after that is named by `merge`.
seq 0 $((SHARDS - 1)) | parallel --quote --jobs "$JOBS" --retries 3 --joblog "$PARTS/jobs.log" \
    ddpm-cli sample --num-images "$IMAGES" --seed "$SEED" --format idx \
    --shard-index {} --shards "$SHARDS" --skip-verified \
    --out "$PARTS/part-{}" --threads 1 || true
exec ddpm-cli merge "$PARTS" --out "$OUT"
