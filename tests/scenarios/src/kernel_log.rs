//! The kernel log of a node: lines of the boot, of the driver, and of the incidents of the scenario.
//!
//! The records are those of /dev/kmsg: `priority,sequence,microseconds since boot,flags;text`.

use jiff::Timestamp;
use syringe_core::facts::host::Host;
use syringe_core::report::{Report, Section};

/// The facility of systemd (3) with the level `info`. Lines of the kernel have facility 0.
const SYSTEMD: u8 = 3 * 8 + 6;

/// Lines that a scenario adds.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    /// Time, level and text of lines of the kernel, in any order.
    pub(crate) incidents: Vec<(Timestamp, u8, String)>,
    /// Records before those of this boot.
    pub(crate) earlier: Vec<String>,
    /// Lines after the last record of the kernel, each with its priority.
    pub(crate) appended: Vec<(u8, String)>,
    /// Time of the oldest record, if older ones were overwritten.
    pub(crate) only_since: Option<Timestamp>,
}

/// A line: seconds since boot, priority, text.
type Line = (f64, u8, String);

impl KernelLog {
    /// Returns the records of the log of the node.
    pub(crate) fn records(&self, report: &Report, boot: Timestamp) -> Vec<String> {
        let host = Section::data_of(&report.sections.host).expect("the host section");
        let since_boot = |time: Timestamp| time.duration_since(boot).as_micros() as f64 / 1e6;
        let incidents = self.incidents.iter().map(|(time, level, text)| (since_boot(*time), *level, text.clone()));
        let mut lines: Vec<Line> = boot_lines(report, host).into_iter().chain(incidents).collect();
        if let Some(version) = &host.driver.loaded {
            lines.extend(driver_lines(host, version));
        }
        lines.sort_by(|one, other| one.0.total_cmp(&other.0));
        // Each line is a little later than the one before, as in a real log.
        let numbered = lines.into_iter().zip(0..);
        // A node that has just booted does not have all lines.
        let numbered =
            numbered.filter(|((seconds, _, _), _)| *seconds >= 0.0).map(|((seconds, priority, text), number)| {
                (priority, number, (seconds * 1_000_000.0) as u64 + number * 37, text)
            });
        let mut records: Vec<(u8, u64, u64, String)> = numbered.collect();
        let next = records.last().map_or(0, |record| record.1 + 1);
        if let Some(oldest) = self.only_since {
            let oldest = (since_boot(oldest) * 1_000_000.0) as u64;
            records.retain(|(_, _, at, _)| *at >= oldest);
            records.push((6, next, oldest + 1000, "eth0: renamed from vethb01f4a2".to_owned()));
        }
        let last = records.last().map_or(0, |record| record.2);
        let appended = self.appended.iter().zip(0..);
        records.extend(appended.map(|((priority, text), place)| (*priority, next + place, last + place, text.clone())));
        let written =
            records.into_iter().map(|(priority, number, at, text)| format!("{priority},{number},{at},-;{text}"));
        self.earlier.iter().cloned().chain(written).collect()
    }
}

fn is_arm(host: &Host) -> bool {
    host.driver.library_path.as_ref().is_some_and(|path| path.contains("aarch64"))
}

/// Lines of the boot, and harmless lines of the time since.
fn boot_lines(report: &Report, host: &Host) -> Vec<Line> {
    let [kernel, name] = [&report.kernel, &report.hostname].map(|field| field.as_deref().unwrap_or_default());
    let uptime = host.uptime_seconds.unwrap_or_default() as f64;
    let switches = Section::data_of(&report.sections.topology)
        .is_some_and(|topology| topology.gpus.iter().any(|gpu| !gpu.nvlinks.is_empty()));
    let mut lines = vec![
        (0.0, 5, format!("Linux version {kernel} (builder@buildhost) (gcc 11.4.0) #141 SMP")),
        (
            0.0,
            6,
            format!("Command line: BOOT_IMAGE=/boot/vmlinuz-{kernel} root=LABEL=root ro console=tty1 console=ttyS0"),
        ),
        (0.0, 6, if is_arm(host) { "efi: EFI v2.7 by EDK II" } else { "BIOS-provided physical RAM map:" }.to_owned()),
        (0.2, 6, format!("smp: Brought up {} nodes", host.numa_nodes.unwrap_or_default())),
        (5.1, SYSTEMD, format!("systemd[1]: Detected architecture {}.", if is_arm(host) { "arm64" } else { "x86-64" })),
        (5.6, SYSTEMD, format!("systemd[1]: Set hostname to <{name}>.")),
    ];
    for gpu in &host.pci_gpus {
        let (Some(address), Some(device)) = (&gpu.pci_address, &gpu.device_id) else { continue };
        let address = address.sysfs();
        let text =
            format!("pci {address}: [10de:{device}] type 00 class 0x030200\n SUBSYSTEM=pci\n DEVICE=+pci:{address}");
        lines.push((1.1, 6, text));
    }
    if switches {
        lines.push((11.7, 6, "mlx5_core 0000:17:00.0: firmware version: 28.42.1000".to_owned()));
    }
    let same_on_all_nodes = [
        (0.6, 6, "ACPI: PCI: Interrupt link LNKA configured for IRQ 0"),
        (0.9, 6, "PCI: Using configuration type 1 for base access"),
        (1.6, 6, "pcieport 0000:00:1c.0: AER: enabled with IRQ 124"),
        (2.0, 6, "Serial: 8250/16550 driver, 32 ports, IRQ sharing enabled"),
        (2.6, 6, "nvme nvme0: 16/0/0 default/read/poll queues"),
        (3.9, 6, "EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)"),
        (7.8, SYSTEMD, "systemd[1]: Started Journal Service."),
        (9.3, 5, r#"audit: type=1400 audit(1.0:2): apparmor="STATUS" operation="profile_load" name="nvidia_modprobe""#),
        (12.4, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready"),
        (31.0, 6, "cni0: port 1(veth4f1c09aa) entered forwarding state"),
        (33.5, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): cali7e1f0b2c9d4: link becomes ready"),
        (48.2, 6, "cgroup: cgroup: disabling cgroup2 socket matching due to net_prio or net_cls activation"),
        (uptime * 0.35, 6, "TCP: eth0: Driver has suspect GRO implementation, TCP performance may be compromised."),
        (
            uptime * 0.71,
            6,
            "perf: interrupt took too long (2507 > 2500), lowering kernel.perf_event_max_sample_rate to 79750",
        ),
        (uptime - 212.0, 6, "IPv6: ADDRCONF(NETDEV_CHANGE): cali03d1e77f5ab: link becomes ready"),
    ];
    lines.extend(same_on_all_nodes.map(|(seconds, priority, text)| (seconds, priority, text.to_owned())));
    lines
}

/// Lines of the initialization of the driver.
fn driver_lines(host: &Host, version: &str) -> Vec<Line> {
    let arch = if is_arm(host) { "aarch64" } else { "x86_64" };
    let module = match host.driver.flavor.as_deref() {
        Some("open") => format!("NVIDIA UNIX Open Kernel Module for {arch}"),
        _ => format!("NVIDIA UNIX {arch} Kernel Module"),
    };
    let mut lines = vec![
        (14.2, 6, "nvidia-nvlink: Nvlink Core is being initialized, major device number 511".to_owned()),
        (14.9, 6, format!("NVRM: loading {module}  {version}  Release Build  (builder@buildhost)")),
        (15.1, 6, format!("nvidia-modeset: Loading NVIDIA UNIX Open Kernel Mode Setting Driver for {arch}  {version}")),
        (15.4, 6, "nvidia-uvm: Loaded the UVM driver, major device number 507.".to_owned()),
    ];
    let addresses = host.pci_gpus.iter().filter_map(|gpu| gpu.pci_address.as_ref());
    lines.extend(
        addresses.map(|address| (14.3, 6, format!("nvidia {}: enabling device (0140 -> 0142)", address.sysfs()))),
    );
    lines
}
