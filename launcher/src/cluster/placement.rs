//! Which GPU nodes could take a pod that waits, and what stands against each: the scheduler's answer, node by node.
//!
//! Looked at: readiness, cordon (tolerated or not), taints, node selector, the labels of required node affinity, GPU
//! resources. Not looked at: devices of claims, CPU and memory, affinity to other pods, topology spread, volumes, quota; so a
//! node without objections *may* take the pod.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration};
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;

use super::allocation::{self, Amounts};
use super::pages::{self, Query};
use super::{Connection, gpu_nodes, lean, node_gpus, pods};
use crate::error::Failure;

/// A GPU node and what stands against it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Candidate {
    /// Node name.
    pub node: String,
    /// What stands against it; empty: nothing that was looked at.
    pub against: Vec<String>,
}

/// Every GPU node of the cluster, those with the fewest objections first.
pub(crate) async fn candidates(connection: &Connection, pod: &Pod) -> Result<Vec<Candidate>, Failure> {
    let query = Query { what: "Listing the nodes", path: "/api/v1/nodes", labels: None, fields: None };
    let nodes = pages::fold(connection, &query, Vec::new, |gpu_nodes: &mut Vec<Node>, node: Node| {
        if gpu_nodes::is_gpu_node(&node) {
            gpu_nodes.push(node);
        }
    });
    let nodes = nodes.await?;
    let names = nodes.iter().map(ResourceExt::name_any).collect();
    let held = pods::allocated_on(connection, &names).await?;
    let wanted = wanted(pod);
    let mut candidates: Vec<_> = nodes
        .iter()
        .map(|node| {
            let name = node.name_any();
            let (_, allocatable) = node_gpus::offers(node, None);
            let held = held.get(&name).cloned().unwrap_or_default();
            Candidate { against: against(pod, node, &wanted, &allocatable, &held), node: name }
        })
        .collect();
    candidates.sort_by(|one, other| (one.against.len(), &one.node).cmp(&(other.against.len(), &other.node)));
    Ok(candidates)
}

/// What the pod asks for, of GPU resources.
fn wanted(pod: &Pod) -> Amounts {
    let lean = serde_json::to_value(pod).and_then(serde_json::from_value::<lean::Pod>);
    lean.map(|pod| allocation::effective(&pod)).unwrap_or_default()
}

fn against(pod: &Pod, node: &Node, wanted: &Amounts, allocatable: &Amounts, held: &Amounts) -> Vec<String> {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut against = Vec::new();
    if !node_gpus::is_ready(node) {
        against.push("it is not Ready".to_owned());
    }
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    if cordoned {
        against.push("it is cordoned".to_owned());
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    // A cordon is a taint too; it has been said.
    let said = |taint: &Taint| cordoned && taint.key == "node.kubernetes.io/unschedulable";
    against.extend(taints.iter().filter(|taint| !said(taint) && repels(taint, tolerations)).map(|taint| {
        format!("its taint {}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect)
    }));
    for (name, value) in spec.node_selector.iter().flatten() {
        if node.labels().get(name) != Some(value) {
            against.push(format!("the pod selects nodes with label {name}={value}"));
        }
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    if let Some(required) = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref())
        && !required.node_selector_terms.iter().any(|term| fits(term, node))
    {
        against.push("the pod's required node affinity does not match its labels".to_owned());
    }
    for (resource, count) in wanted {
        let most = allocatable.get(resource).copied().unwrap_or(0);
        let free = most.saturating_sub(held.get(resource).copied().unwrap_or(0));
        if most == 0 {
            against.push(format!("it offers no {resource}"));
        } else if free < *count {
            against.push(format!("the pod asks for {count} {resource}, {free} of {most} are free"));
        }
    }
    against
}

fn repels(taint: &Taint, tolerations: &[Toleration]) -> bool {
    let tolerated = |toleration: &Toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || value)
    };
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerations.iter().any(tolerated)
}

/// Whether a node matches all expressions of a term. A term without any matches nothing, by Kubernetes' rule.
fn fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|one| holds(one, node.labels().get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| holds(one, (one.key == "metadata.name").then_some(name.as_str())))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn objections(pod: Value, node: Value, held: u64) -> Vec<String> {
        let (pod, node): (Pod, Node) = (serde_json::from_value(pod).unwrap(), serde_json::from_value(node).unwrap());
        let amounts = |count: u64| Amounts::from([("nvidia.com/gpu".to_owned(), count)]);
        against(&pod, &node, &wanted(&pod), &amounts(8), &amounts(held))
    }

    fn pod(more: Value) -> Value {
        let limits = json!({ "limits": { "nvidia.com/gpu": "4" } });
        let mut spec = json!({ "containers": [{ "name": "main", "resources": limits }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "metadata": { "name": "p" }, "spec": spec })
    }

    fn node(spec: Value) -> Value {
        let labels = json!({ "zone": "a", "gen": "5" });
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        json!({ "metadata": { "name": "gpu-1", "labels": labels }, "spec": spec, "status": { "conditions": ready } })
    }

    #[test]
    fn a_node_with_room_has_nothing_against_it() {
        assert!(objections(pod(json!({})), node(json!({})), 4).is_empty());
    }

    #[test]
    fn each_objection_is_said() {
        let taint = json!({ "taints": [{ "key": "team", "value": "vision", "effect": "NoSchedule" }] });
        let affinity = |key: &str, operator: &str, values: Value| {
            let term = json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
            let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } });
            pod(json!({ "affinity": { "nodeAffinity": required } }))
        };
        for (pod, node, held, words) in [
            (pod(json!({})), node(json!({})), 5, "asks for 4 nvidia.com/gpu, 3 of 8 are free"),
            (pod(json!({})), node(json!({ "unschedulable": true })), 0, "cordoned"),
            (pod(json!({})), node(taint.clone()), 0, "team=vision:NoSchedule"),
            (pod(json!({ "nodeSelector": { "zone": "b" } })), node(json!({})), 0, "zone=b"),
            (affinity("zone", "In", json!(["b", "c"])), node(json!({})), 0, "node affinity"),
            (affinity("gen", "Gt", json!(["5"])), node(json!({})), 0, "node affinity"),
        ] {
            let found = objections(pod, node, held);
            assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
        }
        let tolerations = json!([{ "key": "team", "operator": "Exists" }]);
        assert!(objections(pod(json!({ "tolerations": tolerations })), node(taint), 0).is_empty());
        assert!(objections(affinity("zone", "NotIn", json!(["b"])), node(json!({})), 0).is_empty());
    }
}
