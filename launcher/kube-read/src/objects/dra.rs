//! `Dra`: the GPUs (`Device`) that drivers for dynamic resource allocation publish, and the claims with devices
//! (`Claim`). `is_gpu_driver`: whether the devices of a driver are GPUs. `held_devices`: the allocated devices, each
//! once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::objects::gpu_requests::ResourceCounts;

/// The full name of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// Driver, e.g. `gpu.nvidia.com`.
    pub driver: String,
    /// Pool. NVIDIA's driver has one pool per node.
    pub pool: String,
    /// Name in the pool, e.g. `gpu-3`.
    pub device: String,
}

/// A device that a driver publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Node of the device.
    pub node: String,
    /// GPU or MIG UUID.
    pub uuid: Option<String>,
    /// `gpu`, `mig` or `vfio`, from the driver.
    pub kind: Option<String>,
    pub product: Option<String>,
    pub driver_version: Option<String>,
    /// Taints that the driver set on the device: `key=value:effect`.
    pub taints: Vec<String>,
}

/// A claim and its allocated devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub devices: Vec<AllocatedDevice>,
    /// Names of the pods that may use the claim now.
    pub reserved_for: Vec<String>,
}

/// A device that is allocated to a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocatedDevice {
    pub name: DeviceName,
    /// Admin access: the claim may use the device for monitoring, and other claims can hold the device at the same
    /// time.
    pub admin_access: bool,
}

/// The GPUs that dynamic resource allocation manages.
#[derive(Clone, Debug, Default)]
pub struct Dra {
    by_node: HashMap<String, BTreeMap<DeviceName, Device>>,
    node_of: HashMap<DeviceName, String>,
    claims: HashMap<(String, String), Claim>,
}

impl Dra {
    /// Creates a `Dra` from devices and claims.
    pub fn new(devices: BTreeMap<DeviceName, Device>, claims: HashMap<(String, String), Claim>) -> Self {
        let mut dra = Self { claims, ..Self::default() };
        for (name, device) in devices {
            dra.node_of.insert(name.clone(), device.node.clone());
            dra.by_node.entry(device.node.clone()).or_default().insert(name, device);
        }
        dra
    }

    /// Returns the nodes that have devices.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// Returns the devices of one node.
    pub fn devices_on(&self, node: &str) -> impl Iterator<Item = (&DeviceName, &Device)> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// Returns the device with this name.
    pub fn device(&self, name: &DeviceName) -> Option<&Device> {
        self.by_node.get(self.node_of.get(name)?)?.get(name)
    }

    /// Returns a claim with allocated devices.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Returns the allocated amounts by node. A device counts once, even if several claims contain it.
    pub fn held(&self) -> HashMap<&str, ResourceCounts> {
        let mut held: HashMap<&str, ResourceCounts> = HashMap::new();
        for name in held_devices(self.claims.values()) {
            if let Some(device) = self.device(&name) {
                *held.entry(&device.node).or_default().entry(device.resource(&name)).or_default() += 1;
            }
        }
        held
    }
}

impl Device {
    /// Returns the resource name for counting a device: the driver's name for whole GPUs, another name for MIG devices.
    pub fn resource(&self, name: &DeviceName) -> String {
        match self.kind.as_deref() {
            None | Some("gpu") => name.driver.clone(),
            Some(kind) => format!("{}/{kind}", name.driver),
        }
    }

    /// Returns whether the device is a physical GPU.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind.as_deref(), None | Some("gpu"))
    }
}

/// Returns whether the devices of a driver are GPUs. NVIDIA's other driver (`compute-domain.nvidia.com`) publishes IMEX
/// channels.
pub fn is_gpu_driver(driver: &str) -> bool {
    driver.contains("gpu") && driver.contains("nvidia")
}

/// Returns each allocated device once. Devices with `adminAccess` do not count, because they remain available.
pub fn held_devices<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> BTreeSet<DeviceName> {
    let devices = claims.into_iter().flat_map(|claim| &claim.devices);
    devices.filter(|device| !device.admin_access).map(|device| device.name.clone()).collect()
}
