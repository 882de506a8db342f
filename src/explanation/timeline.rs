//! What happened to a pod, in the order of time: Kubernetes' word and the kernel's side by side.

use jiff::Timestamp;

use super::footprint::Footprint;
use super::{ContainerState, Moment, PodFacts};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::text::clean;

/// Longest text of one moment.
const TEXT_CAP: usize = 160;

/// Every moment whose time is known, oldest first.
pub(super) fn of(pod: &PodFacts, footprint: &Footprint) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut kubernetes = |time: Option<Timestamp>, what: String| {
        if let Some(time) = time {
            moments.push(Moment { time, source: "kubernetes".into(), what: clean(&what, TEXT_CAP) });
        }
    };
    kubernetes(pod.created, "pod created".into());
    kubernetes(pod.scheduled, format!("given to node {}", pod.node.as_deref().unwrap_or("?")));
    kubernetes(pod.deleted, "deletion asked for".into());
    for container in &pod.containers {
        for state in std::iter::once(&container.state).chain(&container.last) {
            match state {
                ContainerState::Running { since } => {
                    kubernetes(*since, format!("container {} started", container.name))
                }
                ContainerState::Terminated { started, finished, exit_code, reason, .. } => {
                    kubernetes(*started, format!("container {} started", container.name));
                    kubernetes(
                        *finished,
                        format!("container {} ended: {reason}, exit code {exit_code}", container.name),
                    );
                }
                ContainerState::Waiting { .. } | ContainerState::Unknown => {}
            }
        }
    }
    for event in pod.events.iter().filter(|event| !event.is_ours()) {
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        kubernetes(event.time, format!("{}: {}{times}", event.reason, event.message));
    }
    let kernel = footprint.own_events.iter().chain(&footprint.near_events);
    moments.extend(kernel.filter_map(|event| {
        let what = clean(&line(event), TEXT_CAP);
        Some(Moment { time: event.first?, source: "kernel".into(), what })
    }));
    // What Kubernetes stamps with the same second stays in the order in which it happens to a pod.
    moments.sort_by_key(|moment| moment.time);
    let mut told = std::collections::HashSet::new();
    moments.retain(|moment| told.insert((moment.time, moment.what.clone())));
    moments
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
    let mut line = match (event.code, &event.name) {
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
        line.push_str(&format!(", GPU {}", address.sysfs()));
    }
    if let Some(pid) = event.pid {
        line.push_str(&format!(", pid {pid}"));
    }
    line
}
