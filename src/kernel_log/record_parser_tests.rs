//! Tests of `record_parser` with log lines in all supported formats.

use super::{Origin, Record, parse_line};

const TEXT: &str = "NVRM: Xid (PCI:0000:38:00): 43, pid=1, name=a, Ch 00000008";
/// The time 2025-02-23T16:24:18.123456Z in microseconds since 1970.
const WALL: i64 = 1_740_327_858_123_456;
const UPTIME: u64 = 171_620_236;

fn read(prefix: &str) -> Record<'static> {
    let line: &'static str = Box::leak(format!("{prefix}{TEXT}").into_boxed_str());
    let record = parse_line(line).expect("a record");
    assert_eq!(record.text, TEXT, "{prefix}");
    record
}

fn wall(record: &Record<'_>) -> Option<i64> {
    record.wall.and_then(|wall| wall.microseconds(Some(WALL)))
}

#[test]
fn the_kernels_own_record_gives_sequence_uptime_and_thread() {
    let record = read("3,1287,171620236,-,caller=T1946,future=1;");
    assert_eq!((record.facility, record.level, record.seq), (Some(0), Some(3), Some(1287)));
    assert_eq!((record.uptime_us, record.flags, record.caller), (Some(UPTIME), Some("-"), Some("T1946")));
    assert_eq!(record.origin, Origin::Kernel);
}

#[test]
fn continuation_lines_of_a_record_are_not_its_text() {
    let record = parse_line("6,1,2,-;text here\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n").expect("a record");
    assert_eq!(record.text, "text here");
}

#[test]
fn a_record_of_another_facility_is_a_programs() {
    let record = read("12,1289,130456300,-;");
    assert_eq!((record.origin, record.facility, record.level), (Origin::Program, Some(1), Some(4)));
}

#[test]
fn dmesg_lines_of_every_time_format_are_from_the_kernel() {
    for prefix in [
        "[  171.620236] ",
        "[  171.620236] [ T1946] ",
        "<3>[  171.620236] ",
        "kern  :err   : [  171.620236] ",
        "kern  :warn  : [  171.620236] [    C0] ",
        "[  171.620236 <    0.000001>] ",
        "kernel: [  171.620236] ",
        "[  171.620236] gpu-1 kernel: ",
    ] {
        let record = read(prefix);
        assert_eq!((record.uptime_us, record.origin), (Some(UPTIME), Origin::Kernel), "{prefix}");
    }
    for prefix in ["[Sun Feb 23 16:24:18 2025] ", "<3>[Sun Feb 23 16:24:18 2025] [ T12] "] {
        let record = read(prefix);
        assert_eq!((wall(&record), record.origin), (Some(WALL - 123_456), Origin::Kernel), "{prefix}");
    }
    for prefix in ["2025-02-23T16:24:18,123456+00:00 ", "kern  :err   : 2025-02-23T16:24:18,123456+00:00 "] {
        let record = read(prefix);
        assert_eq!((wall(&record), record.origin, record.hostname.is_none()), (Some(WALL), Origin::Kernel, true));
    }
    let delta = read("[  +0.000001] ");
    assert_eq!((delta.delta_us, delta.origin, delta.has_prefix), (Some(1), Origin::Kernel, true));
    let head = read("[Feb23 16:24] ");
    assert_eq!(wall(&head), Some(WALL - 18_123_456));
}

#[test]
fn a_line_without_prefix_is_from_the_kernel_and_marked() {
    for prefix in ["", "[...] "] {
        assert_eq!(read(prefix).origin, Origin::Kernel, "{prefix}");
    }
    assert!(!read("").has_prefix);
}

#[test]
fn syslog_and_journal_lines_of_the_kernel_are_believed() {
    for (prefix, fraction) in [
        ("Feb 23 16:24:18 gpu-1 kernel: ", 0),
        ("Feb 23 16:24:18 gpu-1 kernel: [  171.620236] ", 0),
        ("Feb 23 16:24:18.123456 gpu-1 kernel: ", 123_456),
        ("Feb 23 16:24:18 gpu-1 kern.err kernel: ", 0),
        ("Feb 23 16:24:18 kernel: ", 0),
        ("2025-02-23T16:24:18+0000 gpu-1 kernel: ", 0),
        ("2025-02-23T16:24:18.123456+00:00 gpu-1 kernel: ", 123_456),
        ("2025-02-23T11:24:18-05:00 gpu-1 kernel: ", 0),
        ("Sun 2025-02-23 16:24:18 UTC gpu-1 kernel: ", 0),
        ("1740327858.123456 gpu-1 kernel: ", 123_456),
        ("<3>Feb 23 16:24:18 gpu-1 kernel: ", 0),
    ] {
        let record = read(prefix);
        assert_eq!(wall(&record), Some(WALL - 123_456 + fraction), "{prefix}");
        assert_eq!(record.origin, Origin::Kernel, "{prefix}");
    }
}

#[test]
fn lines_of_programs_are_ignored() {
    for prefix in [
        "Feb 23 16:24:18 gpu-1 evil[12]: ",
        "Feb 23 16:24:18 gpu-1 user.err kernel: ",
        "2025-02-23T16:24:18+00:00 gpu-1 python: ",
        "<11>Feb 23 16:24:18 gpu-1 kernel: ",
        "<12>[  171.620236] ",
        "user  :warn  : [  171.620236] ",
    ] {
        assert_eq!(read(prefix).origin, Origin::Program, "{prefix}");
    }
    let tagless = parse_line("Feb 23 16:24:18 one two three").expect("a record");
    assert_eq!(tagless.origin, Origin::Unclear, "the writer is unknown");
}
