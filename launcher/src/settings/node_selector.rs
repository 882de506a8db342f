//! `NodeSelector`, `check`: the value of `--allow-nodes`, which selects the nodes that may be probed, and the check of
//! a node. A probe is root on its node, so control plane nodes are excluded by default.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::{Expression, Selector, SelectorExt};

use kube_read::Failure;
use kube_read::objects::label_selector::{self, Requirement};

/// Labels and taint keys of control plane nodes.
const CONTROL_PLANE: [&str; 3] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master", "node-role.kubernetes.io/etcd"];

/// The label selector of the setting: `pool=gpu,zone in (a, b),!spot`, or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector {
    text: String,
    selector: Selector,
}

impl NodeSelector {
    fn matches(&self, node: &Node) -> bool {
        self.selector.matches(node.labels())
    }
}

impl FromStr for NodeSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let selector = match text {
            "" => return Err("the selector is empty; use * for every node".into()),
            "*" => Selector::default(),
            text => label_selector::parse(text)?.into_iter().map(evaluable).collect::<Result<_, _>>()?,
        };
        Ok(Self { text: text.to_owned(), selector })
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Returns the requirement as an expression, because this program compares the labels itself.
fn evaluable(requirement: Requirement) -> Result<Expression, String> {
    match requirement {
        Requirement::Expression(expression) => Ok(expression),
        Requirement::Comparison(text) => Err(format!("'{text}': comparisons are not supported here")),
    }
}

fn is_of_control_plane(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    CONTROL_PLANE.iter().any(|role| node.labels().contains_key(*role) || taints.iter().any(|taint| taint.key == *role))
}

/// Rejects a node on which no probe may be created: a node that `allowed` does not select, or, without `allowed`, a
/// control plane node.
pub(super) fn check(allowed: Option<&NodeSelector>, node: &Node) -> Result<(), Failure> {
    let (why, next) = match allowed {
        Some(selector) if selector.matches(node) => return Ok(()),
        Some(selector) => (
            format!("the labels of the node do not match --allow-nodes {selector}"),
            "Choose another node, or start gpu-syringe with another --allow-nodes.",
        ),
        None if !is_of_control_plane(node) => return Ok(()),
        None => (
            "this is a control plane node, where a privileged pod can take over the whole cluster".to_owned(),
            "To allow this node, start gpu-syringe with --allow-nodes and a label selector, or * for every node.",
        ),
    };
    Err(Failure::new(format!("Probing node {}", node.name_any()), format!("{why}; nothing was created"), next))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "gpu-1", "labels": labels}})).expect("a node")
    }

    fn may(args: &[&str], node: &Node) -> bool {
        let selector = args.get(1).map(|text| text.parse().expect("a selector"));
        check(selector.as_ref(), node).is_ok()
    }

    #[test]
    fn a_control_plane_node_is_probed_only_if_a_selector_matches_it() {
        for role in CONTROL_PLANE {
            let labelled = node(json!({role: "", "pool": "all"}));
            let mut tainted = node(json!({"pool": "all"}));
            let taint = json!({"taints": [{"key": role, "effect": "NoSchedule"}]});
            tainted.spec = serde_json::from_value(taint).expect("a spec");
            for node in [labelled, tainted] {
                assert!(!may(&[], &node), "{role}");
                assert!(!may(&["--allow-nodes", "pool=gpu"], &node));
                assert!(may(&["--allow-nodes", "pool=all"], &node) && may(&["--allow-nodes", "*"], &node));
            }
        }
        assert!(may(&[], &node(json!({"pool": "gpu"}))));
    }

    #[test]
    fn a_selector_has_the_syntax_of_kubectl() {
        let node = node(json!({"pool": "gpu", "zone": "b", "nvidia.com/gpu.present": "true"}));
        for selector in [
            "pool=gpu",
            "pool == gpu, zone!=a",
            "zone in (a, b),pool",
            "zone notin (c),!spot",
            "spot!=yes",
            "spot notin (yes)",
            "nvidia.com/gpu.present=true",
        ] {
            assert!(may(&["--allow-nodes", selector], &node), "{selector}");
        }
        for selector in
            ["pool=cpu", "zone in (a)", "!pool", "spot", "zone notin (b)", "pool=gpu,zone=a", "spot in (yes)"]
        {
            assert!(!may(&["--allow-nodes", selector], &node), "{selector}");
        }
        for wrong in ["", " ", "=gpu", "a in b", "a in (b", "a b", "pool=gpu,", "!", "gpus>4"] {
            assert!(wrong.parse::<NodeSelector>().is_err(), "{wrong}");
        }
    }
}
