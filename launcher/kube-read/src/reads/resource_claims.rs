//! `read`, `devices_of`: read ResourceSlices and ResourceClaims in the newest supported API version that the cluster
//! serves (`served`). `holders`: returns the claims that hold devices, as text.

use std::collections::{BTreeMap, HashMap};

use kube::core::Status;
use serde::Deserialize;
use syringe_core::facts::kubernetes::node::DraDevice;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::Failure;
use crate::client::api_error::{request_failed, timed_out};
use crate::client::api_status::is_not_a_status;
use crate::client::connection::Connection;
use crate::client::pagination;
use crate::client::pagination::Query;
use crate::client::retry;
use crate::objects::dra::{Claim, Device, DeviceName, Dra, is_gpu_driver};
use crate::objects::dra_objects::{Slice, SliceSpec, SlimClaim, newest};

/// Supported versions of the API group, newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];

/// Reads devices (of `node`, or of all nodes) and claims. Returns `None` if the cluster does not serve dynamic resource
/// allocation, if it has no ResourceSlice with a GPU, or if it rejects the request. The reason for a rejection is added
/// to `unknown`. Fails if the API server cannot be reached or does not list its API versions.
pub async fn read(
    connection: &Connection,
    node: Option<&str>,
    unknown: &mut Vec<Unknown>,
) -> Result<Option<Dra>, Failure> {
    let Some(version) = served(connection, unknown).await? else { return Ok(None) };
    Ok(everything(connection, version, node).await.unwrap_or_else(|failure| {
        unknown.push(unread(&failure));
        None
    }))
}

/// Reads the GPUs of a node in ResourceSlices, sorted by name. Refusals are handled as in [`read`].
pub(crate) async fn devices_of(
    connection: &Connection,
    node: &str,
    unknown: &mut Vec<Unknown>,
) -> Result<Vec<DraDevice>, Failure> {
    let Some(version) = served(connection, unknown).await? else { return Ok(Vec::new()) };
    let devices = devices(connection, version, Some(node)).await.unwrap_or_else(|failure| {
        unknown.push(unread(&failure));
        BTreeMap::new()
    });
    let fact = |(name, device): (DeviceName, Device)| {
        let Device { kind, uuid, taints, .. } = device;
        DraDevice { name: clean(&name.device, MAX_DEVICE), kind, uuid, taints }
    };
    Ok(devices.into_iter().map(fact).take(MAX_DEVICES).collect())
}

/// Maximum length of the name of a device, and maximum number of devices of a node.
const MAX_DEVICE: usize = 80;
const MAX_DEVICES: usize = 256;

fn unread(Failure { what, why, .. }: &Failure) -> Unknown {
    Unknown::new("dynamic resource allocation", format!("{what}: {why}"))
}

async fn everything(connection: &Connection, version: &str, node: Option<&str>) -> Result<Option<Dra>, Failure> {
    let devices = devices(connection, version, node).await?;
    if devices.is_empty() {
        return Ok(None);
    }
    let claims = claims(connection, version, is_gpu_driver).await?;
    Ok(Some(Dra::new(devices, claims)))
}

/// Returns the newest supported version of the group that the cluster serves. Adds an entry to `unknown` if the request
/// is forbidden.
pub(crate) async fn served(
    connection: &Connection,
    unknown: &mut Vec<Unknown>,
) -> Result<Option<&'static str>, Failure> {
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        versions: Vec<Served>,
    }
    #[derive(Deserialize)]
    struct Served {
        version: String,
    }
    let what = || format!("Checking whether context {} serves resource.k8s.io", connection.context);
    let ask = || async {
        let request = http::Request::get("/apis/resource.k8s.io").body(Vec::new()).map_err(kube::Error::HttpError)?;
        connection.client.request::<Group>(request).await
    };
    match retry::read(ask).await {
        Some(Ok(group)) => {
            let is_served = |version: &&str| group.versions.iter().any(|served| served.version == *version);
            Ok(VERSIONS.into_iter().find(|version| is_served(version)))
        }
        Some(Err(kube::Error::Api(status))) if is_unknown_group(&status) => Ok(None),
        Some(Err(kube::Error::Api(status))) if status.code == 403 && !is_not_a_status(&status) => {
            let why = format!("{}: {} (HTTP 403)", what(), status.message);
            unknown.push(Unknown::new("dynamic resource allocation", why));
            Ok(None)
        }
        Some(Err(error)) => Err(request_failed(connection, what(), &error)),
        None => Err(timed_out(connection, what())),
    }
}

/// Returns whether the API server itself reports that it does not serve the API group. Its response is plain text, and
/// differs from the response of a proxy.
fn is_unknown_group(status: &Status) -> bool {
    status.code == 404 && (!is_not_a_status(status) || status.message.trim() == "404 page not found")
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
    let slices = pagination::fold(connection, &query, Vec::new, |slices: &mut Vec<SliceSpec>, slice: Slice| {
        let here = node.is_none_or(|node| slice.spec.node_name.as_deref() == Some(node));
        if here && is_gpu_driver(&slice.spec.driver) {
            slices.push(slice.spec);
        }
    });
    Ok(newest(slices.await?))
}

/// Maximum number of claims that are named as holders of devices.
const NAMED: usize = 4;

/// Returns the claims that hold devices of NVIDIA's drivers, each in words: `claim ml/train (pod train-0) holds channel-0 of
/// compute-domain.nvidia.com (pool gb-1)`. Empty if they could not be read.
pub async fn holders(connection: &Connection) -> Vec<String> {
    let Ok(Some(version)) = served(connection, &mut Vec::new()).await else { return Vec::new() };
    let Ok(claims) = claims(connection, version, |driver| driver.contains("nvidia")).await else { return Vec::new() };
    let mut claims: Vec<Claim> = claims.into_values().collect();
    claims.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    let in_words = |claim: &Claim| {
        let pods = if claim.reserved_for.is_empty() {
            "no pod".to_owned()
        } else {
            format!("pod {}", claim.reserved_for.join(", "))
        };
        let mut groups: BTreeMap<(&String, &String), Vec<&String>> = BTreeMap::new();
        for device in &claim.devices {
            let DeviceName { driver, pool, device } = &device.name;
            groups.entry((driver, pool)).or_default().push(device);
        }
        let devices = groups.into_iter().take(NAMED).map(|((driver, pool), devices)| match devices.as_slice() {
            [device] => format!("{device} of {driver} (pool {pool})"),
            devices => format!("{} devices of {driver} (pool {pool})", devices.len()),
        });
        let devices = devices.collect::<Vec<_>>().join(", ");
        clean(&format!("claim {}/{} ({pods}) holds {devices}", claim.namespace, claim.name), MAX_HOLDER)
    };
    claims.iter().take(NAMED).map(in_words).collect()
}

/// Maximum length of a claim with its devices.
const MAX_HOLDER: usize = 300;

async fn claims(
    connection: &Connection,
    version: &str,
    is_of: fn(&str) -> bool,
) -> Result<HashMap<(String, String), Claim>, Failure> {
    let query = Query {
        what: "Listing resource claims",
        path: &format!("/apis/resource.k8s.io/{version}/resourceclaims"),
        labels: None,
        fields: None,
    };
    pagination::fold(connection, &query, HashMap::new, |claims, claim: SlimClaim| {
        let claim = claim.into_claim(is_of);
        if !claim.devices.is_empty() {
            claims.insert((claim.namespace.clone(), claim.name.clone()), claim);
        }
    })
    .await
}
