//! Tests that `EventLog` reduces many lines to few events, counts each line once, finds the boot, time and GPU of an
//! event, and ignores the order of the lines.

use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind, KernelLog};
use crate::kernel_log::{Clock, EventLog, Options};
use crate::kernel_log::{LogOrigin, drop_events_before, join_gpus, record_parser};
use crate::pci::PciAddress;

const BOOT: &str = "2025-02-23T16:00:00Z";

fn boot() -> Timestamp {
    BOOT.parse().expect("a time")
}

/// Pushes one record in the format of `/dev/kmsg`.
fn push_kmsg(log: &mut EventLog, text: &str) {
    if let Some(record) = record_parser::parse_kmsg(text) {
        log.push_record(&record);
    }
}

fn after_boot(seconds: i64) -> Option<Timestamp> {
    Some(boot() + seconds.seconds())
}

fn empty() -> EventLog {
    empty_with(Options::default())
}

fn empty_with(options: Options) -> EventLog {
    EventLog::new(Some(Clock { boot_wall_time: boot() }), options)
}

/// Returns a record of the kernel buffer, `seconds` after boot.
fn kmsg(seq: u64, seconds: u64, text: &str) -> String {
    format!("3,{seq},{},-;{text}", seconds * 1_000_000)
}

fn read(records: &[String]) -> KernelLog {
    let mut log = empty();
    records.iter().for_each(|record| push_kmsg(&mut log, record));
    log.finish()
}

fn only(log: &KernelLog) -> &KernelEvent {
    let [event] = &log.events[..] else { panic!("not one event: {:#?}", log.events) };
    event
}

const OFF_BUS: &str = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.";

#[test]
fn lines_that_say_the_same_are_one_event_with_first_and_last_time() {
    let log = read(&[kmsg(0, 10, OFF_BUS), kmsg(1, 20, "usb 1-1: new device"), kmsg(2, 30, OFF_BUS)]);
    let event = only(&log);
    assert_eq!((event.count, event.code, event.name.as_deref()), (2, Some(79), Some("GPU fell off the PCIe bus")));
    assert_eq!((event.first, event.last, event.last_uptime_seconds), (after_boot(10), after_boot(30), Some(30.0)));
    let coverage = &log.coverage[0];
    assert_eq!((coverage.source.as_str(), coverage.records, coverage.lost_records), ("/dev/kmsg", 3, 0));
    assert_eq!(
        (coverage.from, coverage.to, coverage.complete_since_boot),
        (after_boot(10), after_boot(30), Some(true))
    );
}

#[test]
fn a_gap_in_the_sequence_is_lost_records_and_a_late_start_is_no_gap() {
    let log = read(&[kmsg(500, 1, "a"), kmsg(501, 2, "b"), kmsg(512, 3, "c")]);
    assert_eq!((log.coverage[0].lost_records, log.coverage[0].complete_since_boot), (10, Some(false)));
}

#[test]
fn lines_of_programs_are_counted_and_ignored() {
    let forged = format!("12,1,1000000,-;{OFF_BUS}");
    let mut log = empty();
    push_kmsg(&mut log, &forged);
    log.push_line("Feb 23 16:24:18 gpu-1 evil[1]: NVRM: Xid (PCI:0000:3b:00): 79, x");
    log.push_line(OFF_BUS);
    let log = log.finish();
    assert_eq!((log.events.len(), log.untrusted_lines), (0, 3), "the third line belongs to the second record");
}

#[test]
fn a_storm_of_800_000_lines_is_29_events() {
    let mut log = empty();
    for seq in 0..800_000_u64 {
        let gpu = seq % 29;
        let line =
            format!("NVRM: Xid (PCI:0000:{gpu:02x}:00): 31, pid=7, name=a, Ch 00000010, faulted @ 0x{:x}", seq % 5000);
        push_kmsg(&mut log, &kmsg(seq, seq / 100, &line));
    }
    let log = log.finish();
    assert_eq!(log.events.len(), 29);
    assert_eq!(log.events.iter().map(|event| event.count).sum::<u64>(), 800_000);
}

#[test]
fn the_several_lines_of_one_graphics_exception_count_once() {
    let xid = |rest: &str| format!("NVRM: Xid (PCI:0000:38:00): 13, {rest}");
    let unknown = |rest: &str| xid(&format!("pid='<unknown>', name=<unknown>, {rest}"));
    let burst = |seq: u64, at: u64| {
        [
            kmsg(seq, at, &unknown("Graphics SM Warp Exception on (GPC 9, TPC 5, SM 0): Out Of Range Address")),
            kmsg(seq + 1, at, &unknown("Graphics SM Global Exception on (GPC 9, TPC 5, SM 0): Multiple Warp Errors")),
            kmsg(seq + 2, at, &unknown("Graphics Exception: ESR 0x57c730=0xc04000b 0x57c734=0x24")),
            kmsg(seq + 3, at, &xid("pid=12, name=a, Graphics Exception: ChID 000c, Class 0000cbc0, Offset 0, Data 0")),
        ]
    };
    let log = read(&[burst(0, 10), burst(4, 60)].concat());
    let event = only(&log);
    assert_eq!((event.count, event.pid, event.process.as_deref()), (2, Some(12), Some("a")));
    let details = ["places", "class", "esr"].map(|name| event.details.get(name).map(String::as_str));
    assert_eq!(details, [Some("GPC 9 TPC 5 SM 0"), Some("0xcbc0"), Some("0x57c730=0xc04000b 0x57c734=0x24")]);
}

#[test]
fn the_two_lines_of_one_kill_are_one_event() {
    let log = read(&[
        kmsg(0, 5, "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a/b,task=python3,pid=7,uid=0"),
        kmsg(1, 5, "Memory cgroup out of memory: Killed process 7 (python3) total-vm:1kB, anon-rss:2kB"),
    ]);
    let event = only(&log);
    assert_eq!((event.kind, event.count, event.pid), (Kind::OomKill, 1, Some(7)));
    assert_eq!(event.details.get("constraint").map(String::as_str), Some("CONSTRAINT_MEMCG"));
    assert_eq!(event.details.get("scope").map(String::as_str), Some("cgroup"));
}

#[test]
fn a_line_in_the_buffer_and_in_the_journal_counts_once_and_an_earlier_boot_counts_apart() {
    let entry = |boot: &str, seconds: i64| {
        let time = boot_time(seconds).as_microsecond();
        format!(
            r#"{{"__REALTIME_TIMESTAMP":"{time}","_BOOT_ID":"{boot}","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","MESSAGE":"{OFF_BUS}"}}"#
        )
    };
    let options = Options { running_boot_id: Some("C0FF-EE".to_owned()), ..Options::default() };
    for journal_first in [false, true] {
        let mut log = empty_with(options.clone());
        let buffer = |log: &mut EventLog| {
            log.source("/dev/kmsg");
            push_kmsg(log, &kmsg(7, 10, OFF_BUS));
            push_kmsg(log, &kmsg(8, 11, OFF_BUS));
        };
        let journal = |log: &mut EventLog| {
            log.source("journal");
            log.push_line(&entry("ea71ie7", -500));
            log.push_line(&entry("c0ffee", 10));
            log.push_line(&entry("c0ffee", 12));
        };
        if journal_first {
            journal(&mut log);
            buffer(&mut log);
        } else {
            buffer(&mut log);
            journal(&mut log);
        }
        let log = log.finish();
        let counts: Vec<_> = log.events.iter().map(|event| (event.boot_id.as_deref(), event.count)).collect();
        assert_eq!(counts, [(Some("ea71ie7"), 1), (None, 2)], "journal first: {journal_first}");
        assert_eq!(log.coverage.len(), 2);
    }
}

fn boot_time(seconds: i64) -> Timestamp {
    boot() + seconds.seconds()
}

#[test]
fn a_text_log_reaches_into_earlier_boots() {
    let mut log = empty_with(Options { now: after_boot(3600), ..Options::default() });
    log.push_line(&format!("Feb 22 10:00:00 gpu-1 kernel: {OFF_BUS}"));
    log.push_line(&format!("Feb 23 16:30:00 gpu-1 kernel: {OFF_BUS}"));
    let log = log.finish();
    let boots: Vec<_> = log.events.iter().map(|event| event.boot_id.as_deref()).collect();
    assert_eq!(boots, [Some("earlier"), None]);
    assert!(log.coverage[0].note.contains("no year"), "{}", log.coverage[0].note);
    assert!(log.coverage[0].note.contains("time zone"));
}

const BANNER: &str = "Linux version 6.8.0-45-generic (buildd@lcy02)";
const LOADED: &str = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15  Mon Jan  1 00:00:00 UTC 2024";

/// Reads a text log whose lines have these times, uptimes and texts. The node booted at [`BOOT`], an hour before now.
fn text_log(lines: &[(&str, Option<f64>, &str)]) -> KernelLog {
    let mut log = empty_with(Options { now: after_boot(3600), ..Options::default() });
    log.source("/var/log/kern.log");
    for (time, uptime, text) in lines {
        let uptime = uptime.map(|uptime| format!("[{uptime:12.6}] ")).unwrap_or_default();
        log.push_line(&format!("{time} gpu-1 kernel: {uptime}{text}"));
    }
    log.finish()
}

fn boots(log: &KernelLog) -> Vec<(Option<u32>, Option<&str>)> {
    log.events.iter().map(|event| (event.code, event.boot_id.as_deref())).collect()
}

#[test]
fn a_clock_that_was_wrong_at_boot_moves_no_line_to_an_earlier_boot() {
    let old = ("2025-02-20T10:00:00+00:00", Some(900.0), OFF_BUS);
    let xid = |time| (time, Some(1800.0), OFF_BUS);
    for lines in [
        // The clock was wrong until it was synchronized.
        vec![
            ("2020-01-01T00:00:01+00:00", Some(0.0), BANNER),
            xid("2020-01-01T00:30:00+00:00"),
            ("2025-02-23T16:40:00+00:00", Some(2400.0), "eth0: renamed"),
        ],
        vec![
            old,
            ("2020-01-01T00:00:01+00:00", Some(0.0), BANNER),
            xid("2020-01-01T00:30:00+00:00"),
            ("2025-02-23T16:40:00+00:00", Some(2400.0), "eth0: renamed"),
        ],
        // The clock is still wrong.
        vec![xid("2020-01-01T00:30:00+00:00")],
    ] {
        let log = text_log(&lines);
        let event = log.events.iter().find(|event| event.boot_id.is_none()).expect("an event of this boot");
        assert_eq!((event.code, event.last), (Some(79), after_boot(1800)), "{lines:?}");
        let earlier = log.events.iter().filter(|event| event.boot_id.is_some()).count();
        assert_eq!(earlier, usize::from(lines[0] == old), "{lines:?}");
        assert!(log.coverage[0].from.is_none_or(|from| from > "2025-01-01T00:00:00Z".parse().expect("a time")));
    }
    // Without uptimes, the time is not known, but the boot is known.
    let log = text_log(&[
        ("2020-01-01T00:00:01+00:00", None, BANNER),
        ("2020-01-01T00:30:00+00:00", None, OFF_BUS),
        ("2025-02-23T16:40:00+00:00", None, "eth0: renamed"),
    ]);
    assert_eq!((boots(&log), log.events[0].last), (vec![(Some(79), None)], None));
}

#[test]
fn lines_of_an_earlier_boot_stay_there() {
    for uptime in [Some(900.0), None] {
        let log = text_log(&[
            ("2025-02-20T10:00:00+00:00", uptime, OFF_BUS),
            ("2025-02-21T10:00:00+00:00", uptime.map(|_| 0.0), BANNER),
            ("2025-02-21T10:30:00+00:00", uptime, OFF_BUS),
            ("2025-02-23T16:00:05+00:00", uptime.map(|_| 0.0), BANNER),
            ("2025-02-23T16:10:00+00:00", uptime.map(|_| 600.0), OFF_BUS),
        ]);
        assert_eq!(boots(&log), [(Some(79), Some("earlier")), (Some(79), None)]);
        assert_eq!((log.events[0].count, log.events[0].occurrences.len()), (2, 2));
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_change_the_order_of_the_lines() {
    for back in ["2025-02-23T16:05:00+00:00", "2025-02-23T14:05:00+00:00"] {
        let log = text_log(&[("2025-02-23T16:10:00+00:00", None, LOADED), (back, None, OFF_BUS)]);
        let of = |kind: Kind| log.events.iter().find(|event| event.kind == kind).expect("an event");
        assert!(of(Kind::Xid).ordered_at() >= of(Kind::DriverLoaded).ordered_at(), "{back}");
        assert_eq!(of(Kind::Xid).boot_id, None, "{back}");
    }
}

#[test]
fn separate_occurrences_keep_their_times() {
    let at = |seconds: u64| kmsg(seconds, seconds, OFF_BUS);
    let log = read(&[at(10), at(40), at(4000), at(9000), at(9001)]);
    let times: Vec<Timestamp> = [10, 4000, 9000].into_iter().filter_map(after_boot).collect();
    assert_eq!((only(&log).count, &only(&log).occurrences), (5, &times));
    assert!(only(&read(&[at(10), at(40)])).occurrences.is_empty());
    let many: Vec<String> = (0..100).map(|hour| at(10 + 3600 * hour)).collect();
    let times = only(&read(&many)).occurrences.clone();
    assert_eq!((times.len(), times[0]), (16, boot_time(10)), "the first time and the newest ones are kept");
}

#[test]
fn a_message_in_several_lines_is_one_event_in_every_log() {
    for lines in [
        vec![
            "3,1,10000000,-;NVRM: The NVIDIA GPU 0000:b3:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
        ],
        vec![
            "[   10.000000] NVRM: The NVIDIA GPU 0000:b3:00.0",
            "[   10.000000] NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "[   10.000001] eth0: renamed",
            "[   10.000000] NVRM: fallen off the bus and is not responding to commands.",
        ],
        vec![
            "[   10.000000] NVRM: The NVIDIA GPU 0000:b3:00.0",
            "               NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "               NVRM: fallen off the bus and is not responding to commands.",
        ],
    ] {
        let mut log = empty();
        lines.iter().for_each(|line| log.push_line(line));
        let log = log.finish();
        let event = only(&log);
        assert_eq!((event.kind, event.last), (Kind::OffBus, after_boot(10)), "{lines:?}");
        assert_eq!(event.pci_address, PciAddress::parse("0000:b3:00.0"));
        assert_eq!(event.details.get("pci_id").map(String::as_str), Some("10de:26b5"));
    }
}

#[test]
fn a_truncated_message_is_still_an_event() {
    let mut log = empty();
    log.push_line("[ 5.0] NVRM: API mismatch: the client has the version 470.129.06, but");
    let log = log.finish();
    assert_eq!((only(&log).kind, only(&log).details.len()), (Kind::ApiMismatch, 1));
}

#[test]
fn dmesg_deltas_add_up_to_a_time() {
    let mut log = empty_with(Options { now: after_boot(3600), ..Options::default() });
    log.push_line("[Feb23 16:24] eth0: renamed");
    log.push_line(&format!("[ +10.000000] {OFF_BUS}"));
    assert_eq!(only(&log.finish()).last, after_boot(24 * 60 + 10));
}

#[test]
fn the_least_important_and_oldest_events_are_dropped_first() {
    let mut log = empty_with(Options { max_events: 8, ..Options::default() });
    push_kmsg(&mut log, &kmsg(0, 1, OFF_BUS));
    for pid in 1..=100 {
        let line = format!("NVRM: Xid (PCI:0000:3b:00): 43, pid={pid}, name=a, Ch 00000008");
        push_kmsg(&mut log, &kmsg(pid, 1 + pid, &line));
    }
    let log = log.finish();
    assert_eq!((log.events.len(), log.events_omitted), (8, 93));
    assert_eq!(log.events[0].code, Some(79), "a flood of crashes must not hide a lost GPU");
    assert_eq!(log.events[7].pid, Some(100));
}

#[test]
fn since_drops_what_ended_before_and_the_option_counts_only_what_came_after() {
    let records = [
        kmsg(0, 10, OFF_BUS),
        kmsg(1, 20, "NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a, Ch 8"),
        kmsg(2, 30, OFF_BUS),
    ];
    let mut log = read(&records);
    drop_events_before(&mut log, boot_time(25));
    assert_eq!((only(&log).code, only(&log).count), (Some(79), 2));
    assert_eq!(log.coverage[0].from, after_boot(25));
    let mut log = empty_with(Options { since: after_boot(25), ..Options::default() });
    records.iter().for_each(|record| push_kmsg(&mut log, record));
    assert_eq!(only(&log.finish()).count, 1);
}

#[test]
fn events_find_their_gpu_even_through_the_port_above_it() {
    let uuid = "GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b";
    let mut log = read(&[
        kmsg(0, 1, &format!("NVRM: GPU at PCI:0000:3b:00: {uuid}")),
        kmsg(1, 1, "NVRM: GPU Board Serial Number: 1653723052734"),
        kmsg(2, 2, "pcieport 0000:3a:00.0: AER: Corrected error received: 0000:3a:00.0"),
        kmsg(3, 3, OFF_BUS),
    ]);
    assert_eq!(log.events[1].gpu_uuid.as_deref(), Some(uuid), "the log has the UUID, even if the GPU is lost");
    assert_eq!(log.events[1].details.get("board_serial").map(String::as_str), Some("1653723052734"));
    let at = |text: &str| PciAddress::parse(text).expect("an address");
    let (gpu, port) = ((at("3b:00.0"), 3, Some(uuid.to_owned())), (at("3a:00.0"), at("3b:00.0")));
    join_gpus(&mut log, LogOrigin::ThisNode, &[gpu], &[port]);
    for event in &log.events {
        assert_eq!((event.gpu_index, event.gpu_uuid.as_deref()), (Some(3), Some(uuid)), "{}", event.raw);
    }
    assert_eq!(log.events[0].pci_address, Some(at("3a:00.0")), "the address of the port is kept");
}

const OLD_GPU: &str = "GPU-00000000-0000-0000-0000-000000000001";
const NEW_GPU: &str = "GPU-00000000-0000-0000-0000-000000000002";

fn identities(log: &mut KernelLog, origin: LogOrigin) -> Vec<(Option<u32>, Option<&str>)> {
    let pci = PciAddress::parse("3b:00.0").expect("an address");
    join_gpus(log, origin, &[(pci, 3, Some(NEW_GPU.to_owned()))], &[]);
    log.events.iter().map(|event| (event.gpu_index, event.gpu_uuid.as_deref())).collect()
}

fn journal_line(boot: &str, second: i64, text: &str) -> String {
    let wall = (boot_time(0).as_second() + second) * 1_000_000;
    format!(
        r#"{{"__REALTIME_TIMESTAMP":"{wall}","_BOOT_ID":"{boot}","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","MESSAGE":"{text}"}}"#
    )
}

#[test]
fn an_event_of_an_earlier_boot_is_not_the_gpu_that_has_the_address_now() {
    let mut log = empty_with(Options::default());
    log.push_line(&journal_line("first", -9000, &format!("NVRM: GPU at PCI:0000:3b:00: {OLD_GPU}")));
    log.push_line(&journal_line("first", -8999, OFF_BUS));
    log.push_line(&journal_line("second", -5000, OFF_BUS));
    push_kmsg(&mut log, &kmsg(0, 1, &format!("NVRM: GPU at PCI:0000:3b:00: {NEW_GPU}")));
    push_kmsg(&mut log, &kmsg(1, 2, OFF_BUS));
    let mut log = log.finish();
    let expected = [(None, Some(OLD_GPU)), (Some(3), None), (Some(3), Some(NEW_GPU))];
    assert_eq!(identities(&mut log, LogOrigin::ThisNode), expected, "each boot has its own GPU, or an unknown GPU");
}

#[test]
fn events_of_a_given_file_are_not_joined_to_the_gpus_of_this_node() {
    let mut log = read(&[kmsg(0, 1, OFF_BUS)]);
    assert_eq!(identities(&mut log, LogOrigin::AnyNode), [(Some(3), None)]);
    let mut log = read(&[kmsg(0, 1, &format!("NVRM: GPU at PCI:0000:3b:00: {OLD_GPU}")), kmsg(1, 2, OFF_BUS)]);
    assert_eq!(identities(&mut log, LogOrigin::AnyNode), [(None, Some(OLD_GPU))], "the UUID in the log is kept");
}

#[test]
fn two_gpus_at_one_address_have_no_name() {
    let named = |seq, uuid| kmsg(seq, seq, &format!("NVRM: GPU at PCI:0000:3b:00: {uuid}"));
    let log = read(&[named(0, OLD_GPU), kmsg(1, 1, OFF_BUS), named(2, NEW_GPU)]);
    assert_eq!(only(&log).gpu_uuid, None);
}

#[test]
fn a_log_without_any_time_still_has_its_events() {
    let mut log = EventLog::new(None, Options::default());
    log.push_line(&format!("{OFF_BUS}\n{OFF_BUS}\nNVRM: Xid (PCI:0000:3b:00): 45, pid=1, name=a, Ch 00000008"));
    let log = log.finish();
    assert_eq!(log.events.iter().map(|event| event.count).sum::<u64>(), 3);
    assert!(log.events.iter().all(|event| event.last.is_none()));
    assert_eq!(log.coverage[0].records, 3);
}

#[test]
fn text_from_a_node_is_cleaned() {
    let log = read(&[kmsg(0, 1, "NVRM: Xid (PCI:0000:3b:00): 43, pid=1, name=a\\x1b[31m, Ch 8 \\xe2\\x80\\xaex")]);
    let event = only(&log);
    assert_eq!(event.process.as_deref(), Some("a [31m"));
    assert!(event.raw.chars().all(|character| character.is_ascii_graphic() || character == ' '), "{}", event.raw);
}

fn any_line() -> impl Strategy<Value = String> {
    let texts = prop::sample::select(vec![
        OFF_BUS.to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=a, Ch 10, MMU Fault: ENGINE CE2 X faulted @ 0x1.".to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 31, pid=7, name=a, Ch 11, MMU Fault: ENGINE CE2 X faulted @ 0x2.".to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 13, Graphics SM Warp Exception on (GPC 1, TPC 2, SM 0): A".to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 13, Graphics SM Warp Exception on (GPC 3, TPC 2, SM 1): B".to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 13, pid=7, name=a, Graphics Exception: ChID 000c, Class 0000cbc0".to_owned(),
        "NVRM: Xid (PCI:0000:3b:00): 13, pid=8, name=b, Graphics Exception: ChID 000d, Class 0000cbc0".to_owned(),
        "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress (First)".to_owned(),
        "Out of memory: Killed process 7 (a) total-vm:1kB".to_owned(),
        "NVRM: GPU at PCI:0000:3b:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b".to_owned(),
    ]);
    // The lines have no sequence number, so that shuffling does not look like lost records.
    texts.prop_map(|text| format!("[   10.000000] {text}"))
}

proptest! {
    #[test]
    fn lines_of_one_time_make_the_same_events_in_any_order(
        (lines, shuffled) in prop::collection::vec(any_line(), 0..40)
            .prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle())),
        max_events in 1_usize..12,
    ) {
        let read = |lines: &[String]| {
            let mut log = empty_with(Options { max_events, ..Options::default() });
            lines.iter().for_each(|line| log.push_line(line));
            log.finish()
        };
        let (log, other) = (read(&lines), read(&shuffled));
        // If the limit is much too small, the dropped events may differ, because events are dropped while lines are
        // read.
        if max_events >= 10 {
            prop_assert_eq!(log, other);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        lines in prop::collection::vec("\\PC*", 0..8),
    ) {
        let mut log = empty_with(Options { max_events: 2, now: after_boot(0), ..Options::default() });
        records.iter().for_each(|record| push_kmsg(&mut log, &String::from_utf8_lossy(record)));
        lines.iter().for_each(|line| log.push_line(line));
        for record in &records {
            log.push_line(&String::from_utf8_lossy(record));
        }
        log.finish();
    }

    #[test]
    fn any_prefix_before_a_line_is_read_without_a_panic(
        prefix in "[\\[\\]<>0-9:.,;+TZ a-zJF\\-{}\"ä]{0,60}",
        seq in any::<u64>(), uptime in any::<u64>(),
    ) {
        let mut log = empty_with(Options { now: after_boot(0), ..Options::default() });
        log.push_line(&format!("{prefix}{OFF_BUS}"));
        log.push_line(&format!("{prefix} kernel: {OFF_BUS}"));
        log.push_line(&format!("3,{seq},{uptime},-;{OFF_BUS}"));
        log.push_line(&format!("[{uptime}.5] {OFF_BUS}"));
        log.finish();
    }
}
