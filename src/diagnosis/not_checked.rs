//! The limits of a diagnosis, which reads values once and runs no test.

use super::node::Node;
use super::timeline::{is_off_bus, is_xid};
use super::{Unknown, evidence, faults_ruled_out, kernel_log_coverage, memory, unknown};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};

/// The limits, shortest first.
pub(super) fn of(node: &Node<'_>) -> Vec<String> {
    let mut limits = Vec::new();
    if node.judged().is_empty() {
        return limits;
    }
    limits.push("no test was run on the GPUs (run dcgmi diag for that)".to_owned());
    limits.push("counters were read once: whether they grow is not known".to_owned());
    limits.extend(transfers(node).into_iter().map(str::to_owned));
    limits.extend(before_the_log(node));
    let not_offered = faults_ruled_out::of(node).not_offered;
    limits.extend(not_offered.into_iter().map(|fact| format!("{fact}: not checked")));
    limits
}

/// What decides how fast data moves between GPUs and to the network, and is not read.
fn transfers(node: &Node<'_>) -> Vec<&'static str> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let on_pcie_alone = topology.gpus.len() > 1 && topology.gpus.iter().all(|gpu| gpu.nvlinks.is_empty());
    let mut limits = Vec::new();
    if on_pcie_alone {
        limits.push("PCIe ACS, which can slow down transfers between GPUs, is not checked");
    }
    if !topology.nics.is_empty() {
        limits.push("GPUDirect RDMA (nvidia_peermem, DMA-BUF) is not checked");
    }
    limits
}

/// The kernel log before its start is not known, so repetitions cannot be detected.
fn before_the_log(node: &Node<'_>) -> Option<String> {
    let log = node.kernel_log()?;
    let Some(since) = kernel_log_coverage::covered_since(node) else {
        return Some("the start of the kernel log is not known".to_owned());
    };
    let asked = log.since.is_some_and(|asked| asked >= since);
    let older = match (log.events_before, asked) {
        (0, true) => " (the requested window)".to_owned(),
        (count, true) => format!(
            " (the requested window; {} before it omitted)",
            evidence::count(usize::try_from(count).unwrap_or(usize::MAX), "event")
        ),
        _ => String::new(),
    };
    Some(format!("kernel log before {}{older}: earlier events are not known", evidence::time(since)))
}

/// Returns the sections that were not requested, and those of which nothing was read.
pub(super) fn not_judged(node: &Node<'_>) -> Vec<&'static str> {
    let mut sections = unknown::not_judged(node);
    let asked: Vec<&'static str> = node.report.sections.statuses().into_iter().map(|(name, _)| name).collect();
    sections.extend(asked.into_iter().filter(|name| *name != "health" && !node.has(name)));
    sections
}

/// Returns gaps and contradictions in the facts. With one of them the verdict cannot be `healthy`.
pub(super) fn contradictions(node: &Node<'_>) -> Vec<Unknown> {
    let mut found = Vec::new();
    let mut add = |section: &str, why: String| found.push(Unknown { section: section.to_owned(), gpu: None, why });
    let lost =
        node.kernel_log().map_or(0, |log| log.coverage.iter().map(|source| source.lost_records).max().unwrap_or(0));
    if lost > 0 {
        add("xid", format!("{lost} kernel log records were overwritten before they could be read"));
    }
    if let Some(event) = unseen_fault(node) {
        add("xid", format!("the driver logged {}, and not every GPU was read", evidence::event(event)));
    }
    let answering = evidence::count(node.answering().count(), "GPU");
    if node.inventory().is_some_and(|inventory| inventory.gpus.is_empty()) && node.answering().next().is_some() {
        add("inventory", format!("the inventory lists no GPU, but other sections list {answering}"));
    }
    if node.host().is_some_and(|host| host.pci_gpus.is_empty()) && node.answering().next().is_some() {
        add("host", format!("the PCI bus shows no GPU, but NVML reads {answering}"));
    }
    found
}

/// Returns an event in which the driver calls a GPU lost or its memory faulty, if no Xid tells of which GPU, and NVML does
/// not show that all GPUs work.
fn unseen_fault<'a>(node: &Node<'a>) -> Option<&'a KernelEvent> {
    const STATUS: [&str; 2] = ["NV_ERR_GPU_IS_LOST", "NV_ERR_ECC_ERROR"];
    let all_read = node.listed().next().is_some() && node.listed().all(|gpu| node.is_readable(gpu));
    let told = node.timeline.current().any(|event| is_off_bus(event) || is_xid(event, &memory::UNCORRECTED_CODES));
    let says = |event: &&KernelEvent| {
        let status = event.details.get("status").is_some_and(|status| STATUS.contains(&status.as_str()));
        status && matches!(event.kind, KernelEventKind::Assertion | KernelEventKind::Uvm)
    };
    node.timeline.current().find(says).filter(|_| !all_read && !told)
}
