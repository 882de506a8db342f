//! `raise`: raises the finding that explains why no pod can get a GPU of the node, because all GPUs are lost for work.

use crate::input::node::Node;
use crate::rule::{About, Draft};
use syringe_core::classification::Severity;

/// Raises findings of one rule that keep at least half of the responding GPUs from pods.
fn raise_for_most(node: &Node<'_>, drafts: &mut [Draft]) {
    let responding = node.answering().count();
    let is_of_gpu = |draft: &Draft| {
        draft.names_gpu() && draft.severity == Severity::Warning && draft.rule.about == About::Unavailable
    };
    let ids: Vec<&str> = drafts.iter().filter(|draft| is_of_gpu(draft)).map(|draft| draft.rule.id).collect();
    let is_of_most = |id: &str| responding > 1 && ids.iter().filter(|own| **own == id).count() * 2 >= responding;
    for draft in drafts.iter_mut().filter(|draft| is_of_gpu(draft) && is_of_most(draft.rule.id)) {
        draft.severity = draft.rule.highest_severity();
    }
}

/// Raises the cause to `critical` if GPUs respond and Kubernetes can allocate none of them. Different causes (a label, a
/// device plugin, CDI, a container runtime) then have one effect, so they get one severity. A finding below `warning`
/// states that this is expected: the node starts, drains, or is not used by Kubernetes.
pub(crate) fn raise(node: &Node<'_>, drafts: &mut [Draft]) {
    let cluster = node.kubernetes;
    let had_gpus = cluster.gpu_capacity.is_some() || cluster.gpu_plugin_in_cluster == Some(true);
    raise_for_most(node, drafts);
    let none_is_offered = node.answering().next().is_some() && had_gpus && !node.stack.advertises_gpus;
    if !none_is_offered || !node.stack.is_settled || drafts.iter().any(|draft| draft.severity > Severity::Warning) {
        return;
    }
    let is_cause =
        |draft: &&mut Draft| draft.severity == Severity::Warning && draft.rule.highest_severity() > Severity::Warning;
    if let Some(cause) = drafts.iter_mut().filter(is_cause).min_by_key(|draft| draft.rule.depth) {
        cause.severity = cause.rule.highest_severity();
    }
}
