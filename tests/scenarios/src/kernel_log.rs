//! `KernelLog`: writes the `/dev/kmsg` records of a node: lines of the boot, of the driver, and of incidents.
//!
//! The records have the format of /dev/kmsg: `priority,sequence,microseconds since boot,flags;text`.

use jiff::Timestamp;
use syringe_core::report::{Report, Section};

/// Lines of the boot: seconds, priority, text. A line with `{gpu}` is written for each GPU. Priority 30 is for systemd.
const BOOT: &str = r#"0 5 Linux version {kernel} (builder@buildhost) (gcc 11.4.0) #141 SMP
0 6 Command line: BOOT_IMAGE=/boot/vmlinuz-{kernel} root=LABEL=root ro console=tty1 console=ttyS0
0 6 {firmware}
0.2 6 smp: Brought up {numa} nodes
0.6 6 ACPI: PCI: Interrupt link LNKA configured for IRQ 0
0.9 6 PCI: Using configuration type 1 for base access
1.1 6 pci {gpu}: [10de:{device}] type 00 class 0x030200\n SUBSYSTEM=pci\n DEVICE=+pci:{gpu}
1.6 6 pcieport 0000:00:1c.0: AER: enabled with IRQ 124
2.0 6 Serial: 8250/16550 driver, 32 ports, IRQ sharing enabled
2.6 6 nvme nvme0: 16/0/0 default/read/poll queues
3.9 6 EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Opts: (null)
5.1 30 systemd[1]: Detected architecture {cpu}.
5.6 30 systemd[1]: Set hostname to <{name}>.
7.8 30 systemd[1]: Started Journal Service.
9.3 5 audit: type=1400 audit(1.0:2): apparmor="STATUS" operation="profile_load" name="nvidia_modprobe"
12.4 6 IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready
31 6 cni0: port 1(veth4f1c09aa) entered forwarding state
33.5 6 IPv6: ADDRCONF(NETDEV_CHANGE): cali7e1f0b2c9d4: link becomes ready
48.2 6 cgroup: cgroup: disabling cgroup2 socket matching due to net_prio or net_cls activation"#;

/// A line of nodes with NVLink.
const NETWORK: &str = "11.7 6 mlx5_core 0000:17:00.0: firmware version: 28.42.1000";

/// Lines that are logged when the driver is loaded.
const DRIVER: &str = "14.2 6 nvidia-nvlink: Nvlink Core is being initialized, major device number 511
14.3 6 nvidia {gpu}: enabling device (0140 -> 0142)
14.9 6 NVRM: loading NVIDIA UNIX {module}  {driver}  Release Build  (builder@buildhost)
15.1 6 nvidia-modeset: Loading NVIDIA UNIX Open Kernel Mode Setting Driver for {arch}  {driver}
15.4 6 nvidia-uvm: Loaded the UVM driver, major device number 507.";

/// Harmless lines after the boot: fraction of the uptime, seconds, text.
const SINCE: [(f64, f64, &str); 3] = [
    (0.35, 0.0, "TCP: eth0: Driver has suspect GRO implementation, TCP performance may be compromised."),
    (0.71, 0.0, "perf: interrupt took too long (2507 > 2500), lowering kernel.perf_event_max_sample_rate to 79750"),
    (1.0, -212.0, "IPv6: ADDRCONF(NETDEV_CHANGE): cali03d1e77f5ab: link becomes ready"),
];

/// Lines that a scenario adds to the log.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    /// Time, level and text of lines of the kernel, in any order.
    pub(crate) incidents: Vec<(Timestamp, u8, String)>,
    /// Records from earlier boots.
    pub(crate) earlier: Vec<String>,
    /// Lines after the last record of the kernel, each with its priority.
    pub(crate) appended: Vec<(u8, String)>,
    /// Time of the oldest record, if older records were overwritten.
    pub(crate) only_since: Option<Timestamp>,
}

impl KernelLog {
    /// Returns the records of the log of the node.
    pub(crate) fn records(&self, report: &Report, boot: Timestamp) -> Vec<String> {
        let micros = |time: Timestamp| time.as_microsecond() - boot.as_microsecond();
        let incidents = self.incidents.iter().map(|(time, level, text)| (micros(*time), *level, text.clone()));
        let mut lines: Vec<(i64, u8, String)> = usual_lines(report).into_iter().chain(incidents).collect();
        lines.sort_by_key(|line| line.0);
        // Each line is a little later than the previous line, as in a real log.
        let numbered = lines.into_iter().zip(0_i64..);
        let mut records =
            Vec::from_iter(numbered.map(|((at, priority, text), number)| (priority, number, at + 37 * number, text)));
        let next = records.last().map_or(0, |record| record.1 + 1);
        if let Some(oldest) = self.only_since.map(micros) {
            records.retain(|(_, _, at, _)| *at >= oldest);
            records.push((6, next, oldest + 1000, "eth0: renamed from vethb01f4a2".to_owned()));
        }
        let last = records.last().map_or(0, |record| record.2);
        let appended = self.appended.iter().zip(next..);
        records.extend(appended.map(|((priority, text), number)| (*priority, number, last, text.clone())));
        let written =
            records.into_iter().map(|(priority, number, at, text)| format!("{priority},{number},{at},-;{text}"));
        self.earlier.iter().cloned().chain(written).collect()
    }
}

/// Returns the lines that every node of this kind has: microseconds since boot, priority, text.
fn usual_lines(report: &Report) -> Vec<(i64, u8, String)> {
    let host = Section::data_of(&report.sections.host).expect("the host section");
    let is_arm = host.driver.library_path.as_ref().is_some_and(|path| path.contains("aarch64"));
    let (arch, cpu) = if is_arm { ("aarch64", "arm64") } else { ("x86_64", "x86-64") };
    let is_open = host.driver.flavor.as_deref() == Some("open");
    let module = if is_open { format!("Open Kernel Module for {arch}") } else { format!("{arch} Kernel Module") };
    let numa_nodes = host.numa_nodes.unwrap_or_default().to_string();
    let values = [
        ("{kernel}", report.kernel.as_deref().unwrap_or_default()),
        ("{firmware}", if is_arm { "efi: EFI v2.7 by EDK II" } else { "BIOS-provided physical RAM map:" }),
        ("{numa}", &numa_nodes),
        ("{cpu}", cpu),
        ("{name}", report.hostname.as_deref().unwrap_or_default()),
        ("{module}", &module),
        ("{driver}", host.driver.loaded.as_deref().unwrap_or_default()),
        ("{arch}", arch),
        ("\\n", "\n"),
    ];
    let topology = Section::data_of(&report.sections.topology);
    let has_nvlink = topology.is_some_and(|topology| topology.gpus.iter().any(|gpu| !gpu.nvlinks.is_empty()));
    let mut templates: Vec<&str> = BOOT.lines().collect();
    templates.extend(has_nvlink.then_some(NETWORK));
    templates.extend(host.driver.loaded.iter().flat_map(|_| DRIVER.lines()));

    let micros = |seconds: f64| (seconds * 1e6) as i64;
    let uptime = host.uptime_seconds.unwrap_or_default() as f64;
    let mut lines =
        Vec::from_iter(SINCE.map(|(share, seconds, text)| (micros(uptime * share + seconds), 6, text.to_owned())));
    for template in templates {
        let [seconds, priority, text] = *template.splitn(3, ' ').collect::<Vec<_>>() else { continue };
        let (seconds, priority) = (seconds.parse().expect("seconds"), priority.parse().expect("a priority"));
        let text = values.iter().fold(text.to_owned(), |text, (field, value)| text.replace(field, value));
        if !text.contains("{gpu}") {
            lines.push((micros(seconds), priority, text));
            continue;
        }
        for gpu in &host.pci_gpus {
            let address = gpu.pci_address.as_ref().map_or("", |address| address.sysfs());
            let text = text.replace("{gpu}", address).replace("{device}", gpu.device_id.as_deref().unwrap_or_default());
            lines.push((micros(seconds), priority, text));
        }
    }
    lines
}
