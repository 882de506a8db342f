//! Rules about labels and annotations of the node: states that operators report, and labels of another release than the node's.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods;
use crate::rule::{Draft, rules};
use syringe_core::classification::Severity;

rules! {
    about Workload;
    STATE: "node-label-reports-a-state" Info Driver None, "A label or annotation of the node reports a state",
        Watch "Compare the state with what the program that wrote it is meant to do on {node}. The value pre-installed means that the GPU \
            Operator leaves the driver to the image of the node: its settings of the driver, such as the version, have no effect there.",
        means "An operator or monitor reports in a label or annotation of the node that something failed, is paused or is not done. Nothing \
            else shows that it affects the GPUs.",
        reads "kubernetes.states";
    OTHER_RELEASE: "node-label-of-another-release" Warning Driver None, "A label of feature discovery is not that of the node's present system",
        UpdateSoftware "Let node feature discovery write the label of {node} again: check its worker there, then delete the driver pod. The label \
            is old and selects the image with which the driver is built (driver toolkit, precompiled driver), so it must match the node.",
        means "The release or kernel that node feature discovery wrote in a label differs from the one that runs: the driver's pod is made for \
            the system before an update.",
        reads "kubernetes.labels, kubernetes.os_image";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let states = &node.kubernetes.states;
    let lines = states.iter().map(|state| evidence::reason(state));
    let reported = (!states.is_empty()).then(|| Draft::on_node(STATE).with_all_evidence(lines));
    let differs: Vec<String> = other_release(node).into_iter().chain(other_kernel(node)).collect();
    // Where the GPUs respond, the label had no effect so far.
    let severity = if node.answering().next().is_some() { Severity::Info } else { Severity::Warning };
    // Feature discovery writes its labels some minutes after a boot.
    let differs = (!differs.is_empty() && pods::is_settled(node))
        .then(|| Draft::on_node(OTHER_RELEASE).with_severity(severity).with_all_evidence(differs));
    reported.into_iter().chain(differs).collect()
}

/// Compares the release in the label with the one in the name of the operating system.
fn other_release(node: &Node<'_>) -> Option<String> {
    let label = node.kubernetes.labels.os_release.as_deref()?;
    let image = node.kubernetes.os_image.as_deref()?;
    let is_release = |word: &&str| {
        word.starts_with(|first: char| first.is_ascii_digit())
            && word.matches('.').count() == label.matches('.').count()
    };
    let release = image.split_whitespace().find(is_release)?;
    (release != label && label.contains('.')).then(|| {
        format!("label OSTREE_VERSION is {}, and the node runs {}", evidence::data(label), evidence::data(release))
    })
}

/// Compares the kernel in the label with the one that runs.
fn other_kernel(node: &Node<'_>) -> Option<String> {
    let label = node.kubernetes.labels.kernel.as_deref()?;
    let kernel = node.report.kernel.as_deref()?;
    // The value of a label cannot have all characters of a version.
    let plain = |text: &str| text.replace(|one: char| !one.is_ascii_alphanumeric(), "");
    (plain(label) != plain(kernel)).then(|| {
        format!("label kernel-version.full is {}, and the node runs {}", evidence::data(label), evidence::data(kernel))
    })
}
