#!/bin/sh
# Builds the release version of node-probe: small, and for the oldest possible C library.
#
#   sh deploy/build-probe.sh [--glibc 2.17] [--arch aarch64]
#
# With cargo-zigbuild (`pip install ziglang cargo-zigbuild`) the C library is glibc 2.17, older than that of every GPU node.
# Without it, the program uses the C library of the build machine. Prints the path, the size, and the newest symbol version
# that a node must have. The program is target/probe/node-probe-ARCH; for the architecture of this machine, it is also copied
# to target/probe/node-probe. To embed it in gpu-syringe, build both architectures, and then the launcher with
# `--features carry` and NODE_PROBE_DIR="$PWD/target/probe". Fails if the program is larger than 4 MB, is not position
# independent, or accepts an option of node-probe-dev. With --glibc 2.17 it also fails if the program needs a newer symbol,
# because zig does not report a version that it does not know. A program for another architecture needs cargo-zigbuild and
# is not run here: its file is only searched for the options of node-probe-dev.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
host=$(uname -m)
[ "$host" != arm64 ] || host=aarch64
arch=$host
oldest=
while [ $# -gt 0 ]; do
    case "$1" in
        --glibc) oldest=$2 ;;
        --arch) arch=$2 ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
if [ "$(uname -s)" != Linux ] && ! command -v cargo-zigbuild > /dev/null; then
    echo "node-probe runs on Linux. On this system the build needs: pip install cargo-zigbuild ziglang; then add --arch x86_64 or aarch64" >&2
    exit 1
fi
flags="--locked --profile probe -p node-probe --bin node-probe"
probe=$target/probe/node-probe-$arch
if command -v cargo-zigbuild > /dev/null; then
    cargo-zigbuild build $flags --target "$arch-unknown-linux-gnu.2.17"
    mkdir -p "$target/probe"
    cp "$target/$arch-unknown-linux-gnu/probe/node-probe" "$probe"
else
    [ "$arch" = "$host" ] || { echo "a program for $arch needs cargo-zigbuild" >&2; exit 1; }
    cargo build $flags
    cp "$target/probe/node-probe" "$probe"
fi
if [ "$(uname -s)" != Linux ]; then host=none; fi
if [ "$arch" = "$host" ] && [ "$target/probe/node-probe" != "$probe" ]; then cp "$probe" "$target/probe/node-probe"; fi
size=$(wc -c < "$probe")
newest=$(grep -ao 'GLIBC_2\.[0-9]*' "$probe" | sort -t. -k2 -nu | tail -n 1)
echo "$probe: $size bytes, needs $newest"
if [ -n "$oldest" ]; then
    last=$(printf '%s\nGLIBC_%s\n' "$newest" "$oldest" | sort -t. -k2 -n | tail -n 1)
    [ "$last" = "GLIBC_$oldest" ] || { echo "the program needs a newer glibc than $oldest" >&2; exit 1; }
fi
[ "$size" -le 4000000 ] || { echo "the program is larger than 4 MB" >&2; exit 1; }
# ET_DYN: position independent.
[ "$(od -An -tu2 -j16 -N2 "$probe" | tr -d ' ')" = 3 ] || { echo "the program is not position independent" >&2; exit 1; }
for option in --facts --nvml-library --root --kernel-log; do
    [ "$arch" = "$host" ] || break
    code=0
    "$probe" "$option" /dev/null host > /dev/null 2>&1 || code=$?
    [ "$code" = 2 ] || { echo "the program accepts $option" >&2; exit 1; }
done
# The name of an environment variable that only node-probe-dev reads.
if grep -aq NODE_PROBE_NVML_LIBRARY "$probe"; then echo "the program contains the options of node-probe-dev" >&2; exit 1; fi
