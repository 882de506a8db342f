//! What happened to a pod, in the order of time: Kubernetes' word and the kernel's side by side.

use jiff::Timestamp;

use super::facts::known;
use super::pod_on_node::PodOnNode;
use super::{ContainerState, End, Moment, PodFacts};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::text::clean_keeping_end;

/// Longest text of one moment. Runtimes nest their errors, the reason last: a cut leaves out the middle.
const TEXT_CAP: usize = 240;

/// Kernel events before the run, and after it, that are told at most.
const MAX_BESIDE: usize = 8;

/// Every moment whose time is known, oldest first.
pub(super) fn of(pod: &PodFacts, on_node: &PodOnNode) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut kubernetes = |time: Option<Timestamp>, what: String| {
        if let Some(time) = known(time) {
            moments.push(Moment { time, source: "kubernetes".into(), what: clean_keeping_end(&what, TEXT_CAP) });
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
            if let Some(end) = End::of(container, state, false) {
                let End { container, exit_code, reason, started, finished, .. } = end;
                if end.never_ran() {
                    kubernetes(finished, format!("container {container} could not be started: {reason}"));
                } else {
                    kubernetes(started, format!("container {container} started"));
                    kubernetes(finished, format!("container {container} ended: {reason}, exit code {exit_code}"));
                }
            }
        }
    }
    for event in pod.events.iter().filter(|event| !event.is_ours()) {
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        kubernetes(event.time, format!("{}: {}{times}", event.reason, event.message));
    }
    moments.extend(kernel(on_node));
    // What Kubernetes stamps with the same second stays in the order in which it happens to a pod.
    moments.sort_by_key(|moment| moment.time);
    let mut told = std::collections::HashSet::new();
    moments.retain(|moment| told.insert((moment.time, moment.what.clone())));
    moments
}

/// The kernel's moments: those of the pod's run, and what lies beside it with a word on why it is no cause.
fn kernel(on_node: &PodOnNode) -> impl Iterator<Item = Moment> {
    let PodOnNode { own_events, node_events, bus_events, earlier_events, later_events, .. } = on_node;
    let told = |events: &'_ [KernelEvent], note: &'static str| {
        let moment = move |event: &KernelEvent| {
            let what = clean_keeping_end(&format!("{}{note}", line(event)), TEXT_CAP);
            Some(Moment { time: event.first?, source: "kernel".into(), what })
        };
        events.iter().filter_map(moment).collect::<Vec<_>>()
    };
    // Of what was before, the newest tells in what state the pod found its GPU.
    let earlier = &earlier_events[earlier_events.len().saturating_sub(MAX_BESIDE)..];
    let later = &later_events[..later_events.len().min(MAX_BESIDE)];
    [
        told(bus_events, ""),
        told(own_events, ""),
        told(node_events, ""),
        told(earlier, " (before this run)"),
        told(later, " (after its end)"),
    ]
    .into_iter()
    .flatten()
}

/// Who counts by this number: the same code means one thing to a GPU and another to a switch.
fn family(event: &KernelEvent) -> &'static str {
    match event.kind {
        KernelEventKind::Xid => "Xid",
        KernelEventKind::Sxid => "SXid",
        _ => "code",
    }
}

/// An event in one line: the code with its name, how often, and whom it names.
pub(super) fn line(event: &KernelEvent) -> String {
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
        let what = if event.kind == KernelEventKind::Aer { "PCI device" } else { "GPU" };
        line.push_str(&format!(", {what} {}", address.sysfs()));
    }
    if let Some(pid) = event.pid {
        line.push_str(&format!(", pid {pid}"));
    }
    line
}
