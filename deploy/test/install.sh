#!/bin/bash
# Installs from Debian what `cargo xtask shards` uses: shellcheck, yamllint with PyYAML, and GNU parallel.
set -euo pipefail
missing=()
for program in shellcheck yamllint parallel; do
    command -v "$program" > /dev/null || missing+=("$program")
done
python3 -c 'import yaml' 2> /dev/null || missing+=(python3-yaml)
if [[ ${#missing[@]} -gt 0 ]]; then
    apt-get update
    apt-get install --yes --no-install-recommends "${missing[@]}"
fi
