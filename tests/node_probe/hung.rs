//! Tests with a GPU on which an NVML function hangs, or two GPUs on which it hangs or crashes.
//!
//! The following must be true:
//!
//! - the probe prints the document in time;
//! - the facts of the other GPUs are the same as without the hang, even if the call holds a lock that all calls need;
//! - the entry of the hung GPU only has values that were read, and a problem names the GPU and the function;
//! - the diagnosis only reports that GPU as unresponsive, and the verdict is not healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diagnosis::diagnose;
use diagnosis::finding::Verdict;
use serde_json::Value;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::{Report, Sections};

use crate::reading::{calls, with};
use crate::{Bench, Run};

/// Time limit of each run.
const TIMEOUT_MS: u64 = 3000;
const GPUS: usize = 4;
/// Number of runs at the same time. Each run mostly waits.
const AT_A_TIME: usize = 6;
/// Sections with an entry for each GPU.
const OF_GPUS: [&str; 5] = ["inventory", "telemetry", "topology", "ecc", "mig"];
/// Calls about two GPUs. They do not show which of the two hangs.
const OF_PAIRS: [&str; 2] = ["nvmlDeviceGetP2PStatus", "nvmlDeviceGetTopologyCommonAncestor"];

fn run(bench: &Bench, environment: &[(&str, &str)]) -> Run {
    bench.run(&["all", "--timeout-ms", &TIMEOUT_MS.to_string()], environment)
}

/// Returns the entries of a section as JSON, one for each GPU.
fn entries(report: &Report, section: &str) -> Vec<Value> {
    let sections = &report.sections;
    let value = match section {
        "inventory" => sections.inventory.as_ref().and_then(|it| serde_json::to_value(&it.data.as_ref()?.gpus).ok()),
        "telemetry" => sections.telemetry.as_ref().and_then(|it| serde_json::to_value(&it.data.as_ref()?.gpus).ok()),
        "topology" => sections.topology.as_ref().and_then(|it| serde_json::to_value(&it.data.as_ref()?.gpus).ok()),
        "ecc" => sections.ecc.as_ref().and_then(|it| serde_json::to_value(&it.data.as_ref()?.gpus).ok()),
        _ => sections.mig.as_ref().and_then(|it| serde_json::to_value(&it.data.as_ref()?.gpus).ok()),
    };
    let mut entries = value.and_then(|value| value.as_array().cloned()).unwrap_or_default();
    entries.iter_mut().for_each(split_link_groups);
    entries
}

/// Replaces link groups by one entry for each NVLink: incompletely read links are grouped differently.
fn split_link_groups(entry: &mut Value) {
    let Some(groups) = entry.get_mut("nvlinks").and_then(Value::as_array_mut) else { return };
    let numbers = |group: &Value| group["links"].as_array().cloned().unwrap_or_default();
    let links = groups.iter().flat_map(|group| {
        numbers(group).into_iter().map(move |number| {
            let mut link = group.clone();
            link["links"] = number;
            link
        })
    });
    *groups = links.collect();
    groups.sort_by_key(|link| link["links"].as_u64());
}

fn entry(report: &Report, section: &str, gpu: usize) -> Option<Value> {
    entries(report, section).into_iter().find(|entry| entry["index"] == gpu)
}

/// Returns the uses of other GPUs: process ID and use.
fn uses_of_others(report: &Report, gpu: usize) -> BTreeSet<String> {
    let data = report.sections.processes.as_ref().and_then(|section| section.data.as_ref()).expect("processes");
    let uses = data.processes.iter().flat_map(|process| process.uses.iter().map(move |usage| (process.pid, usage)));
    let others = uses.filter(|(_, usage)| usage.gpu as usize != gpu);
    others.map(|(pid, usage)| format!("{pid} {usage:?}")).collect()
}

/// Returns whether each value of `read` is missing or equals the value in `whole`.
fn is_part_of(read: &Value, whole: &Value) -> bool {
    match (read, whole) {
        (Value::Null, _) => true,
        (Value::Object(read), Value::Object(whole)) => {
            read.iter().all(|(key, value)| is_part_of(value, whole.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Array(read), Value::Array(whole)) => {
            read.iter().all(|value| whole.iter().any(|one| is_part_of(value, one)))
        }
        _ => read == whole,
    }
}

/// Returns the violated properties of a run in which a function hangs for a GPU.
fn broken(healthy: &Report, run: &Run, function: &str, gpu: usize) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            broken.push(format!("{function}:{gpu}: {what}"));
        }
    };
    let report = &run.report;
    // On a busy machine, the start of processes also takes time.
    let late = Duration::from_millis(TIMEOUT_MS) + Duration::from_secs(3);
    expect(run.took < late, format!("took {:?}", run.took));
    for section in OF_GPUS {
        for other in (0..GPUS).filter(|other| *other != gpu) {
            let (read, whole) = (entry(report, section, other), entry(healthy, section, other));
            expect(read == whole, format!("{section} of GPU {other}: {read:?} is not {whole:?}"));
        }
        let (read, whole) = (entry(report, section, gpu), entry(healthy, section, gpu).expect("an entry"));
        expect(read.as_ref().is_none_or(|read| is_part_of(read, &whole)), format!("{section}: {read:?} of {whole}"));
    }
    expect(
        uses_of_others(report, gpu) == uses_of_others(healthy, gpu),
        "the processes of the other GPUs differ".into(),
    );
    let (read, whole) = (&report.sections.inventory, &healthy.sections.inventory);
    let version = |section: &Option<syringe_core::report::Section<syringe_core::facts::inventory::Inventory>>| {
        section.as_ref().and_then(|section| section.data.as_ref()?.driver_version.clone())
    };
    expect(version(read) == version(whole), "the driver version differs".into());
    let problems = report.sections.problems();
    let names = problems
        .iter()
        .any(|(_, problem)| problem.gpu.is_some_and(|index| index as usize == gpu) && problem.why.contains(function));
    expect(names, format!("no problem names the GPU: {problems:?}"));
    let diagnosis = diagnose(report, &KubernetesFacts::default());
    expect(!matches!(diagnosis.verdict, Verdict::Healthy | Verdict::NoFaultFound), diagnosis.summary.clone());
    let unresponsive: Vec<_> =
        diagnosis.findings.iter().filter(|finding| finding.id == "gpu-unresponsive").map(|one| one.scope.gpu).collect();
    let expected = if OF_PAIRS.contains(&function) { vec![] } else { vec![u32::try_from(gpu).ok()] };
    expect(unresponsive == expected, format!("unresponsive: {unresponsive:?}"));
    broken
}

/// Runs the cases, several at a time, and returns the violated properties.
fn broken_promises(cases: &[(String, usize)], more: &[(&str, &str)]) -> Vec<String> {
    let bench = four_gpus();
    let healthy = run(&bench, &[]).report;
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((function, gpu)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let block = format!("{function}:{gpu}");
                    let run = run(&bench, &[&[("FAKE_NVML_BLOCK", block.as_str())], more].concat());
                    all.lock().expect("no panic").extend(broken(&healthy, &run, function, *gpu));
                }
            });
        }
    });
    all.into_inner().expect("no panic")
}

/// Returns a node with four GPUs, which are enough for every call.
fn four_gpus() -> Bench {
    Bench::with("healthy-h100-8", |report| {
        let Sections { inventory, telemetry, topology, ecc, mig, processes, .. } = &mut report.sections;
        with(inventory).gpus.truncate(GPUS);
        with(telemetry).gpus.truncate(GPUS);
        with(topology).gpus.truncate(GPUS);
        with(ecc).gpus.truncate(GPUS);
        with(mig).gpus.truncate(GPUS);
        with(processes).processes.truncate(GPUS);
    })
}

/// Returns each function that is called for GPUs, with one of these GPUs. The GPU varies between the functions.
fn cases() -> Vec<(String, usize)> {
    let mut gpus_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for call in calls(&four_gpus()) {
        let (function, gpu) = call.split_once(' ').expect("a function and a GPU");
        if let Ok(gpu) = gpu.parse() {
            gpus_of.entry(function.to_owned()).or_default().push(gpu);
        }
    }
    assert!(gpus_of.len() > 60, "{gpus_of:?}");
    gpus_of.into_iter().enumerate().map(|(place, (function, gpus))| (function, gpus[place * 7 % gpus.len()])).collect()
}

#[test]
fn a_gpu_that_hangs_in_any_function_leaves_the_facts_of_the_others() {
    let broken = broken_promises(&cases(), &[]);
    assert!(broken.is_empty(), "{} violations, e.g.\n{}", broken.len(), broken[..broken.len().min(8)].join("\n"));
}

#[test]
fn a_hung_call_that_blocks_all_others_leaves_the_facts_of_the_others() {
    let cases: Vec<_> = cases().into_iter().step_by(5).collect();
    let broken = broken_promises(&cases, &[("FAKE_NVML_LOCK", "1")]);
    assert!(broken.is_empty(), "{} violations, e.g.\n{}", broken.len(), broken[..broken.len().min(8)].join("\n"));
}

#[test]
fn two_gpus_that_hang_or_crash_nvml_leave_the_facts_of_the_others() {
    let bench = four_gpus();
    let healthy = run(&bench, &[]).report;
    for (switch, code) in [("FAKE_NVML_BLOCK", "timeout"), ("FAKE_NVML_CRASH", "nvml_crashed")] {
        let Run { report, .. } = run(&bench, &[(switch, "nvmlDeviceGetUUID:1,nvmlDeviceGetTotalEccErrors:2")]);
        for section in OF_GPUS {
            for gpu in [0, 3] {
                assert_eq!(entry(&report, section, gpu), entry(&healthy, section, gpu), "{switch}: {section} of {gpu}");
            }
        }
        let problems = report.sections.problems();
        for (gpu, function) in [(1, "nvmlDeviceGetUUID"), (2, "nvmlDeviceGetTotalEccErrors")] {
            let is_named = problems
                .iter()
                .any(|(_, problem)| problem.gpu == Some(gpu) && problem.code == code && problem.why.contains(function));
            assert!(is_named, "{switch} GPU {gpu}: {problems:?}");
        }
    }
}

#[test]
fn a_gpu_that_hangs_is_listed_with_its_identity() {
    let bench = four_gpus();
    let Run { report, .. } = run(&bench, &[("FAKE_NVML_BLOCK", "nvmlDeviceGetTotalEccErrors:2")]);
    let ecc = report.sections.ecc.expect("the section").data.expect("data");
    let [lost] = ecc.lost.as_slice() else { panic!("{:?}", ecc.lost) };
    let inventory = bench.facts.sections.inventory.clone().expect("the section").data.expect("data");
    assert_eq!((lost.index, lost.code.as_str()), (Some(2), "timeout"));
    assert_eq!((&lost.uuid, &lost.pci_address), (&inventory.gpus[2].uuid, &inventory.gpus[2].pci_address));
}
