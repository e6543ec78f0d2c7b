#!/bin/sh
# Installs what the test of the page needs: Chromium and Node.js from Debian, and playwright-core from npm.
set -eu
cd "$(dirname "$0")"
missing=
for program in chromium node npm; do
    package=$program
    [ "$program" = node ] && package=nodejs
    command -v "$program" > /dev/null || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get update
    # shellcheck disable=SC2086 # a list of packages
    apt-get install --yes --no-install-recommends $missing
fi
npm ci --ignore-scripts
