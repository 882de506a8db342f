//! `row`: creates the row of a pod that uses GPUs (`PodRow`): requests by container, claims, devices from the API, and
//! fields for processes. `statuses`: the states of all containers of a pod.

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::text::clean;
use syringe_macros::omit;

use crate::objects::api_objects::pod::PodClaim;
use crate::objects::api_objects::pod_status::{ContainerStatus, ResourceHealth};
use crate::objects::dra::Dra;
use crate::objects::gpu_pod::{Container, Pod};
use crate::objects::gpu_requests;
use crate::objects::gpu_requests::{ContainerRole, ResourceCounts, effective_requests, holds_resources, role_of_init};
use crate::objects::name_validation::container_id_without_scheme;

/// Maximum number of UUIDs from the annotations of one pod.
const MAX_UUIDS: usize = 128;

/// A pod that requests GPUs.
#[omit(Option, Vec, bool, !containers)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct PodRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Node of the pod, in an answer about several nodes.
    pub node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Whether the pod is being deleted. Its devices are not free yet.
    pub terminating: bool,
    /// Resources that the pod holds. Empty if the pod has terminated.
    pub holds: ResourceCounts,
    /// Containers that request GPUs.
    pub containers: Vec<ContainerRow>,
    /// Claims with allocated GPUs.
    pub claims: Vec<ClaimRow>,
    /// GPU and MIG UUIDs in annotations of the pod, as a scheduler wrote them. They are not verified.
    pub annotated_uuids: Vec<String>,
}

/// A container that requests or has GPUs.
#[omit(Option, Vec)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ContainerRow {
    /// Name.
    pub name: String,
    /// Kind of container.
    pub role: ContainerRole,
    /// Requests.
    pub requests: ResourceCounts,
    /// Limits, if they differ from the requests.
    pub limits: Option<ResourceCounts>,
    /// Devices, according to the API or a probe.
    pub devices: Vec<DeviceRow>,
    /// ID in the container runtime, by which processes are assigned to the container.
    #[serde(skip)]
    pub runtime_id: String,
}

/// A device of a container.
#[omit(Option, Vec)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeviceRow {
    /// GPU or MIG UUID, or the device's name if it has no UUID.
    pub uuid: String,
    /// NVML index of the GPU. Needs `resolve_devices`.
    pub gpu: Option<u32>,
    /// MIG profile. Needs `resolve_devices`.
    pub mig_profile: Option<String>,
    /// `Healthy`, `Unhealthy` or `Unknown` according to the device plugin, if the pod status has this field (1.31 or newer).
    pub health: Option<String>,
    /// Source of the allocation: `kubelet`, `pod_status`, `claim`.
    #[schemars(extend("x-text" = "own"))]
    pub source: &'static str,
    /// Processes of the container on the device. Needs `resolve_devices`.
    pub processes: Vec<ProcessRow>,
}

/// A process on a GPU.
#[omit(Option)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessRow {
    /// Process id on the host.
    pub pid: u32,
    /// Name. Text from the node.
    pub name: Option<String>,
    /// GPU memory.
    pub memory_bytes: Option<u64>,
}

/// A claim of a pod.
#[omit(shared_with)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ClaimRow {
    /// Name in the pod specification.
    pub name: String,
    /// Name of the ResourceClaim.
    pub claim: String,
    /// Devices.
    pub devices: Vec<ClaimDevice>,
    /// Other pods that share the claim and its devices.
    pub shared_with: Vec<String>,
}

/// A device that is allocated to a claim.
#[omit(Option, bool)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ClaimDevice {
    /// Driver.
    pub driver: String,
    /// Name in the node's pool, e.g. `gpu-3`.
    pub device: String,
    /// UUID, if the driver publishes it.
    pub uuid: Option<String>,
    /// Admin access: the claim may use the device for monitoring, and other claims can hold the device at the same time.
    pub admin_access: bool,
}

/// Returns the row of `pod`, or `None` if the pod does not request GPUs and has no GPUs.
pub fn row(pod: &Pod, dra: Option<&Dra>) -> Option<PodRow> {
    let claims: Vec<ClaimRow> = dra.map(|dra| claims(pod, dra)).unwrap_or_default();
    let mains = pod.spec.containers.iter().map(|container| (container, ContainerRole::Main));
    let inits = pod.spec.init_containers.iter().map(|container| (container, role_of_init(container)));
    let containers: Vec<_> =
        inits.chain(mains).filter_map(|(container, role)| container_row(pod, container, role, &claims)).collect();
    let uuids = &pod.metadata.annotations.uuids;
    if containers.is_empty() && claims.is_empty() && uuids.is_empty() {
        return None;
    }
    let phase = &pod.status.phase;
    Some(PodRow {
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        node: None,
        phase: clean(phase, 20),
        terminating: pod.metadata.is_deleting,
        holds: if holds_resources(phase) { effective_requests(pod) } else { ResourceCounts::new() },
        containers,
        claims: if holds_resources(phase) { claims } else { Vec::new() },
        annotated_uuids: uuids.iter().take(MAX_UUIDS).cloned().collect(),
    })
}

fn container_row(pod: &Pod, container: &Container, role: ContainerRole, claims: &[ClaimRow]) -> Option<ContainerRow> {
    let requests = gpu_requests::requests(container);
    let status = statuses(pod).find(|status| status.name == container.name);
    let mut devices: Vec<DeviceRow> = status.into_iter().flat_map(devices_of_status).collect();
    for named in &container.resources.claims {
        let claim = claims.iter().find(|claim| claim.name == named.name);
        for device in claim.into_iter().flat_map(|claim| &claim.devices) {
            let uuid = device.uuid.clone().unwrap_or_else(|| device.device.clone());
            if !devices.iter().any(|known| known.uuid == uuid) {
                devices.push(DeviceRow { uuid, source: "claim", ..DeviceRow::default() });
            }
        }
    }
    if requests.is_empty() && devices.is_empty() {
        return None;
    }
    let limits = &container.resources.limits.0;
    Some(ContainerRow {
        name: container.name.clone(),
        role,
        limits: (*limits != requests).then(|| limits.clone()),
        requests,
        devices,
        runtime_id: status
            .map(|status| container_id_without_scheme(&status.container_id).to_owned())
            .unwrap_or_default(),
    })
}

/// Returns the states of all containers of a pod.
pub fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses)
}

/// Returns the devices in the container's status (KEP-4680), with their health.
fn devices_of_status(status: &ContainerStatus) -> Vec<DeviceRow> {
    let of_gpus = status.allocated_resources_status.iter().filter(|one| {
        crate::objects::gpu_resource_names::is_gpu_resource(&one.name)
            || (one.name.starts_with("claim:") && one.resources.iter().any(|device| device.resource_id.contains("gpu")))
    });
    let row = |device: &ResourceHealth| DeviceRow {
        uuid: clean(&device.resource_id, 120),
        health: (!device.health.is_empty()).then(|| clean(&device.health, 20)),
        source: "pod_status",
        ..DeviceRow::default()
    };
    of_gpus.flat_map(|one| &one.resources).map(row).collect()
}

fn claims(pod: &Pod, dra: &Dra) -> Vec<ClaimRow> {
    let namespace = &pod.metadata.namespace;
    let named = |claim: &PodClaim| {
        let made = pod.status.resource_claim_statuses.iter().find(|made| made.name == claim.name);
        let own = Some(&claim.resource_claim_name).filter(|name| !name.is_empty());
        let name = own.or(made.map(|made| &made.resource_claim_name)).filter(|name| !name.is_empty())?;
        let found = dra.claim(namespace, name)?;
        let device = |given: &crate::objects::dra::AllocatedDevice| ClaimDevice {
            driver: clean(&given.name.driver, 80),
            device: clean(&given.name.device, 80),
            uuid: dra.device(&given.name).and_then(|device| device.uuid.clone()),
            admin_access: given.admin_access,
        };
        Some(ClaimRow {
            name: claim.name.clone(),
            claim: name.clone(),
            devices: found.devices.iter().map(device).collect(),
            shared_with: found
                .reserved_for
                .iter()
                .filter(|pod_name| **pod_name != pod.metadata.name)
                .cloned()
                .collect(),
        })
    };
    pod.spec.resource_claims.iter().filter_map(named).collect()
}
