//! Rule about a job whose GPUs wait for a lost GPU: high utilization, low power, no memory traffic.
//!
//! A collective operation (NCCL) waits in a spinning CUDA kernel, which NVML counts as 100 % utilization. A CUDA kernel
//! that works only in registers has the same values, so they are a finding only if another GPU is lost.

use crate::evidence;
use crate::input::node::{Gpu, Node};
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
    waiting(node).into_iter().collect()
}

/// Returns one finding about all GPUs that wait.
fn waiting(node: &Node<'_>) -> Option<Draft> {
    let gone = node.gpus.iter().find(|gpu| is_gone(node, gpu))?;
    let waiting: Vec<&Gpu> = node.answering().filter(|gpu| *gpu != gone && spins(node, gpu)).collect();
    if waiting.len() < MIN_GPUS {
        return None;
    }
    let labels: Vec<_> = waiting.iter().map(|gpu| (gpu.index, gpu.label())).collect();
    let watts = |gpu: &&Gpu| node.telemetry_of(gpu).and_then(|now| now.power.draw_milliwatts);
    let limit = |gpu: &&Gpu| node.telemetry_of(gpu).and_then(|now| now.power.enforced_limit_milliwatts);
    let most = waiting.iter().filter_map(watts).max().unwrap_or(0) / 1000;
    let limit = waiting.iter().filter_map(limit).min().unwrap_or(0) / 1000;
    let gpus = evidence::gpus(&labels);
    let draft = Draft::on_node(WAITS)
        .with_evidence(format!(
            "{gpus}: utilization of {BUSY_PERCENT} % or more, no memory traffic, at most {most} W of {limit} W"
        ))
        .with_evidence(format!("{} is lost", gone.label()));
    let advice = evidence::about(&draft.advice, &gpus);
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
