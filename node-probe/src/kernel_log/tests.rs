//! Tests of reading the kernel log of a machine, with file trees.

use syringe_core::report::Status;

use super::*;
use crate::testing::Tree;

const XID: &str = "NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.";
/// The boot time 2026-11-20T00:00:00Z.
const BOOT: &str = "cpu 1\nbtime 1795132800\n";

fn read_tree(tree: &Tree) -> Section<KernelLog> {
    read(&tree.paths(), &Options { since: None, journal: false })
}

#[test]
fn a_saved_buffer_gets_its_times_from_the_boot_time_of_its_machine() {
    let tree = Tree::new();
    tree.file("dev/kmsg", format!("6,0,0,-;Linux version 6.8\n3,7,3600000000,-;{XID}\n SUBSYSTEM=pci\n"))
        .file("proc/stat", BOOT);
    let section = read_tree(&tree);
    assert_eq!(section.status, Status::Ok, "{:?}", section.problems);
    let log = section.data.expect("data");
    assert_eq!(log.events[0].last.map(|at| at.to_string()).as_deref(), Some("2026-11-20T01:00:00Z"));
    assert_eq!((log.coverage[0].source.as_str(), log.coverage[0].complete_since_boot), ("/dev/kmsg", Some(true)));
}

#[test]
fn a_file_of_a_workload_is_not_the_kernel_buffer() {
    let tree = Tree::new();
    tree.file("host/dev/kmsg", format!("3,7,3600000000,-;{XID}\n")).file("proc/stat", BOOT);
    let of = |owner| {
        let paths = Paths { host: tree.path().join("host"), owner, ..tree.paths() };
        read(&paths, &Options { since: None, journal: false }).status
    };
    assert_eq!((of(Owner::Workload), of(Owner::Node)), (Status::Error, Status::Ok));
}

#[test]
fn a_line_in_both_the_buffer_and_a_text_log_counts_once() {
    let tree = Tree::new();
    tree.file("dev/kmsg", format!("3,7,3600000000,-;{XID}\n")).file("proc/stat", BOOT);
    tree.file(
        "var/log/kern.log",
        format!("2026-11-19T05:00:00+00:00 n kernel: {XID}\n2026-11-20T01:00:00.4+00:00 n kernel: {XID}\n"),
    );
    let log = read_tree(&tree).data.expect("data");
    let counts: Vec<(u64, bool)> = log.events.iter().map(|event| (event.count, event.boot_id.is_some())).collect();
    assert_eq!(counts, [(1, true), (1, false)], "one Xid is of the earlier boot, one of this boot");
}

#[test]
fn without_any_log_there_is_an_error_with_a_next_step() {
    let section = read_tree(&Tree::new());
    assert_eq!((section.status, section.problems[0].code.as_str()), (Status::Error, "kmsg"));
    assert!(section.problems[0].next_step.contains("privileged"));
}

#[test]
fn without_the_buffer_a_text_log_gives_a_partial_answer() {
    let tree = Tree::new();
    tree.file("var/log/messages", format!("2026-11-19T05:00:00+00:00 n kernel: {XID}\n"));
    let section = read_tree(&tree);
    assert_eq!((section.status, section.problems[0].code.as_str()), (Status::Partial, "kmsg"));
    assert_eq!(section.data.expect("data").events.len(), 1);
}

#[test]
fn a_journal_that_was_not_read_to_its_end_says_so() {
    let entry = format!(r#"{{"__REALTIME_TIMESTAMP":"1795132800000000","_TRANSPORT":"kernel","MESSAGE":"{XID}"}}"#);
    let read = |script: String, time: Duration| {
        let (mut log, mut problems) = (EventLog::new(None, xid::Options::default()), Vec::new());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let journal = push_journal(command, &mut log, time, &mut problems);
        let mut facts = log.finish();
        if journal.cut {
            note_cut(&mut facts);
        }
        (journal, facts.coverage.remove(0).note)
    };
    let (journal, note) = read(format!("echo '{entry}'; exec sleep 60"), Duration::from_millis(300));
    assert_eq!((journal, note.as_str()), (Journal { answered: true, cut: true }, CUT_BEFORE));
    let (journal, note) = read(format!("echo '{entry}'; exit 3"), journal::TIME);
    assert_eq!((journal, note.as_str()), (Journal { answered: false, cut: true }, CUT_BEFORE));
    let (journal, note) = read(format!("echo '{entry}'"), journal::TIME);
    assert_eq!((journal, note.as_str()), (Journal { answered: true, cut: false }, ""));
    let (_, note) = read("exit 3".to_owned(), journal::TIME);
    assert_eq!(note, "", "no entries were left out");
}

#[test]
fn crash_records_are_noted() {
    let tree = Tree::new();
    tree.file("dev/kmsg", "6,0,0,-;Linux version 6.8\n").file("sys/fs/pstore/dmesg-efi-1", "x");
    let log = read_tree(&tree).data.expect("data");
    assert_eq!(log.coverage[1].source, "pstore");
    assert!(log.coverage[1].note.contains("boots: 1, not read"));
}

#[test]
fn a_window_inside_this_boot_reads_no_other_log() {
    let tree = Tree::new();
    tree.file("dev/kmsg", "6,0,0,-;Linux version 6.8\n").file("proc/stat", BOOT);
    tree.file("var/log/kern.log", format!("2026-11-20T05:00:00+00:00 n kernel: {XID}\n"));
    let since = "2026-11-20T02:00:00Z".parse().ok();
    let log = read(&tree.paths(), &Options { since, journal: true }).data.expect("data");
    assert_eq!((log.coverage.len(), log.events.len()), (1, 0));
}

#[test]
fn this_machines_own_buffer_ends() {
    // The call must return soon, regardless of the permissions of this test.
    let started = std::time::Instant::now();
    let section = read(&Paths::of_this_machine(), &Options { since: None, journal: false });
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    assert!(section.data.is_some() || !section.problems.is_empty());
}
