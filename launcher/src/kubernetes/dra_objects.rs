//! ResourceSlices and ResourceClaims as the API writes them, in all versions that are understood, with the fields that are
//! needed and no others.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::dra::{Claim, DeviceName, Given, is_gpu_driver};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Slice {
    pub(super) spec: SliceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SliceSpec {
    pub(super) driver: String,
    pub(super) pool: Pool,
    pub(super) node_name: Option<String>,
    pub(super) devices: Option<Vec<SliceDevice>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SliceDevice {
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, Value>,
    pub(super) taints: Vec<DeviceTaint>,
    /// Up to v1beta1 the attributes are one level deeper.
    pub(super) basic: Option<Basic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Basic {
    pub(super) attributes: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct DeviceTaint {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) effect: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LeanClaim {
    pub(super) metadata: ClaimMetadata,
    pub(super) status: ClaimStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaimMetadata {
    pub(super) name: String,
    pub(super) namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClaimStatus {
    pub(super) allocation: Option<ClaimAllocation>,
    pub(super) reserved_for: Vec<Consumer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaimAllocation {
    pub(super) devices: ClaimDevices,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaimDevices {
    pub(super) results: Vec<ClaimResult>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClaimResult {
    pub(super) driver: String,
    pub(super) pool: String,
    pub(super) device: String,
    pub(super) admin_access: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Consumer {
    pub(super) resource: String,
    pub(super) name: String,
}

impl LeanClaim {
    pub(super) fn into_claim(self) -> Claim {
        let Self { metadata, status } = self;
        let results = status.allocation.unwrap_or_default().devices.results;
        let given = results.into_iter().filter(|result| is_gpu_driver(&result.driver)).map(|result| Given {
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
