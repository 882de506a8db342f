//! `effective_requests`, `requests`, `allocated`: add up the GPU requests of pods as the scheduler does.
//! `uses`, `ResourceUse`: the use of each GPU resource of a node. `holds_resources`: whether a pod holds devices.
//!
//! A pod holds the larger of two amounts of each resource: the sum of its containers, and the maximum of its init
//! containers. A sidecar (an init container with `restartPolicy: Always`) keeps running and counts for both. A pod that
//! has terminated holds nothing.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use syringe_macros::omit;

use crate::objects::gpu_pod::{Container, Pod};
use crate::objects::gpu_resource_names::{GPU_RESOURCE, Unit, unit};

/// Amounts by resource name.
pub type ResourceCounts = BTreeMap<String, u64>;

/// The role of a container in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRole {
    /// Runs as long as the pod.
    Main,
    /// Runs before the other containers, and exits.
    Init,
    /// Starts before the other containers, and keeps running.
    Sidecar,
}

/// One resource of a node.
#[omit(Option)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResourceUse {
    /// Name, e.g. `nvidia.com/gpu`; for dynamic resource allocation, the name of the driver.
    pub resource: String,
    /// Meaning of one unit.
    pub unit: Unit,
    /// Units that the node has.
    pub capacity: u64,
    /// Units that can be allocated: those that the device plugin reports as healthy.
    pub allocatable: u64,
    /// Units that are allocated to pods. Absent when the pods could not be read.
    pub allocated: Option<u64>,
    /// Units that are free. Absent when the pods could not be read.
    pub available: Option<u64>,
    /// Units per GPU, if GPUs are shared.
    pub replicas: Option<u32>,
}

/// Returns whether a pod in this phase holds devices. A pod that is being deleted still holds them.
pub fn holds_resources(phase: &str) -> bool {
    !matches!(phase, "Succeeded" | "Failed")
}

/// Returns the requests of a container. If a resource has a limit but no request, the limit is the request.
pub fn requests(container: &Container) -> ResourceCounts {
    let mut amounts = container.resources.limits.0.clone();
    amounts.extend(container.resources.requests.0.clone());
    amounts.retain(|_, count| *count > 0);
    amounts
}

/// Returns the role of an init container.
pub fn role_of_init(container: &Container) -> ContainerRole {
    if container.restart_policy.as_deref() == Some("Always") { ContainerRole::Sidecar } else { ContainerRole::Init }
}

/// Returns the effective requests of a pod, regardless of its phase.
pub fn effective_requests(pod: &Pod) -> ResourceCounts {
    let mut running = ResourceCounts::new();
    let mut peak = ResourceCounts::new();
    for container in &pod.spec.init_containers {
        let mut now = running.clone();
        add(&mut now, &requests(container));
        if role_of_init(container) == ContainerRole::Sidecar {
            running.clone_from(&now);
        }
        raise(&mut peak, &now);
    }
    for container in &pod.spec.containers {
        add(&mut running, &requests(container));
    }
    raise(&mut peak, &running);
    peak
}

/// Returns the sum of the resources that pods hold.
pub fn allocated<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> ResourceCounts {
    let mut total = ResourceCounts::new();
    for pod in pods.into_iter().filter(|pod| holds_resources(&pod.status.phase)) {
        add(&mut total, &effective_requests(pod));
    }
    total
}

/// Returns the use of each resource of a node. `allocated` is `None` if the pods could not be read. `replicas` is the
/// number of shares of a GPU, by resource.
pub fn uses(
    capacity: &ResourceCounts,
    allocatable: &ResourceCounts,
    allocated: Option<&ResourceCounts>,
    replicas: impl Fn(&str) -> u32,
) -> Vec<ResourceUse> {
    let names = capacity.keys().chain(allocatable.keys());
    let names: BTreeSet<&String> = names.chain(allocated.into_iter().flat_map(BTreeMap::keys)).collect();
    let of = |amounts: &ResourceCounts, name: &str| amounts.get(name).copied().unwrap_or(0);
    let one = |name: &String| {
        let replicas = replicas(name);
        let (allocatable, allocated) = (of(allocatable, name), allocated.map(|allocated| of(allocated, name)));
        ResourceUse {
            resource: name.clone(),
            unit: unit(name, replicas),
            capacity: of(capacity, name),
            allocatable,
            allocated,
            available: allocated.map(|allocated| allocatable.saturating_sub(allocated)),
            replicas: (replicas > 1).then_some(replicas),
        }
    };
    // A renamed resource stays in the status with capacity 0.
    names.into_iter().map(one).filter(|one| one.capacity > 0 || one.allocated > Some(0)).collect()
}

/// Adds `more` to `total`.
pub fn add(total: &mut ResourceCounts, more: &ResourceCounts) {
    for (name, count) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

fn raise(peak: &mut ResourceCounts, now: &ResourceCounts) {
    for (name, count) in now {
        let highest = peak.entry(name.clone()).or_default();
        *highest = (*highest).max(*count);
    }
}

/// Formats amounts: `8` for whole GPUs, `name=count` for any other resource.
pub fn text(amounts: &ResourceCounts) -> String {
    let one = |(name, count): (&String, &u64)| match name.as_str() {
        GPU_RESOURCE => count.to_string(),
        name => format!("{name}={count}"),
    };
    amounts.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GPU: &str = "nvidia.com/gpu";

    fn pod(phase: &str, init: &[(u64, bool)], main: &[u64]) -> Pod {
        let container = |gpus: u64| json!({"name": "c", "resources": {"limits": {GPU: gpus.to_string(), "cpu": "1"}}});
        let init: Vec<_> = init
            .iter()
            .map(|(gpus, sidecar)| {
                let mut container = container(*gpus);
                if *sidecar {
                    container["restartPolicy"] = json!("Always");
                }
                container
            })
            .collect();
        let main: Vec<_> = main.iter().map(|gpus| container(*gpus)).collect();
        let value = json!({"spec": {"initContainers": init, "containers": main}, "status": {"phase": phase}});
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_pod_holds_the_larger_of_its_beginning_and_its_rest() {
        const INIT: bool = false;
        const SIDECAR: bool = true;
        /// The name of the case, the GPUs of each init container and whether it is a sidecar, the GPUs of each
        /// container, and the GPUs that the pod holds.
        type Case = (&'static str, &'static [(u64, bool)], &'static [u64], u64);
        let cases: &[Case] = &[
            ("containers add up", &[], &[1, 2], 3),
            ("init smaller than main", &[(1, INIT)], &[2], 2),
            ("init larger than main", &[(4, INIT)], &[1, 1], 4),
            ("inits one after the other", &[(3, INIT), (2, INIT)], &[1], 3),
            ("a sidecar stays", &[(1, SIDECAR)], &[2], 3),
            ("an init beside a sidecar that started before it", &[(1, SIDECAR), (4, INIT)], &[2], 5),
            ("an init that exits before the sidecar starts", &[(4, INIT), (1, SIDECAR)], &[2], 4),
            ("two sidecars", &[(1, SIDECAR), (1, SIDECAR)], &[1], 3),
            ("nothing asked", &[(0, INIT)], &[0], 0),
        ];
        for (case, init, main, held) in cases {
            let amounts = effective_requests(&pod("Running", init, main));
            assert_eq!(amounts.get(GPU).copied().unwrap_or(0), *held, "{case}");
        }
    }

    #[test]
    fn pods_that_ended_hold_nothing() {
        let pods = ["Pending", "Running", "Succeeded", "Failed", "Unknown"].map(|phase| pod(phase, &[], &[1]));
        assert_eq!(allocated(&pods)[GPU], 3);
    }

    #[test]
    fn shares_and_left_over_names() {
        let amounts = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let capacity = amounts(&[(GPU, 0), ("nvidia.com/gpu.shared", 32)]);
        let allocated = amounts(&[("nvidia.com/gpu.shared", 5)]);
        let uses = uses(&capacity, &capacity, Some(&allocated), |_| 4);
        assert_eq!(uses.len(), 1);
        assert_eq!((uses[0].available, uses[0].replicas, uses[0].unit), (Some(27), Some(4), Unit::Share));
    }
}
