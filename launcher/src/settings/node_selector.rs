//! `NodeSelector`: the value of `--allow-nodes`, which selects the nodes that may be probed.
//! A probe is root on its node, so control plane nodes are excluded by default.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::{Expression, Selector, SelectorExt};

use kube_read::Failure;

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
            text => requirements(text).map(requirement).collect::<Result<_, _>>()?,
        };
        Ok(Self { text: text.to_owned(), selector })
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Splits at commas outside of parentheses.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Result<Expression, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "'{text}' is not a requirement; use key, !key, key=value, key!=value, key in (a, b) or key notin (a, b)"
        )
    };
    let word = |word: &str| {
        let word = word.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        if word.bytes().all(plain) { Ok(word.to_owned()) } else { Err(wrong()) }
    };
    let key = |text: &str| word(text).and_then(|key| if key.is_empty() { Err(wrong()) } else { Ok(key) });
    let values = |text: &str| {
        let list = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(wrong)?;
        list.split(',').map(word).collect::<Result<_, _>>()
    };
    if let Some(name) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key(name)?));
    }
    if let Some((name, given)) = text.split_once(" notin ") {
        return Ok(Expression::NotIn(key(name)?, values(given)?));
    }
    if let Some((name, given)) = text.split_once(" in ") {
        return Ok(Expression::In(key(name)?, values(given)?));
    }
    if let Some((name, given)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(key(name)?, word(given)?));
    }
    match text.split_once("==").or_else(|| text.split_once('=')) {
        Some((name, given)) => Ok(Expression::Equal(key(name)?, word(given)?)),
        None => Ok(Expression::Exists(key(text)?)),
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
            "Name another node, or start gpu-syringe with another --allow-nodes.",
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
        for wrong in ["", " ", "=gpu", "a in b", "a in (b", "a b", "pool=gpu,", "!"] {
            assert!(wrong.parse::<NodeSelector>().is_err(), "{wrong}");
        }
    }
}
