//! Rules about a job whose GPUs wait for another GPU: high utilization, low power, no memory traffic.
//!
//! A collective operation (NCCL) waits in a spinning CUDA kernel, which NVML counts as 100 % utilization. A CUDA kernel
//! that works only in registers has the same values, so that only a lost GPU makes the conclusion certain.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::evidence;
use crate::finding::Scope;
use crate::input::node::{Gpu, Node};
use crate::input::processes::is_service;
use crate::input::timeline::{concerns, is_off_bus, is_xid};
use crate::input::xids;
use crate::rule::{DEBUG_DOC, Draft, rules};
use syringe_core::facts::clock_events::load_percent;

rules! {
    WAITS: "job-waits-for-lost-gpu" Warning Application DEBUG_DOC, "A job waits for a lost GPU",
        RestartPod "Stop the job that uses {gpu} and the lost GPU: the job waits forever and computes nothing. Restart the job \
            without that GPU.",
        means "Several GPUs show full load at low power while another GPU of the job is lost: the job waits and will \
            not finish.",
        reads "telemetry.utilization, telemetry.power, inventory.gpus, xid", depth 3;
    MAY_WAIT: "job-may-wait" Warning Application DEBUG_DOC, "All GPUs of a job show load without work: the job may hang",
        Watch "Look at the log of the job for progress. If there is none, get the stacks of its ranks (py-spy dump, NCCL flight recorder): the \
            rank that is not in the collective operation is the cause, and can be on another node. Nothing indicates a fault of the GPUs of {node}.",
        means "All GPUs of one job show full load at low power and without memory traffic, as in a collective operation that waits for \
            another rank. The job waits for a short time (a checkpoint, data), or it hangs.",
        reads "telemetry.utilization, telemetry.power, processes.processes", about Workload;
}

/// Minimum utilization of a spinning kernel, which keeps the SMs busy all the time.
const BUSY_PERCENT: u32 = 95;

/// Maximum memory utilization of a spinning kernel.
const MAX_MEMORY_PERCENT: u32 = 2;

/// Maximum power draw of a spinning kernel, in percent of the limit. Real work at full utilization draws more.
const MAX_POWER_PERCENT: u32 = 40;

/// Minimum number of spinning GPUs. A single GPU may have these values for another reason.
const MIN_GPUS: usize = 2;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    match waiting(node) {
        Some(draft) => vec![draft],
        None => may_wait(node).into_iter().collect(),
    }
}

/// A program that started later may still load its data.
const STARTED: SignedDuration = SignedDuration::from_mins(10);

/// Returns a finding about a job all of whose GPUs spin. The programs of one pod, or those outside of pods, are a job.
fn may_wait(node: &Node<'_>) -> Option<Draft> {
    let mut jobs: BTreeMap<Option<&str>, BTreeSet<u32>> = BTreeMap::new();
    for process in node.processes()?.processes.iter().filter(|process| !is_service(process)) {
        let is_old = node.age(process.started_at).is_none_or(|age| age > STARTED);
        let gpus = process.uses.iter().filter(|one| one.kind == "compute" && is_old).map(|one| one.gpu);
        jobs.entry(process.pod_uid.as_deref()).or_default().extend(gpus);
    }
    let is_waiting = |gpus: &BTreeSet<u32>| {
        gpus.len() >= MIN_GPUS && gpus.iter().all(|gpu| node.gpu(*gpu).is_some_and(|gpu| spins(node, gpu)))
    };
    let (pod, gpus) = jobs.into_iter().find(|(_, gpus)| is_waiting(gpus))?;
    let gpus: Vec<&Gpu> = gpus.iter().filter_map(|gpu| node.gpu(*gpu)).collect();
    let job = pod.map_or("programs outside of pods".to_owned(), |uid| format!("pod {}", node.name_of_pod(uid)));
    let draft = Draft::on_node(MAY_WAIT).with_evidence(format!("{job}: {}", load(node, &gpus)));
    Some(Draft { scope: Scope { pod_uid: pod.map(str::to_owned), ..Scope::default() }, ..draft })
}

/// Formats the load of GPUs that spin.
fn load(node: &Node<'_>, gpus: &[&Gpu]) -> String {
    let labels: Vec<_> = gpus.iter().map(|gpu| (gpu.index, gpu.label())).collect();
    let powers = || gpus.iter().filter_map(|gpu| Some(&node.telemetry_of(gpu)?.power));
    let most = powers().filter_map(|power| power.draw_milliwatts).max().unwrap_or(0) / 1000;
    let limit = powers().filter_map(|power| power.enforced_limit_milliwatts).min().unwrap_or(0) / 1000;
    format!(
        "{}: utilization of {BUSY_PERCENT} % or more, no memory traffic, at most {most} W of {limit} W",
        evidence::gpus(&labels)
    )
}

/// Returns one finding about all GPUs that wait.
fn waiting(node: &Node<'_>) -> Option<Draft> {
    let gone = node.gpus.iter().find(|gpu| is_gone(node, gpu))?;
    let waiting: Vec<&Gpu> = node.answering().filter(|gpu| *gpu != gone && spins(node, gpu)).collect();
    if waiting.len() < MIN_GPUS {
        return None;
    }
    let labels: Vec<_> = waiting.iter().map(|gpu| (gpu.index, gpu.label())).collect();
    let draft =
        Draft::on_node(WAITS).with_evidence(load(node, &waiting)).with_evidence(format!("{} is lost", gone.label()));
    let advice = evidence::about(&draft.advice, &evidence::gpus(&labels));
    Some(draft.with_action(WAITS.action, advice))
}

fn is_gone(node: &Node<'_>, gpu: &Gpu) -> bool {
    let fell = |event: &syringe_core::facts::kernel_log::KernelEvent| {
        (is_off_bus(event) || is_xid(event, &xids::GSP)) && concerns(event, gpu)
    };
    !node.is_readable(gpu) && (!gpu.from_log && !gpu.answers || node.timeline.current().any(fell))
}

fn spins(node: &Node<'_>, gpu: &Gpu) -> bool {
    let Some(now) = node.telemetry_of(gpu) else { return false };
    let limit = now.power.enforced_limit_milliwatts.or(now.power.limit_milliwatts);
    let little = now
        .power
        .draw_milliwatts
        .zip(limit)
        .is_some_and(|(draw, limit)| u64::from(draw) * 100 <= u64::from(limit) * u64::from(MAX_POWER_PERCENT));
    let busy = load_percent(now).is_some_and(|percent| (BUSY_PERCENT..=100).contains(&percent));
    let still = now.utilization.memory_percent.is_some_and(|percent| percent <= MAX_MEMORY_PERCENT);
    busy && still && little
}
