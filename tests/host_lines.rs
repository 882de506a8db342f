//! Tests that each line in `kernel_lines/host_lines.txt` matches its row of `host_lines.tsv`, and that others do not.
//!
//! The lines are in the order of the table. Unknown lines of the drivers must be counted.

use syringe_core::facts::kernel_log::{KernelEventKind, KernelLog};
use syringe_core::kernel_log::host_lines::{all, find};
use syringe_core::kernel_log::{EventLog, Options};

const LINES: &str = include_str!("kernel_lines/host_lines.txt");

fn read(records: impl IntoIterator<Item = String>) -> KernelLog {
    let mut log = EventLog::new(None, Options::default());
    log.source("/dev/kmsg");
    for (at, record) in records.into_iter().enumerate() {
        let (level, text) = record.split_once(' ').expect("a level");
        log.push_line(&format!("{level},{at},{},-;{text}", at * 1_000_000));
    }
    log.finish()
}

#[test]
fn each_row_has_its_line() {
    let mut lines: Vec<&str> = LINES.lines().collect();
    for row in all() {
        let at = lines.iter().position(|line| find(line).is_some_and(|found| std::ptr::eq(found, row)));
        let line = lines.remove(at.unwrap_or_else(|| panic!("no line matches {row:?}")));
        let log = read([format!("4 {line}")]);
        let sub_code = log.events.first().and_then(|event| event.sub_code.clone()).unwrap_or_default();
        match row.finding {
            Some(_) => assert_eq!(sub_code.split(' ').next(), Some(row.name), "{line}"),
            None => assert!(log.events.is_empty(), "{line} ends nothing: {log:?}"),
        }
        assert_eq!(log.coverage[0].unread_lines, 0, "{line}");
    }
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn rows_of_one_name_agree() {
    for (row, other) in all().iter().flat_map(|row| all().iter().map(move |other| (row, other))) {
        if row.name == other.name {
            let what = |row: &syringe_core::kernel_log::host_lines::HostLine| {
                (row.finding, row.severity, row.at_least, row.lasts, row.ended_by)
            };
            assert_eq!(what(row), what(other), "{}", row.name);
        }
        let is_end = |name: &str| all().iter().any(|end| end.name == name && end.finding.is_none());
        assert!(row.ended_by.is_none_or(is_end), "{}", row.name);
    }
}

#[test]
fn each_device_has_its_own_event() {
    let lines = ["nvme0", "nvme1", "nvme0"].map(|disk| format!("4 nvme {disk}: I/O 3 QID 1 timeout, aborting"));
    let found: Vec<_> = read(lines).events.into_iter().map(|event| (event.sub_code, event.count)).collect();
    assert!(found.contains(&(Some("disk_timeout nvme0".into()), 2)), "{found:?}");
    assert!(found.contains(&(Some("disk_timeout nvme1".into()), 1)), "{found:?}");
}

#[test]
fn usual_lines_of_a_host_are_no_events() {
    for line in [
        "blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
        "I/O error, dev loop3, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "Buffer I/O error on dev sr0, logical block 0, async page read",
        "EXT4-fs (sda1): mounted filesystem with ordered data mode",
        "EXT4-fs (sda1): re-mounted. Opts: errors=remount-ro",
        "XFS (nvme0n1): Mounting V5 Filesystem",
        "rcu: Hierarchical RCU implementation.",
        "watchdog: Delayed init of the lockup detector failed: -19",
        "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "CPU3: Package temperature/speed normal",
        "nvme nvme0: 64/0/0 default/read/poll queues",
        "nfs: RPC call returned error 13",
        "md/raid1:md0: active with 2 out of 2 mirrors",
        "bond0: (slave eth0): Enslaving as an active interface with an up link",
        "mlx5_core 0000:5d:00.0: firmware version: 28.39.1002",
        "clocksource: Switched to clocksource tsc",
    ] {
        let log = read([format!("6 {line}")]);
        assert!(log.events.is_empty() && log.coverage[0].unread_lines == 0, "{line}: {log:?}");
    }
}

/// Generates words that no table contains.
fn words(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap_or(0))
    };
    (0..4).map(|_| (0..6).map(|_| letter()).collect::<String>()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_warning_of_a_driver_in_unknown_words_is_counted() {
    for seed in 0..200 {
        let text = words(seed);
        for begin in
            ["mlx5_core 0000:5d:00.0: ", "mlx5_core 0000:5d:00.0 ib0: ", "pcieport 0000:00:03.0: ", "DMAR: [5d:00.0] "]
        {
            let count = |level: u8| {
                let log = read([format!("{level} {begin}{text}")]);
                (
                    log.events.len(),
                    log.coverage[0].unread_lines,
                    log.coverage[0].unread_errors,
                    log.coverage[0].unread_samples.len(),
                )
            };
            assert_eq!([count(3), count(4)], [(0, 1, 0, 1); 2], "{begin}{text}");
            assert_eq!(count(6), (0, 0, 0, 0), "{begin}{text}");
        }
        for begin in ["NVRM: ", "nvidia-nvswitch0: ", "nvidia-uvm: ", "nvidia-modeset: "] {
            let log = read([format!("4 {begin}{text}")]);
            assert_eq!((log.events.len(), log.coverage[0].unread_lines), (0, 1), "{begin}{text}");
        }
    }
}

#[test]
fn an_error_record_of_the_firmware_names_its_device() {
    let log = read([
        "0 {1}[Hardware Error]: event severity: fatal".to_owned(),
        "0 {1}[Hardware Error]:   section_type: PCIe error".to_owned(),
        "0 {1}[Hardware Error]:   device_id: 0000:5d:00.0".to_owned(),
    ]);
    let devices: Vec<_> = log.events.iter().map(|event| (event.kind, event.pci_address.is_some())).collect();
    assert_eq!(devices, [(KernelEventKind::Mce, false), (KernelEventKind::Mce, true)], "{log:?}");
}
