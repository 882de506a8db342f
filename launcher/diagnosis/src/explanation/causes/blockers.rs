//! `of`: finds reasons why a pod is not scheduled that the scheduler's message lacks (`Blocker`): pods that use the
//! GPUs, or a bound device. `half_requests`: finds the missing parts of incomplete requests.

use crate::evidence;
use crate::explanation::causes::Case;
use syringe_core::facts::kubernetes::pod::{BoundDevice, GpuHolder, HolderRelation};
use syringe_core::text::clean;

/// Maximum length of a name.
const MAX_NAME: usize = 253;
/// Maximum number of pods that are listed.
const NAMED: usize = 3;

/// A reason why the pod is not scheduled, and the advice. The messages of the pod do not contain the reason.
pub(super) struct Blocker {
    pub(super) what: String,
    pub(super) advice: String,
    /// Whether it is the reason for the problem in the message of the scheduler.
    pub(super) is_reason: bool,
}

/// Returns the reasons that block a pod and that its message does not contain.
pub(super) fn of(case: &Case<'_>, message: &str) -> Vec<Blocker> {
    let pod = case.pod;
    let holders = &pod.gpu_holders;
    let asks_for_gpus =
        pod.wants_gpus || message.to_ascii_lowercase().contains("gpu") || message.contains("reservation pod");
    let lacks_gpus = pod.wants_gpus
        && (message.contains("Insufficient ") || message.to_ascii_lowercase().contains("enough resource"));
    let deleted = holders.iter().filter(|holder| holder.deleted.is_some() && asks_for_gpus).take(NAMED);
    let mut all: Vec<Blocker> = deleted.map(being_deleted).collect();
    let live = || holders.iter().filter(|holder| holder.deleted.is_none() && lacks_gpus);
    let of_rollout = live().filter_map(|holder| match &holder.relation {
        Some(HolderRelation::EarlierOfRollout(deployment)) => Some((holder, deployment)),
        _ => None,
    });
    if let Some((first, deployment)) = of_rollout.clone().next() {
        let all_of_it: Vec<&GpuHolder> = of_rollout.map(|(holder, _)| holder).collect();
        let deployment = clean(deployment, MAX_NAME);
        all.push(Blocker {
            is_reason: false,
            what: format!(
                "GPUs are used by pods of the earlier ReplicaSet of the same rollout, which end only when the new pods are ready: {}",
                listed(&all_of_it)
            ),
            advice: format!(
                "The rollout of {deployment} waits for itself. Let the rollout end the old pod first (strategy Recreate, or RollingUpdate with \
                 maxSurge 0 and maxUnavailable 1), or delete {} once.",
                clean(&first.name, MAX_NAME)
            ),
        });
    }
    let of_set: Vec<&GpuHolder> =
        live().filter(|holder| matches!(holder.relation, Some(HolderRelation::SameController(_)))).collect();
    if let Some(GpuHolder { relation: Some(HolderRelation::SameController(owner)), .. }) = of_set.first().copied() {
        let owner = clean(owner, MAX_NAME);
        all.push(Blocker {
            is_reason: false,
            what: format!("GPUs are used by other pods of the same {owner}: {}", listed(&of_set)),
            advice: format!(
                "If {owner} asks for more GPUs than its permitted nodes have, reduce the request or permit more nodes."
            ),
        });
    }
    all.extend(pod.bound_devices.iter().filter(|device| !device.reasons_against.is_empty()).map(bound));
    all.extend(half_requests(case));
    let holders = evidence::lines(pod.claim_holders.iter().cloned(), NAMED).join("; ");
    all.extend((message.contains("allocate all claims") && !holders.is_empty()).then(|| {
        Blocker {
            is_reason: false,
            what: format!("devices that are allocated now: {holders}"),
            advice:
                "If the pod needs one of these devices, it waits until the pod that uses the device has ended. If the \
                 claim of the waiting pod should not ask for such a device, correct the claim."
                    .to_owned(),
        }
    }));
    all
}

/// Returns the missing parts of incomplete requests.
pub(super) fn half_requests(case: &Case<'_>) -> Vec<Blocker> {
    let in_words = |(has, needs): &(String, String)| Blocker {
        is_reason: false,
        what: format!("the pod requests {has} without {needs}, although both are needed together"),
        advice: format!("Request {needs}, too: the device plugin and the scheduler of {has} use both."),
    };
    case.pod.half_requests.iter().map(in_words).collect()
}

/// Lists pods with their GPUs and nodes.
fn listed(holders: &[&GpuHolder]) -> String {
    let named = holders.iter().map(|holder| {
        format!("{} ({} on {})", clean(&holder.name, MAX_NAME), holder.amount, clean(&holder.node, MAX_NAME))
    });
    evidence::some(&named.collect::<Vec<_>>(), NAMED)
}

/// Describes a pod that uses GPUs and is being deleted.
fn being_deleted(holder: &GpuHolder) -> Blocker {
    let GpuHolder { name, node, amount, deleted, is_overdue, finalizers, .. } = holder;
    let (name, node) = (clean(name, MAX_NAME), clean(node, MAX_NAME));
    let until = deleted.map(|time| format!("{time:.0}")).unwrap_or_default();
    let finalizers = finalizers.iter().map(|one| clean(one, MAX_NAME)).collect::<Vec<_>>().join(", ");
    if !is_overdue {
        return Blocker {
            is_reason: false,
            what: format!("pod {name} ({amount} on {node}) is being deleted and has until {until} to end"),
            advice: format!("Wait until pod {name} has ended: its GPUs are free then."),
        };
    }
    let keeps = if finalizers.is_empty() { String::new() } else { format!(" (finalizers: {finalizers})") };
    let advice = match finalizers.is_empty() {
        false => format!(
            "Find out why pod {name} stays in Terminating. The controller that set the finalizer {finalizers} has to remove the finalizer. If this controller no longer exists, remove the finalizer yourself."
        ),
        true => format!(
            "Find out why pod {name} stays in Terminating (explain_gpu_pod for this pod). The reason can be its \
             processes, or the kubelet of {node}. Delete the pod with force only after its processes have ended."
        ),
    };
    Blocker {
        is_reason: true,
        what: format!(
            "pod {name} is stuck in Terminating: it should have ended at {until} and still uses {amount} on {node}{keeps}"
        ),
        advice,
    }
}

/// Describes a device that an annotation of the pod names, but that the pod cannot use.
fn bound(device: &BoundDevice) -> Blocker {
    let BoundDevice { annotation, uuid, node, reasons_against } = device;
    let (annotation, uuid, node) = (clean(annotation, MAX_NAME), clean(uuid, MAX_NAME), clean(node, MAX_NAME));
    Blocker {
        is_reason: false,
        what: format!(
            "its annotation {annotation} binds it to {uuid}, a GPU of {node}, and {node} cannot take the pod: {}",
            reasons_against.join("; ")
        ),
        advice: format!("Repair {node}, or remove the annotation {annotation} so that another GPU can be used."),
    }
}
