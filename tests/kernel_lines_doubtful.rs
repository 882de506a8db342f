//! Tests of lines that may be GPU errors, but that the parser does not recognize or does not trust.
//!
//! If the meaning of a line is not certain, the line must not become an event, and the verdict must not be `healthy`.

use diagnosis::diagnose;
use diagnosis::finding::{Diagnosis, Verdict};
use jiff::Timestamp;
use syringe_core::facts::kernel_log::{KernelEventKind as Kind, KernelLog};
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::kernel_log::{EventLog, Options};
use syringe_core::report::{Report, Section};

const NOW: &str = "2026-11-21T03:01:07Z";
const XID: &str = "NVRM: Xid (PCI:0000:5d:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

/// Reads a log of five hours that ends at the time of the report, with these lines half an hour before the end.
fn read(lines: &[&str]) -> KernelLog {
    let mut log = EventLog::new(None, Options { now: Some(now()), ..Options::default() });
    log.push_line("2026-11-20T22:01:07+00:00 gpu-1 kernel: usb 1-1: new device");
    lines.iter().for_each(|line| log.push_line(line));
    log.push_line("2026-11-21T03:01:00+00:00 gpu-1 kernel: usb 1-1: new device");
    log.finish()
}

/// Returns the diagnosis of a report that only has the Xid section.
fn judge(log: KernelLog) -> Diagnosis {
    let mut report = Report { taken_at: Some(now()), ..Report::default() };
    report.sections.xid = Some(Section::read(log, Vec::new()));
    diagnose(&report, &KubernetesFacts::default())
}

fn judged(lines: &[&str]) -> Diagnosis {
    judge(read(lines))
}

fn kernel(text: &str) -> String {
    format!("2026-11-21T02:31:07+00:00 gpu-1 kernel: {text}")
}

#[test]
fn a_line_of_unknown_origin_is_no_event_and_rules_out_healthy() {
    let prefixes = [
        "2026-11-21T02:31:07+00:00 ",
        "2026-11-21T02:31:07.123456+00:00 gpu-1 ",
        "Nov 21 02:31:07 gpu-1 ",
        "2026-11-21 02:31:07 ",
        "Sat Nov 21 02:31:07 2026 ",
        "2026-11-21T02:31:07Z cpu12:2097789)",
        "2026-11-21T02:31:07.123Z {\"level\":\"err\"} ",
        "2026-11-21T02:31:07.123Z {\"level\": \"err\", \"host\": \"gpu-1\"} ",
        "2026-11-21T02:31:07.123456789Z [  171.620236] ",
        "2026-11-21T02:31:07.123456789Z stdout F [  171.620236] ",
        "2026-11-21T02:31:07.123456789Z stdout F ",
        "Nov 21 02:31:07 [  171.620236] ",
        "2026-11-21T02:31:07Z gpu-1 kernel[0]: ",
        "[  171.620236] [1946] ",
        "[  171.620236] [ 1946] ",
        "[0] kmsg.0: [1732156267.1, {\"priority\"=>3, \"msg\"=>\"",
    ];
    let texts = [XID, "NVRM: GPU 0000:5d:00.0: GPU has fallen off the bus."];
    for text in texts {
        for prefix in prefixes {
            let line = format!("{prefix}{text}");
            let log = read(&[&line]);
            assert!(log.events.is_empty(), "{line}: {:?}", log.events);
            assert_eq!((log.coverage[0].unread_lines, log.coverage[0].unread_errors), (1, 1), "{line}: {log:?}");
            let told = judge(log);
            assert_eq!(told.verdict, Verdict::Unknown, "{line}: {}", told.summary);
        }
    }
}

#[test]
fn so_are_lines_of_switches_ports_and_exported_entries() {
    for line in [
        "Nov 21 02:31:07 gpu-1 nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 32 LTSSM Fault Up",
        "2026-11-21T02:31:07Z gpu-1 pcieport 0000:5c:01.0: AER: Uncorrected (Fatal) error received: 0000:5c:01.0",
        "<3>1 2026-11-21T02:31:07Z gpu-1 NVRM - - - Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.",
        r#"{"SYSLOG_IDENTIFIER":"kernel","__REALTIME_TIMESTAMP":"1795228267000000","MESSAGE":"NVRM: Xid (PCI:0000:5d:00): 79, x"}"#,
    ] {
        let told = judged(&[line]);
        assert_eq!(told.verdict, Verdict::Unknown, "{line}: {}", told.summary);
    }
}

/// A line that a program wrote is not evidence of a fault. The tag shows the writer, so the line does not count as
/// unread. A host may have any name.
#[test]
fn a_line_of_a_program_is_no_evidence() {
    let forged = [
        format!("Nov 21 02:31:07 gpu-1 evil[12]: {XID}"),
        format!("Nov 21 02:31:07 gpu-1 evil: {XID}"),
        "Nov 21 02:31:07 gpu-1 NVRM[12]: Xid (PCI:0000:5d:00): 79, GPU has fallen off the bus.".to_owned(),
        format!("2026-11-21T02:31:07Z gpu-1 evil[12]: [  171.620236] {XID}"),
    ];
    for line in &forged {
        let log = read(&[line]);
        assert_eq!((log.events.len(), log.untrusted_lines, log.coverage[0].unread_lines), (0, 1, 0), "{line}");
        assert_eq!(judge(log).verdict, Verdict::NoFaultFound, "{line}");
    }
    for host in ["nvidia", "pci", "nvidia-uvm", "pcieport", "stdout"] {
        let line = format!("Nov 21 02:31:07 {host} kernel: {XID}");
        assert_eq!(read(&[&line]).events.len(), 1, "{line}");
    }
    let quiet = ["Nov 21 02:31:07 gpu-1 NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.124.06"];
    assert_eq!(judged(&quiet).verdict, Verdict::NoFaultFound);
}

#[test]
fn a_line_that_belongs_to_an_xid_is_an_error_where_no_xid_is() {
    let parts = [
        "NVRM: krcWatchdog_IMPL: RC watchdog: GPU is probably locked!  Notify Timeout Seconds: 7",
        "NVRM: GPU0 gpuHandleSanityCheckRegReadError_IMPL: Possible bad register read: addr: 0x110040, regvalue: 0xbadf4100",
        "NVRM: GPU at PCI:0000:5d:00: GPU is lost. Reboot the system to recover this GPU",
        "NVRM: fallen off the bus and is not responding to commands.",
    ];
    for part in parts {
        let told = judged(&[&kernel(part)]);
        assert_eq!(told.verdict, Verdict::Unknown, "{part}: {}", told.summary);
    }
    let (before, after) = (kernel(parts[1]), kernel(XID));
    for lines in [[before.as_str(), &after], [&after, &before]] {
        let log = read(&lines);
        assert_eq!((log.events.len(), log.coverage[0].unread_lines), (1, 0), "{:?}", log.coverage);
    }
    let hours_before = "2026-11-20T23:31:07+00:00 gpu-1 kernel: ".to_owned() + parts[1];
    assert_eq!(read(&[&hours_before, &after]).coverage[0].unread_errors, 1, "the Xid is a separate error");
    for usual in [
        "NVRM: nvCheckOkFailedNoLog: Check failed: Call not supported [NV_ERR_NOT_SUPPORTED] (0x00000056) returned",
        "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from x",
    ] {
        assert_eq!(read(&[&kernel(usual)]).coverage[0].unread_lines, 0, "{usual}");
    }
}

#[test]
fn unrecognized_error_lines_rule_out_healthy() {
    for text in [
        "NVRM: GPU 0000:5d:00.0: a power cable of the GPU is loose.",
        "nvidia: failed with an error of a new kind",
        "nvidia-nvswitch3: fatal error: device unusable",
        "NVRM:Xid (PCI:0000:5d:00): 79, x",
        "NVRM:  Xid (PCI:0000:5d:00): 79, x",
        "NVRM:\u{a0}Xid (PCI:0000:5d:00): 79, x",
        "NVRM: \u{200b}XID (PCI:0000:5d:00): 79, x",
        "pcieport 0000:5c:01.0: DPC: something new",
    ] {
        let log = read(&[&kernel(text)]);
        assert_eq!(log.coverage[0].unread_lines, 1, "{text}");
        let errors = log.coverage[0].unread_errors;
        assert_eq!(errors > 0, !text.contains("something new"), "{text}");
        let told = judge(log);
        assert_eq!(told.verdict == Verdict::Unknown, errors > 0, "{text}: {}", told.summary);
    }
    assert_eq!(judged(&[&kernel("NVRM: a sentence that is new")]).verdict, Verdict::NoFaultFound);
}

#[test]
fn two_lines_that_lost_the_end_between_them_are_not_one() {
    let first = kernel("NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=python3, Ch 00000010, MMU Fault");
    let told = judged(&[&format!("{first}[  172.000000] {XID}")]);
    assert_eq!(told.verdict, Verdict::Unknown, "{}", told.summary);
    let second = kernel(XID);
    let log = read(&[&format!("{first}\r{second}\r")]);
    let codes: Vec<_> = log.events.iter().filter_map(|event| event.code).collect();
    assert_eq!((codes.len(), log.coverage[0].unread_lines), (2, 0), "{codes:?}");
    let one = kernel(
        "NVRM: API mismatch: the client has the version 470.129.06, but#012NVRM: this kernel module has the version 535.86.10.",
    );
    assert_eq!(read(&[&one]).coverage[0].unread_lines, 0, "a message of several lines");
}

#[test]
fn a_port_that_disabled_its_link_is_an_event() {
    let lines = [
        "pcieport 0000:5c:01.0: DPC: containment event, status:0x1f01 source:0x0000",
        "pcieport 0000:5c:01.0: DPC: unmasked uncorrectable error detected",
    ];
    for lines in [&lines[..1], &lines[1..], &lines[..]] {
        let lines: Vec<String> = lines.iter().map(|line| kernel(line)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let log = read(&lines);
        let [event] = &log.events[..] else { panic!("expected exactly one event: {:?}", log.events) };
        assert_eq!((event.kind, event.sub_code.as_deref(), event.count), (Kind::Aer, Some("uncorrected_fatal"), 1));
        let told = judge(log);
        assert!(matches!(told.verdict, Verdict::Warning | Verdict::Critical | Verdict::Fatal), "{}", told.summary);
    }
    let chat = kernel("pcieport 0000:5c:01.0: DPC: error containment capabilities: Int Msg #0, RPExt+ PoisonedTLP+");
    let log = read(&[&chat]);
    assert_eq!((log.events.len(), log.coverage[0].unread_lines), (0, 0));
}

fn recovery(words: &str) -> String {
    kernel(&format!(
        "NVRM: Xid (PCI:0000:5d:00): 154, pid='<unknown>', name=<unknown>, GPU recovery action changed from {words}"
    ))
}

fn ids(told: &Diagnosis) -> Vec<&str> {
    told.findings.iter().map(|finding| finding.id.as_str()).collect()
}

#[test]
fn a_recovery_action_in_words_alone_is_read() {
    for (words, id) in [
        ("None to Node Reboot Required", "recovery-node-reboot"),
        ("None to GPU Reset Required", "recovery-gpu-reset"),
        ("None to Drain P2P", "recovery-drain-p2p"),
        ("None to Drain and Reset", "recovery-drain-and-reset"),
        ("None to Something New", "recovery-unknown"),
    ] {
        let told = judged(&[&recovery(words)]);
        assert!(ids(&told).contains(&id), "{words}: {:?}", ids(&told));
    }
    assert_eq!(judged(&[&recovery("GPU Reset Required to None")]).verdict, Verdict::NoFaultFound);
}

#[test]
fn the_last_of_several_recovery_actions_with_one_time_counts() {
    let (reset, reboot) =
        (recovery("0x1 (GPU Reset Required) to 0x0 (None)"), recovery("0x0 (None) to 0x2 (Node Reboot Required)"));
    assert!(ids(&judged(&[&reset, &reboot])).contains(&"recovery-node-reboot"));
    let (asks, done) = (recovery("0x0 (None) to 0x7 (System Reboot)"), recovery("0x7 (System Reboot) to 0x0 (None)"));
    assert_eq!(judged(&[&asks, &done]).verdict, Verdict::NoFaultFound);
    assert!(ids(&judged(&[&done, &asks])).contains(&"recovery-node-reboot"));
    // If a line has no calendar time, the uptime is used.
    let of_boot = |line: &str, uptime: u32| {
        line.replace("2026-11-21T02:31:07+00:00 gpu-1 kernel: ", &format!("[{uptime}.000000] "))
    };
    assert!(ids(&judged(&[&of_boot(&reset, 171), &of_boot(&reboot, 172)])).contains(&"recovery-node-reboot"));
    assert!(!ids(&judged(&[&of_boot(&asks, 171), &of_boot(&done, 172)])).contains(&"recovery-node-reboot"));
}

#[test]
fn an_sxid_of_an_unknown_code_that_the_driver_calls_fatal_is_fatal() {
    let told = judged(&[&kernel("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 31999, Fatal, Link 32 something new")]);
    assert_eq!(told.verdict, Verdict::Fatal, "{}", told.summary);
}

/// Lines of programs from a period of five hours that ends at the time of the report.
const OF_PROGRAMS: [&str; 3] = [
    "2026-11-20T22:01:07+00:00 gpu-1 systemd[1]: Started Session 1",
    "2026-11-21T01:00:00+00:00 gpu-1 sshd[99]: Accepted publickey for root",
    "2026-11-21T03:01:00+00:00 gpu-1 systemd[1]: Started Session 2",
];

fn of_log(lines: &[&str], options: Options) -> KernelLog {
    let mut log = EventLog::new(None, Options { now: Some(now()), ..options });
    lines.iter().for_each(|line| log.push_line(line));
    log.finish()
}

#[test]
fn a_log_without_kernel_lines_does_not_show_that_there_are_no_xids() {
    let log = of_log(&OF_PROGRAMS, Options::default());
    assert_eq!((log.coverage[0].records, log.coverage[0].from), (0, None), "{:?}", log.coverage);
    let told = judge(log);
    assert_eq!(told.verdict, Verdict::Unknown, "{}", told.summary);
    assert!(!told.summary.to_lowercase().contains("no xid"), "{}", told.summary);
    // Only lines of the kernel extend the period that the log covers.
    let of_kernel = ["2026-11-20T23:00:00+00:00 gpu-1 kernel: usb 1-1: new device", OF_PROGRAMS[2]];
    let log = of_log(&[&[OF_PROGRAMS[0]], &of_kernel[..]].concat(), Options::default());
    assert_eq!(log.coverage[0].records, 1);
    let told = judge(log);
    assert_eq!(told.verdict, Verdict::NoFaultFound, "{}", told.summary);
    assert!(told.summary.contains("o Xid since 2026-11-20T23:00:00Z"), "{}", told.summary);
}

#[test]
fn a_text_log_without_times_does_not_show_that_there_are_no_xids() {
    for lines in [vec!["usb 1-1: new device"], vec!["usb 1-1: new device", OF_PROGRAMS[0], OF_PROGRAMS[2]]] {
        let told = judge(of_log(&lines, Options::default()));
        assert_eq!(told.verdict, Verdict::Unknown, "{lines:?}: {}", told.summary);
        assert!(!told.summary.to_lowercase().contains("no xid"), "{}", told.summary);
    }
}

#[test]
fn records_are_counted_in_the_window_that_was_asked_for() {
    let lines: Vec<String> =
        (0..10).map(|hour| format!("2026-11-20T1{hour}:00:00+00:00 gpu-1 kernel: usb 1-1: new device")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let window = "2026-11-20T18:00:00Z".parse().ok();
    let records = |window| of_log(&lines, Options { window, ..Options::default() }).coverage[0].records;
    assert_eq!((records(None), records(window)), (10, 2));
}

/// Some log systems store all text in lower case.
#[test]
fn an_error_in_small_letters_is_no_event_and_no_all_clear() {
    let diagnosis = judged(&[&kernel(&XID.to_lowercase())]);
    assert_eq!(diagnosis.verdict, Verdict::Unknown, "{diagnosis:#?}");
    assert!(diagnosis.unknown.iter().any(|one| one.why.contains("xid (pci:0000:5d:00)")), "{diagnosis:#?}");
    let harmless = judged(&[&kernel("usb 1-1: nvr recorder connected")]);
    assert_eq!(harmless.verdict, Verdict::NoFaultFound, "{harmless:#?}");
}
