//! `raise`: raises the finding that explains why no pod can get a GPU of the node, because all GPUs are lost for work.

use crate::input::node::Node;
use crate::rule::Draft;
use syringe_core::classification::Severity;

/// Raises the cause to `critical` if GPUs respond and Kubernetes can allocate none of them. Different causes (a label, a
/// device plugin, CDI, a container runtime) then have one effect, so they get one severity. A finding below `warning`
/// states that this is expected: the node starts, drains, or is not used by Kubernetes.
pub(crate) fn raise(node: &Node<'_>, drafts: &mut [Draft]) {
    let cluster = node.kubernetes;
    let had_gpus = cluster.gpu_capacity.is_some() || cluster.gpu_plugin_in_cluster == Some(true);
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
