//! Types for ResourceSlices (`Slice`) and ResourceClaims (`SlimClaim`) in every supported API version, with only the
//! needed fields. `newest`: the devices of the newest generation of each pool.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;
use syringe_core::text::clean;

use crate::objects::dra::{AllocatedDevice, Claim, Device, DeviceName};

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Slice {
    pub spec: SliceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceSpec {
    pub driver: String,
    pub pool: Pool,
    pub node_name: Option<String>,
    pub devices: Option<Vec<SliceDevice>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub name: String,
    pub generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct SliceDevice {
    pub name: String,
    pub attributes: BTreeMap<String, Value>,
    pub taints: Vec<DeviceTaint>,
    /// In versions up to v1beta1, the attributes are one level deeper.
    pub basic: Option<Basic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Basic {
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct DeviceTaint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl DeviceTaint {
    /// Returns the taint as `key=value:effect`.
    pub fn in_words(&self) -> String {
        format!("{}={}:{}", self.key, self.value, self.effect)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct SlimClaim {
    pub metadata: ClaimMetadata,
    pub status: ClaimStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ClaimMetadata {
    pub name: String,
    pub namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimStatus {
    pub allocation: Option<ClaimAllocation>,
    pub reserved_for: Vec<Consumer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ClaimAllocation {
    pub devices: ClaimDevices,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ClaimDevices {
    pub results: Vec<ClaimResult>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimResult {
    pub driver: String,
    pub pool: String,
    pub device: String,
    pub admin_access: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Consumer {
    pub resource: String,
    pub name: String,
}

impl SlimClaim {
    /// Returns the claim with its devices of the drivers for which `is_of` is true.
    pub fn into_claim(self, is_of: fn(&str) -> bool) -> Claim {
        let Self { metadata, status } = self;
        let results = status.allocation.unwrap_or_default().devices.results;
        let given = results.into_iter().filter(|result| is_of(&result.driver)).map(|result| AllocatedDevice {
            name: DeviceName { driver: result.driver, pool: result.pool, device: result.device },
            admin_access: result.admin_access.unwrap_or(false),
        });
        let pods = status.reserved_for.into_iter().filter(|consumer| consumer.resource == "pods");
        Claim {
            namespace: metadata.namespace,
            name: metadata.name,
            devices: given.collect(),
            reserved_for: pods.map(|consumer| consumer.name).collect(),
        }
    }
}

/// Returns the devices of the newest generation of each pool. Old slices can remain for a while after an update.
pub fn newest(slices: Vec<SliceSpec>) -> BTreeMap<DeviceName, Device> {
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
                taints: taints.into_iter().map(|taint| clean(&taint.in_words(), 120)).collect(),
            };
            devices.insert(DeviceName { driver: driver.clone(), pool: pool.name.clone(), device: name }, device);
        }
    }
    devices
}

/// Returns the value of an attribute of any type. A name with a domain (`gpu.nvidia.com/uuid`) means the same attribute
/// as the name alone (`uuid`).
fn attribute(attributes: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    let named = attributes.iter().find(|(name, _)| name.rsplit('/').next() == Some(key))?.1;
    let value = named.as_object()?.values().next()?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(clean(&text, 80))
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
