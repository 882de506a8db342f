#!/bin/sh
# Builds the release version of node-probe: small, and for the oldest possible C library.
#
# With cargo-zigbuild (`pip install ziglang cargo-zigbuild`) this is glibc 2.17, which is older than that of every GPU node. Without
# it, this is the C library of the build machine. Prints the path, the size, and the newest symbol version that a node must have.
# Fails if the program is larger than 4 MB, is not position independent, or accepts an option of node-probe-dev. With --glibc 2.17 it
# also fails if the program needs a newer symbol: zig does not report a version that it does not know.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
arch=$(uname -m)
oldest=
if [ "${1:-}" = --glibc ]; then oldest=$2; fi
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
if [ -n "$oldest" ]; then
    last=$(printf '%s\nGLIBC_%s\n' "$newest" "$oldest" | sort -t. -k2 -n | tail -n 1)
    [ "$last" = "GLIBC_$oldest" ] || { echo "needs more than glibc $oldest" >&2; exit 1; }
fi
[ "$size" -le 4000000 ] || { echo "larger than 4 MB" >&2; exit 1; }
# ET_DYN: position independent.
[ "$(od -An -tu2 -j16 -N2 "$probe" | tr -d ' ')" = 3 ] || { echo "not position independent" >&2; exit 1; }
for option in --facts --nvml-library --root --kernel-log; do
    code=0
    "$probe" "$option" /dev/null host > /dev/null 2>&1 || code=$?
    [ "$code" = 2 ] || { echo "it accepts $option" >&2; exit 1; }
done
# An environment variable that only node-probe-dev reads.
if grep -aq NODE_PROBE_NVML_LIBRARY "$probe"; then echo "it contains the options of node-probe-dev" >&2; exit 1; fi
