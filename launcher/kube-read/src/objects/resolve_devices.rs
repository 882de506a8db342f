//! `resolve`: joins the kubelet's device allocations with the pods: pod → container → UUID → process.
//! `Leftovers`: allocations and processes that belong to no container. `allocated_gpus`: the number of allocated GPUs.
//!
//! The API contains only the number of GPUs of a container, and not which GPUs these are.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::facts::inventory::Inventory;
use syringe_core::facts::kubelet::Allocation;
use syringe_core::facts::mig::Mig;
use syringe_core::facts::processes::{GpuProcess, GpuUse};
use syringe_core::report::{Section, Sections};
use syringe_core::text::clean;
use syringe_macros::omit;

use crate::objects::gpu_requests::{ContainerRole, ResourceCounts};
use crate::objects::pod_rows::{ContainerRow, DeviceRow, PodRow, ProcessRow};

/// Allocations and processes that belong to no container of an existing pod.
#[omit(Vec)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Leftovers {
    /// Devices that the kubelet still has allocated to deleted pods.
    pub allocated_to_deleted_pods: Vec<StaleAllocation>,
    /// Processes on GPUs without an allocation: processes of the host, or of a container to which the GPU is not allocated.
    pub processes: Vec<StrayProcess>,
}

impl Leftovers {
    /// Returns whether there are no leftovers.
    pub fn is_empty(&self) -> bool {
        self.allocated_to_deleted_pods.is_empty() && self.processes.is_empty()
    }
}

/// An allocation to a pod that does not exist.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct StaleAllocation {
    /// UID of the pod. Empty if the kubelet reported the name of the pod instead.
    pub pod_uid: String,
    /// `NAMESPACE/NAME`, if the kubelet reported the name.
    pub pod: Option<String>,
    /// Name of the container.
    pub container: String,
    /// The devices.
    pub devices: Vec<String>,
}

/// A process on a device that is not allocated to its container.
#[omit(Option)]
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct StrayProcess {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessRow,
    /// The device.
    pub uuid: String,
    /// The pod in the name of the process's cgroup.
    pub pod: Option<String>,
}

/// The names of a node's GPUs and MIG devices.
struct Devices {
    gpus: HashMap<u32, String>,
    indices: HashMap<String, u32>,
    profiles: HashMap<String, String>,
    mig: HashMap<(u32, u32, u32), String>,
}

/// Adds devices and processes to the rows. Returns those that belong to no container. Without `existing_pods`, no pod
/// counts as deleted.
pub fn resolve(rows: &mut [PodRow], existing_pods: Option<&HashMap<String, String>>, sections: &Sections) -> Leftovers {
    let devices = Devices::of(Section::data_of(&sections.inventory), Section::data_of(&sections.mig));
    let mut left = Leftovers::default();
    for allocation in
        Section::data_of(&sections.kubelet).map(|kubelet| kubelet.allocations.as_slice()).unwrap_or_default()
    {
        let is_gone = |existing_pods: &HashMap<String, String>| {
            let holder = allocation.holder();
            !existing_pods.contains_key(&allocation.pod_uid) && !existing_pods.values().any(|name| *name == holder)
        };
        match rows.iter_mut().find(|row| allocation.is_of(&row.uid, &row.namespace, &row.name)) {
            Some(row) => set_allocation(row, allocation, &devices),
            None if existing_pods.is_some_and(is_gone) => left.allocated_to_deleted_pods.push(StaleAllocation {
                pod_uid: allocation.pod_uid.clone(),
                pod: allocation.pod.is_some().then(|| allocation.holder()),
                container: clean(&allocation.container, 63),
                devices: allocation.devices.iter().map(|id| clean(id, 80)).collect(),
            }),
            None => {}
        }
    }
    for process in Section::data_of(&sections.processes).map(|all| all.processes.as_slice()).unwrap_or_default() {
        for used in &process.uses {
            let uuid = devices.used(used);
            let row = ProcessRow {
                pid: process.pid,
                name: process.name.as_deref().map(|name| clean(name, 40)),
                memory_bytes: used.memory_bytes,
            };
            match holder(rows, process, &uuid) {
                Some(device) => device.processes.push(row),
                None => {
                    let name =
                        |uid| existing_pods.and_then(|existing_pods| existing_pods.get(uid)).unwrap_or(uid).clone();
                    let pod = process.pod_uid.as_ref().map(name);
                    left.processes.push(StrayProcess { process: row, uuid, pod });
                }
            }
        }
    }
    left
}

/// Returns the number of GPUs that the kubelet has allocated, completely or in part.
pub fn allocated_gpus(sections: &Sections) -> u64 {
    let devices = Devices::of(Section::data_of(&sections.inventory), Section::data_of(&sections.mig));
    let booked = Section::data_of(&sections.kubelet).into_iter().flat_map(|kubelet| &kubelet.allocations);
    let ids = booked.flat_map(|allocation| &allocation.devices);
    let gpus: std::collections::HashSet<u32> = ids.filter_map(|id| devices.indices.get(id).copied()).collect();
    gpus.len() as u64
}

/// Sets the devices from the kubelet in the container's row. They replace the devices from the API.
fn set_allocation(row: &mut PodRow, allocation: &Allocation, devices: &Devices) {
    // A claim belongs to a pod, not to a container. The devices of the claim are already in the row, from the API.
    if allocation.claim.is_some() || allocation.container.is_empty() {
        return;
    }
    let at = row.containers.iter().position(|container| container.name == allocation.container);
    let at = at.unwrap_or_else(|| {
        row.containers.push(ContainerRow {
            name: clean(&allocation.container, 63),
            role: ContainerRole::Main,
            requests: ResourceCounts::new(),
            limits: None,
            devices: Vec::new(),
            runtime_id: String::new(),
        });
        row.containers.len() - 1
    });
    let container = &mut row.containers[at];
    for id in &allocation.devices {
        match container.devices.iter_mut().find(|device| device.uuid == *id) {
            Some(device) => device.source = "kubelet",
            None => {
                container.devices.push(DeviceRow { uuid: clean(id, 80), source: "kubelet", ..DeviceRow::default() })
            }
        }
    }
    for device in &mut container.devices {
        device.gpu = devices.indices.get(&device.uuid).copied();
        device.mig_profile = devices.profiles.get(&device.uuid).cloned();
    }
}

/// Returns the device row for a process: the row of its own container, or else of another container of its pod.
fn holder<'a>(rows: &'a mut [PodRow], process: &GpuProcess, uuid: &str) -> Option<&'a mut DeviceRow> {
    let pod = process.pod_uid.as_deref()?;
    let row = rows.iter_mut().find(|row| row.uid == pod)?;
    let id = process.container_id.as_deref().unwrap_or_default();
    let has = |container: &ContainerRow| container.devices.iter().any(|device| device.uuid == uuid);
    let own =
        row.containers.iter().position(|container| container.runtime_id == id && !id.is_empty() && has(container));
    let at = own.or_else(|| row.containers.iter().position(has))?;
    row.containers[at].devices.iter_mut().find(|device| device.uuid == uuid)
}

impl Devices {
    fn of(inventory: Option<&Inventory>, mig: Option<&Mig>) -> Self {
        let mut devices =
            Self { gpus: HashMap::new(), indices: HashMap::new(), profiles: HashMap::new(), mig: HashMap::new() };
        for gpu in inventory.map(|inventory| inventory.gpus.as_slice()).unwrap_or_default() {
            if let Some(uuid) = &gpu.uuid {
                devices.gpus.insert(gpu.index, uuid.clone());
                devices.indices.insert(uuid.clone(), gpu.index);
            }
        }
        for gpu in mig.map(|mig| mig.gpus.as_slice()).unwrap_or_default() {
            for device in &gpu.devices {
                let Some(uuid) = &device.uuid else { continue };
                devices.indices.insert(uuid.clone(), gpu.index);
                if let Some(profile) = &device.profile {
                    devices.profiles.insert(uuid.clone(), profile.clone());
                }
                if let (Some(instance), Some(compute)) = (device.gpu_instance, device.compute_instance) {
                    devices.mig.insert((gpu.index, instance, compute), uuid.clone());
                }
            }
        }
        devices
    }

    /// Returns the UUID of the device that a process uses.
    fn used(&self, used: &GpuUse) -> String {
        let part = used.mig_gpu_instance.map(|instance| (used.gpu, instance, used.mig_compute_instance.unwrap_or(0)));
        let mig = part.and_then(|part| self.mig.get(&part));
        mig.or_else(|| self.gpus.get(&used.gpu)).cloned().unwrap_or_else(|| format!("GPU {}", used.gpu))
    }
}
