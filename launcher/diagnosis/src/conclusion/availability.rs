//! `raise`: raises findings to `critical` if their faults keep all or most GPUs of the node from pods.

use crate::input::node::Node;
use crate::rule::{About, Draft};
use syringe_core::classification::{ActionCode, Severity};

/// Raises the findings whose faults take GPUs from pods. Different causes (a label, a device plugin, CDI, a container
/// runtime) have one effect, so they get one severity. A finding below `warning` states that this is expected: the node
/// starts, drains, or is not used by Kubernetes.
pub(crate) fn raise(node: &Node<'_>, drafts: &mut [Draft]) {
    most_gpus(node, drafts);
    if none_is_offered(node) && !drafts.iter().any(explains) && !all_are_faulty(node, drafts) {
        // If the action is to wait, for example for an upgrade, the loss is expected.
        let can_rise = |draft: &&mut Draft| {
            let is_cause = draft.rule.highest_severity() > Severity::Warning && draft.action != ActionCode::Watch;
            draft.severity == Severity::Warning && is_cause
        };
        drafts.iter_mut().filter(can_rise).min_by_key(|draft| draft.rule.depth).into_iter().for_each(raise_to_highest);
    }
}

/// Returns whether a finding already gives the reason why no GPU is offered. A fault of one GPU or of a network card does
/// not.
fn explains(draft: &Draft) -> bool {
    let can_explain = match draft.rule.about {
        About::Driver | About::DriverAbsent | About::ContainerRuntime | About::Unavailable => true,
        About::Gpus => !draft.names_gpu(),
        About::Network | About::Workload => false,
    };
    can_explain && draft.severity > Severity::Warning
}

/// Returns whether every GPU that responds has a fault of its own.
fn all_are_faulty(node: &Node<'_>, drafts: &[Draft]) -> bool {
    let is_fault = |draft: &&Draft| draft.severity > Severity::Warning && draft.rule.about == About::Gpus;
    node.answering().all(|gpu| drafts.iter().filter(is_fault).any(|draft| draft.is_on(gpu)))
}

fn raise_to_highest(draft: &mut Draft) {
    draft.severity = draft.rule.highest_severity();
}

/// Raises findings of one rule that keep more than half of the responding GPUs from pods.
fn most_gpus(node: &Node<'_>, drafts: &mut [Draft]) {
    let responding = node.answering().count();
    let is_of_gpu = |draft: &Draft| {
        draft.names_gpu() && draft.severity == Severity::Warning && draft.rule.about == About::Unavailable
    };
    let ids: Vec<&str> = drafts.iter().filter(|draft| is_of_gpu(draft)).map(|draft| draft.rule.id).collect();
    let is_of_most = |id: &str| responding > 1 && ids.iter().filter(|own| **own == id).count() * 2 > responding;
    drafts.iter_mut().filter(|draft| is_of_gpu(draft) && is_of_most(draft.rule.id)).for_each(raise_to_highest);
}

/// Returns whether GPUs respond, and Kubernetes can allocate none of them.
fn none_is_offered(node: &Node<'_>) -> bool {
    let cluster = node.kubernetes;
    let had_gpus = cluster.gpu_capacity.is_some() || cluster.gpu_plugin_in_cluster == Some(true);
    had_gpus && node.answering().next().is_some() && !node.stack.advertises_gpus && node.stack.is_settled
}
