//! `check`: finds terminating pods whose GPUs the scheduler counts as used, although the grace period ended long ago.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::input::processes::waits_outside_driver;
use crate::input::stack::pods;
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::STAYS_TERMINATING;
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::gpu_pod::GpuPod;
use syringe_core::facts::processes::GpuProcess;

/// A pod that still exists this long after its grace period does not end without help.
const LONG_TERMINATING: SignedDuration = SignedDuration::from_mins(30);
/// Maximum number of pods in the evidence.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Option<Draft> {
    let now = pods::time_of_api(node)?;
    let of = |pod: &GpuPod| {
        let gpus: u64 = pod.containers.iter().flat_map(|container| container.requests.values()).sum();
        let late = now.duration_since(pod.deletion_due?);
        let age = evidence::span(late);
        let name = evidence::name(&pod.full_name());
        (late >= LONG_TERMINATING && gpus > 0)
            .then(|| format!("pod {name} with {gpus} GPUs: its grace period ended {age} ago, and it still exists"))
    };
    let late: Vec<(&GpuPod, String)> =
        node.kubernetes.gpu_pods.iter().flatten().filter_map(|pod| Some((pod, of(pod)?))).collect();
    if late.is_empty() {
        return None;
    }
    let processes = node.processes().into_iter().flat_map(|section| &section.processes);
    let is_late = |uid: &String| late.iter().any(|(pod, _)| pod.uid == *uid);
    let waiting: Vec<&GpuProcess> = processes
        .filter(|process| process.is_uninterruptible() && process.pod_uid.as_ref().is_some_and(is_late))
        .collect();
    let in_words = |process: &&GpuProcess| {
        let place = process.waiting_threads().find_map(|thread| thread.waits_in.as_deref());
        let place = place.map(|place| format!(" in {}", evidence::data(place))).unwrap_or_default();
        format!("{} of the pod waits in the kernel{place}, where no signal ends it", evidence::process(process))
    };
    let draft = Draft::on_node(STAYS_TERMINATING)
        .with_all_evidence(evidence::lines(late.iter().map(|(_, line)| line.clone()), NAMED))
        .with_all_evidence(waiting.iter().take(NAMED).map(in_words));
    Some(match waiting.iter().any(|process| waits_outside_driver(process)) {
        true => draft.with_action(ActionCode::Watch, WAITS_FOR_STORAGE),
        false => draft,
    })
}

/// Action for a pod whose process waits for a file server or a disk.
const WAITS_FOR_STORAGE: &str = "Restore the file server or the disk that the process in the evidence waits for: the process then ends, and so does the pod. If that \
     is not possible, drain and reboot {node}. Do not force the deletion of the pod: its GPUs stay in use.";
