"""The kernel log of a node: messages of every boot, of the driver, and of an incident.

Records are those of /dev/kmsg: `priority,sequence,microseconds since boot,flags;text`. Facility 0 (a priority below 8)
is the kernel; systemd writes with facility 3.
"""

SYSTEMD = 3 * 8 + 6


class KernelLog:
    """Lines of one boot, in any order; `records` sorts them."""

    def __init__(self, node):
        self.node = node
        self.incidents = []

    def at(self, time, text, level=3):
        """Adds a line at a wall-clock time."""
        self.incidents.append(((time - self.node.boot).total_seconds(), level, text))

    def xid(self, time, index, text):
        """Adds an Xid of one GPU; its PCI address has no function digit."""
        self.at(time, f"NVRM: Xid (PCI:{self.node.sysfs(index)[:-2]}): {text}")

    def boot(self):
        node, arm = self.node, self.node.architecture == "aarch64"
        options = "root=LABEL=root ro console=tty1 console=ttyS0"
        yield 0.0, 5, f"Linux version {node.kernel} (builder@buildhost) (gcc 11.4.0) #141 SMP"
        yield 0.0, 6, f"Command line: BOOT_IMAGE=/boot/vmlinuz-{node.kernel} {options}"
        yield 0.0, 6, "efi: EFI v2.7 by EDK II" if arm else "BIOS-provided physical RAM map:"
        yield 0.2, 6, f"smp: Brought up {len(node.cpus)} nodes"
        yield 0.6, 6, "ACPI: PCI: Interrupt link LNKA configured for IRQ 0"
        yield 0.9, 6, "PCI: Using configuration type 1 for base access"
        for index in range(node.count):
            address = node.sysfs(index)
            dictionary = f"\n SUBSYSTEM=pci\n DEVICE=+pci:{address}"
            yield 1.1, 6, f"pci {address}: [10de:{node.product['device']}] type 00 class 0x030200{dictionary}"
        yield 1.6, 6, "pcieport 0000:00:1c.0: AER: enabled with IRQ 124"
        yield 2.0, 6, "Serial: 8250/16550 driver, 32 ports, IRQ sharing enabled"
        yield 2.6, 6, "nvme nvme0: 16/0/0 default/read/poll queues"
        yield 3.9, 6, "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)"
        yield 5.1, SYSTEMD, f"systemd[1]: Detected architecture {'arm64' if arm else 'x86-64'}."
        yield 5.6, SYSTEMD, f"systemd[1]: Set hostname to <{node.name}>."
        yield 7.8, SYSTEMD, "systemd[1]: Started Journal Service."
        profile = 'operation="profile_load" name="nvidia_modprobe"'
        yield 9.3, 5, f'audit: type=1400 audit(1.0:2): apparmor="STATUS" {profile}'
        if node.product["nvlink"]:
            yield 11.7, 6, "mlx5_core 0000:17:00.0: firmware version: 28.42.1000"
        yield 12.4, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready"

    def driver(self):
        """Adds the kernel messages of the driver initialization."""
        node = self.node
        arch, version = node.architecture, node.driver
        unix = "NVIDIA UNIX"
        module = f"{unix} Open Kernel Module for {arch}" if node.is_open() else f"{unix} {arch} Kernel Module"
        yield 14.2, 6, "nvidia-nvlink: Nvlink Core is being initialized, major device number 511"
        for index in range(node.count):
            yield 14.3, 6, f"nvidia {node.sysfs(index)}: enabling device (0140 -> 0142)"
        yield 14.9, 6, f"NVRM: loading {module}  {version}  Release Build  (builder@buildhost)"
        yield 15.1, 6, f"nvidia-modeset: Loading {unix} Open Kernel Mode Setting Driver for {arch}  {version}"
        yield 15.4, 6, "nvidia-uvm: Loaded the UVM driver, major device number 507."

    def later(self):
        uptime = self.node.uptime
        yield 31.0, 6, "cni0: port 1(veth4f1c09aa) entered forwarding state"
        yield 33.5, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): cali7e1f0b2c9d4: link becomes ready"
        yield 48.2, 6, "cgroup: cgroup: disabling cgroup2 socket matching due to net_prio or net_cls activation"
        doubt = "Driver has suspect GRO implementation, TCP performance may be compromised."
        yield uptime * 0.35, 6, f"TCP: eth0: {doubt}"
        slow = "lowering kernel.perf_event_max_sample_rate to 79750"
        yield uptime * 0.71, 6, f"perf: interrupt took too long (2507 > 2500), {slow}"
        yield uptime - 212.0, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): cali03d1e77f5ab: link becomes ready"

    def records(self):
        lines = [*self.boot(), *self.later(), *self.incidents]
        if self.node.driver_loaded:
            lines += self.driver()
        lines.sort(key=lambda line: line[0])
        return [
            # Each line is a little later than the one before, as in a real log.
            f"{level},{number},{int(seconds * 1_000_000) + number * 37},-;{text}"
            for number, (seconds, level, text) in enumerate(lines)
        ]
