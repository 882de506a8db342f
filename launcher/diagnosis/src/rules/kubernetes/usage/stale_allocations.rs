//! `refine`: finds a kubelet that rejects pods because of devices of deleted pods.
//!
//! Allocations of ended pods are normal, because the kubelet releases them when it admits the next pod with devices.
//! They are a fault if they still exist after such an admission. A pod may have ended after that admission, so one
//! rejection is not sufficient. The rule requires two rejections a minute apart, or a rejection and a later pod with
//! devices. Rejected pods remain in the API for days. Therefore the last rejection must be recent, because allocations
//! of pods that ended after it are normal.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::Node;
use crate::rule::Draft;
use crate::rules::kubernetes::gpus::STALE_ALLOCATION;
use crate::rules::kubernetes::usage::allocations::{Allocations, SETTLE_TIME};
use crate::rules::kubernetes::usage::rules::STALE_ALLOCATIONS;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;

/// Maximum age of a rejection. An older rejection shows nothing about the current allocations.
const RECENT: SignedDuration = SignedDuration::from_hours(1);

/// Maximum number of pods and rejections in the evidence.
const MAX_NAMED: usize = 4;

pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let Some(draft) = not_released(node) else {
        if let Some((draft, line)) =
            drafts.iter_mut().find(|draft| draft.rule.id == STALE_ALLOCATION.id).zip(refused_once(node))
        {
            let raised = draft.clone().with_severity(Severity::Warning).with_evidence(line);
            *draft = raised.with_action(ActionCode::RestartPod, TRY_AGAIN);
        }
        return;
    };
    drafts.retain(|draft| draft.rule.id != STALE_ALLOCATION.id);
    drafts.push(draft);
}

/// Action after one rejection, which does not prove that the kubelet keeps the allocations.
const TRY_AGAIN: &str = "Recreate the rejected pod. If it is rejected again, the kubelet of {node} does not release the devices of deleted pods: drain \
     {node}, then restart its kubelet (systemctl restart kubelet).";

/// Returns a line about the newest pod that the kubelet rejected for devices within the last hour.
fn refused_once(node: &Node<'_>) -> Option<String> {
    let all = Allocations::of(node)?;
    let refused = all.pods.iter().filter(|pod| pod.was_refused_devices());
    let newest = refused.max_by_key(|pod| pod.observed)?;
    let observed = newest.observed.filter(|time| node.now.is_some_and(|now| now.duration_since(*time) <= RECENT))?;
    Some(rejection(newest, Some(observed)))
}

fn rejection(pod: &GpuPod, time: Option<Timestamp>) -> String {
    let when = time.map(evidence::time).unwrap_or_default();
    let words = evidence::reason(pod.message.as_deref().unwrap_or_default());
    format!("pod {} rejected {when}: {words}", evidence::data(&pod.full_name()))
}

fn not_released(node: &Node<'_>) -> Option<Draft> {
    let all = Allocations::of(node)?;
    let live = node.kubernetes.live_pod_uids.as_ref()?;
    let gone = all.kubelet.allocations.iter().filter(|one| !one.pod_uid.is_empty() && one.claim.is_none());
    let gone: Vec<_> = gone.filter(|one| !live.contains(&one.pod_uid)).collect();
    let mut refused: Vec<&GpuPod> = all.pods.iter().filter(|pod| pod.was_refused_devices()).collect();
    refused.sort_by_key(|pod| pod.observed);
    let first = refused.first()?.observed?;
    let last = refused.last()?.observed?;
    let allocated_later = all.pods.iter().any(|pod| {
        let started = pod.containers.iter().filter_map(|container| container.running_since).min();
        started.is_some_and(|started| started.duration_since(first) >= SETTLE_TIME) && all.of_pod(pod).next().is_some()
    });
    let tried_again = last.duration_since(first) >= SETTLE_TIME || allocated_later;
    let is_recent = node.now?.duration_since(last) <= RECENT;
    if gone.is_empty() || !tried_again || !is_recent {
        return None;
    }
    let pods: BTreeSet<String> = gone.iter().map(|one| evidence::data(&one.holder())).collect();
    let devices: usize = gone.iter().map(|one| one.replicas.map_or(one.devices.len(), |count| count as usize)).sum();
    let pods: Vec<String> = pods.into_iter().collect();
    let held = format!(
        "the kubelet has {} allocated to pods that do not exist or have ended: {}",
        evidence::count(devices, "device"),
        evidence::some(&pods, MAX_NAMED)
    );
    let newest = refused.iter().rev().take(MAX_NAMED).map(|pod| rejection(pod, pod.observed));
    let counts = node.kubernetes.gpu_capacity.zip(node.kubernetes.gpu_allocatable);
    let counts =
        counts.map(|(capacity, allocatable)| format!("Kubernetes capacity {capacity}, allocatable {allocatable}"));
    Some(Draft::on_node(STALE_ALLOCATIONS).with_evidence(held).with_all_evidence(newest).with_all_evidence(counts))
}
