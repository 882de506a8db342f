//! Tests of the built `node-probe-dev`: the document that it prints, its exit code and its run time.
//! The modules test the number of NVML calls, hangs, unread values, rates, CUDA and NVIDIA's software.
//!
//! `node-probe-dev` has options that replace the NVML library and the file tree of the machine. `isolation` tests the
//! shipped program.
//!
//! The fake NVML library replaces the GPUs: it returns the values of a facts file through the real C interface. Therefore,
//! the facts in the document must equal the facts in the file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use syringe_core::facts::LostGpu;
use syringe_core::facts::ecc::Ecc;
use syringe_core::report::{Report, Section, Source, Status};
use syringe_core::scenarios;

#[path = "node_probe/calls.rs"]
mod calls;
#[path = "node_probe/cuda.rs"]
mod cuda;
#[path = "node_probe/hung.rs"]
mod hung;
#[path = "node_probe/nvidia_stack.rs"]
mod nvidia_stack;
#[path = "node_probe/rates.rs"]
mod rates;
#[path = "node_probe/reading.rs"]
mod reading;

/// A run of the program: its document, exit code and run time.
struct Run {
    report: Report,
    code: i32,
    took: Duration,
}

fn node_probe(args: &[&str], environment: &[(&str, &str)]) -> Run {
    let started = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_node-probe-dev"))
        .args(args)
        .env_remove("NODE_PROBE_NVML_LIBRARY")
        .envs(environment.iter().copied())
        .output()
        .expect("node-probe runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), 1, "the document must be one line: {text}");
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("not a document ({error}): {text}"));
    Run { report, code: output.status.code().expect("an exit code"), took: started.elapsed() }
}

/// The file tree of an empty machine, with a facts file for the fake library.
struct Bench {
    directory: tempfile::TempDir,
    facts: Report,
}

impl Bench {
    fn of(scenario: &str) -> Self {
        Self::with(scenario, |_| {})
    }

    /// Creates a machine with the facts of a scenario after a change.
    fn with(scenario: &str, change: impl FnOnce(&mut Report)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for folder in ["etc", "proc", "sys", "dev"] {
            std::fs::create_dir(directory.path().join(folder)).expect("a folder");
        }
        let mut facts = scenarios::named(scenario).expect("a scenario").report();
        change(&mut facts);
        let document = serde_json::to_vec(&facts).expect("a document");
        std::fs::write(directory.path().join("facts.json"), document).expect("a file");
        Self { directory, facts }
    }

    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Run {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let library = path(&fake_library());
        let (root, facts) = (path(self.directory.path()), path(&self.directory.path().join("facts.json")));
        let mut all = vec!["--nvml-library", &library, "--root", &root];
        all.extend(args);
        node_probe(&all, &[&[("FAKE_NVML_FACTS", facts.as_str())], environment].concat())
    }
}

fn fake_library() -> PathBuf {
    fake_nvml::library_path()
}

fn data<T>(section: Option<Section<T>>) -> T {
    let section = section.expect("the section");
    section.data.unwrap_or_else(|| panic!("the section has no data: {:?}", section.problems))
}

/// Scenarios in which NVML can be opened.
const READABLE: [&str; 7] =
    ["healthy-h100-8", "healthy-t4-1", "a100-mig-8", "gb200-4", "l40s-4-idle", "xid79-off-bus", "ecc-remap-pending"];

#[test]
fn the_probe_reports_the_facts_of_the_fake_nvml() {
    for scenario in READABLE {
        let bench = Bench::of(scenario);
        let facts = bench.facts.sections.clone();
        let Run { report, code, .. } = bench.run(&["all"], &[]);
        assert_eq!((code, &report.source), (0, &Source::Hardware), "{scenario}");
        let sections = report.sections;

        let (mut read, mut given) = (data(sections.inventory), data(facts.inventory));
        (read.nvml_library, given.nvml_library) = (None, None);
        // The identity of a lost GPU is read from PCI and the kernel, which do not exist on an empty machine.
        given.lost.iter_mut().for_each(nameless);
        assert_eq!(read, given, "{scenario}: inventory");
        let mut given = data(facts.telemetry);
        given.lost.iter_mut().for_each(nameless);
        assert_eq!(data(sections.telemetry), given, "{scenario}: telemetry");
        let mut given = data(facts.ecc);
        given.lost.iter_mut().for_each(nameless);
        assert_eq!(data(sections.ecc), given, "{scenario}: ecc");
        assert_eq!(data(sections.mig), data(facts.mig), "{scenario}: mig");

        let (read, mut given) = (data(sections.topology), data(facts.topology));
        // These values are read from sysfs, which does not exist on an empty machine.
        (given.nics, given.nvswitches, given.gpudirect) = (Vec::new(), Vec::new(), None);
        given.lost.iter_mut().for_each(nameless);
        for (gpu, read) in given.gpus.iter_mut().zip(&read.gpus) {
            (gpu.numa_node, gpu.pcie_path) = (None, Vec::new());
            gpu.cpu_affinity.clone_from(&read.cpu_affinity);
        }
        assert_eq!(read, given, "{scenario}: topology");
    }
}

fn nameless(gpu: &mut LostGpu) {
    (gpu.pci_address, gpu.uuid, gpu.serial, gpu.slot) = (None, None, None, None);
}

#[test]
fn a_lost_gpu_does_not_affect_the_other_gpus() {
    let Run { report, code, .. } = Bench::of("xid79-off-bus").run(&["inventory"], &[]);
    let section = report.sections.inventory.expect("the section");
    assert_eq!((code, section.status), (0, Status::Partial));
    assert_eq!(section.data.expect("data").gpus.len(), 7);
    let [problem] = section.problems.as_slice() else { panic!("{:?}", section.problems) };
    assert_eq!((problem.gpu, problem.code.as_str()), (Some(3), "gpu_lost"));
}

#[test]
fn a_missing_library_function_affects_one_field() {
    let hidden = [("FAKE_NVML_HIDE", "nvmlDeviceGetFanSpeed,nvmlDeviceGetFanSpeed_v2,nvmlDeviceGetSerial")];
    let Run { report, code, .. } = Bench::of("healthy-t4-1").run(&["inventory"], &hidden);
    let section = report.sections.inventory.expect("the section");
    assert_eq!((code, section.status), (0, Status::Ok), "{:?}", section.problems);
    let inventory = section.data.expect("data");
    assert_eq!(inventory.gpus[0].serial, None);
    assert!(inventory.gpus[0].uuid.is_some());
    assert!(inventory.unsupported.iter().any(|unsupported| unsupported.fields.contains(&"serial".to_owned())));
}

#[test]
fn without_nvml_the_other_sections_are_read() {
    for (scenario, code) in [("no-driver", "driver_not_loaded"), ("driver-mismatch", "version_mismatch")] {
        let run = Bench::of(scenario).run(&["all"], &[]);
        assert_eq!(run.code, 0, "{scenario}");
        let sections = run.report.sections;
        let inventory = sections.inventory.expect("the section");
        assert_eq!((inventory.status, inventory.problems[0].code.as_str()), (Status::Error, code));
        assert!(!inventory.problems[0].next_step.is_empty());
        assert!(sections.host.expect("host").data.is_some(), "{scenario}");
    }
}

/// Even for a broken node, there must be an answer within ten seconds.
#[test]
fn a_blocking_nvml_call_is_named_and_does_not_block_the_probe() {
    let block = [("FAKE_NVML_BLOCK", "nvmlDeviceGetTotalEccErrors:3")];
    let run = Bench::of("healthy-h100-8").run(&["all", "--timeout-ms", "3000"], &block);
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
    assert_eq!(run.code, 0);
    let sections = run.report.sections;
    let ecc = sections.ecc.expect("the section");
    let problem = &ecc.problems[0];
    assert_eq!((ecc.status, problem.gpu, problem.code.as_str()), (Status::Partial, Some(3), "timeout"));
    assert!(problem.why.contains("nvmlDeviceGetTotalEccErrors"), "{}", problem.why);
    assert!(sections.host.expect("host").data.is_some());

    let blocked_at_once = [("FAKE_NVML_BLOCK", "nvmlInit_v2,nvmlInitWithFlags")];
    let run = Bench::of("healthy-h100-8").run(&["all", "--timeout-ms", "2000"], &blocked_at_once);
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
    assert_eq!(run.report.sections.inventory.expect("the section").problems[0].code, "timeout");
    assert!(run.report.sections.host.expect("host").data.is_some());
}

#[test]
fn after_a_crash_of_nvml_only_the_remaining_values_are_missing() {
    let crash = [("FAKE_NVML_CRASH", "nvmlDeviceGetTotalEccErrors:3")];
    let bench = Bench::of("healthy-h100-8");
    let run = bench.run(&["all"], &crash);
    assert_eq!(run.code, 0);
    let sections = run.report.sections;
    let ecc = sections.ecc.expect("the section");
    let problem = &ecc.problems[0];
    assert_eq!((ecc.status, problem.gpu, problem.code.as_str()), (Status::Partial, Some(3), "nvml_crashed"));
    assert_eq!(
        data(Some(ecc.clone())),
        without(data(bench.facts.sections.ecc.clone()), 3),
        "another process must read the other GPUs"
    );
    assert_eq!(data(sections.inventory).gpus.len(), 7);
    assert_eq!(data(sections.telemetry).gpus.len(), 7);
    for words in ["signal 11", "nvmlDeviceGetTotalEccErrors on GPU 3"] {
        assert!(problem.why.contains(words), "{}", problem.why);
    }
    assert!(!problem.next_step.is_empty());
    assert_eq!(sections.mig.expect("the section").problems[0].code, "nvml_crashed");
    assert!(sections.processes.is_some());
    assert!(sections.host.expect("host").data.is_some());

    let at_once = [("FAKE_NVML_CRASH", "nvmlInit_v2,nvmlInitWithFlags")];
    for section in ["all", "host", "xid"] {
        let bench = Bench::of("healthy-h100-8");
        std::fs::write(bench.directory.path().join("dev/kmsg"), "6,0,0,-;Linux version 6.8\n").expect("a file");
        let run = bench.run(&[section], &at_once);
        assert_eq!(run.code, 0, "{section}");
        let sections = run.report.sections;
        let read =
            sections.host.and_then(|host| host.data).is_some() || sections.xid.and_then(|log| log.data).is_some();
        assert!(read, "{section} without NVML");
    }
}

/// Returns the section without one GPU.
fn without(mut ecc: Ecc, gpu: u32) -> Ecc {
    ecc.gpus.retain(|entry| entry.index != gpu);
    ecc.unsupported.iter_mut().for_each(|list| list.gpus.retain(|index| *index != gpu));
    ecc
}

#[test]
fn nvml_shutdown_is_never_called() {
    let crash = [("FAKE_NVML_CRASH", "nvmlShutdown")];
    let bench = Bench::of("healthy-h100-8");
    for section in ["all", "inventory", "telemetry"] {
        let (with, without) = (bench.run(&[section], &crash), bench.run(&[section], &[]));
        assert_eq!((with.code, without.code), (0, 0), "{section}");
        let statuses = |run: &Run| run.report.sections.statuses();
        assert_eq!(statuses(&with), statuses(&without), "{section}");
    }
}

#[test]
fn no_process_stays_after_nvml_blocks() {
    let bench = Bench::of("healthy-h100-8");
    let block = [("FAKE_NVML_BLOCK", "nvmlDeviceGetUUID:2")];
    let run = bench.run(&["inventory", "--timeout-ms", "600"], &block);
    assert_eq!(run.report.sections.inventory.expect("the section").problems[0].code, "timeout");
    let facts = bench.directory.path().join("facts.json");
    let is_ours = |entry: std::fs::DirEntry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(facts.to_str().expect("UTF-8"))
    };
    let left = || {
        let processes = std::fs::read_dir("/proc").expect("proc").flatten();
        processes.filter(|entry| !entry.path().ends_with("self")).any(is_ours)
    };
    // A killed process stays visible until the kernel has removed it.
    let began = Instant::now();
    while left() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!left(), "a process was left behind");
}

#[test]
fn without_a_library_the_answer_lists_the_searched_folders() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().to_str().expect("UTF-8");
    let run = node_probe(&["--root", root, "inventory"], &[]);
    let problem = &run.report.sections.inventory.expect("the section").problems[0];
    assert_eq!((run.code, problem.code.as_str()), (1, "library_not_found"));
    assert!(problem.why.contains("libnvidia-ml.so.1"), "{}", problem.why);
    assert!(!problem.next_step.is_empty());
}

#[test]
fn wrong_usage_prints_a_document() {
    for args in [&["no-such-section"][..], &[], &["xid", "--since", "yesterday"], &["all", "--timeout-ms", "1"]] {
        let run = node_probe(args, &[]);
        let problem = run.report.error.unwrap_or_else(|| panic!("{args:?} must be an error"));
        assert_eq!((run.code, problem.code.as_str()), (2, "usage"), "{args:?}");
        assert!(problem.next_step.contains("--help"));
    }
}

#[test]
fn a_facts_file_that_cannot_be_used_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let broken = file("broken.json", "{\"schema_version\": 1,");
    let newer = file("newer.json", "{\"schema_version\": 99}");
    // This document has an old schema version, in which some fields had other names.
    let old = r#"{"schema_version":1,"probe_version":"0.1.0","sections":{"processes":{"status":"ok","data":{}}}}"#;
    let older = file("older.json", old);
    let empty = file("empty.json", "{}");
    let answer = file("answer.json", r#"{"verdict":"healthy","summary":"","findings":[],"probe":{"via":"pod"}}"#);
    let other = file("other.json", r#"{"schema_version":3,"sections":{"inventry":{"status":"ok"}}}"#);
    let failed = file("failed.json", r#"{"schema_version":3,"error":{"why":"no section","code":"usage"}}"#);
    for (path, words) in [
        ("/nonexistent.json", "No such file"),
        (&broken, "not a report"),
        (&newer, "schema version is 99; this program reads version 3"),
        (&older, "schema version is 1 (node-probe 0.1.0); this program reads version 3"),
        (&empty, "no known section and no kernel_log"),
        (&answer, "output of gpu-syringe"),
        (&other, "no known section and no kernel_log"),
        (&failed, "the probe failed: no section"),
    ] {
        let run = node_probe(&["--facts", path, "inventory"], &[]);
        let problem = run.report.error.unwrap_or_else(|| panic!("{path} must be rejected"));
        assert_eq!(run.code, 1);
        assert!(problem.why.contains(words), "{}", problem.why);
        assert!(!problem.next_step.is_empty(), "{path}");
    }
}

#[test]
fn a_saved_report_replays_to_itself() {
    let bench = Bench::of("healthy-h100-8");
    let first = bench.run(&["all"], &[]).report;
    let saved = bench.directory.path().join("saved.json");
    std::fs::write(&saved, serde_json::to_vec(&first).expect("a document")).expect("a file");
    let again = node_probe(&["--facts", saved.to_str().expect("UTF-8"), "all"], &[]).report;
    assert_eq!(again, Report { source: Source::File, ..first });
}

#[test]
fn saved_kernel_logs_of_every_format_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bug-report.log");
    let spellings = [
        "3,7,3600000000,-;NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n",
        "[ 3600.000000] NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n",
        "[Sun Feb 23 16:24:18 2025] NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n",
        "Feb 01 14:25:31 node kernel: NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n",
        "2026-10-05T08:08:16-05:00 node kernel: NVRM: Xid (PCI:0000:5d:00): 79, pid=1, GPU has fallen off the bus.\n",
    ];
    for spelling in spellings {
        std::fs::write(&path, spelling).expect("a file");
        let run = node_probe(&["xid", "--kernel-log", path.to_str().expect("UTF-8")], &[]);
        let log = run.report.sections.xid.expect("the section").data.expect("data");
        let [event] = log.events.as_slice() else { panic!("{spelling}: {:?}", log.events) };
        assert_eq!((event.code, event.pid), (Some(79), Some(1)), "{spelling}");
        assert_eq!(event.pci_address.as_ref().map(|pci| pci.as_str()), Some("00000000:5d:00.0"));
    }
}

#[test]
fn eight_gpus_fit_in_forty_kilobytes() {
    for scenario in ["healthy-h100-8", "a100-mig-8", "xid79-off-bus", "ecc-remap-pending", "no-driver"] {
        let facts = scenarios::named(scenario).expect("a scenario").report();
        let document = node_probe::run(&["all".to_owned()], Some(&facts)).stdout;
        assert!(document.len() <= 40_000, "{scenario}: {} bytes", document.len());
    }
}
