//! `PodRequests::requested`: adds the requests of a pod as the scheduler does. `add_pod`: adds a pod to the requests of
//! its node (`NodeRequests`). `thousandths`, `quantity_text`, `amount_text`: parse and format quantities.
//!
//! Amounts are in thousandths of a unit, which is sufficient for Kubernetes quantities (`100m`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::objects::api_objects::meta::Quantities;
use crate::objects::api_objects::pod_requests::{Identity, PodRequests, Resources};
use crate::objects::gpu_requests;
use crate::objects::gpu_resource_names::is_gpu_resource;

/// Amounts in thousandths, by resource name.
pub type MilliValues = BTreeMap<String, u128>;

/// The resources of a node that pods have requested.
#[derive(Clone, Debug, Default)]
pub struct NodeRequests {
    pub total: MilliValues,
    /// The requests of each pod.
    pub by_pod: Vec<(Identity, MilliValues)>,
}

impl Identity {
    /// Returns `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl PodRequests {
    /// Returns the effective requests of the pod: the sum of its containers or its largest init container, whichever is
    /// larger (sidecars count for both), plus the overhead of its RuntimeClass.
    pub fn requested(&self) -> MilliValues {
        let (mut running, mut peak) = (MilliValues::new(), MilliValues::new());
        for container in &self.spec.init_containers {
            let mut now = running.clone();
            add(&mut now, &container.resources.requested());
            if container.restart_policy == "Always" {
                running.clone_from(&now);
            }
            raise(&mut peak, &now);
        }
        for container in &self.spec.containers {
            add(&mut running, &container.resources.requested());
        }
        raise(&mut peak, &running);
        add(&mut peak, &sent(&self.spec.overhead));
        peak.retain(|_, amount| *amount > 0);
        peak
    }
}

impl Resources {
    /// Returns the requests. If a resource has a limit but no request, the limit is the request.
    fn requested(&self) -> MilliValues {
        let mut asks = sent(&self.limits);
        asks.extend(sent(&self.requests));
        asks
    }
}

/// Returns the GPU resources that a pod holds.
pub fn gpus(pod: &PodRequests) -> gpu_requests::ResourceCounts {
    let containers = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let names = |all: &Quantities| all.keys().any(|name| is_gpu_resource(name));
    // Most pods of a large cluster request no GPUs.
    if !gpu_requests::holds_resources(&pod.status.phase)
        || !containers().any(|one| names(&one.resources.limits) || names(&one.resources.requests))
    {
        return gpu_requests::ResourceCounts::new();
    }
    let of_gpus = pod.requested().into_iter().filter(|(name, _)| is_gpu_resource(name));
    of_gpus.map(|(name, thousandths)| (name, u64::try_from(thousandths / 1000).unwrap_or(u64::MAX))).collect()
}

fn add(total: &mut MilliValues, more: &MilliValues) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(peak: &mut MilliValues, now: &MilliValues) {
    for (name, amount) in now {
        let most = peak.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

/// Adds the requests of `pod` to its node, if the node is one of `nodes` and the pod has not terminated.
pub fn add_pod(held: &mut HashMap<String, NodeRequests>, nodes: &BTreeSet<String>, pod: PodRequests) {
    if !gpu_requests::holds_resources(&pod.status.phase) || !nodes.contains(&pod.spec.node_name) {
        return;
    }
    let requests = pod.requested();
    let node = held.entry(pod.spec.node_name).or_default();
    add(&mut node.total, &requests);
    node.by_pod.push((pod.metadata, requests));
}

/// Converts quantities to thousandths. Skips invalid quantities.
pub fn milli_values(quantities: &BTreeMap<String, Quantity>) -> MilliValues {
    quantities.iter().filter_map(|(name, quantity)| Some((name.clone(), thousandths(&quantity.0)?))).collect()
}

fn sent(quantities: &Quantities) -> MilliValues {
    quantities.iter().filter_map(|(name, quantity)| Some((name.clone(), thousandths(&quantity.text)?))).collect()
}

/// Parses `1`, `100m`, `1.5`, `2Gi`, `1e3` according to the API's rules for quantities. Rounds up.
pub(crate) fn thousandths(text: &str) -> Option<u128> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let suffix = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffix.or_else(|| Some((text.strip_suffix('E')?, 1e18))).unwrap_or((text, 1.0));
    let number: f64 = number.parse().ok()?;
    let value = (number * factor * 1000.0).ceil();
    // An amount that is too large for any cluster is an error.
    (value.is_finite() && (0.0..1e30).contains(&value)).then_some(value as u128)
}

/// Formats an amount with its resource.
pub fn quantity_text(resource: &str, amount: u128) -> String {
    format!("{} {resource}", amount_text(resource, amount))
}

/// Formats an amount: memory in GiB, other resources in units.
pub fn amount_text(resource: &str, amount: u128) -> String {
    let units = amount as f64 / 1000.0;
    if matches!(resource, "memory" | "ephemeral-storage") || resource.starts_with("hugepages-") {
        return format!("{:.1} GiB", units / 1_073_741_824.0);
    }
    if amount.is_multiple_of(1000) { (amount / 1000).to_string() } else { format!("{units:.1}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_as_the_api_writes_them() {
        for (text, expected) in [
            ("8", Some(8000)),
            ("100m", Some(100)),
            ("1.5", Some(1500)),
            ("1k", Some(1_000_000)),
            ("2Ki", Some(2_048_000)),
            ("1Gi", Some(1_073_741_824_000)),
            ("1e3", Some(1_000_000)),
            ("1G", Some(1_000_000_000_000)),
            ("x", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
        assert_eq!(quantity_text("memory", 1_610_612_736_000), "1.5 GiB memory");
        assert_eq!(
            (quantity_text("cpu", 1500), quantity_text("amd.com/gpu", 2000)),
            ("1.5 cpu".into(), "2 amd.com/gpu".into())
        );
    }

    #[test]
    fn a_pod_asks_for_the_most_that_it_needs_at_once() {
        let of = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: PodRequests = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"resources": of("4")},
                {"restartPolicy": "Always", "resources": of("1")},
            ],
            "containers": [{"resources": of("2")}, {"resources": {"limits": {"amd.com/gpu": "1"}}}],
            "overhead": {"cpu": "100m"},
        }}))
        .expect("a pod");
        let expected = [("amd.com/gpu".to_owned(), 1000), ("cpu".to_owned(), 4100)];
        assert_eq!(pod.requested(), MilliValues::from(expected));
    }
}
