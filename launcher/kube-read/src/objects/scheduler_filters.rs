//! `candidate`: checks whether a Pending pod fits on a node (`Candidate`, `RejectionReason`), with an approximation of
//! the scheduler's filters. `grouped`: joins equal results. `requested`: the requests of the pod. `first_mismatch`:
//! checks whether a DaemonSet fits a node.
//!
//! The result is a list of the reasons against the node.
//!
//! Checked: readiness, cordon, taints, node selector, the labels of required node affinity, and every requested
//! resource. Not checked: devices of claims, pod affinity, topology spread, volumes, quota. So the pod *may* fit on a
//! node for which the list is empty. The scheduler's message has priority: a reason that the message does not contain
//! is not reported.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::is_zero;
use syringe_macros::omit;

use crate::objects::api_objects::pod_requests::PodRequests;
use crate::objects::gpu_resource_names::is_gpu_resource;
use crate::objects::node_conditions::{is_cordoned, is_ready};
use crate::objects::pod_requests;
use crate::objects::pod_requests::{MilliValues, NodeRequests};

/// Maximum number of pods that are listed as users of one node's resources.
const MAX_HOLDERS: usize = 4;

/// Maximum number of nodes that are listed in a group of candidates.
const NAMED: usize = 12;
/// Maximum number of pods that are listed in a group of candidates.
const HOLDERS: usize = 3;

/// One GPU node, or several nodes with the same reasons, and the reasons why the pod does not fit.
#[omit(used_by, used_by_omitted)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Candidate {
    /// Node name; for several nodes, their names separated by commas.
    pub node: String,
    /// Reasons why the pod does not fit on the node. Empty if no check excludes the node.
    pub reasons_against: Vec<String>,
    /// Pods that use the missing resource on the node, largest first: `namespace/name (8 nvidia.com/gpu)`.
    pub used_by: Vec<String>,
    /// Number of pods left out of `used_by`.
    pub used_by_omitted: usize,
    /// Reasons against the node that do not depend on free resources.
    #[serde(skip)]
    pub rejections: Vec<RejectionReason>,
    /// Free and allocatable amounts of each requested resource.
    #[serde(skip)]
    pub free: BTreeMap<String, FreeAmount>,
    /// GPU resources that the node advertises.
    #[serde(skip)]
    pub offers: Vec<String>,
    /// Labels of the node about sharing and MIG.
    #[serde(skip)]
    pub gpu_labels: BTreeMap<String, String>,
}

/// Beginnings of the names of labels about sharing and MIG.
const GPU_LABELS: [&str; 4] = [
    "nvidia.com/mig.",
    "nvidia.com/gpu.replicas",
    "nvidia.com/gpu.sharing-strategy",
    "nvidia.com/device-plugin.config",
];

/// Joins candidates with the same reasons into one candidate, and keeps the order.
pub fn grouped(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut groups: Vec<Vec<Candidate>> = Vec::new();
    for candidate in candidates {
        match groups.iter_mut().find(|group| group[0].reasons_against == candidate.reasons_against) {
            Some(group) => group.push(candidate),
            None => groups.push(vec![candidate]),
        }
    }
    let join = |group: Vec<Candidate>| {
        let names: Vec<&str> = group.iter().map(|candidate| candidate.node.as_str()).take(NAMED).collect();
        let more = group.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let node = format!("{}{more}", names.join(", "));
        let holders = if group.len() > 1 { HOLDERS } else { usize::MAX };
        let mut used_by: Vec<_> = group.iter().flat_map(|candidate| candidate.used_by.clone()).collect();
        let omitted_before: usize = group.iter().map(|candidate| candidate.used_by_omitted).sum();
        let used_by_omitted = omitted_before + used_by.len().saturating_sub(holders);
        used_by.truncate(holders);
        let first = group.into_iter().next()?;
        Some(Candidate { node, used_by, used_by_omitted, ..first })
    };
    groups.into_iter().filter_map(join).collect()
}

/// A reason why a pod does not fit on a node, apart from resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    /// The node is not Ready.
    NotReady,
    /// The node is cordoned.
    Cordoned,
    /// A taint that the pod does not tolerate: `key=value:effect`.
    Taint(String),
    /// A label that the pod's nodeSelector requires (`key=value`), and the value on the node.
    Label { wanted: String, found: Option<String> },
    /// The first expression of the pod's required node affinity that the node does not meet, and the label of the node.
    Affinity { wanted: String, found: String },
}

impl RejectionReason {
    /// Formats the reason for `reasons_against`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::NotReady => "not Ready".to_owned(),
            Self::Cordoned => "cordoned".to_owned(),
            Self::Taint(taint) => format!("taint {taint}"),
            Self::Label { wanted, found: None } => {
                format!("the node does not have label {wanted}, which the pod's nodeSelector requires")
            }
            Self::Label { wanted, found: Some(found) } => {
                format!("the pod's nodeSelector requires {wanted}, but the node has {found}")
            }
            Self::Affinity { wanted, found } => format!("the pod's node affinity requires {wanted}, but {found}"),
        }
    }
}

/// Amounts of one resource on a node, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeAmount {
    /// Free amount.
    pub free: u128,
    /// Allocatable amount.
    pub allocatable: u128,
    /// Total amount of the node, including the part that is not allocatable.
    pub capacity: u128,
    /// Amount that would be free if the whole capacity were allocatable.
    pub free_of_capacity: u128,
}

/// Returns the requests of the pod.
pub fn requested(pod: &Pod) -> MilliValues {
    let slim = serde_json::to_value(pod).and_then(serde_json::from_value::<PodRequests>);
    slim.map(|pod| pod.requested()).unwrap_or_default()
}

/// Checks whether `pod`, which requests `wanted`, fits on `node`. `held`: the requests of the node's pods.
pub fn candidate(
    pod: &Pod,
    node: &Node,
    wanted: &MilliValues,
    held: &NodeRequests,
    scheduler_message: Option<&str>,
) -> Candidate {
    let rejections = rejections(pod, node, scheduler_message);
    let mut reasons_against: Vec<String> = rejections.iter().map(RejectionReason::text).collect();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let free = free_of(capacity, allocatable, wanted, held);
    let (short, lacking) = by_resources(&free, wanted);
    reasons_against.extend(short);
    let all = allocatable.map(pod_requests::milli_values).unwrap_or_default();
    let offers = all.into_iter().filter(|(name, amount)| is_gpu_resource(name) && *amount > 0);
    let offers = offers.map(|(name, _)| name).collect();
    let (used_by, used_by_omitted) = holders(held, &lacking);
    let labels = node.labels().iter().filter(|(name, _)| GPU_LABELS.iter().any(|start| name.starts_with(start)));
    let gpu_labels = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
    Candidate { node: node.name_any(), reasons_against, used_by, used_by_omitted, rejections, free, offers, gpu_labels }
}

/// Returns the first requirement of a DaemonSet's pods that the node does not meet, in the order of the DaemonSet
/// controller: name, selector, affinity, taints. `None` if the node should have a pod.
pub fn first_mismatch(spec: &PodSpec, node: &Node) -> Option<String> {
    if let Some(name) = spec.node_name.as_deref().filter(|name| *name != node.name_any()) {
        return Some(format!("its pods are only for node {name}"));
    }
    let mut labels = spec.node_selector.iter().flatten();
    if let Some((name, value)) = labels.find(|(name, value)| node.labels().get(*name) != Some(*value)) {
        let has = of_node(node, name);
        return Some(format!("its nodeSelector requires the label {name}={value}, but {has}"));
    }
    if let Some((wanted, has)) = unmet_affinity(spec, node) {
        return Some(format!("its node affinity requires {wanted}, but {has}"));
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let taint = taints.iter().find(|taint| is_not_tolerated(taint, spec.tolerations.as_deref().unwrap_or_default()))?;
    let value = taint.value.as_deref().filter(|value| !value.is_empty()).map(|value| format!("={value}"));
    Some(format!("the pod does not tolerate the taint {}{}:{}", taint.key, value.unwrap_or_default(), taint.effect))
}

/// Returns the first unmet expression of the required node affinity, and the label of the node. `None` if the node
/// meets the affinity, or if there is none.
fn unmet_affinity(spec: &PodSpec, node: &Node) -> Option<(String, String)> {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    let required = required.filter(|required| !matches_any(&required.node_selector_terms, node))?;
    // If there are several terms, the term with the fewest unmet requirements was probably meant for this node.
    let unmet = required.node_selector_terms.iter().map(|term| unmet(term, node));
    let nearest = unmet.filter(|unmet| !unmet.is_empty()).min_by_key(Vec::len).unwrap_or_default();
    let Some(first) = nearest.first() else {
        return Some(("an expression".to_owned(), "no term has an expression, so no node matches".to_owned()));
    };
    let values = first.values.as_deref().unwrap_or_default().join(", ");
    let wanted = format!("{} {} {values}", first.key, first.operator).trim_end().to_owned();
    Some((
        wanted,
        if first.key == "metadata.name" { "the node has another name".to_owned() } else { of_node(node, &first.key) },
    ))
}

/// Formats the value of a label on the node.
fn of_node(node: &Node, label: &str) -> String {
    match node.labels().get(label) {
        Some(value) => format!("the node has {label}={value}"),
        None => "the node does not have this label".to_owned(),
    }
}

/// Returns the requirements of a term that the node does not meet.
fn unmet<'a>(term: &'a NodeSelectorTerm, node: &Node) -> Vec<&'a NodeSelectorRequirement> {
    let name = node.name_any();
    let labels = term.match_expressions.as_deref().unwrap_or_default().iter();
    let labels = labels.filter(|one| !matches_requirement(one, node.labels().get(&one.key).map(String::as_str)));
    let fields = term.match_fields.as_deref().unwrap_or_default().iter();
    let fields = fields.filter(|one| !matches_requirement(one, (one.key == "metadata.name").then_some(name.as_str())));
    labels.chain(fields).collect()
}

fn rejections(pod: &Pod, node: &Node, scheduler_message: Option<&str>) -> Vec<RejectionReason> {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let mut rejections = Vec::new();
    if !is_ready(node) {
        rejections.push(RejectionReason::NotReady);
    }
    let cordoned = is_cordoned(node);
    if cordoned {
        rejections.push(RejectionReason::Cordoned);
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    // A cordon is also a taint, and was reported above. The scheduler checks taints before resources. So if the
    // scheduler's message mentions no taint, no taint excludes a node (an admission plugin may have added a
    // toleration).
    let unnamed = scheduler_message.is_some_and(|scheduler_message| {
        scheduler_message.contains("nodes are available:") && !scheduler_message.contains("taint")
    });
    let passed = |taint: &Taint| unnamed || (cordoned && taint.key == "node.kubernetes.io/unschedulable");
    rejections.extend(taints.iter().filter(|taint| !passed(taint) && is_not_tolerated(taint, tolerations)).map(
        |taint| {
            let value = taint.value.as_deref().unwrap_or_default();
            RejectionReason::Taint(format!("{}={value}:{}", taint.key, taint.effect))
        },
    ));
    let labels = spec.node_selector.iter().flatten().filter(|(name, value)| node.labels().get(*name) != Some(*value));
    rejections.extend(labels.map(|(name, value)| RejectionReason::Label {
        wanted: format!("{name}={value}"),
        found: node.labels().get(name).map(|found| format!("{name}={found}")),
    }));
    rejections.extend(unmet_affinity(spec, node).map(|(wanted, found)| RejectionReason::Affinity { wanted, found }));
    rejections
}

/// Returns the free and allocatable amounts of each requested resource on the node.
fn free_of(
    capacity: Option<&BTreeMap<String, Quantity>>,
    allocatable: Option<&BTreeMap<String, Quantity>>,
    wanted: &MilliValues,
    held: &NodeRequests,
) -> BTreeMap<String, FreeAmount> {
    let all = allocatable.map(pod_requests::milli_values).unwrap_or_default();
    let capacities = capacity.map(pod_requests::milli_values).unwrap_or_default();
    let of = |resource: &String| {
        let allocatable = all.get(resource).copied().unwrap_or(0);
        let held = held.total.get(resource).copied().unwrap_or(0);
        let capacity = capacities.get(resource).copied().unwrap_or(allocatable);
        let [free, free_of_capacity] = [allocatable, capacity].map(|all| all.saturating_sub(held));
        (resource.clone(), FreeAmount { free, allocatable, capacity, free_of_capacity })
    };
    wanted.keys().map(of).collect()
}

/// Returns the resources that are insufficient on the node: as texts, and as names.
fn by_resources(free: &BTreeMap<String, FreeAmount>, wanted: &MilliValues) -> (Vec<String>, Vec<String>) {
    let (mut reasons_against, mut lacking) = (Vec::new(), Vec::new());
    for (resource, amount) in wanted {
        let FreeAmount { free, allocatable, .. } = free.get(resource).copied().unwrap_or_default();
        if allocatable == 0 {
            reasons_against.push(format!("has no {resource}"));
        } else if free < *amount {
            let [free, most] = [free, allocatable].map(|amount| pod_requests::amount_text(resource, amount));
            reasons_against.push(format!(
                "the pod requests {}; {free} of {most} free",
                pod_requests::quantity_text(resource, *amount)
            ));
            lacking.push(resource.clone());
        }
    }
    (reasons_against, lacking)
}

/// Returns the pods that use the most of the first missing resource, GPUs before other resources.
fn holders(held: &NodeRequests, lacking: &[String]) -> (Vec<String>, usize) {
    let Some(resource) = lacking.iter().find(|name| is_gpu_resource(name)).or(lacking.first()) else {
        return (Vec::new(), 0);
    };
    let amount = |asks: &MilliValues| asks.get(resource).copied().unwrap_or(0);
    let mut pods: Vec<_> = held.by_pod.iter().filter(|(_, asks)| amount(asks) > 0).collect();
    pods.sort_by_key(|(pod, asks)| (std::cmp::Reverse(amount(asks)), pod.full_name()));
    let omitted = pods.len().saturating_sub(MAX_HOLDERS);
    let named = pods
        .iter()
        .take(MAX_HOLDERS)
        .map(|(pod, asks)| format!("{} ({})", pod.full_name(), pod_requests::quantity_text(resource, amount(asks))))
        .collect();
    (named, omitted)
}

fn is_not_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
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

/// Returns whether a node matches all expressions of one of the terms. In Kubernetes, a term without expressions
/// matches no node.
fn matches_any(terms: &[NodeSelectorTerm], node: &Node) -> bool {
    let is_empty = |term: &NodeSelectorTerm| {
        term.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && term.match_fields.as_ref().is_none_or(Vec::is_empty)
    };
    terms.iter().any(|term| !is_empty(term) && unmet(term, node).is_empty())
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
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
    use crate::objects::api_objects::pod_requests::Identity;

    fn of(pod: Value, node: Value, held: u128, scheduler_message: Option<&str>) -> Candidate {
        let (pod, node): (Pod, Node) = (serde_json::from_value(pod).unwrap(), serde_json::from_value(node).unwrap());
        let gpus = MilliValues::from([("nvidia.com/gpu".to_owned(), held * 1000)]);
        let holder = Identity { name: "train-0".into(), namespace: "ml".into(), ..Identity::default() };
        let held = NodeRequests { total: gpus.clone(), by_pod: vec![(holder, gpus)] };
        candidate(&pod, &node, &requested(&pod), &held, scheduler_message)
    }

    fn objections(pod: Value, node: Value, held: u128) -> Vec<String> {
        of(pod, node, held, None).reasons_against
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
        let allocatable = json!({ "nvidia.com/gpu": "8", "memory": "512Gi" });
        let status = json!({ "conditions": ready, "allocatable": allocatable });
        json!({ "metadata": { "name": "gpu-1", "labels": labels }, "spec": spec, "status": status })
    }

    #[test]
    fn nodes_with_the_same_reasons_are_one_candidate() {
        let of = |node: &str, reason: &str, holder: &str| Candidate {
            node: node.into(),
            reasons_against: vec![reason.into()],
            used_by: vec![holder.into()],
            used_by_omitted: 0,
            rejections: Vec::new(),
            free: BTreeMap::new(),
            offers: Vec::new(),
            gpu_labels: BTreeMap::new(),
        };
        let full = "0 of 8 free";
        let groups = grouped(vec![of("a", full, "ml/1"), of("b", "cordoned", "ml/2"), of("c", full, "ml/3")]);
        let told: Vec<_> = groups.iter().map(|group| (group.node.as_str(), group.used_by.join(" "))).collect();
        assert_eq!(told, [("a, c", "ml/1 ml/3".to_owned()), ("b", "ml/2".to_owned())]);
        let many = grouped((0..20).map(|node| of(&format!("n{node}"), full, "ml/1")).collect());
        assert!(many.len() == 1 && many[0].node.ends_with(" and 8 more"), "{:?}", many[0].node);
        assert_eq!((many[0].used_by.len(), many[0].used_by_omitted), (3, 17));
        let cut = |node: &str| Candidate { used_by_omitted: 4, ..of(node, full, "ml/1") };
        let joined = grouped(vec![cut("a"), cut("b")]);
        assert_eq!((joined[0].used_by.len(), joined[0].used_by_omitted), (2, 8), "what a node left out still counts");
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
        for (pod, node, held, expected) in [
            (pod(json!({})), node(json!({})), 5, "requests 4 nvidia.com/gpu; 3 of 8 free"),
            (pod(json!({})), node(json!({ "unschedulable": true })), 0, "cordoned"),
            (pod(json!({})), node(taint.clone()), 0, "team=vision:NoSchedule"),
            (
                pod(json!({ "nodeSelector": { "zone": "b" } })),
                node(json!({})),
                0,
                "requires zone=b, but the node has zone=a",
            ),
            (
                affinity("zone", "In", json!(["b", "c"])),
                node(json!({})),
                0,
                "requires zone In b, c, but the node has zone=a",
            ),
            (affinity("gen", "Gt", json!(["5"])), node(json!({})), 0, "requires gen Gt 5, but the node has gen=5"),
            (affinity("team", "Exists", json!([])), node(json!({})), 0, "the node does not have this label"),
        ] {
            let found = objections(pod, node, held);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
        let tolerations = json!([{ "key": "team", "operator": "Exists" }]);
        assert!(objections(pod(json!({ "tolerations": tolerations })), node(taint), 0).is_empty());
        assert!(objections(affinity("zone", "NotIn", json!(["b"])), node(json!({})), 0).is_empty());
    }

    #[test]
    fn every_resource_that_the_pod_asks_for_is_compared() {
        let asks = |resource: &str, amount: &str| {
            let requests = json!({ "requests": { resource: amount } });
            pod(json!({ "containers": [{ "name": "main", "resources": requests }] }))
        };
        let memory = objections(asks("memory", "900Gi"), node(json!({})), 0);
        assert_eq!(memory, ["the pod requests 900.0 GiB memory; 512.0 GiB of 512.0 GiB free"]);
        assert_eq!(objections(asks("amd.com/gpu", "1"), node(json!({})), 0), ["has no amd.com/gpu"]);
        assert!(objections(asks("memory", "100Gi"), node(json!({})), 0).is_empty());
    }

    #[test]
    fn who_holds_the_gpus_is_said() {
        assert_eq!(of(pod(json!({})), node(json!({})), 5, None).used_by, ["ml/train-0 (5 nvidia.com/gpu)"]);
        assert!(of(pod(json!({})), node(json!({})), 4, None).used_by.is_empty(), "no resource is missing");
    }

    #[test]
    fn a_taint_that_the_scheduler_does_not_name_is_no_obstacle() {
        let taint = json!({ "taints": [{ "key": "nvidia.com/gpu", "effect": "NoSchedule" }] });
        let of = |scheduler_message| of(pod(json!({})), node(taint.clone()), 0, scheduler_message).reasons_against;
        assert_eq!(of(None).len(), 1);
        assert_eq!(of(Some("0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: }.")).len(), 1);
        assert!(of(Some("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")).is_empty());
        assert_eq!(of(Some("skip schedule deleting pod")).len(), 1, "the message says nothing about nodes");
    }
}
