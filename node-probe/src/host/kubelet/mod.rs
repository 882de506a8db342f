//! `kubelet`: reads the `kubelet` section. `parse`: parses the checkpoint of the device manager (allocations).
//! `facts`: converts the allocations, with the prepared resource claims (`dra`), to the facts of the section.
//! The modules `nvidia_stack` and `stack_log` read traces and logs of NVIDIA's software for Kubernetes.
//!
//! If the checkpoint cannot be read, the allocations come from the kubelet's API (see `pod_resources`).
//!
//! Limits: the checksum of the checkpoint is not verified, because the kubelet computes it over Go structures. If the whole
//! file can be parsed, it is complete.

mod dra;
#[cfg(any(test, fuzzing))]
#[path = "../../../../fuzz/checks/kubelet.rs"]
pub(crate) mod fuzzing;
mod grpc;
pub(in crate::host) mod nvidia_stack;
mod pod_resources;
mod protobuf;
pub(in crate::host) mod stack_log;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::Deserialize;
use syringe_core::facts::kubelet::{Allocation, Kubelet, RegisteredDevices};
use syringe_core::report::{Problem, Section};
use syringe_core::text::clean;

use self::pod_resources::{Devices, Held, PodResources};
use crate::in_root::Root;
use crate::paths::Paths;
use crate::{bounded, files};

/// The folder of the device manager is fixed in the kubelet, independent of its root directory.
const CHECKPOINT: &str = "var/lib/kubelet/device-plugins/kubelet_internal_checkpoint";

/// The socket on which plugins register, in the folder of the device manager.
const SOCKET: &str = "var/lib/kubelet/device-plugins/kubelet.sock";

/// Maximum size of the checkpoint. With 250 pods of 8 devices each, it has about 1 MiB, including the plugins' responses.
const MAX_CHECKPOINT: usize = 16 * 1024 * 1024;

/// Maximum number of allocations. A node has up to a few hundred pods.
const MAX_ALLOCATIONS: usize = 2048;

/// Maximum number of GPU resources. A node with every MIG profile has about ten.
const MAX_RESOURCES: usize = 64;

/// Maximum number of devices of one resource. 16 GPUs with 7 MIG devices have 112.
const MAX_DEVICES: usize = 512;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::host) struct Data {
    #[serde(default)]
    pod_device_entries: Option<Vec<Entry>>,
    #[serde(default)]
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs", default)]
    devices: Option<DeviceIds>,
}

/// A map by NUMA node since Kubernetes 1.20, and a plain list in older versions.
#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceIds {
    ByNuma(BTreeMap<String, Option<Vec<String>>>),
    List(Vec<String>),
}

impl DeviceIds {
    fn all(self) -> Vec<String> {
        match self {
            Self::ByNuma(nodes) => nodes.into_values().flatten().flatten().collect(),
            Self::List(ids) => ids,
        }
    }
}

/// Reads which GPU devices the kubelet allocated to which container.
pub(crate) fn kubelet(paths: &Paths) -> Section<Kubelet> {
    let mut problems = Vec::new();
    let claims = dra::claims(paths, &mut problems);
    let (source, answer) = match read(paths) {
        Ok(data) => ("checkpoint", PodResources::from(data)),
        Err(error) => match pod_resources::read(paths) {
            Ok(answer) => ("pod_resources", answer),
            Err(refusal) => {
                let problem = unreadable(&error, &refusal);
                if claims.is_empty() {
                    return Section::failed(problem);
                }
                problems.push(problem);
                ("claims", PodResources::default())
            }
        },
    };
    Section::read(facts(source, answer, claims), problems)
}

/// Returns the devices of GPU resources, cleaned and sorted.
pub(in crate::host) fn facts(
    source: &str,
    PodResources { held, registered }: PodResources,
    claims: Vec<Allocation>,
) -> Kubelet {
    let mut allocations: Vec<Allocation> = held.into_iter().filter_map(allocation).chain(claims).collect();
    allocations.sort_by(|one, other| key(one).cmp(&key(other)));
    bounded::cut(&mut allocations, MAX_ALLOCATIONS, "GPU allocations of the kubelet");
    let registered = registered.into_iter().filter(|of| is_gpu(&of.resource, &of.ids));
    let mut registered: Vec<RegisteredDevices> = registered
        .map(|of| RegisteredDevices { resource: clean(&of.resource, 100), devices: distinct(&of.ids) })
        .collect();
    bounded::cut(&mut registered, MAX_RESOURCES, "GPU resources of the kubelet");
    Kubelet { source: source.to_owned(), allocations, registered }
}

fn read(paths: &Paths) -> io::Result<Data> {
    let host = Root::open(&paths.host)?;
    let Some(file) = host.find_or_fail(CHECKPOINT)? else {
        // The kubelet creates the file when a plugin first registers. If the socket is missing too, this is not the folder
        // of a kubelet.
        let kubelet_is_here = host.find_or_fail(SOCKET)?.is_some();
        return if kubelet_is_here { Ok(Data::default()) } else { Err(io::ErrorKind::NotFound.into()) };
    };
    parse(&file.whole(MAX_CHECKPOINT)?)
}

/// Reads the text of a checkpoint.
pub(in crate::host) fn parse(text: &[u8]) -> io::Result<Data> {
    let Checkpoint { data } = serde_json::from_slice(text)?;
    Ok(data)
}

/// Returns the problem if both the checkpoint and the socket cannot be read.
fn unreadable(error: &io::Error, refusal: &io::Error) -> Problem {
    let what = format!("the kubelet's device checkpoint (/{CHECKPOINT})");
    let (code, next_step) = match error.kind() {
        io::ErrorKind::NotFound => (
            "checkpoint_missing",
            "The kubelet may run in a file system that the probe does not see. The requests and limits of the pods on this \
             node still show how many GPUs each pod has.",
        ),
        io::ErrorKind::PermissionDenied => ("permission", "Run the probe as root."),
        _ => (
            "checkpoint_unreadable",
            "Try again: the kubelet may have been writing the file. If the error persists, restart the kubelet.",
        ),
    };
    files::problem(
        code,
        what,
        format!("{error}. The pod-resources socket of the kubelet also failed: {refusal}"),
        next_step,
    )
}

impl From<Data> for PodResources {
    fn from(Data { pod_device_entries, registered_devices }: Data) -> Self {
        let held = pod_device_entries.unwrap_or_default().into_iter().map(Held::from).collect();
        let registered = registered_devices.unwrap_or_default().into_iter();
        let registered = registered.map(|(resource, ids)| Devices { resource, ids: ids.unwrap_or_default() }).collect();
        Self { held, registered }
    }
}

impl From<Entry> for Held {
    fn from(Entry { pod_uid, container, resource, devices }: Entry) -> Self {
        let devices = Devices { resource, ids: devices.map(DeviceIds::all).unwrap_or_default() };
        Self { pod_uid, namespace: None, pod: None, container, devices }
    }
}

fn allocation(
    Held { pod_uid, namespace, pod, container, devices: Devices { resource, ids } }: Held,
) -> Option<Allocation> {
    is_gpu(&resource, &ids).then(|| Allocation {
        pod_uid: clean(&pod_uid, 64),
        namespace: namespace.map(|namespace| clean(&namespace, 64)),
        pod: pod.map(|pod| clean(&pod, 253)),
        container: clean(&container, 64),
        resource: clean(&resource, 100),
        devices: distinct(&ids),
        replicas: ids.iter().any(|id| device(id) != id).then(|| u32::try_from(ids.len()).unwrap_or(u32::MAX)),
        ..Allocation::default()
    })
}

fn key(allocation: &Allocation) -> (&str, &str, &str, &[String]) {
    (&allocation.pod_uid, &allocation.container, &allocation.resource, &allocation.devices)
}

/// Returns whether a resource belongs to NVIDIA's plugins, or to another plugin that allocates GPUs by UUID.
fn is_gpu(resource: &str, ids: &[String]) -> bool {
    let domain = resource.split_once('/').map_or("", |(domain, _)| domain);
    let nvidia = domain == "nvidia.com" || domain.ends_with(".nvidia.com");
    nvidia || ids.iter().any(|id| id.starts_with("GPU-") || id.starts_with("MIG-"))
}

/// Returns the distinct devices of the IDs, in order.
fn distinct(ids: &[String]) -> Vec<String> {
    let devices: BTreeSet<String> = ids.iter().map(|id| clean(device(id), 100)).collect();
    let mut devices: Vec<String> = devices.into_iter().collect();
    bounded::cut(&mut devices, MAX_DEVICES, "GPU devices of one resource");
    devices
}

/// Returns the device of an ID. The ID of a shared device ends with the number of its replica: `GPU-…::3` (NVIDIA's plugin),
/// `GPU-…-3` (HAMi), `nvidia0/vgpu3` (GKE).
fn device(id: &str) -> &str {
    /// Length of `GPU-` or `MIG-` with a UUID.
    const UUID: usize = 4 + 36;
    if let Some((device, _)) = id.split_once("::") {
        return device;
    }
    if let Some((device, _)) = id.split_once("/vgpu") {
        return device;
    }
    let named = id.starts_with("GPU-") || id.starts_with("MIG-");
    match id.split_at_checked(UUID) {
        // The old MIG format (`MIG-GPU-…/7/0`) is longer and has no `-` at this position.
        Some((device, replica)) if named && replica.starts_with('-') => device,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use syringe_core::report::Status;

    use super::*;
    use crate::testing::Tree;

    const A: &str = "GPU-11111111-2222-3333-4444-555555555555";
    const B: &str = "GPU-66666666-7777-8888-9999-aaaaaaaaaaaa";

    fn with(checkpoint: &str) -> Section<Kubelet> {
        let tree = Tree::new();
        tree.file(CHECKPOINT, checkpoint);
        kubelet(&tree.paths())
    }

    #[test]
    fn allocations_by_numa_node_and_registered_devices_are_read() {
        let section = with(&format!(
            r#"{{"Data":{{"PodDeviceEntries":[
                {{"PodUID":"u1","ContainerName":"train","ResourceName":"nvidia.com/gpu","DeviceIDs":{{"0":["{B}"],"1":["{A}"]}},"AllocResp":"eA=="}},
                {{"PodUID":"u2","ContainerName":"net","ResourceName":"rdma/hca","DeviceIDs":{{"-1":["mlx5_0"]}},"AllocResp":""}}],
               "RegisteredDevices":{{"nvidia.com/gpu":["{B}","{A}"],"rdma/hca":["mlx5_0"],"nvidia.com/mig-1g.10gb":null}}}},"Checksum":1}}"#
        ));
        assert_eq!(section.status, Status::Ok, "{:?}", section.problems);
        let Kubelet { source, allocations, registered } = section.data.expect("data");
        assert_eq!((source.as_str(), allocations.len()), ("checkpoint", 1));
        let held = &allocations[0];
        assert_eq!((held.pod_uid.as_str(), held.container.as_str()), ("u1", "train"));
        assert_eq!((&held.devices[..], held.replicas), (&[A.to_owned(), B.to_owned()][..], None));
        let resources: Vec<_> = registered.iter().map(|of| (of.resource.as_str(), of.devices.len())).collect();
        assert_eq!(resources, [("nvidia.com/gpu", 2), ("nvidia.com/mig-1g.10gb", 0)]);
    }

    #[test]
    fn replicas_of_a_shared_gpu_are_one_device_and_are_counted() {
        for (first, second, device) in [
            (format!("{A}::0"), format!("{A}::3"), A),
            (format!("{A}-0"), format!("{A}-11"), A),
            ("nvidia0/vgpu1".into(), "nvidia0/vgpu2".into(), "nvidia0"),
        ] {
            let section = with(&format!(
                r#"{{"Data":{{"PodDeviceEntries":[{{"PodUID":"u","ContainerName":"c","ResourceName":"nvidia.com/gpu.shared","DeviceIDs":["{first}","{second}"]}}],"RegisteredDevices":{{}}}}}}"#
            ));
            let held = section.data.expect("data").allocations.remove(0);
            assert_eq!((&held.devices[..], held.replicas), (&[device.to_owned()][..], Some(2)));
        }
    }

    #[test]
    fn mig_ids_are_devices_of_their_own() {
        for id in [
            "MIG-11111111-2222-3333-4444-555555555555",
            "MIG-GPU-11111111-2222-3333-4444-555555555555/7/0",
            "nvidia0/gi1",
        ] {
            assert_eq!(device(id), id);
        }
    }

    #[test]
    fn an_empty_checkpoint_is_no_error() {
        let section = with(r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":0}"#);
        assert_eq!(
            (section.status, section.data),
            (Status::Ok, Some(Kubelet { source: "checkpoint".into(), ..Kubelet::default() }))
        );
    }

    #[test]
    fn a_kubelet_without_device_plugins_has_no_registered_devices() {
        let tree = Tree::new();
        tree.file(SOCKET, "");
        let section = kubelet(&tree.paths());
        assert_eq!((section.status, section.data.map(|data| data.registered.len())), (Status::Ok, Some(0)));
    }

    #[test]
    fn the_kubelet_is_asked_if_the_checkpoint_is_truncated() {
        let tree = Tree::new();
        tree.file(CHECKPOINT, r#"{"Data":{"PodDev"#).folder("var/log/pods/ml_train-0_u1");
        for uid in ["u2", "u3"] {
            tree.folder(&format!("var/log/pods/ml_train-1_{uid}"));
        }
        let socket = tree.path().join("var/lib/kubelet/pod-resources/kubelet.sock");
        let pods = [("train-0", &[A, B][..]), ("train-1", &[B])];
        pod_resources::testing::kubelet_at(&socket, "ml", &pods, &[("nvidia.com/gpu", &[B, A])]);
        let section = kubelet(&tree.paths());
        assert_eq!((section.status, &section.problems[..]), (Status::Ok, &[][..]));
        let Kubelet { source, allocations, registered } = section.data.expect("data");
        assert_eq!(source, "pod_resources");
        let held: Vec<_> = allocations
            .iter()
            .map(|held| (held.pod_uid.as_str(), held.pod.as_deref(), held.container.as_str(), held.devices.len()))
            .collect();
        // Two log folders have the same pod name, so it is unknown which of the pods exists.
        assert_eq!(held, [("", Some("train-1"), "main", 1), ("u1", Some("train-0"), "main", 2)]);
        assert_eq!(
            registered,
            [RegisteredDevices { resource: "nvidia.com/gpu".into(), devices: vec![A.into(), B.into()] }]
        );
    }

    #[test]
    fn a_missing_or_truncated_checkpoint_gives_the_reason() {
        for (section, code) in [
            (kubelet(&Tree::new().paths()), "checkpoint_missing"),
            (with(r#"{"Data":{"PodDev"#), "checkpoint_unreadable"),
        ] {
            assert_eq!((section.status, section.problems[0].code.as_str()), (Status::Error, code));
            assert!(!section.problems[0].next_step.is_empty());
        }
    }
}
