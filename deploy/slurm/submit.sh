#!/bin/bash
# Submits the parts as a job array, and a job that merges them when all tasks have ended. It is called again for the parts
# that are missing then: submit.sh --array=3,7-9
set -euo pipefail
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The job. PARTS and OUT are on a file system that all nodes have. `sbatch` passes these variables on.
export IMAGES=${IMAGES:-60000} SEED=${SEED:-1} SHARDS=${SHARDS:-16}
export PARTS=${PARTS:-parts} OUT=${OUT:-synthetic/train}
# How often missing parts are submitted again.
export ROUNDS=${ROUNDS:-3}
export SUBMIT=$deploy/submit.sh

mkdir -p "$PARTS"
array=$(sbatch --parsable "${1:---array=0-$((SHARDS - 1))}" "$deploy/sample.sbatch")
# The number may be followed by the name of the cluster.
sbatch --dependency="afterany:${array%%;*}" "$deploy/merge.sbatch"
