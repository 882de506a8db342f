//! `shortage`: returns why the ResourceClaims of a waiting pod cannot be allocated or used.
//! It reads the claims and the devices that drivers publish.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;
use syringe_core::facts::kubernetes::pod::CapacityShortage;
use syringe_core::text::clean;
use syringe_core::unknown::Unknown;

use crate::client::connection::Connection;
use crate::client::pagination::{self, Query};
use crate::objects::capacity_shortage::uncordon;
use crate::objects::claim_fit::{self, PublishedSlice, PublishedSpec};
use crate::objects::node_conditions;
use crate::reads::{nodes, resource_claims};

/// Maximum length of a name.
const NAME: usize = 253;

/// A claim, with the fields that selectors and allocations use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claim {
    metadata: Metadata,
    spec: Value,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    allocation: Value,
    reserved_for: Vec<Value>,
}

/// Returns why the claims of a pod cannot be allocated or used. `None` if the pod has no claims, if they could not be
/// read, or if no reason is found.
pub async fn shortage(connection: &Connection, pod: &Pod) -> Option<CapacityShortage> {
    let named = pod.spec.as_ref()?.resource_claims.as_deref().filter(|claims| !claims.is_empty())?;
    let version = resource_claims::served(connection, &mut Vec::<Unknown>::new()).await.ok()??;
    let slices = Query {
        what: "Listing resource slices",
        path: &format!("/apis/resource.k8s.io/{version}/resourceslices"),
        labels: None,
        fields: None,
    };
    let slices =
        pagination::fold(connection, &slices, Vec::new, |all: &mut Vec<PublishedSpec>, slice: PublishedSlice| {
            all.push(slice.spec);
        });
    let slices = slices.await.ok()?;
    if slices.is_empty() {
        return Some(CapacityShortage {
            problem: Some("no driver publishes devices for ResourceClaims: the cluster has no ResourceSlice".to_owned()),
            shortage: "ResourceSlices in the cluster: 0".to_owned(),
            changes: vec![
                "install the DRA driver of the devices (NVIDIA: k8s-dra-driver-gpu), or repair its kubelet plugin on the nodes if it is \
                 installed"
                    .into(),
                "request the GPU as an extended resource (nvidia.com/gpu) instead of a claim".into(),
            ],
            ..CapacityShortage::default()
        });
    }
    let namespace = pod.namespace().unwrap_or_default();
    let query = Query {
        what: "Listing resource claims",
        path: &format!("/apis/resource.k8s.io/{version}/resourceclaims"),
        labels: None,
        fields: None,
    };
    let created = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
    let names: Vec<String> = named
        .iter()
        .filter_map(|claim| claim.resource_claim_name.clone())
        .chain(created.iter().filter_map(|claim| claim.resource_claim_name.clone()))
        .collect();
    let claims = pagination::fold(connection, &query, Vec::new, |all: &mut Vec<Claim>, claim: Claim| {
        if claim.metadata.namespace == namespace && names.contains(&claim.metadata.name) {
            all.push(claim);
        }
    });
    for claim in claims.await.ok()? {
        let found = match selectors(&claim.spec) {
            _ if claim.status.allocation.is_object() => held_elsewhere(connection, &claim, &slices).await,
            selectors => unmet(&claim, &selectors, &slices),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Returns the selectors of the requests of a claim that has no alternatives.
fn selectors(spec: &Value) -> Vec<String> {
    let requests = spec["devices"]["requests"].as_array().into_iter().flatten();
    // Versions up to v1beta1 have the fields of `exactly` in the request.
    let exact = requests.map(|request| if request["exactly"].is_object() { &request["exactly"] } else { request });
    let each = exact.flat_map(|request| request["selectors"].as_array().into_iter().flatten());
    each.filter_map(|selector| Some(selector["cel"]["expression"].as_str()?.to_owned())).collect()
}

/// Returns the condition of a claim that no device fulfils, or the taint of all devices that fit.
fn unmet(claim: &Claim, selectors: &[String], slices: &[PublishedSpec]) -> Option<CapacityShortage> {
    let conditions: Vec<_> = selectors.iter().flat_map(|selector| claim_fit::conditions(selector)).collect();
    let name = clean(&claim.metadata.name, NAME);
    let (why, problem, change) = match claim_fit::unmet(&conditions, slices) {
        Some(why) => {
            let problem = format!("the selector of ResourceClaim {name} excludes all devices: {why}");
            let change = format!(
                "correct the selector of ResourceClaim {name} (or of its template), or add nodes with such devices"
            );
            (why, problem, change)
        }
        // A claim with tolerations can accept the taint.
        None if claim.spec.to_string().contains("\"tolerations\"") => return None,
        None => {
            let why = claim_fit::all_tainted(&conditions, slices)?;
            let problem = format!("ResourceClaim {name} tolerates no taint, and {why}");
            let change = "remove the cause of the taint: the DRA driver taints a device after an Xid (gpu-syringe diagnose NODE), \
                          administrators use a DeviceTaintRule";
            (why, problem, change.to_owned())
        }
    };
    Some(CapacityShortage {
        problem: Some(problem),
        shortage: format!("ResourceClaim {name}: {why}"),
        changes: vec![change.into()],
        never_fits: false,
        ..CapacityShortage::default()
    })
}

/// Returns the node of the devices of an allocated claim, if pods cannot start on it.
async fn held_elsewhere(connection: &Connection, claim: &Claim, slices: &[PublishedSpec]) -> Option<CapacityShortage> {
    let Status { allocation, reserved_for } = &claim.status;
    let device = allocation["devices"]["results"].as_array()?.first()?;
    let pool = device["pool"].as_str()?;
    let of_pool = slices.iter().find(|slice| slice.pool["name"].as_str() == Some(pool));
    let node = of_pool.and_then(|slice| slice.node_name.as_deref()).unwrap_or(pool);
    let object = nodes::find(connection, node).await.ok()??;
    let is_cordoned = node_conditions::is_cordoned(&object);
    let state = match (is_cordoned, node_conditions::is_ready(&object)) {
        (_, false) => "which is not Ready",
        (true, true) => "which is cordoned",
        (false, true) => return None,
    };
    let [namespace, name, node] =
        [&claim.metadata.namespace, &claim.metadata.name, &node.to_owned()].map(|text| clean(text, NAME));
    let pods: Vec<&str> = reserved_for.iter().filter_map(|pod| pod["name"].as_str()).collect();
    let users = match pods.as_slice() {
        [] => "no pod uses it".to_owned(),
        pods => format!("it is reserved for {}", clean(&pods.join(", "), NAME)),
    };
    let held = format!("ResourceClaim {name} is allocated to a device of {node}, {state}; {users}");
    let mut changes = vec![if is_cordoned { uncordon(&node) } else { format!("repair {node}").into() }];
    if pods.is_empty() {
        let delete = format!("kubectl -n {namespace} delete resourceclaim {name}");
        let text = format!("delete the claim and create it again, so that it is allocated on another node ({delete})");
        changes.push(text.into());
    }
    Some(CapacityShortage { problem: Some(held.clone()), shortage: held, changes, ..CapacityShortage::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_all_versions_are_read() {
        let selector = json!([{"cel": {"expression": "x"}}]);
        let exact = json!({"devices": {"requests": [{"name": "gpu", "exactly": {"selectors": selector}}]}});
        let flat = json!({"devices": {"requests": [{"name": "gpu", "selectors": selector}]}});
        let alternatives =
            json!({"devices": {"requests": [{"name": "gpu", "firstAvailable": [{"selectors": selector}]}]}});
        assert_eq!(selectors(&exact), ["x"]);
        assert_eq!(selectors(&flat), ["x"]);
        assert!(selectors(&alternatives).is_empty() && selectors(&Value::Null).is_empty());
    }
}
