#!/bin/sh
# Builds node-probe as it is put on nodes: small, and linked to the C library of the machine that builds it.
# Prints the path, the size, and the newest symbol version of the C library that a node must have.
set -eu
cd "$(dirname "$0")/.."
cargo rustc --locked --profile probe -p node-probe --bin node-probe -- -C link-arg=-Wl,-T,"$PWD/deploy/no-unwind.ld"
probe=${CARGO_TARGET_DIR:-target}/probe/node-probe
newest=$(grep -ao 'GLIBC_2\.[0-9]*' "$probe" | sort -t. -k2 -nu | tail -n 1)
echo "$probe: $(wc -c < "$probe") bytes, needs $newest"
