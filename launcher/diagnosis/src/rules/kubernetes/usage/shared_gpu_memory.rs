//! `check`: finds GPUs whose memory is exhausted by several pods or processes.
//!
//! MIG and MPS are excluded because they partition the memory. Processes of unknown pods are excluded because they have
//! separate findings.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::processes::{MIN_BYTES, is_service};
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::SHARED_MEMORY_FULL;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::processes::GpuProcess;

/// Percentage of free memory below which the memory counts as exhausted. An inference server with a fixed share leaves
/// more memory free.
const FREE_PERCENT: u64 = 5;
/// Minimum number of processes of one pod on one GPU that is unusually high.
const MANY: usize = 3;
/// Maximum difference between the start times of the workers of one program. Older processes are from earlier runs.
const APART: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of users of one GPU in the evidence.
const MAX_NAMED: usize = 6;

/// A process with its memory on one GPU.
type Use<'a> = (&'a GpuProcess, u64);

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let divided = node.host().is_none_or(|host| host.daemons.mps == Some(true));
    let whole = node.processes().filter(|section| section.host_pid_namespace && !divided);
    if whole.is_none() {
        return Vec::new();
    }
    node.answering().filter(|gpu| !has_mig(node, gpu)).filter_map(|gpu| of_gpu(node, gpu)).collect()
}

fn has_mig(node: &Node<'_>, gpu: &Gpu) -> bool {
    node.inventory_of(gpu).is_none_or(|entry| entry.mig_mode.is_some_and(|mode| mode.current))
}

fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let memory = &node.telemetry_of(gpu)?.memory;
    let (total, free) = (memory.total_bytes?, memory.free_bytes?);
    if free.saturating_mul(100) >= total.saturating_mul(FREE_PERCENT) {
        return None;
    }
    let mut by_pod: BTreeMap<&str, Vec<Use<'_>>> = BTreeMap::new();
    for process in &node.processes()?.processes {
        let held = process.uses.iter().filter(|usage| Some(usage.gpu) == gpu.index && usage.kind != "mps");
        let held: u64 = held.filter_map(|usage| usage.memory_bytes).sum();
        if let Some(pod) = process.pod_uid.as_deref().filter(|_| held >= MIN_BYTES && !is_service(process)) {
            by_pod.entry(pod).or_default().push((process, held));
        }
    }
    let draft = || {
        Draft::on_gpu(SHARED_MEMORY_FULL, gpu).with_evidence(format!(
            "{} of {} are free",
            evidence::bytes(free),
            evidence::bytes(total)
        ))
    };
    match by_pod.len() {
        0 => None,
        1 => by_pod.into_values().find(|uses| pile_up(uses)).map(|uses| {
            // The workers of one server may look like processes of earlier runs, so the severity is only `info`.
            let advice = "Stop processes that are not needed on {gpu} of {node}: processes of one pod may be left from earlier runs.";
            let draft = draft().with_severity(Severity::Info).with_all_evidence(processes(node, &uses));
            draft.with_action(ActionCode::FixApplication, advice)
        }),
        _ => {
            let mut pods: Vec<_> = by_pod.into_iter().collect();
            pods.sort_by_key(|(_, uses)| std::cmp::Reverse(sum(uses)));
            let named = pods.iter().take(MAX_NAMED).map(|(uid, uses)| {
                format!("pod {} uses {} ({})", node.name_of_pod(uid), evidence::bytes(sum(uses)), number(uses))
            });
            Some(draft().with_all_evidence(named).with_all_evidence(replicas(node, gpu)))
        }
    }
}

fn sum(uses: &[Use<'_>]) -> u64 {
    uses.iter().map(|(_, held)| held).fold(0, |sum, held| sum.saturating_add(*held))
}

fn number(uses: &[Use<'_>]) -> String {
    if uses.len() == 1 { "1 process".to_owned() } else { format!("{} processes", uses.len()) }
}

/// Returns whether there are many processes of one program that did not start at the same time.
fn pile_up(uses: &[Use<'_>]) -> bool {
    let started = || uses.iter().filter_map(|(process, _)| process.started_at);
    let apart = started().min().zip(started().max()).is_some_and(|(first, last)| last.duration_since(first) >= APART);
    let names: Vec<_> = uses.iter().map(|(process, _)| &process.name).collect();
    uses.len() >= MANY && apart && names.windows(2).all(|pair| pair[0] == pair[1])
}

fn processes(node: &Node<'_>, uses: &[Use<'_>]) -> Vec<String> {
    let mut uses = uses.to_vec();
    uses.sort_by_key(|(process, _)| process.started_at);
    let pod = uses.first().and_then(|(process, _)| process.pod_uid.as_deref()).unwrap_or_default();
    let first = format!("pod {} has {} on the GPU", node.name_of_pod(pod), number(&uses));
    let each = uses.iter().take(MAX_NAMED).map(|(process, held)| {
        let since = process.started_at.map(|at| format!(", started {}", evidence::time(at))).unwrap_or_default();
        format!("{}: {}{since}", evidence::process(process), evidence::bytes(*held))
    });
    std::iter::once(first).chain(each).collect()
}

fn replicas(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    let shared = node.allocations_of(gpu).any(|allocation| allocation.replicas.is_some());
    shared.then(|| "the device plugin advertises replicas of the GPU (time-slicing), which share its memory".to_owned())
}
