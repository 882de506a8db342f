//! Dynamic resource allocation: the devices that drivers publish (ResourceSlices) and those that claims hold
//! (ResourceClaims). Read in the newest version that the cluster serves; absent where it serves none.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;
use syringe_core::diagnosis::Unknown;
use syringe_core::text::clean;

use crate::error::Failure;
use crate::kubernetes::Connection;
use crate::kubernetes::client::pages;
use crate::kubernetes::client::pages::Query;
use crate::kubernetes::client::retry;
use crate::kubernetes::model::allocation::{Amounts, held_devices};
use crate::kubernetes::model::dra_objects::{LeanClaim, Slice, SliceDevice, SliceSpec};
use crate::kubernetes::read::nodes::{timed_out, unanswered};

/// The group's versions that are understood, newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];

/// A device by its full name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// Driver, e.g. `gpu.nvidia.com`.
    pub driver: String,
    /// Pool; NVIDIA's driver has one per node.
    pub pool: String,
    /// Name in the pool, e.g. `gpu-3`.
    pub device: String,
}

/// A device as its driver publishes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Node that it is on.
    pub node: String,
    /// GPU or MIG UUID.
    pub uuid: Option<String>,
    /// `gpu`, `mig`, `vfio`, as the driver says.
    pub kind: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Driver version.
    pub driver_version: Option<String>,
    /// Taints that the driver put on it: `key=value:effect`.
    pub taints: Vec<String>,
}

/// A claim and the devices that it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Devices.
    pub devices: Vec<Given>,
    /// Pods that may use it now, by name.
    pub reserved_for: Vec<String>,
}

/// A device that a claim was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The device.
    pub name: DeviceName,
    /// Given for administration, beside whoever holds it.
    pub admin_access: bool,
}

/// What dynamic resource allocation knows of GPUs.
#[derive(Clone, Debug, Default)]
pub struct Dra {
    by_node: HashMap<String, BTreeMap<DeviceName, Device>>,
    node_of: HashMap<DeviceName, String>,
    claims: HashMap<(String, String), Claim>,
}

impl Dra {
    fn new(devices: BTreeMap<DeviceName, Device>, claims: HashMap<(String, String), Claim>) -> Self {
        let mut dra = Self { claims, ..Self::default() };
        for (name, device) in devices {
            dra.node_of.insert(name.clone(), device.node.clone());
            dra.by_node.entry(device.node.clone()).or_default().insert(name, device);
        }
        dra
    }

    /// Nodes that have devices.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// Devices of one node.
    pub fn devices_on(&self, node: &str) -> impl Iterator<Item = (&DeviceName, &Device)> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// A device by its name.
    pub fn device(&self, name: &DeviceName) -> Option<&Device> {
        self.by_node.get(self.node_of.get(name)?)?.get(name)
    }

    /// A claim that holds devices.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Amounts that claims hold, by node: each device once, however many claims name it.
    pub fn held(&self) -> HashMap<&str, Amounts> {
        let mut held: HashMap<&str, Amounts> = HashMap::new();
        for name in held_devices(self.claims.values()) {
            if let Some(device) = self.device(&name) {
                *held.entry(&device.node).or_default().entry(device.resource(&name)).or_default() += 1;
            }
        }
        held
    }
}

impl Device {
    /// The name that devices of this kind are counted under: whole GPUs under the driver's, MIG devices beside them.
    pub fn resource(&self, name: &DeviceName) -> String {
        match self.kind.as_deref() {
            None | Some("gpu") => name.driver.clone(),
            Some(kind) => format!("{}/{kind}", name.driver),
        }
    }

    /// Whether it is a GPU that one could touch.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind.as_deref(), None | Some("gpu"))
    }
}

/// Whether a driver's devices are GPUs. NVIDIA's other driver (`compute-domain.nvidia.com`) publishes IMEX channels.
pub(crate) fn is_gpu_driver(driver: &str) -> bool {
    driver.contains("gpu") && driver.contains("nvidia")
}

/// Reads devices (of `node`, or of all) and claims. `None` where the cluster serves no dynamic resource allocation, has no
/// GPU in it, or will not tell; `unknown` has the reason of the last. Fails where the API server cannot be reached, or fails
/// to say what it serves.
pub(crate) async fn read(
    connection: &Connection,
    node: Option<&str>,
    unknown: &mut Vec<Unknown>,
) -> Result<Option<Dra>, Failure> {
    let Some(version) = served(connection, unknown).await? else { return Ok(None) };
    match everything(connection, version, node).await {
        Ok(dra) => Ok(dra),
        Err(Failure { what, why, .. }) => {
            unknown.push(Unknown {
                section: "dynamic resource allocation".into(),
                gpu: None,
                why: format!("{what}: {why}"),
            });
            Ok(None)
        }
    }
}

async fn everything(connection: &Connection, version: &str, node: Option<&str>) -> Result<Option<Dra>, Failure> {
    let devices = devices(connection, version, node).await?;
    if devices.is_empty() {
        return Ok(None);
    }
    let claims = claims(connection, version).await?;
    Ok(Some(Dra::new(devices, claims)))
}

/// The newest version of the group that is both served and understood. Who may not ask learns nothing of it: unknown.
async fn served(connection: &Connection, unknown: &mut Vec<Unknown>) -> Result<Option<&'static str>, Failure> {
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        versions: Vec<Served>,
    }
    #[derive(Deserialize)]
    struct Served {
        version: String,
    }
    let what = || format!("Asking context {} for resource.k8s.io", connection.context);
    let ask = || async {
        let request = http::Request::get("/apis/resource.k8s.io").body(Vec::new()).map_err(kube::Error::HttpError)?;
        connection.client.request::<Group>(request).await
    };
    match retry::read(ask).await {
        Some(Ok(group)) => {
            let is_served = |version: &&str| group.versions.iter().any(|served| served.version == *version);
            Ok(VERSIONS.into_iter().find(|version| is_served(version)))
        }
        Some(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Some(Err(kube::Error::Api(status))) if status.code == 403 => {
            let why = format!("{}: {} (HTTP 403)", what(), status.message);
            unknown.push(Unknown { section: "dynamic resource allocation".into(), gpu: None, why });
            Ok(None)
        }
        Some(Err(error)) => Err(unanswered(connection, what(), &error)),
        None => Err(timed_out(connection, what())),
    }
}

async fn devices(
    connection: &Connection,
    version: &str,
    node: Option<&str>,
) -> Result<BTreeMap<DeviceName, Device>, Failure> {
    let fields = node.map(|node| format!("spec.nodeName={node}"));
    let query = Query {
        what: "Listing resource slices",
        path: &format!("/apis/resource.k8s.io/{version}/resourceslices"),
        labels: None,
        fields: fields.as_deref(),
    };
    let slices = pages::fold(connection, &query, Vec::new, |slices: &mut Vec<SliceSpec>, slice: Slice| {
        let here = node.is_none_or(|node| slice.spec.node_name.as_deref() == Some(node));
        if here && is_gpu_driver(&slice.spec.driver) {
            slices.push(slice.spec);
        }
    });
    Ok(newest(slices.await?))
}

/// Devices of the newest generation of each pool: while a driver publishes anew, old slices linger.
fn newest(slices: Vec<SliceSpec>) -> BTreeMap<DeviceName, Device> {
    let mut generations: HashMap<(String, String), i64> = HashMap::new();
    for slice in &slices {
        let newest = generations.entry((slice.driver.clone(), slice.pool.name.clone())).or_default();
        *newest = (*newest).max(slice.pool.generation);
    }
    let mut devices = BTreeMap::new();
    for SliceSpec { driver, pool, node_name, devices: published } in slices {
        if generations.get(&(driver.clone(), pool.name.clone())) != Some(&pool.generation) {
            continue;
        }
        let node = node_name.unwrap_or_default();
        for SliceDevice { name, attributes, taints, basic } in published.unwrap_or_default() {
            let attributes = basic.map_or(attributes, |basic| basic.attributes);
            let text = |key: &str| attribute(&attributes, key);
            let device = Device {
                node: node.clone(),
                uuid: text("uuid"),
                kind: text("type"),
                product: text("productName"),
                driver_version: text("driverVersion"),
                taints: taints
                    .into_iter()
                    .map(|taint| clean(&format!("{}={}:{}", taint.key, taint.value, taint.effect), 120))
                    .collect(),
            };
            devices.insert(DeviceName { driver: driver.clone(), pool: pool.name.clone(), device: name }, device);
        }
    }
    devices
}

/// An attribute's value, whichever of its types it has. A qualified name (`gpu.nvidia.com/uuid`) is the same attribute.
fn attribute(attributes: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    let named = attributes.iter().find(|(name, _)| name.rsplit('/').next() == Some(key))?.1;
    let value = named.as_object()?.values().next()?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(clean(&text, 80))
}

async fn claims(connection: &Connection, version: &str) -> Result<HashMap<(String, String), Claim>, Failure> {
    let query = Query {
        what: "Listing resource claims",
        path: &format!("/apis/resource.k8s.io/{version}/resourceclaims"),
        labels: None,
        fields: None,
    };
    pages::fold(connection, &query, HashMap::new, |claims, claim: LeanClaim| {
        let claim = claim.into_claim();
        if !claim.devices.is_empty() {
            claims.insert((claim.namespace.clone(), claim.name.clone()), claim);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(value: Value) -> SliceSpec {
        serde_json::from_value::<Slice>(json!({"spec": value})).expect("a slice").spec
    }

    #[test]
    fn the_newest_generation_counts_and_old_versions_read_the_same() {
        let attributes =
            json!({"uuid": {"string": "GPU-a"}, "type": {"string": "gpu"}, "driverVersion": {"version": "570.1.0"}});
        let published = |generation: i64, device: Value| {
            slice(json!({
                "driver": "gpu.nvidia.com", "nodeName": "n1", "devices": [device],
                "pool": {"name": "n1", "generation": generation, "resourceSliceCount": 1},
            }))
        };
        let old = published(1, json!({"name": "gpu-9", "attributes": {}}));
        let new = published(2, json!({"name": "gpu-0", "attributes": attributes}));
        let beta = published(2, json!({"name": "gpu-1", "basic": {"attributes": attributes}}));
        let devices = newest(vec![old, new, beta]);
        let names: Vec<_> = devices.keys().map(|name| name.device.as_str()).collect();
        assert_eq!(names, ["gpu-0", "gpu-1"]);
        for device in devices.values() {
            assert_eq!((device.uuid.as_deref(), device.driver_version.as_deref()), (Some("GPU-a"), Some("570.1.0")));
        }
    }
}
