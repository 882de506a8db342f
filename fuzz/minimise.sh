#!/usr/bin/env bash
# Reduces the inputs of each target to the few small ones that are committed: fuzz/minimise.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
targets=("$@")
if [ ${#targets[@]} = 0 ]; then for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done; fi
for target in "${targets[@]}"; do
    # Larger inputs take up space, and find nothing that the search does not find from smaller inputs.
    find "corpus/$target" -type f -size +8k -delete
    cargo "+${TOOLCHAIN:-nightly}" fuzz cmin --sanitizer none --debug-assertions "$target"
done
