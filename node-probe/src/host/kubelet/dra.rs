//! `claims`: reads the resource claims (DRA) that the kubelet prepared, from the file `dra_manager_state`.
//!
//! Format since Kubernetes 1.32: `{"Data": "<JSON as text>", "Checksum": n}` with `ClaimInfoStateList`. Limits: the file has
//! the device names of the driver (`gpu-0`, `gpu-0-mig-19-2-0`), but no UUIDs and no containers, because a claim belongs to
//! its pods.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use serde::de::IgnoredAny;
use syringe_core::facts::kubelet::Allocation;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::in_root::Root;
use crate::paths::Paths;
use crate::{bounded, files};

/// Unlike the device manager's file, this file is below the kubelet's root directory. k0s has a different root directory.
const STATE: [&str; 2] = ["var/lib/kubelet/dra_manager_state", "var/lib/k0s/kubelet/dra_manager_state"];

const MAX_STATE: usize = 16 * 1024 * 1024;

/// Maximum number of devices of one claim. The scheduler allocates up to 32.
const MAX_DEVICES: usize = 64;

/// Maximum number of pods that share a claim. The API server allows 256.
const MAX_PODS: usize = 256;

#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Option<String>,
    /// Before Kubernetes 1.32, this field contained the claims, in another format.
    #[serde(default)]
    entries: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "ClaimInfoStateList", default)]
    claims: Option<Vec<Claim>>,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(rename = "ClaimName", default)]
    name: String,
    #[serde(rename = "Namespace", default)]
    namespace: String,
    #[serde(rename = "PodUIDs", default)]
    pods: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(rename = "DriverState", default)]
    drivers: Option<BTreeMap<String, Driver>>,
}

#[derive(Deserialize)]
struct Driver {
    #[serde(rename = "Devices", default)]
    devices: Option<Vec<Device>>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(rename = "DeviceName", default)]
    name: String,
}

/// Returns one allocation per claim, pod and GPU driver. A node without claims has no file, which is not a problem.
pub(in crate::host) fn claims(paths: &Paths, problems: &mut Vec<Problem>) -> Vec<Allocation> {
    match read(paths) {
        Ok(claims) => claims.into_iter().flat_map(allocations).collect(),
        Err((path, error)) => {
            let what = format!("claims of dynamic resource allocation (/{path})");
            let next_step =
                "GPUs of resource claims are missing in this report. See the status of the ResourceClaims in the API.";
            problems.push(files::problem("dra_state_unreadable", what, error, next_step));
            Vec::new()
        }
    }
}

/// Returns the claims. If the file cannot be read, returns its path and the error.
fn read(paths: &Paths) -> Result<Vec<Claim>, (&'static str, io::Error)> {
    let Ok(host) = Root::open(&paths.host) else { return Ok(Vec::new()) };
    for path in STATE {
        let found = host.find_or_fail(path).map_err(|error| (path, error))?;
        let Some(file) = found else { continue };
        return file.whole(MAX_STATE).and_then(|text| parse(&text)).map_err(|error| (path, error));
    }
    Ok(Vec::new())
}

fn parse(text: &[u8]) -> io::Result<Vec<Claim>> {
    let Checkpoint { data, entries } = serde_json::from_slice(text)?;
    match data {
        Some(data) => Ok(serde_json::from_str::<Data>(&data)?.claims.unwrap_or_default()),
        None if entries.is_none_or(|entries| entries.is_empty()) => Ok(Vec::new()),
        None => Err(io::Error::other("the file was written by a kubelet older than 1.32")),
    }
}

fn allocations(claim: Claim) -> Vec<Allocation> {
    let Claim { name, namespace, pods, drivers } = claim;
    let mut pods: Vec<String> = pods.unwrap_or_default().into_keys().collect();
    bounded::cut(&mut pods, MAX_PODS, "pods of one resource claim");
    let gpu_drivers = drivers.unwrap_or_default().into_iter().filter(|(driver, _)| hands_out_gpus(driver));
    gpu_drivers
        .flat_map(|(driver, Driver { devices })| {
            let mut devices = devices.unwrap_or_default();
            bounded::cut(&mut devices, MAX_DEVICES, "devices of one resource claim");
            let devices: Vec<String> = devices.iter().map(|device| clean(&device.name, 100)).collect();
            let allocation = Allocation {
                namespace: Some(clean(&namespace, 64)),
                resource: clean(&driver, 100),
                claim: Some(clean(&name, 100)),
                devices,
                ..Allocation::default()
            };
            pods.iter().map(|pod| Allocation { pod_uid: clean(pod, 64), ..allocation.clone() }).collect::<Vec<_>>()
        })
        .collect()
}

/// Returns whether the driver allocates GPUs (`gpu.nvidia.com`). NVIDIA's other driver (`compute-domain.nvidia.com`)
/// allocates IMEX channels.
fn hands_out_gpus(driver: &str) -> bool {
    driver.ends_with("nvidia.com") && !driver.starts_with("compute-domain.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn read(state: &str) -> (Vec<Allocation>, Vec<Problem>) {
        let tree = Tree::new();
        tree.file(STATE[0], state);
        let mut problems = Vec::new();
        (claims(&tree.paths(), &mut problems), problems)
    }

    #[test]
    fn a_claim_is_one_allocation_per_pod_with_the_drivers_gpu_names() {
        let data = r#"{"kind":"DRACheckpoint","apiVersion":"checkpoint.dra.kubelet.k8s.io/v1","ClaimInfoStateList":[
            {"ClaimUID":"c","ClaimName":"train-gpu-x7x","Namespace":"ml","PodUIDs":{"p1":{},"p2":{}},"DriverState":{
              "gpu.nvidia.com":{"Devices":[{"PoolName":"n1","DeviceName":"gpu-3","RequestNames":["gpu"],"CDIDeviceIDs":["k8s.gpu.nvidia.com/claim=x"]}]},
              "compute-domain.nvidia.com":{"Devices":[{"PoolName":"n1","DeviceName":"channel-0","RequestNames":null,"CDIDeviceIDs":null}]}}}]}"#;
        let state = serde_json::json!({ "Data": data, "Checksum": 1 }).to_string();
        let (found, problems) = read(&state);
        assert_eq!(problems, []);
        let pods: Vec<&str> = found.iter().map(|allocation| allocation.pod_uid.as_str()).collect();
        assert_eq!(pods, ["p1", "p2"]);
        let first = &found[0];
        assert_eq!((first.resource.as_str(), first.claim.as_deref()), ("gpu.nvidia.com", Some("train-gpu-x7x")));
        assert_eq!((&first.devices[..], first.namespace.as_deref()), (&["gpu-3".to_owned()][..], Some("ml")));
    }

    #[test]
    fn an_old_or_broken_state_is_a_problem_and_an_empty_one_is_none() {
        assert_eq!(read(r#"{"version":"v1","checksum":1}"#), (Vec::new(), Vec::new()));
        for state in [r#"{"version":"v1","entries":[{"ClaimUID":"c"}],"checksum":1}"#, r#"{"Data":"{"}"#, "{"] {
            let (found, problems) = read(state);
            assert_eq!((found.len(), problems[0].code.as_str()), (0, "dra_state_unreadable"), "{state}");
        }
    }
}
