//! `explain`: explains a container that cannot start because a disk of its node is read-only, full or broken.
//!
//! The folders of the kubelet, the container runtime and the network plugins are on the disks of the node. A program
//! that has not started cannot have written to these folders.

use crate::explanation::causes::{Case, finding_quote, start};
use crate::explanation::types::{Cause, Certainty, Explanation};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::text::clean;

/// Folders of node services, each with the service that uses it.
const FOLDERS: [(&str, &str); 20] = [
    ("/var/lib/kubelet", "the kubelet"),
    ("/etc/kubernetes", "the kubelet"),
    ("/var/log/pods", "the kubelet"),
    ("/var/log/containers", "the kubelet"),
    ("/var/lib/rancher", "k3s or RKE2"),
    ("/run/k3s", "k3s or RKE2"),
    ("/var/snap/microk8s", "MicroK8s"),
    ("/var/lib/k0s", "k0s"),
    ("/var/lib/containerd", "containerd"),
    ("/run/containerd", "containerd"),
    ("/var/run/containerd", "containerd"),
    ("/var/lib/docker", "Docker"),
    ("/var/lib/containers", "CRI-O"),
    ("/run/containers", "CRI-O"),
    ("/run/crio", "CRI-O"),
    ("/var/run/crio", "CRI-O"),
    ("/var/lib/cni", "the network plugins (CNI)"),
    ("/etc/cni", "the network plugins (CNI)"),
    ("/run/netns", "the network plugins (CNI)"),
    ("/var/run/netns", "the network plugins (CNI)"),
];

/// States of a disk: phrases of the kernel, the state, and the advice.
const STATES: [(&str, &str, &str); 4] = [
    (
        "read-only file system",
        "is read-only",
        "Find out why the file system of {path} on {node} is read-only. The kernel makes a file system read-only \
         after an error of its disk. Read the kernel log for the disk, and drain the node. Then check the file system \
         (fsck) or replace the disk, and reboot.",
    ),
    (
        "no space left on device",
        "is full",
        "Free space on the disk of {path} on {node} (images, logs, volumes of pods; df -h and df -i).",
    ),
    (
        "input/output error",
        "has input/output errors",
        "Read the kernel log of {node} for the disk of {path}. Drain the node, and replace the disk.",
    ),
    (
        "structure needs cleaning",
        "is damaged",
        "Drain {node}, and check the file system of {path} (fsck, xfs_repair). Read the kernel log for the disk.",
    ),
];

/// Parts of paths that belong to a volume or to the file system of a container, not to the node.
const NOT_OF_NODE: [&str; 6] =
    ["/rootfs/", "/merged/", "/globalmount", "/kubernetes.io~csi/", "/kubernetes.io~nfs/", "/volume-subpaths/"];

/// Phrases about mount points inside a container.
const OF_CONTAINER: [&str; 3] = ["mountpoint", "to rootfs at", "/sys/fs/cgroup"];

/// Explains a container or sandbox that cannot be created because of a disk of the node.
pub(super) fn explain(case: &Case<'_>, failure: &str, messages: &[String]) -> Option<Explanation> {
    let (path, owner, state, advice) = messages.iter().find_map(|message| found(message))?;
    let path = clean(path, 160);
    let of_disk =
        case.all_findings().find(|finding| finding.id == "storage-error" && finding.severity > Severity::Info);
    let why = of_disk.map(|finding| format!(" ({})", finding.headline())).unwrap_or_default();
    let what = format!("{failure}: the disk of {} {state}, so {owner} cannot write {path}{why}", case.node);
    let advice = advice.replace("{path}", &path).replace("{node}", case.node);
    Some(
        case.explain(Cause::Node, Certainty::Likely, what)
            .with_evidence(messages.iter().cloned())
            .with_evidence(of_disk.map(finding_quote))
            .with_evidence(of_disk.into_iter().flat_map(|finding| finding.evidence.iter().take(2).cloned()))
            .with_evidence(start::waiting_since(case))
            .with_action(ActionCode::Watch, advice),
    )
}

/// Returns the last path of a node service before a disk error in the message, with owner, state and advice.
fn found(message: &str) -> Option<(&str, &'static str, &'static str, &'static str)> {
    let lower = message.to_ascii_lowercase();
    let (at, state, advice) =
        STATES.iter().find_map(|(words, state, advice)| Some((lower.rfind(words)?, *state, *advice)))?;
    if OF_CONTAINER.iter().any(|words| lower.contains(words)) {
        return None;
    }
    let words = message[..at].split(|one: char| one.is_whitespace() || "\"'`()[],;=".contains(one));
    let mut paths = words.map(|word| word.trim_end_matches(':')).filter(|word| word.starts_with('/'));
    let path = paths.next_back().filter(|path| !NOT_OF_NODE.iter().any(|part| path.contains(part)))?;
    let owns = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let (_, owner) = FOLDERS.iter().find(|(folder, _)| owns(folder))?;
    Some((path, owner, state, advice))
}

#[cfg(test)]
mod tests {
    use super::{FOLDERS, STATES, found};

    #[test]
    fn a_folder_of_a_service_is_on_a_disk_of_the_node() {
        for (folder, owner) in FOLDERS {
            for (words, state, _) in STATES {
                let message = format!("failed: mkdir {folder}/a/b: {words}: unknown");
                let path = format!("{folder}/a/b");
                let read = found(&message).map(|(path, owner, state, _)| (path, owner, state));
                assert_eq!(read, Some((path.as_str(), owner, state)));
            }
        }
    }

    #[test]
    fn a_path_of_a_container_or_volume_is_not() {
        for message in [
            "mkdir /data/x: read-only file system",
            "mkdir /run/containerd/io/task/k8s.io/1/rootfs/usr/x: read-only file system",
            "error mounting \"/var/lib/kubelet/x\" to rootfs at \"/x\": create mountpoint: read-only file system",
            "open /var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/pvc/mount/x: no space left on device",
            "write /var/lib/kubelet/x: permission denied",
            "write /var/lib/kubelet-other/x: no space left on device",
            "",
        ] {
            assert!(found(message).is_none(), "{message}");
        }
    }
}
