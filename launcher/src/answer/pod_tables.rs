//! `resources_table`, `pods_table`: format the GPU resources of a node, and the pods that use the resources, as tables.

use crate::terminal::table::{Rows, cell, new_table};
use kube_read::objects::gpu_requests::{ResourceCounts, ResourceUse};
use kube_read::objects::pod_rows::{ContainerRow, DeviceRow, PodRow};

pub(crate) fn resources_table(resources: &[ResourceUse]) -> Rows {
    let mut rows = new_table(["resource", "capacity", "allocatable", "allocated", "available", "shares per gpu"])
        .optional(&["capacity"]);
    for one in resources {
        rows.add_row([
            one.resource.clone(),
            one.capacity.to_string(),
            one.allocatable.to_string(),
            cell(one.allocated),
            cell(one.available),
            cell(one.replicas),
        ]);
    }
    rows
}

pub(crate) fn pods_table(pods: &[PodRow]) -> Rows {
    // In an answer about one node, no pod has the field `node`.
    let has_nodes = pods.iter().any(|pod| pod.node.is_some());
    let mut rows = if has_nodes {
        new_table(["pod", "node", "phase", "holds", "container", "requests", "devices", "processes"])
    } else {
        new_table(["pod", "phase", "holds", "container", "requests", "devices", "processes"])
    }
    .optional(&["phase", "requests", "container"]);
    for pod in pods {
        let phase = if pod.terminating { format!("{}, terminating", pod.phase) } else { pod.phase.clone() };
        let claimed_devices = pod.claims.iter().flat_map(|claim| &claim.devices).map(|device| device.device.clone());
        let holds = amounts(&pod.holds).into_iter().chain(claimed_devices).collect::<Vec<_>>().join(" ");
        // A pod without a node has no device yet.
        let is_waiting = has_nodes && pod.node.is_none() && !holds.is_empty();
        let holds = if is_waiting { format!("waits for {holds}") } else { holds };
        let mut first = vec![format!("{}/{}", pod.namespace, pod.name)];
        first.extend(has_nodes.then(|| pod.node.clone().unwrap_or_default()));
        first.extend([phase, holds]);
        if pod.containers.is_empty() {
            rows.add_row([first.as_slice(), &[const { String::new() }; 4]].concat());
        }
        for (place, container) in pod.containers.iter().enumerate() {
            let start = if place == 0 { first.clone() } else { vec![String::new(); first.len()] };
            rows.add_row([start.as_slice(), &container_cells(container)].concat());
        }
    }
    rows
}

fn container_cells(container: &ContainerRow) -> [String; 4] {
    let device = |device: &DeviceRow| {
        let health = device.health.as_deref().filter(|health| *health != "Healthy").map(|health| format!(" {health}"));
        // If the index of the GPU is known, the beginning of its UUID is enough to identify it.
        let name = match device.gpu {
            Some(gpu) => format!("{gpu}: {}", device.uuid.chars().take(12).collect::<String>()),
            None => device.uuid.clone(),
        };
        format!("{name}{}", health.unwrap_or_default())
    };
    let processes =
        container.devices.iter().flat_map(|device| &device.processes).map(|process| process.pid.to_string());
    [
        container.name.clone(),
        amounts(&container.requests).join(" "),
        container.devices.iter().map(device).collect::<Vec<_>>().join("\n"),
        processes.collect::<Vec<_>>().join(" "),
    ]
}

fn amounts(amounts: &ResourceCounts) -> Vec<String> {
    amounts.iter().map(|(name, count)| format!("{name}={count}")).collect()
}
