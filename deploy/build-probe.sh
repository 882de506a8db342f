#!/bin/sh
# Builds node-probe as it is put on nodes: small, and for the oldest C library that it can be built for.
#
# With cargo-zigbuild (`pip install ziglang cargo-zigbuild`) that is glibc 2.17, older than any GPU node's; without it, the
# one of the machine that builds. Prints the path, the size, and the newest symbol version that a node must have.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
arch=$(uname -m)
flags="--locked --profile probe -p node-probe --bin node-probe"
# Without unwind tables, and at a fixed address: relocations of its tables of texts were 70 KB.
code="-C link-arg=-Wl,-T,$PWD/deploy/no-unwind.ld -C relocation-model=static"
if command -v cargo-zigbuild > /dev/null; then
    cargo-zigbuild rustc $flags --target "$arch-unknown-linux-gnu.2.17" -- $code
    built=$target/$arch-unknown-linux-gnu/probe/node-probe
    mkdir -p "$target/probe"
    cp "$built" "$target/probe/node-probe"
else
    cargo rustc $flags -- $code
fi
probe=$target/probe/node-probe
newest=$(grep -ao 'GLIBC_2\.[0-9]*' "$probe" | sort -t. -k2 -nu | tail -n 1)
echo "$probe: $(wc -c < "$probe") bytes, needs $newest"
