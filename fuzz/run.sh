#!/usr/bin/env bash
# Runs one fuzz target: fuzz/run.sh TARGET [SECONDS]. New inputs go to fuzz/corpus/TARGET; `fuzz/minimise.sh` removes those that add
# nothing. TOOLCHAIN names the nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?usage: fuzz/run.sh TARGET [SECONDS]; the targets are in fuzz/fuzz_targets}
dictionary=()
if [ -f "dictionaries/$target.dict" ]; then dictionary=("-dict=dictionaries/$target.dict"); fi
# No target has unsafe code of this project, so no sanitizer is needed: without it, a target runs several times as fast.
cargo "+${TOOLCHAIN:-nightly}" fuzz run --sanitizer none --debug-assertions "$target" -- \
    -max_total_time="${2:-600}" -timeout=10 -rss_limit_mb=2048 "${dictionary[@]}"
