#!/usr/bin/env python3
"""Checks the device access of a container in a real cgroup of version 2.

The device rules of cgroup v2 are a BPF program, so a file tree cannot show what they decide. This script creates a cgroup below a
cgroup2 mount, attaches a program to it that denies one device, and asks node-probe which of two devices a container in this cgroup
can open. Then it freezes the cgroup, as a container runtime does to pause a container. It needs root, a cgroup2 mount and the
bpf system call.

    cargo build -p node-probe
    sudo python3 tests/cgroup_v2_devices.py --node-probe target/debug/node-probe-dev
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import stat
import struct
import subprocess
import sys
import tempfile
import time

BPF = {"x86_64": 321, "aarch64": 280}
PROG_LOAD, PROG_ATTACH = 5, 8
TYPE_CGROUP_DEVICE, ATTACH_CGROUP_DEVICE = 15, 6
ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
# /dev/null and /dev/zero, under names of GPUs.
ALLOWED, DENIED = ("nvidia0", 3), ("nvidia1", 5)


def bpf(command, attributes):
    """Calls bpf(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(BPF[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}: {os.strerror(ctypes.get_errno())}")
    return result


def deny(cgroup, minor):
    """Attaches a program to a cgroup that denies the devices with this minor number."""
    instructions = b"".join(
        struct.pack("<BBhi", *instruction)
        for instruction in [
            (0x61, 0x12, 8, 0),  # r2 = context->minor
            (0xB7, 0x00, 0, 1),  # r0 = 1
            (0x55, 0x02, 1, minor),  # if r2 != minor skip the next
            (0xB7, 0x00, 0, 0),  # r0 = 0
            (0x95, 0x00, 0, 0),  # return r0
        ]
    )
    code, license_text = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(code), ctypes.addressof(license_text))
    load = struct.pack("<IIQQ", TYPE_CGROUP_DEVICE, len(instructions) // 8, *addresses)
    load += struct.pack("<IIQII16sII", 0, 0, 0, 0, 0, b"", 0, ATTACH_CGROUP_DEVICE)
    program = bpf(PROG_LOAD, load)
    folder = os.open(cgroup, os.O_RDONLY)
    bpf(PROG_ATTACH, struct.pack("<IIII", folder, program, ATTACH_CGROUP_DEVICE, 0))


def cgroup2():
    """Returns the folder of a cgroup2 mount."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, folder, kind = line.split()[:3]
        if kind == "cgroup2":
            return pathlib.Path(folder)
    sys.exit("no cgroup2 mount")


def tree(root, mount, path):
    """Creates a file tree with one container, whose cgroup is a real one."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/20/cgroup": f"0::{path}\n",
        "proc/20/comm": "python3\n",
        "proc/modules": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "sys/fs").mkdir(parents=True)
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "sys/fs/cgroup").symlink_to(mount)
    dev = root / "proc/20/root/dev"
    dev.mkdir(parents=True)
    for name, minor in (ALLOWED, DENIED):
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))


def read(node_probe, root):
    """Returns the device access in the host section, the problems about it, and the run time."""
    command = [node_probe, "--root", root, "host", "--container", ID]
    started = time.monotonic()
    section = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)["sections"]["host"]
    access = {device["name"]: device["access"] for device in section["data"]["container"]["devices"]}
    problems = [problem["why"] for problem in section.get("problems", []) if problem["code"] == "device_cgroup"]
    return access, problems, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-probe", default="target/debug/node-probe-dev")
    node_probe = parser.parse_args().node_probe
    mount = cgroup2()
    path = f"/cgroup-v2-devices-{os.getpid()}/cri-containerd-{ID}.scope"
    cgroup = mount / path[1:]
    cgroup.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            tree(root, mount, path)
            both = {ALLOWED[0]: "allowed", DENIED[0]: "allowed"}
            assert read(node_probe, root)[:2] == (both, []), read(node_probe, root)
            deny(cgroup, DENIED[1])
            ours = {ALLOWED[0]: "allowed", DENIED[0]: "denied"}
            assert read(node_probe, root)[:2] == (ours, []), read(node_probe, root)
            assert (cgroup / "cgroup.procs").read_text() == "", "a child stayed in the cgroup"
            (cgroup / "cgroup.freeze").write_text("1")
            access, problems, seconds = read(node_probe, root)
            unknown = {ALLOWED[0]: "unknown", DENIED[0]: "unknown"}
            assert access == unknown and "frozen" in problems[0] and seconds < 5, (access, problems, seconds)
            # The cgroup looks as if it had been frozen after the check. The child must be killed, and must leave the cgroup.
            os.remove(root / "sys/fs/cgroup")
            shadow = root / "sys/fs/cgroup" / path[1:]
            shadow.mkdir(parents=True)
            (shadow / "cgroup.procs").symlink_to(cgroup / "cgroup.procs")
            (root / "sys/fs/cgroup/cgroup.procs").symlink_to(mount / "cgroup.procs")
            access, problems, seconds = read(node_probe, root)
            assert access == unknown and "did not end within" in problems[0] and seconds < 5, (access, problems, seconds)
            assert (cgroup / "cgroup.procs").read_text() == "", "a child stayed in the cgroup"
    finally:
        (cgroup / "cgroup.freeze").write_text("0")
        cgroup.rmdir()
        cgroup.parent.rmdir()
    print("ok: allowed, denied and frozen are distinguished")


if __name__ == "__main__":
    main()
