//! Tests of every family of kernel lines in every log format that the probe reads.

#[path = "kernel_lines/spellings.rs"]
mod spellings;

use jiff::Timestamp;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind, KernelLog};
use syringe_core::kernel_log::{EventLog, Options};

use spellings::FORMATS;

/// A family of kernel lines, and the event that they must lead to.
struct Family {
    lines: &'static [&'static str],
    kind: Kind,
    code: Option<u32>,
    pci: Option<&'static str>,
    details: &'static [(&'static str, &'static str)],
}

const fn family(lines: &'static [&'static str], kind: Kind, code: Option<u32>, pci: &'static str) -> Family {
    Family { lines, kind, code, pci: Some(pci), details: &[] }
}

fn families() -> Vec<Family> {
    vec![
        family(
            &["NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."],
            Kind::Xid,
            Some(79),
            "3b:00.0",
        ),
        family(&["NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus."], Kind::OffBus, None, "3b:00.0"),
        family(
            &["nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, Fatal, Link 33 LTSSM Fault Up (First)"],
            Kind::Sxid,
            Some(20034),
            "09:00.0",
        ),
        Family {
            details: &[("init_status", "0x26"), ("minor", "3")],
            ..family(
                &[
                    "NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x26:0x56:1474)",
                    "NVRM: GPU 0000:3b:00.0: rm_init_adapter failed, device minor number 3",
                ],
                Kind::RmInitFailed,
                None,
                "3b:00.0",
            )
        },
        Family {
            details: &[("agent", "Receiver ID"), ("multiple", "false")],
            ..family(
                &[
                    "pcieport 0000:3a:00.0: AER: Corrected error received: 0000:3a:00.0",
                    "pcieport 0000:3a:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Receiver ID)",
                    "pcieport 0000:3a:00.0:   device [8086:2f08] error status/mask=00000040/00002000",
                    "pcieport 0000:3a:00.0:    [ 6] BadTLP",
                ],
                Kind::Aer,
                None,
                "3a:00.0",
            )
        },
        family(&["pcieport 0000:3a:00.0: pciehp: Slot(12): Link Down"], Kind::PcieLink, None, "3a:00.0"),
        Family {
            details: &[("bar", "1"), ("size", "0M"), ("address", "0x0")],
            ..family(
                &[
                    "NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:",
                    "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:3b:00.0)",
                ],
                Kind::BarUnassigned,
                None,
                "3b:00.0",
            )
        },
        Family {
            details: &[("error", "-1")],
            ..family(
                &["nvidia 0000:3b:00.0: probe with driver nvidia failed with error -1"],
                Kind::ProbeFailed,
                None,
                "3b:00.0",
            )
        },
        family(&["nvidia: probe of 0000:3b:00.0 failed with error -1"], Kind::ProbeFailed, None, "3b:00.0"),
        Family {
            pci: None,
            details: &[
                ("client", "nvidia-smi"),
                ("client_pid", "4711"),
                ("client_version", "535.54.03"),
                ("kernel_version", "535.86.10"),
            ],
            ..family(
                &[
                    "NVRM: API mismatch: the client 'nvidia-smi' (pid 4711)",
                    "NVRM: has the version 535.54.03, but this kernel module has",
                    "NVRM: the version 535.86.10.  Please make sure that this",
                    "NVRM: kernel module and all NVIDIA driver components",
                    "NVRM: have the same version.",
                ],
                Kind::ApiMismatch,
                None,
                "",
            )
        },
        Family {
            details: &[("pci_id", "10de:1db6")],
            ..family(
                &[
                    "NVRM: The NVIDIA GPU 0000:3b:00.0 (PCI ID: 10de:1db6)",
                    "NVRM: installed in this system is not supported by open",
                    "NVRM: nvidia.ko because it does not include the required GPU",
                    "NVRM: System Processor (GSP).",
                ],
                Kind::NotSupported,
                None,
                "3b:00.0",
            )
        },
        Family {
            pci: None,
            details: &[("error", "0x60")],
            ..family(
                &[
                    "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
                ],
                Kind::Uvm,
                None,
                "",
            )
        },
        Family {
            pci: None,
            ..family(
                &["nvidia-uvm: uvm_global_set_fatal_error_impl:217 Encountered a global fatal error: NV_ERR_ECC_ERROR"],
                Kind::Uvm,
                None,
                "",
            )
        },
        Family {
            pci: None,
            details: &[("anon_rss_kib", "7")],
            ..family(
                &[
                    "Out of memory: Kill process 40 (dockerd) score 950 or sacrifice child",
                    "Killed process 42 (python3) total-vm:1kB, anon-rss:7kB, file-rss:0kB",
                ],
                Kind::OomKill,
                None,
                "",
            )
        },
        Family {
            pci: None,
            ..family(&["INFO: task python3:4711 blocked for more than 120 seconds."], Kind::HungTask, None, "")
        },
        Family {
            pci: None,
            ..family(
                &["python3[99]: segfault at 8 ip 0 sp 0 error 4 in libnccl.so.2.18[7f00+1000]"],
                Kind::Segfault,
                None,
                "",
            )
        },
        Family {
            pci: None,
            ..family(
                &["nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context"],
                Kind::PeermemError,
                None,
                "",
            )
        },
        Family { pci: None, ..family(&["mce: [Hardware Error]: Machine check events logged"], Kind::Mce, None, "") },
    ]
}

fn read(lines: &[String]) -> KernelLog {
    let now: Timestamp = "2025-03-04T00:00:00Z".parse().expect("a time");
    let mut log = EventLog::new(None, Options { now: Some(now), ..Options::default() });
    log.source("saved");
    lines.iter().for_each(|line| log.push_line(line));
    log.finish()
}

/// Returns an event without its times.
fn meaning(event: &KernelEvent) -> KernelEvent {
    KernelEvent { first: None, last: None, last_uptime_seconds: None, ..event.clone() }
}

#[test]
fn every_family_is_read_in_every_format() {
    assert!(FORMATS.len() >= 25 && families().len() >= 12);
    let mut complaints = Vec::new();
    for Family { lines, kind, code, pci, details } in families() {
        let bare = read(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        let Some(expected) = bare.events.first() else { panic!("expected an event: {lines:?}") };
        assert_eq!((expected.kind, expected.code, expected.count), (kind, code, 1), "{lines:?}");
        assert_eq!(
            expected.pci_address.as_ref().map(|pci| pci.sysfs().to_owned()),
            pci.map(|pci| format!("0000:{pci}"))
        );
        for (name, value) in details {
            assert_eq!(expected.details.get(*name).map(String::as_str), Some(*value), "{name} of {lines:?}");
        }
        for (format, spell) in FORMATS {
            let written: Vec<String> = lines.iter().enumerate().map(|(at, line)| spell(at, line)).collect();
            let log = read(&written);
            let same = log.events.len() == 1 && meaning(&log.events[0]) == meaning(expected);
            let coverage = &log.coverage[0];
            if !same || log.untrusted_lines > 0 || coverage.unread_lines > 0 {
                complaints.push(format!("{format}: {written:?}: {:?} {:?}", log.events, coverage));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn formats_that_carry_a_time_give_it() {
    let text = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";
    let without = ["dmesg -t", "dmesg, no time", "dmesg", "dmesg -x", "dmesg -r", "dmesg -d", "kmsg"];
    for (format, spell) in FORMATS {
        let log = read(&[spell(0, text)]);
        let dated = log.events[0].last.is_some();
        let uptime_only = log.events[0].last_uptime_seconds.is_some();
        let unknown = without.contains(&format) || uptime_only;
        assert!(dated || unknown, "{format}: {:?}", log.events);
    }
}

#[test]
fn lines_of_programs_are_ignored_in_every_format() {
    let text = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.";
    for (format, spell) in FORMATS {
        let kernel = spell(0, text);
        for (tag, forged) in
            [("kernel: ", "evil[1]: "), (" kernel ", " evil "), ("kern: ", "user: "), ("kern: ", "daemon: ")]
        {
            if !kernel.contains(tag) {
                continue;
            }
            let log = read(&[kernel.replacen(tag, forged, 1)]);
            assert!(log.events.is_empty(), "{format}: {:?}", log.events);
        }
    }
}

#[test]
fn a_record_that_rsyslog_wrote_in_one_line_is_undone() {
    let line = "Feb 23 16:24:18 gpu-1 kernel: NVRM: API mismatch: the client has the version 470.129.06, but#012NVRM: this \
                kernel module has the version 535.86.10.  Please#012NVRM: make sure that this kernel module and all NVIDIA \
                driver#012NVRM: components have the same version.";
    let log = read(&[line.to_owned()]);
    let versions = ["client_version", "kernel_version"].map(|name| log.events[0].details.get(name).map(String::as_str));
    assert_eq!(versions, [Some("470.129.06"), Some("535.86.10")]);
}

#[test]
fn unrecognized_lines_about_nvidia_are_counted_and_shown() {
    let log = read(
        &[
            "[    1.0] nvidia: loading out-of-tree module taints kernel.",
            "[    2.0] nvidia: failed with an error of a new kind",
            "[    3.0] NVRM: a sentence of a driver \u{1b}[31mthat is newer than this tool, 1",
            "[    4.0] NVRM: a sentence of a driver \u{1b}[31mthat is newer than this tool, 2",
            "[    5.0] NVRM: Xid (bus 7): 79, a new frame",
            "[    6.0] pcieport 0000:3a:00.0: AER: something new",
            "[    7.0] audit: type=1400 profile=\"nvidia_modprobe\"",
            "[    8.0] usb 1-1: new device",
            "{\"log\":\"[    9.0] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\\n\",\"stream\":\"stdout\"}",
        ]
        .map(str::to_owned),
    );
    let coverage = &log.coverage[0];
    assert_eq!(
        (coverage.unread_lines, coverage.unread_errors, coverage.unread_samples.len()),
        (6, 3, 3),
        "{coverage:#?}"
    );
    assert!(coverage.unread_samples.iter().any(|sample| sample.contains("bus 7")), "{coverage:#?}");
    assert!(coverage.unread_samples.iter().all(|sample| !sample.contains('\u{1b}')));
}

#[test]
fn a_count_near_suppressed_lines_is_a_lower_bound() {
    let xid =
        |second: u32| format!("2025-02-23T16:{second:02}:00Z gpu-1 kernel: NVRM: Xid (PCI:0000:3b:00): 119, Timeout");
    let log = read(&[
        xid(10),
        "2025-02-23T16:30:00Z gpu-1 kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=a, MMU Fault".to_owned(),
        "2025-02-23T16:30:04Z gpu-1 kernel: os_printf: 39 callbacks suppressed".to_owned(),
    ]);
    let bounds: Vec<_> = log.events.iter().map(|event| (event.code, event.count_is_lower_bound)).collect();
    assert_eq!(bounds, [(Some(119), false), (Some(31), true)]);
    assert_eq!(log.coverage[0].suppressed_lines, 39);
}
