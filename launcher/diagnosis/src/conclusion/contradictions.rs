//! `list`: finds lost log records, driver errors that no Xid explains, and sections that contradict each other.
//! Such an entry excludes the verdict `healthy`, unless it is about the name of a process.

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::input::timeline::{is_off_bus, is_xid};
use crate::input::xids;
use jiff::SignedDuration;
use syringe_core::facts::kernel_log::{Coverage, KernelEvent, KernelEventKind};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

/// Returns the gaps and contradictions, as unknown facts.
pub(crate) fn list(node: &Node<'_>) -> Vec<Unknown> {
    let mut found = Vec::new();
    let mut add = |section: SectionName, why: String| found.push(Unknown::new(section, why));
    let sources = node.kernel_log().map(|log| log.coverage.as_slice()).unwrap_or_default();
    // Another log of the same time has the records.
    let has_all = |lost: &Coverage| {
        let whole = sources.iter().filter(|source| source.lost_records == 0 && source.records > 0);
        let begins = |source: &&Coverage| source.from.is_some() && (lost.from.is_none() || source.from <= lost.from);
        whole.filter(begins).any(|source| source.to.is_some_and(|to| lost.to.is_none_or(|end| to + LAG >= end)))
    };
    let lost = sources.iter().filter(|source| source.lost_records > 0 && !has_all(source));
    let lost = lost.map(|source| source.lost_records).max().unwrap_or(0);
    if lost > 0 {
        add(SectionName::Xid, format!("{lost} kernel log records were overwritten before they could be read"));
    }
    if let Some(event) = unseen_fault(node) {
        add(SectionName::Xid, format!("the driver logged {}, and not every GPU was read", evidence::event(event)));
    }
    let answering = evidence::count(node.answering().count(), "GPU");
    if node.inventory().is_some_and(|inventory| inventory.gpus.is_empty()) && node.answering().next().is_some() {
        add(SectionName::Inventory, format!("the inventory lists no GPU, but other sections list {answering}"));
    }
    let is_on_no_bus = node.host().is_some_and(|host| host.pci_gpus.is_empty() && !node.is_pci_unread())
        && !boards::is_integrated(node);
    if is_on_no_bus && node.answering().next().is_some() {
        add(SectionName::Host, format!("the PCI bus shows no GPU, but NVML reads {answering}"));
    }
    for gpu in &node.gpus {
        let Some(ecc) = node.ecc_of(gpu) else { continue };
        let since_load = ecc.volatile.uncorrected.filter(|count| *count > 0);
        if let Some((load, life)) = since_load.zip(ecc.aggregate.uncorrected).filter(|(load, life)| life < load) {
            let why = format!(
                "{} counts {load} uncorrected errors since driver load and {life} over its lifetime: one of the counters is \
                 not reliable",
                gpu.label()
            );
            add(SectionName::Ecc, why);
        }
    }
    found.extend(renamed(node));
    found
}

/// The journal writes the records of the kernel this long after the kernel, at most.
const LAG: SignedDuration = SignedDuration::from_mins(5);

/// Returns an entry for a process whose name in the process list differs from its name in the kernel log, although it
/// started before the event. Thread names are also compared, because a thread can have its own name.
fn renamed(node: &Node<'_>) -> Option<Unknown> {
    let all = node.processes().map(|section| section.processes.as_slice()).unwrap_or_default();
    let of_event = |event: &KernelEvent| {
        let process = all.iter().find(|process| Some(process.pid) == event.pid)?;
        let (logged, listed) = (event.process.as_deref()?, process.name.as_deref()?);
        let is_same = process.started_at.zip(event.first).is_some_and(|(started, first)| started < first);
        let of_thread = process.waiting_threads().any(|thread| thread.name.as_deref() == Some(logged));
        (is_same && logged != listed && !of_thread && !logged.starts_with('<')).then(|| {
            let (logged, listed) = (evidence::data(logged), evidence::data(listed));
            let why = format!(
                "the kernel log names pid {} '{logged}', but the process list names it '{listed}': do not stop a \
                    process because of the log alone",
                process.pid
            );
            Unknown::new(SectionName::Processes, why)
        })
    };
    node.timeline.current().find_map(of_event)
}

/// Returns an event in which the driver reports a lost GPU or a memory error, if no Xid names the GPU and NVML does not
/// show that all GPUs work. Such an event excludes the verdict `healthy`.
fn unseen_fault<'a>(node: &Node<'a>) -> Option<&'a KernelEvent> {
    const STATUS: [&str; 2] = ["NV_ERR_GPU_IS_LOST", "NV_ERR_ECC_ERROR"];
    let all_read = node.listed().next().is_some() && node.listed().all(|gpu| node.is_readable(gpu));
    let named = node.timeline.current().any(|event| is_off_bus(event) || is_xid(event, &xids::UNCORRECTED_MEMORY));
    let reports = |event: &&KernelEvent| {
        let status = event.details.get("status").is_some_and(|status| STATUS.contains(&status.as_str()));
        status && matches!(event.kind, KernelEventKind::Assertion | KernelEventKind::Uvm)
    };
    node.timeline.current().find(reports).filter(|_| !all_read && !named)
}
