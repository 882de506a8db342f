//! `of`: lists the events of a pod from Kubernetes and the kernel log, oldest first. `line`: formats a kernel event.

use jiff::Timestamp;

use crate::explanation::pod_on_node::PodOnNode;
use crate::explanation::types::TimelineEntry;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubernetes::pod::known;
use syringe_core::facts::kubernetes::pod::{ContainerFacts, ContainerState, PodEvent, PodFacts, Termination};
use syringe_core::text::clean_keeping_end;

/// Maximum length of an entry. Container runtimes put the reason at the end, so longer texts are cut in the middle.
const TEXT_CAP: usize = 240;

/// Maximum number of kernel events before the run, and maximum number after it.
const MAX_BESIDE: usize = 8;

/// Returns all entries with a known time, oldest first.
pub(crate) fn of(pod: &PodFacts, on_node: &PodOnNode) -> Vec<TimelineEntry> {
    let mut entries = Vec::new();
    let mut kubernetes = |time: Option<Timestamp>, what: String| {
        if let Some(time) = known(time) {
            entries.push(TimelineEntry { time, source: "kubernetes".into(), what: clean_keeping_end(&what, TEXT_CAP) });
        }
    };
    kubernetes(pod.created, "pod created".into());
    kubernetes(pod.scheduled, format!("assigned to node {}", pod.node.as_deref().unwrap_or("?")));
    kubernetes(pod.deleted, "deletion requested".into());
    for container in &pod.containers {
        for state in std::iter::once(&container.state).chain(&container.last) {
            if let ContainerState::Running { since } = state {
                kubernetes(*since, format!("container {} started", container.name));
            }
            if let Some(end) = Termination::of(container, state, false) {
                let Termination { container, exit_code, reason, started, finished, .. } = end;
                if end.never_ran() {
                    kubernetes(finished, format!("container {container} could not be started: {reason}"));
                } else {
                    kubernetes(started, format!("container {container} started"));
                    kubernetes(finished, format!("container {container} ended: {reason}, exit code {exit_code}"));
                }
            }
        }
    }
    for event in pod.events.iter().filter(|event| !event.is_ours() && !repeats_status(pod, event)) {
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        kubernetes(event.time, format!("{}: {}{times}", event.reason, event.message));
    }
    entries.extend(kernel(on_node));
    // The sort is stable: entries with the same time keep the order of a pod's phases (assigned, started, ended).
    entries.sort_by_key(|moment| moment.time);
    let mut known = std::collections::HashSet::new();
    entries.retain(|moment| known.insert((moment.time, moment.what.clone())));
    entries
}

/// Events before the start of a container. `Pulled` counts only if no image was pulled, because otherwise its message
/// contains the duration.
const UNTIL_START: [&str; 3] = ["Pulling", "Created", "Started"];

/// Returns whether the status of the pod already contains the information of the event: the pod has a node, or the
/// container has started.
fn repeats_status(pod: &PodFacts, event: &PodEvent) -> bool {
    if event.reason == "Scheduled" {
        return known(pod.scheduled).is_some();
    }
    let has_started = |container: &ContainerFacts| {
        let start = match &container.state {
            ContainerState::Running { since } => known(*since),
            state => Termination::of(container, state, false).and_then(|end| end.started),
        };
        // An event after the start is about a later attempt that is not yet in the status.
        start.is_some_and(|start| event.time.is_none_or(|time| time.as_second() <= start.as_second()))
    };
    let own = |container: &&ContainerFacts| event.container() == Some(container.name.as_str());
    let is_step = UNTIL_START.contains(&event.reason.as_str())
        || (event.reason == "Pulled" && event.message.contains("already present"));
    is_step && pod.containers.iter().find(own).is_some_and(has_started)
}

/// Returns the entries of the kernel log. Entries before or after the run are marked, because they are not the cause.
fn kernel(on_node: &PodOnNode) -> impl Iterator<Item = TimelineEntry> {
    let PodOnNode { own_events, node_events, bus_events, earlier_events, later_events, .. } = on_node;
    let entries_of = |events: &'_ [KernelEvent], note: &'static str| {
        let moment = move |event: &KernelEvent| {
            let what = clean_keeping_end(&format!("{}{note}", line(event)), TEXT_CAP);
            Some(TimelineEntry { time: event.first?, source: "kernel".into(), what })
        };
        events.iter().filter_map(moment).collect::<Vec<_>>()
    };
    // The newest of the earlier events show the state of the GPU at the start of the pod.
    let earlier = &earlier_events[earlier_events.len().saturating_sub(MAX_BESIDE)..];
    let later = &later_events[..later_events.len().min(MAX_BESIDE)];
    [
        entries_of(bus_events, ""),
        entries_of(own_events, ""),
        entries_of(node_events, ""),
        entries_of(earlier, " (before this run)"),
        entries_of(later, " (after its end)"),
    ]
    .into_iter()
    .flatten()
}

/// Returns `Xid` or `SXid`, because the same number can be a code of both.
fn family(event: &KernelEvent) -> &'static str {
    match event.kind {
        KernelEventKind::Xid => "Xid",
        KernelEventKind::Sxid => "SXid",
        _ => "code",
    }
}

/// Formats an event in one line: code, name, count, GPU and process.
pub(crate) fn line(event: &KernelEvent) -> String {
    let severity = event.sub_code.as_deref().map(|sub| sub.replace('_', " ")).unwrap_or_default();
    let mut line = match (event.code, &event.name) {
        _ if event.kind == KernelEventKind::Aer => format!("PCIe AER {severity}"),
        (Some(code), Some(name)) => format!("{} {code} ({name})", family(event)),
        (Some(code), None) => format!("{} {code}", family(event)),
        (None, _) => event.raw.clone(),
    };
    if let Some(sub_code) = event.sub_code.as_ref().filter(|_| event.code.is_some()) {
        line.push_str(&format!(" {sub_code}"));
    }
    if event.count > 1 {
        line.push_str(&format!(", {} times", event.count));
    }
    if let Some(address) = &event.pci_address {
        let what = match event.kind {
            KernelEventKind::Aer => "PCI device",
            KernelEventKind::Sxid => "NVSwitch",
            _ => "GPU",
        };
        line.push_str(&format!(", {what} {}", address.sysfs()));
    }
    if let Some(pid) = event.pid {
        line.push_str(&format!(", pid {pid}"));
    }
    line
}
