#!/usr/bin/env bash
# Keeps, of the inputs of each target, the few small ones that are committed: fuzz/minimise.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
targets=("$@")
if [ ${#targets[@]} = 0 ]; then for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done; fi
for target in "${targets[@]}"; do
    # Larger ones cost space, and find nothing that these do not lead to.
    find "corpus/$target" -type f -size +8k -delete
    cargo "+${TOOLCHAIN:-nightly}" fuzz cmin --sanitizer none --debug-assertions "$target"
done
