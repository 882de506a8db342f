//! `read`: calls the pod-resources API of the kubelet (`podresources.v1`). `pods`, `devices`: parse the responses.
//! The API is used if the checkpoint cannot be read.
//!
//! The API has the namespace and name of pods. The UIDs come from the names of the log folders (`/var/log/pods`), if the
//! folders belong to only one pod. Devices of resource claims come from the state of the claims (see `dra`).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::grpc;
use super::protobuf::{fields, text};
use crate::in_root;
use crate::paths::Paths;

/// Paths of the socket below the kubelet's root directory. k0s has a different root directory.
const SOCKET: [&str; 2] =
    ["var/lib/kubelet/pod-resources/kubelet.sock", "var/lib/k0s/kubelet/pod-resources/kubelet.sock"];

/// Folder with one folder `NAMESPACE_NAME_UID` per pod.
const POD_LOGS: &str = "var/log/pods";

/// Maximum size of a response. A response with 250 pods has about 100 KiB.
const MAX_BYTES: u32 = 16 * 1024 * 1024;

/// Maximum time for a call. The kubelet responds from memory.
const CALL_TIME: Duration = Duration::from_secs(2);

/// Devices of one resource in one container.
pub(in crate::host) struct Held {
    /// UID of the pod; empty unless exactly one log folder has the name of the pod.
    pub(in crate::host) pod_uid: String,
    pub(in crate::host) namespace: Option<String>,
    pub(in crate::host) pod: Option<String>,
    pub(in crate::host) container: String,
    pub(in crate::host) devices: Devices,
}

/// IDs of the devices of one resource.
pub(in crate::host) struct Devices {
    pub(in crate::host) resource: String,
    pub(in crate::host) ids: Vec<String>,
}

/// The devices of containers, and the registered healthy devices.
#[derive(Default)]
pub(in crate::host) struct PodResources {
    pub(in crate::host) held: Vec<Held>,
    pub(in crate::host) registered: Vec<Devices>,
}

/// Calls the API of the kubelet.
pub(in crate::host) fn read(paths: &Paths) -> io::Result<PodResources> {
    let socket = SOCKET.iter().find_map(|path| in_root::find(&paths.host, path)).ok_or(io::ErrorKind::NotFound)?;
    let call = |method: &str| {
        grpc::call(
            &socket.descriptor_path(),
            &socket.path,
            &format!("/v1.PodResourcesLister/{method}"),
            MAX_BYTES,
            CALL_TIME,
        )
    };
    let uids = uids(paths);
    let not_understood = || io::Error::other("the response is not podresources.v1");
    let held = pods(&call("List")?, &uids).ok_or_else(not_understood)?;
    // This call is optional: it needs Kubernetes 1.23 or newer.
    let registered =
        call("GetAllocatableResources").map(|answer| devices(&answer, 1)).unwrap_or_else(|_| Some(Vec::new()));
    Ok(PodResources { held, registered: registered.ok_or_else(not_understood)? })
}

/// Parses `ListPodResourcesResponse`; `None` if the message is invalid.
pub(in crate::host) fn pods(answer: &[u8], uids: &BTreeMap<(String, String), Vec<String>>) -> Option<Vec<Held>> {
    let mut held = Vec::new();
    for pod in fields(answer, 1)? {
        let name = (text(pod, 2)?, text(pod, 1)?);
        let pod_uid = match uids.get(&name).map(Vec::as_slice) {
            Some([uid]) => uid.as_str(),
            _ => "",
        };
        for container in fields(pod, 3)? {
            for devices in devices(container, 2)? {
                let container = text(container, 1)?;
                let (namespace, pod) = name.clone();
                held.push(Held {
                    pod_uid: pod_uid.to_owned(),
                    namespace: Some(namespace),
                    pod: Some(pod),
                    container,
                    devices,
                });
            }
        }
    }
    Some(held)
}

/// Returns the `ContainerDevices` in field `number`: one for each resource and NUMA node, so a resource may appear more than
/// once.
pub(in crate::host) fn devices(message: &[u8], number: u64) -> Option<Vec<Devices>> {
    let mut by_resource: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for devices in fields(message, number)? {
        let ids = fields(devices, 2)?.into_iter().map(|id| String::from_utf8_lossy(id).into_owned());
        by_resource.entry(text(devices, 1)?).or_default().extend(ids);
    }
    Some(by_resource.into_iter().map(|(resource, ids)| Devices { resource, ids }).collect())
}

/// Returns the UIDs by namespace and name.
fn uids(paths: &Paths) -> BTreeMap<(String, String), Vec<String>> {
    let mut uids: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let folders = in_root::find(&paths.host, POD_LOGS).and_then(|folder| folder.names().ok()).unwrap_or_default();
    for folder in folders {
        if let [namespace, name, uid] = folder.split('_').collect::<Vec<_>>()[..] {
            uids.entry((namespace.to_owned(), name.to_owned())).or_default().push(uid.to_owned());
        }
    }
    uids
}

/// A kubelet that responds on a socket, for the tests of this folder.
#[cfg(test)]
pub(crate) mod testing {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::thread;

    use crate::host::kubelet::grpc::testing::{answer, frame_head};

    /// Registered devices (`ContainerDevices`) by resource.
    type Registered<'a> = &'a [(&'a str, &'a [&'a str])];

    /// Responds to two calls (`List`, `GetAllocatableResources`) at `socket`. `pods`: the pods of one namespace, with their
    /// name and the `nvidia.com/gpu` devices of their container `main`.
    pub(crate) fn kubelet_at(socket: &Path, namespace: &str, pods: &[(&str, &[&str])], registered: Registered<'_>) {
        fs::create_dir_all(socket.parent().expect("a socket has a folder")).expect("the folder can be made");
        let listener = UnixListener::bind(socket).expect("the socket can be made");
        let pods = pods.iter().flat_map(|(name, ids)| {
            let container = [field(1, b"main"), field(2, &devices("nvidia.com/gpu", ids))].concat();
            field(1, &[field(1, name.as_bytes()), field(2, namespace.as_bytes()), field(3, &container)].concat())
        });
        let registered = registered.iter().flat_map(|(resource, ids)| field(1, &devices(resource, ids)));
        let answers: [Vec<u8>; 2] = [pods.collect(), registered.collect()];
        thread::spawn(move || {
            for message in answers {
                let (stream, _) = listener.accept().expect("a call");
                serve(stream, &message);
            }
        });
    }

    /// Reads a whole call and sends the response.
    fn serve(mut stream: UnixStream, message: &[u8]) {
        stream.read_exact(&mut [0; 24]).expect("the preface");
        loop {
            let (length, kind, flags) = frame_head(&mut stream);
            stream.read_exact(&mut vec![0; length]).expect("a frame's payload");
            if (kind, flags) == (0, 1) {
                break;
            }
        }
        stream.write_all(&answer(message)).expect("the caller listens");
        // Closing the socket with unread acknowledgements would truncate the response.
        let _ = stream.read_to_end(&mut Vec::new());
    }

    fn devices(resource: &str, ids: &[&str]) -> Vec<u8> {
        let ids = ids.iter().flat_map(|id| field(2, id.as_bytes()));
        field(1, resource.as_bytes()).into_iter().chain(ids).collect()
    }

    /// Returns a length-delimited field (shorter than 16 KiB).
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
        [&[number << 3 | 2][..], &length, bytes].concat()
    }
}
