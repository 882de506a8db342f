#!/bin/sh
# Builds node-probe as it is put on nodes: small, and for the oldest C library that it can be built for.
#
# With cargo-zigbuild (`pip install ziglang cargo-zigbuild`) that is glibc 2.17, older than any GPU node's; without it, the
# one of the machine that builds. Prints the path, the size, and the newest symbol version that a node must have. Fails where
# the program is larger than 4 MB, is bound to a fixed address, or takes an option that only node-probe-dev may have.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
arch=$(uname -m)
flags="--locked --profile probe -p node-probe --bin node-probe"
if command -v cargo-zigbuild > /dev/null; then
    cargo-zigbuild build $flags --target "$arch-unknown-linux-gnu.2.17"
    mkdir -p "$target/probe"
    cp "$target/$arch-unknown-linux-gnu/probe/node-probe" "$target/probe/node-probe"
else
    cargo build $flags
fi
probe=$target/probe/node-probe
size=$(wc -c < "$probe")
newest=$(grep -ao 'GLIBC_2\.[0-9]*' "$probe" | sort -t. -k2 -nu | tail -n 1)
echo "$probe: $size bytes, needs $newest"
[ "$size" -le 4000000 ] || { echo "larger than 4 MB" >&2; exit 1; }
# ET_DYN: position independent.
[ "$(od -An -tu2 -j16 -N2 "$probe" | tr -d ' ')" = 3 ] || { echo "not position independent" >&2; exit 1; }
for option in --facts --nvml-library --root --kernel-log; do
    code=0
    "$probe" "$option" /dev/null host > /dev/null 2>&1 || code=$?
    [ "$code" = 2 ] || { echo "it takes $option" >&2; exit 1; }
done
# The name of a variable that only the other grammar knows.
if grep -aq NODE_PROBE_NVML_LIBRARY "$probe"; then echo "it holds the options of development" >&2; exit 1; fi
