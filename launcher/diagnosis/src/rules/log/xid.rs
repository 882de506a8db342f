//! Rules about Xids that no other group handles: application faults, and one rule for each class of other faults.
//!
//! The catalogue defines severity, action and ageing of a code. Applications cause Xid 13, 31, 43, 45, 68 and similar
//! codes. These Xids indicate a GPU fault only if different workloads fail on one GPU and not on the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::{Gpu, Node, STALE_AFTER};
use crate::input::timeline::concerns;
use crate::input::xids;
use crate::rule::aging;
use crate::rule::{Draft, InPlan, Rule, XID_DOC, rules};
use syringe_core::classification::{Class, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::catalogue;

rules! {
    APPLICATION: "application-fault" Info Application XID_DOC, "An application caused a GPU fault",
        RestartPod "Check the log of the application. Nothing indicates a fault of {gpu} of {node}; other work may \
            continue.",
        means "A program caused an error on the GPU, such as an access to an invalid address. The GPU is not at fault.",
        reads "xid: 13, 31, 43, 68 and others";
    ENDED: "program-ended" Info Application XID_DOC, "A program ended while it had work on the GPU",
        RestartPod "If the program was not meant to end, check the log of the application, and find out who stopped \
            the program. Nothing indicates a fault of {gpu} of \
            {node}.",
        means "The driver removed the channels of a program, and no earlier error explains it. The program was killed or exited.",
        reads "xid: 45, 174";
    MPS: "mps-server-fault" Warning Application XID_DOC, "A fault ended the programs that share a GPU through MPS",
        RestartPod "Restart the pods that use {gpu} of {node} through MPS: the fault of one client ends the MPS server and all its clients. Find \
            the client with the first CUDA error in the logs of these pods. Nothing indicates a fault of the GPU.",
        means "The Xid names the server of MPS, which runs the work of several programs. One of them caused the fault, and all of them ended.",
        reads "xid: 13, 31, 43 and others", about Workload;
    KILLED: "application-killed" Info Application XID_DOC, "A process on the GPU was killed or crashed",
        RestartPod "Find out why the process ended (memory limit, crash). Nothing indicates a fault of {gpu} of \
            {node}.",
        means "A process that used the GPU was killed or crashed, for example because host memory ran out.",
        reads "xid: OOM lines, crash lines";
    SUSPECT: "application-faults-on-one-gpu" Warning Hardware XID_DOC, "Different workloads fault on one GPU only",
        Watch "Run one of these workloads on another GPU of {node}. If it fails on {gpu} only, run a diagnostic on \
            that GPU (dcgmi diag).",
        means "Different programs fault on one GPU and not on the others: the GPU may be at fault.",
        reads "xid: 13, 31 and others, inventory.gpus";
    REPEATED: "application-faults-repeat-on-one-gpu" Warning Hardware XID_DOC,
        "Processes with the same name fault repeatedly on one GPU only",
        Watch "The cause is a workload that restarts, or the GPU. Run the workload on another GPU of {node}. If it fails on \
            {gpu} only, run a diagnostic on that GPU (dcgmi diag).",
        means "Many processes of one program, or several processes in one copy engine, fault on one GPU and not on the others: the program or the GPU \
            may be at fault.",
        reads "xid: 13, 31 and others, inventory.gpus";
    CONTEXT_SWITCH: "context-switch-timeout" Critical Driver XID_DOC, "Context-switch timeout",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}.",
        means "The GPU could not switch from one program to the next in time (Xid 109).",
        reads "xid: 109";
    DAMAGED: "xid-damaged-commands" Warning Hardware XID_DOC, "The GPU received damaged commands",
        RestartPod "Restart the pod. If the error repeats, check the PCIe link of {gpu} on {node} and run a diagnostic.",
        means "The GPU rejected commands because their content was damaged. The usual cause is the quality of the \
            PCIe link. A program can also write such commands.",
        reads "xid: 32, 80", depth 1, fault PcieLink;
    DRIVER: "xid-driver" Fatal Driver XID_DOC, "Driver or firmware error",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}. If the error repeats, update the driver.",
        means "The driver or the firmware of the GPU reported an internal error.",
        reads "xid";
    HARDWARE: "xid-hardware" Fatal Hardware XID_DOC, "Hardware error",
        DrainAndReset "Move the workloads off {gpu} of {node}, reset {gpu}, and run a diagnostic. If the error repeats, contact \
            the vendor.",
        means "The driver reported an error of the hardware of the GPU.",
        reads "xid";
    FABRIC: "xid-fabric" Fatal Fabric XID_DOC, "NVLink or C2C error",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}.",
        means "The driver reported an error of NVLink or of the link between CPU and GPU.",
        reads "xid";
    THERMAL: "xid-thermal" Warning Thermal XID_DOC, "Thermal event",
        CheckCooling "Check cooling and airflow of {gpu} on {node}.",
        means "The driver reported a thermal event.",
        reads "xid", depth 1, fault Heat;
    POWER: "xid-power" Critical Power XID_DOC, "Power event",
        CheckCabling "Check the power supply and power cables of {gpu} on {node}.",
        means "The driver reported a power event.",
        reads "xid";
    UNKNOWN_CODE: "xid-unknown" Warning Driver XID_DOC, "Unknown Xid",
        Watch "Look up the code in NVIDIA's Xid catalog: the code is newer than this version of gpu-syringe.",
        means "The driver reported an Xid that this version of gpu-syringe does not know.",
        reads "xid";
}

/// Xids of channels that are closed when a program ends. The reason for the end does not matter.
const END_OF_PROGRAM: [u32; 3] = [45, 141, 174];

/// Start of the name of the MPS server, which the kernel log shortens.
const MPS_SERVER: &str = "nvidia-cuda-mps";

/// Xids that report only that a program ended.
const ENDS_SILENTLY: [u32; 2] = [45, 174];

/// If at least this many processes with the same name fault, the faults are a pattern: one workload that restarts, or
/// many jobs.
const MANY_PROCESSES: usize = 20;

/// If a workload fails on several GPUs, the workload is the cause, unless it fails this many times more often on one
/// GPU.
const FAR_MORE: usize = 4;

/// Returns findings from Xids, for each GPU and for addresses that do not belong to a GPU.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in gpus(node) {
        drafts.extend(applications(node, &gpu));
        drafts.extend(killed(node, &gpu));
        drafts.extend(other_codes(node, &gpu));
    }
    drafts
}

/// Returns the GPUs, including those that appear only in an Xid.
fn gpus(node: &Node<'_>) -> Vec<Gpu> {
    let mut places = node.gpus.clone();
    for event in node.timeline.of_kind(Kind::Xid) {
        if !places.iter().any(|gpu| concerns(event, gpu)) {
            let (index, uuid, pci) = (event.gpu_index, event.gpu_uuid.clone(), event.pci_address.clone());
            places.push(Gpu { index, uuid, pci, ..Gpu::default() });
        }
    }
    places
}

/// Returns one finding about all application faults of a GPU, with a check for a hardware fault.
fn applications(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let faults: Vec<(usize, &KernelEvent)> = node
        .timeline
        .unexplained()
        .filter(|(_, event)| concerns(event, gpu) && event.kind == Kind::Xid && is_application(event))
        .collect();
    if faults.is_empty() {
        return None;
    }
    let codes: BTreeSet<u32> = faults.iter().filter_map(|(_, event)| event.code).collect();
    let has_only_ended = codes.iter().all(|code| ENDS_SILENTLY.contains(code));
    let total: u64 = faults.iter().map(|(_, event)| event.count.max(1)).sum();
    let positions: Vec<usize> = faults.iter().map(|(at, _)| *at).collect();
    let suspicion = suspicion(node, gpu, &faults);
    let of_mps =
        faults.iter().any(|(_, event)| event.process.as_deref().is_some_and(|name| name.starts_with(MPS_SERVER)));
    let by_default = match (has_only_ended, of_mps) {
        (true, _) => ENDED,
        (false, true) => MPS,
        (false, false) => APPLICATION,
    };
    let rule = suspicion.as_ref().map_or(by_default, |(rule, _)| *rule);
    let draft = Draft::on_gpu(rule, gpu).with_all_evidence(suspicion.map(|(_, words)| words));
    let mut draft = draft.with_events(most_recent(&faults));
    if draft.rule.id == MPS.id && node.age(draft.when).is_none_or(|age| age > STALE_AFTER) {
        draft = draft.with_severity(Severity::Info);
    }
    if faults.len() > SHOWN {
        draft = draft.with_evidence(format!("{total} in total, from {}", evidence::count(pids(&faults).len(), "pid")));
    }
    Some(draft.with_all_evidence(node.timeline.consequences(&positions)))
}

/// Maximum number of application faults in the evidence.
const SHOWN: usize = 3;

fn most_recent<'a>(faults: &[(usize, &'a KernelEvent)]) -> Vec<&'a KernelEvent> {
    faults.iter().rev().take(SHOWN).map(|(_, event)| *event).collect()
}

fn pids(faults: &[(usize, &KernelEvent)]) -> BTreeSet<u32> {
    faults.iter().filter_map(|(_, event)| event.pid).collect()
}

fn is_application(event: &KernelEvent) -> bool {
    xids::class(event) == Some(Class::Application)
}

/// Returns why the GPU may be the cause of application faults. The result is only a suspicion.
///
/// A workload that restarts has a new pid each time. Therefore several processes with the same name are not a second
/// indication, unless there are very many of them. A workload that fails on several GPUs is the cause itself.
fn suspicion(node: &Node<'_>, gpu: &Gpu, faults: &[(usize, &KernelEvent)]) -> Option<(Rule, String)> {
    // Broken hardware can cause the same faults as an application.
    let suspicious =
        |event: &KernelEvent| is_application(event) && event.code.is_some_and(|code| !END_OF_PROGRAM.contains(&code));
    let elsewhere: Vec<&KernelEvent> =
        node.timeline.of_kind(Kind::Xid).filter(|event| suspicious(event) && !concerns(event, gpu)).collect();
    if let Some(words) = nameless(faults, &elsewhere, suspicious) {
        return Some((REPEATED, words));
    }
    let mut by_name: BTreeMap<Option<&str>, BTreeSet<u32>> = BTreeMap::new();
    for (_, event) in faults.iter().filter(|(_, event)| suspicious(event)) {
        if let Some(pid) = event.pid {
            by_name.entry(event.process.as_deref()).or_default().insert(pid);
        }
    }
    by_name.retain(|name, pids| {
        let same = elsewhere.iter().filter(|event| event.process.as_deref() == *name);
        same.filter_map(|event| event.pid).collect::<BTreeSet<u32>>().len() * FAR_MORE <= pids.len()
    });
    let pids: BTreeSet<u32> = by_name.values().flatten().copied().collect();
    if pids.len() < 2 {
        return None;
    }
    // If programs fault at least half as often on another GPU, this GPU is not suspect.
    let place = common_place(faults, &pids);
    if place.is_none() && most_elsewhere(&elsewhere) * 2 >= pids.len() {
        return None;
    }
    let pods: BTreeSet<&str> = pids.iter().filter_map(|pid| pod_of(node, *pid)).collect();
    // Without another GPU, only different programs can show that the GPU is the cause.
    if node.listed().count() == 1 && by_name.len() < 2 && pods.len() < 2 {
        return None;
    }
    let place_words = place.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
    // A missing name does not indicate a second workload, because old drivers do not print names.
    if by_name.keys().flatten().count() > 1 || pods.len() > 1 || place.is_some() {
        let words = format!("{} different processes faulted on this GPU and on no other{place_words}", pids.len());
        return Some((SUSPECT, words));
    }
    if let Some(words) = copy_engine(faults, &pids) {
        return Some((REPEATED, words));
    }
    let (name, pids) = by_name.iter().max_by_key(|(_, pids)| pids.len())?;
    (pids.len() >= MANY_PROCESSES).then(|| {
        let name = name.map_or("without a name".to_owned(), |name| format!("named '{}'", evidence::data(name)));
        (REPEATED, format!("{} processes {name} faulted on this GPU, almost none on another GPU", pids.len()))
    })
}

/// Returns the highest number of processes that faulted on one of the other GPUs.
fn most_elsewhere(events: &[&KernelEvent]) -> usize {
    let mut by_gpu: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    for event in events {
        by_gpu.entry((&event.pci_address, event.gpu_index)).or_default().extend(event.pid);
    }
    by_gpu.into_values().map(|pids| pids.len()).max().unwrap_or(0)
}

/// Returns the number of faults whose lines name no process, if there are many on this GPU and few on the other GPUs.
fn nameless(
    faults: &[(usize, &KernelEvent)],
    elsewhere: &[&KernelEvent],
    suspicious: impl Fn(&KernelEvent) -> bool,
) -> Option<String> {
    let is_nameless = |event: &KernelEvent| suspicious(event) && event.pid.is_none();
    let here: u64 =
        faults.iter().map(|(_, event)| event).filter(|event| is_nameless(event)).map(|event| event.count).sum();
    let others: u64 = elsewhere.iter().filter(|event| is_nameless(event)).map(|event| event.count).sum();
    let many = here >= MANY_PROCESSES as u64 && others.saturating_mul(FAR_MORE as u64) <= here;
    many.then(|| format!("{here} faults of processes without a name on this GPU, almost none on another GPU"))
}

/// Returns the part of the GPU in which different processes faulted.
fn common_place(faults: &[(usize, &KernelEvent)], pids: &BTreeSet<u32>) -> Option<String> {
    let mut places: BTreeMap<(&String, &String), BTreeSet<u32>> = BTreeMap::new();
    for (_, event) in faults {
        let pid = event.pid.filter(|pid| pids.contains(pid));
        if let (Some(gpc), Some(tpc), Some(pid)) = (event.details.get("gpc"), event.details.get("tpc"), pid) {
            places.entry((gpc, tpc)).or_default().insert(pid);
        }
    }
    let (gpc, tpc) = places.iter().find(|(_, pids)| pids.len() > 1)?.0;
    Some(format!("always at GPC {}, TPC {}", evidence::data(gpc), evidence::data(tpc)))
}

/// Minimum number of processes, and minimum time between the first and the last of them, for a pattern of faults in one
/// copy engine. Programs seldom cause such faults, and restarts follow sooner.
const FAULTS_OF_ENGINE: (usize, SignedDuration) = (3, SignedDuration::from_hours(1));

/// Returns the copy engine in which several of these processes faulted. The Xid code identifies the engine.
fn copy_engine(faults: &[(usize, &KernelEvent)], pids: &BTreeSet<u32>) -> Option<String> {
    let mut by_engine: BTreeMap<&str, Vec<&KernelEvent>> = BTreeMap::new();
    for (_, event) in faults.iter().filter(|(_, event)| event.pid.is_some_and(|pid| pids.contains(&pid))) {
        let entry = event.code.and_then(catalogue::xid);
        let engine = entry.and_then(|entry| entry.mnemonic.strip_prefix("ROBUST_CHANNEL_CE")?.strip_suffix("_ERROR"));
        if let Some(engine) = engine {
            by_engine.entry(engine).or_default().push(event);
        }
    }
    by_engine.into_iter().find_map(|(engine, events)| {
        let pids: BTreeSet<u32> = events.iter().filter_map(|event| event.pid).collect();
        let times = || events.iter().filter_map(|event| event.ordered_at());
        let span = times().max()?.duration_since(times().min()?);
        let (least, apart) = FAULTS_OF_ENGINE;
        (pids.len() >= least && span >= apart).then(|| {
            format!("{} processes faulted in copy engine {engine} of this GPU, almost none on another GPU", pids.len())
        })
    })
}

fn pod_of<'a>(node: &Node<'a>, pid: u32) -> Option<&'a str> {
    let process = node.processes()?.processes.iter().find(|process| process.pid == pid)?;
    process.pod_uid.as_deref()
}

/// Returns a finding from Xid 43 and 45 of a process that was killed or crashed. The finding is about the kill or
/// crash.
fn killed(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let mut kills: Vec<usize> = Vec::new();
    for event in node.timeline.events.iter().filter(|event| event.history.is_none() && concerns(event.fact, gpu)) {
        let cause = event
            .cause
            .filter(|&cause| matches!(node.timeline.events[cause].fact.kind, Kind::OomKill | Kind::Segfault));
        kills.extend(cause.filter(|cause| !kills.contains(cause)));
    }
    let shown = kills.iter().take(SHOWN).map(|&at| node.timeline.events[at].fact);
    let consequences = node.timeline.consequences(&kills)?;
    Some(Draft::on_gpu(KILLED, gpu).with_events(shown).with_evidence(consequences))
}

/// Returns one finding for each code that is not an application fault and that no other group handles.
fn other_codes(node: &Node<'_>, gpu: &Gpu) -> Vec<Draft> {
    let mut by_code: BTreeMap<u32, Vec<(usize, &KernelEvent)>> = BTreeMap::new();
    for (at, event) in node.timeline.unexplained().filter(|(_, event)| concerns(event, gpu) && event.kind == Kind::Xid)
    {
        let Some(code) = event.code.filter(|&code| !handled_elsewhere(code) && !is_application(event)) else {
            continue;
        };
        by_code.entry(code).or_default().push((at, event));
    }
    by_code.into_iter().filter_map(|(code, events)| of_code(node, gpu, code, &events)).collect()
}

/// Returns whether another group handles the code.
fn handled_elsewhere(code: u32) -> bool {
    [&xids::MEMORY[..], &xids::NVLINK, &xids::GSP, &[79, 143, 154]].into_iter().any(|codes| codes.contains(&code))
}

fn of_code(node: &Node<'_>, gpu: &Gpu, code: u32, events: &[(usize, &KernelEvent)]) -> Option<Draft> {
    let entry = catalogue::xid(code);
    let rule = entry.map_or(Some(UNKNOWN_CODE), |entry| rule_for(code, entry.class))?;
    let facts: Vec<&KernelEvent> = events.iter().map(|(_, event)| *event).collect();
    let positions: Vec<usize> = events.iter().map(|(at, _)| *at).collect();
    let judged = aging::worst(&facts);
    let rule = if facts.iter().all(|event| xids::lets_work_continue(event)) {
        rule.in_plan(InPlan::WorkContinues)
    } else {
        rule
    };
    let mut draft = Draft::on_gpu(rule, gpu).with_events(facts.iter().copied());
    if let Some(entry) = entry {
        let is_title = entry.name.eq_ignore_ascii_case(rule.title);
        let reason = Some(if is_title { format!("Xid {code}") } else { format!("Xid {code}, {}", entry.name) });
        draft = Draft { reason, ..draft }.with_meaning(&judged).unless_repeated(&facts);
    }
    let draft = draft.aged(node, gpu, &facts, true).with_all_evidence(node.timeline.consequences(&positions));
    let before =
        node.timeline.shortly_before(events).filter(|_| entry.and_then(|entry| entry.class) == Some(Class::Hardware));
    Some(draft.with_all_evidence(before))
}

fn rule_for(code: u32, class: Option<Class>) -> Option<Rule> {
    if code == 109 {
        return Some(CONTEXT_SWITCH);
    }
    if xids::DAMAGED_COMMANDS.contains(&code) {
        return Some(DAMAGED);
    }
    Some(match class? {
        Class::Application => APPLICATION,
        Class::Driver => DRIVER,
        Class::Hardware => HARDWARE,
        Class::Fabric => FABRIC,
        Class::Thermal => THERMAL,
        Class::Power => POWER,
    })
}
