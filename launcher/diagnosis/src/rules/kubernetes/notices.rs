//! Rule about states that operators and monitors report in labels and annotations of the node.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, rules};

rules! {
    about Workload;
    STATE: "node-label-reports-a-state" Info Driver None, "A label or annotation of the node reports a state",
        Watch "Compare the state with what the program that wrote it is meant to do on {node}. The value pre-installed means that the GPU \
            Operator leaves the driver to the image of the node: its settings of the driver, such as the version, have no effect there.",
        means "An operator or monitor reports in a label or annotation of the node that something failed, is paused or is not done. Nothing \
            else shows that it affects the GPUs.",
        reads "kubernetes.states";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let states = &node.kubernetes.states;
    let lines = states.iter().map(|state| evidence::reason(state));
    if states.is_empty() { Vec::new() } else { vec![Draft::on_node(STATE).with_all_evidence(lines)] }
}
