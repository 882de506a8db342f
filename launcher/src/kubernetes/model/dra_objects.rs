//! ResourceSlices and ResourceClaims as the API writes them, in all versions that are understood, with the fields that are
//! needed and no others.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::kubernetes::model::dra::{Claim, DeviceName, Given, is_gpu_driver};

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Slice {
    pub(crate) spec: SliceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SliceSpec {
    pub(crate) driver: String,
    pub(crate) pool: Pool,
    pub(crate) node_name: Option<String>,
    pub(crate) devices: Option<Vec<SliceDevice>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct SliceDevice {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) taints: Vec<DeviceTaint>,
    /// Up to v1beta1 the attributes are one level deeper.
    pub(crate) basic: Option<Basic>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Basic {
    pub(crate) attributes: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeviceTaint {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) effect: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct LeanClaim {
    pub(crate) metadata: ClaimMetadata,
    pub(crate) status: ClaimStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimMetadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClaimStatus {
    pub(crate) allocation: Option<ClaimAllocation>,
    pub(crate) reserved_for: Vec<Consumer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimAllocation {
    pub(crate) devices: ClaimDevices,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimDevices {
    pub(crate) results: Vec<ClaimResult>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClaimResult {
    pub(crate) driver: String,
    pub(crate) pool: String,
    pub(crate) device: String,
    pub(crate) admin_access: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Consumer {
    pub(crate) resource: String,
    pub(crate) name: String,
}

impl LeanClaim {
    pub(crate) fn into_claim(self) -> Claim {
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
