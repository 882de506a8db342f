#!/bin/sh
# Makes the root file system of the probe's image: node-probe, and the parts of a C library that node-probe and NVIDIA's
# NVML library load. It contains no shell, no package manager, and nothing else that a scanner could report.
#
#   sh deploy/image-root.sh LIBC_ROOT NODE_PROBE OUT
#
# LIBC_ROOT is the root directory of a Debian or distroless system of the same architecture, such as `/` on a Debian machine.
# No program of LIBC_ROOT is run, so one machine can make images of every architecture. Fails if the image exceeds 15 MB.
set -eu
libc_root=${1%/} probe=$2 out=$3
mkdir -p "$out/usr/bin"
cp "$probe" "$out/usr/bin/node-probe"
chmod 0755 "$out/usr/bin/node-probe"

found=no
for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1; do
    [ -e "$libc_root$loader" ] || continue
    found=yes
    mkdir -p "$out${loader%/*}"
    cp -L "$libc_root$loader" "$out$loader"
done
[ "$found" = yes ] || { echo "$libc_root has no loader for x86_64 or aarch64" >&2; exit 1; }

# NVML still names libraries that newer C libraries have merged into libc.
for library in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1; do
    copied=no
    for folder in lib/x86_64-linux-gnu lib/aarch64-linux-gnu usr/lib/x86_64-linux-gnu usr/lib/aarch64-linux-gnu; do
        [ -e "$libc_root/$folder/$library" ] || continue
        # The loader's own search path contains /lib/ARCH-linux-gnu.
        to=$out/lib/${folder##*/}
        mkdir -p "$to"
        cp -L "$libc_root/$folder/$library" "$to/$library"
        copied=yes
        break
    done
    [ "$copied" = yes ] || { echo "$libc_root has no $library" >&2; exit 1; }
done

size=$(du -sk "$out" | cut -f1)
echo "$out: $size KiB"
[ "$size" -le 14648 ] || { echo "the image is larger than 15 MB" >&2; exit 1; }
