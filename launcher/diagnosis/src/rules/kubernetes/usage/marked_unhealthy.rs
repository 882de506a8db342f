//! `refine`: finds a working GPU that the device plugin marks as unhealthy, and joins withheld GPUs with their faults.
//!
//! The checkpoint of the kubelet lists the devices that the plugin marks as healthy, so the missing GPU can be
//! identified. The finding replaces `gpus-not-allocatable` if there is no other finding about this GPU. If all GPUs that
//! are withheld have a fault, findings about their absence become a part of the fault.

use crate::evidence;
use crate::input::node::{Gpu, Node, SETTLE_TIME};
use crate::input::stack::pods;
use crate::rule::{About, Draft};
use crate::rules::kubernetes::gpus::{NOT_ADVERTISED, UNALLOCATABLE};
use crate::rules::kubernetes::usage::rules::MARKED_UNHEALTHY;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::kubernetes::node::{Component, ContainerStateKind};
use syringe_core::gpu_names::GpuNames;
use syringe_core::report::Status;

pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let is_count = |draft: &Draft| [UNALLOCATABLE.id, NOT_ADVERTISED.id].contains(&draft.rule.id);
    let Some(at) = drafts.iter().position(is_count) else { return };
    if let Some(faults) = faults_of_withheld(node, drafts) {
        let mut counts = drafts[at].evidence.clone();
        for fault in faults {
            let draft = &mut drafts[fault];
            draft.evidence.append(&mut counts);
            // The plugin does not check again whether a GPU works.
            if node.gpus.iter().any(|gpu| gpu.answers && draft.is_on(gpu)) {
                draft.step_after = Some(RESTART_PLUGIN.to_owned());
            }
        }
        let is_effect = |draft: &Draft| {
            draft.rule.about == About::Unavailable && draft.rule.depth >= DEEPEST && draft.severity <= Severity::Warning
        };
        drafts.retain(|draft| !is_effect(draft));
        return;
    }
    if drafts[at].rule.id != UNALLOCATABLE.id {
        return;
    }
    let Some((withheld, why)) = withheld(node).or_else(|| marked_since_start(node)) else { return };
    let has_finding = |gpu: &Gpu| drafts.iter().any(|draft| draft.is_fault_of(gpu, Severity::Warning));
    if withheld.iter().any(|gpu| has_finding(gpu) || !works(node, gpu)) {
        return;
    }
    let counts = drafts.remove(at).evidence;
    for gpu in withheld {
        let device = gpu.uuid.as_deref().map(evidence::data).unwrap_or_default();
        let draft = Draft::on_gpu(MARKED_UNHEALTHY, gpu)
            .with_all_evidence(counts.clone())
            .with_evidence(format!("{why} {device}"))
            .with_evidence("NVML reads the GPU now, and no uncorrected error is counted since the driver was loaded");
        let draft = match last_xid(node, gpu) {
            Some(event) => draft.with_event(event),
            None => draft,
        };
        drafts.push(draft.with_all_evidence(plugin(node)));
    }
}

/// [`crate::rule::Rule::depth`] of findings that only show that pods cannot get a GPU.
const DEEPEST: u8 = 3;

/// Step for a GPU that responds and that the device plugin withholds.
const RESTART_PLUGIN: &str = "Then restart the pod of the device plugin: it offers {gpu} again only after a restart.";

/// Returns the positions of the findings about the GPUs that are not allocatable, if each of these GPUs has a fault.
/// These GPUs are the GPUs that do not respond, that are not registered, or that have severe faults.
fn faults_of_withheld(node: &Node<'_>, drafts: &[Draft]) -> Option<Vec<usize>> {
    let fault_of = |gpu: &Gpu, least: Severity| drafts.iter().position(|draft| draft.is_fault_of(gpu, least));
    let lost = node.gpus.iter().filter(|gpu| !gpu.answers).collect();
    let severe = node.gpus.iter().filter(|gpu| fault_of(gpu, Severity::Critical).is_some()).collect();
    let unregistered = withheld(node).map(|(gpus, _)| gpus).unwrap_or_default();
    let sets: [(Vec<&Gpu>, Severity); 3] =
        [(lost, Severity::Critical), (unregistered, Severity::Warning), (severe, Severity::Critical)];
    sets.into_iter().filter(|(gpus, _)| Some(gpus.len()) == unallocatable(node)).find_map(|(gpus, least)| {
        let faults: Vec<usize> = gpus.iter().map(|gpu| fault_of(gpu, least)).collect::<Option<_>>()?;
        Some(faults).filter(|faults| !faults.is_empty())
    })
}

/// Returns the GPUs that are not registered, if their number equals the number of GPUs that are not allocatable.
fn withheld<'a>(node: &'a Node<'_>) -> Option<(Vec<&'a Gpu>, &'static str)> {
    let kubelet =
        node.report.sections.kubelet.as_ref().filter(|section| section.status == Status::Ok)?.data.as_ref()?;
    let mut registered = kubelet.registered.iter().filter(|one| one.are_whole_gpus());
    let offered = Allocation { devices: registered.next()?.devices.clone(), ..Allocation::default() };
    let missing: Vec<&Gpu> = node
        .answering()
        .filter(|gpu| !GpuNames::from_report(node.report, gpu.index, gpu.uuid.as_deref()).match_allocation(&offered))
        .collect();
    (!offered.devices.is_empty() && missing.len() == unallocatable(node)?)
        .then_some((missing, "the device plugin does not advertise"))
}

/// Returns the number of GPUs that are not allocatable.
fn unallocatable(node: &Node<'_>) -> Option<usize> {
    let (capacity, allocatable) = (node.kubernetes.gpu_capacity?, node.kubernetes.gpu_allocatable?);
    Some(capacity.checked_sub(allocatable)? as usize)
}

/// Xids after which the device plugin does not mark a GPU as unhealthy: errors of applications.
const IGNORED_BY_PLUGIN: [u32; 6] = [13, 31, 43, 45, 68, 109];

/// Returns the GPUs that the plugin can have marked since it started, if their number equals the number of GPUs that
/// are not allocatable. The checkpoint of some kubelets lists devices of all states, so that it does not name the
/// missing GPU.
fn marked_since_start<'a>(node: &'a Node<'_>) -> Option<(Vec<&'a Gpu>, &'static str)> {
    let started = plugin_started(node)?;
    let is_marked = |gpu: &&Gpu| {
        let event = last_xid(node, gpu).filter(|event| !event.is_xid(&IGNORED_BY_PLUGIN));
        event.and_then(|event| event.last).is_some_and(|last| last > started)
    };
    let marked: Vec<&Gpu> = node.answering().filter(is_marked).collect();
    (!marked.is_empty() && marked.len() == unallocatable(node)?)
        .then_some((marked, "only this GPU had an Xid since the device plugin started:"))
}

/// Returns whether the GPU has worked for some time, and the plugin has not restarted since the last Xid. After a
/// restart, the plugin marks all GPUs as healthy.
fn works(node: &Node<'_>, gpu: &Gpu) -> bool {
    let now = node.is_readable(gpu)
        && !node.has_recovery_action(gpu)
        && node.ecc_of(gpu).is_some_and(|ecc| ecc.uncorrected_since_load() == Some(0));
    let Some(event) = last_xid(node, gpu) else {
        let uptime = node.host().and_then(|host| host.uptime_seconds).and_then(|uptime| i64::try_from(uptime).ok());
        return now && uptime.is_some_and(|uptime| uptime >= SETTLE_TIME.as_secs());
    };
    let settled = node.age(event.last).is_some_and(|age| age > SETTLE_TIME);
    let restarted = plugin_started(node).zip(event.last).is_some_and(|(started, last)| started > last);
    now && settled && !restarted
}

fn last_xid<'a>(node: &Node<'a>, gpu: &Gpu) -> Option<&'a KernelEvent> {
    // Xid 154 reports a recommendation of the driver, not a fault.
    let own = |event: &&KernelEvent| {
        event.kind == KernelEventKind::Xid && event.code != Some(154) && event.pci_address == gpu.pci
    };
    let of_boot = node.kernel_log()?.events.iter().filter(|event| event.boot_id.is_none());
    of_boot.filter(own).max_by_key(|event| event.last)
}

fn plugin_started(node: &Node<'_>) -> Option<jiff::Timestamp> {
    let pods = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| pod.component == Component::DevicePlugin);
    let containers = pods.flat_map(|pod| &pod.containers).filter(|container| !container.init);
    let running = containers.filter(|container| container.state.kind == ContainerStateKind::Running);
    running.filter_map(|container| container.state.since).max()
}

/// Returns a text with the pod of the plugin, which must be restarted.
fn plugin(node: &Node<'_>) -> Option<String> {
    let mut pods = node.kubernetes.nvidia_pods.iter().flatten().filter(|pod| pod.component == Component::DevicePlugin);
    let pod = pods.next()?;
    Some(format!("the device plugin on the node is pod {}", pods::name(pod)))
}
