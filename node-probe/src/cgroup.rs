//! Parses pod, container and QoS class from `/proc/PID/cgroup` (`parse`), without I/O.
//!
//! Formats: cgroup v1 and v2; the kubelet's systemd driver (`kubepods-burstable-pod<uid>.slice`) and cgroupfs driver
//! (`burstable/pod<uid>`); containerd, CRI-O, Docker. A node that is itself a container (kind, sysbox) has an outer
//! path in front of the pod's path. The first pod of a path counts: below its own cgroup, a container can create folders with any name.

/// Pod and container of a cgroup path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Pod UID. For a static pod this is a hash of 32 digits.
    pub(crate) pod_uid: Option<String>,
    /// Container id, 64 hex digits.
    pub(crate) container_id: Option<String>,
    /// `guaranteed`, `burstable`, `besteffort`.
    pub(crate) qos: Option<String>,
}

/// Reads the whole file: one line per hierarchy, `number:controllers:path`.
pub(crate) fn parse(text: &str) -> Membership {
    let memberships = paths(text).map(membership);
    // cgroup v1 has a line for each controller, and some lines contain only the root path. The line with the most
    // information counts.
    memberships.max_by_key(|found| (found.pod_uid.is_some(), found.container_id.is_some())).unwrap_or_default()
}

/// Returns whether a line may belong to a pod. This check is less strict than [`parse`], which identifies the pod. Inside a
/// cgroup namespace, the paths of other processes begin at the common ancestor (`/../podUID/…`), so `kubepods` may be
/// missing. Talos runs its kubelet in `/podruntime`.
pub(crate) fn names_pod(cgroup: &str) -> bool {
    let of_runtime = ["kubepods", "cri-containerd-", "crio-"].iter().any(|part| cgroup.contains(part));
    let is_uid = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    of_runtime || cgroup.split(['/', ':']).filter_map(|part| part.strip_prefix("pod")).any(is_uid)
}

/// Returns whether a process is certainly not in a container. This check is stricter than [`names_pod`], which only
/// recognizes the kubelet's containers. A node that is itself a container has no such process.
pub(crate) fn is_of_no_container(cgroup: &str) -> bool {
    let mut parts = cgroup.lines().flat_map(|line| line.split(['/', ':']));
    !cgroup.trim().is_empty() && !names_pod(cgroup) && !parts.any(is_container)
}

/// Returns whether a process may be the kubelet of the node. If a kubelet is in a container, the container is higher in the
/// path.
pub(crate) fn may_be_the_kubelets(cgroup: &str) -> bool {
    let lowest = |path: &str| path.rsplit('/').take(2).any(is_container);
    !cgroup.trim().is_empty() && !names_pod(cgroup) && !paths(cgroup).any(lowest)
}

/// Returns whether process 1 is the init of a node that is itself a container (kind, k3d). `init` and `own`: the cgroups of
/// process 1 and of the probe.
///
/// Two things are required: the probe is in a pod, and process 1 is in the cgroup of an init. Inside a cgroup namespace, the
/// path to that cgroup leads up past pod, class and `kubepods`, at least three levels; another container of the pod is one
/// or two levels away. In all other cases, process 1 counts as a workload.
pub(crate) fn is_init_of_a_node(init: &str, own: &str) -> bool {
    let in_namespace = paths(own).next().is_some() && paths(own).all(|path| path == "/");
    if paths(init).next().is_none() || names_pod(init) || !(in_namespace || names_pod(own)) {
        return false;
    }
    let is_inits = |path: &str| {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let up = parts.iter().take_while(|part| **part == "..").count();
        let far = if in_namespace { up >= LEVELS_TO_NODE } else { up == 0 };
        far && matches!(parts[up..], [] | ["init" | "init.scope"])
    };
    paths(init).all(is_inits)
}

/// Levels between the cgroup of a container and the root of the node: pod, `kubepods`, root; most pods also have a class.
const LEVELS_TO_NODE: usize = 3;

fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2))
}

/// Returns whether the part has 64 hex digits, with any prefix of a container runtime.
fn is_container(part: &str) -> bool {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit('-').next().unwrap_or_default();
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn membership(path: &str) -> Membership {
    // If the kubelet uses the systemd driver but containerd does not, containerd writes
    // `…-pod<uid>.slice:cri-containerd:<id>`.
    let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty()).collect();
    let pod = parts.iter().enumerate().find_map(|(at, part)| Some((at, pod_uid(part)?)));
    // A container above a pod is the node itself (kind). Then the pods are below the folder of its kubelet, and the path is not one that
    // leads from the cgroup of the probe to another container of the pod of the probe.
    let is_below_container = |at: usize| {
        let container = parts[..at].iter().position(|part| is_container(part));
        container.is_some_and(|above| {
            parts[0] == ".."
                || !parts[above..at].iter().any(|part| part.trim_end_matches(".slice").ends_with("kubepods"))
        })
    };
    let Some((at, pod_uid)) = pod.filter(|(at, _)| !is_below_container(*at)) else {
        let container_id = parts.iter().rev().find_map(|part| container_id(part));
        return Membership { container_id, ..Membership::default() };
    };
    Membership {
        pod_uid: Some(pod_uid),
        // The first container below the pod counts. A container inside it (Docker in a pod) is not managed by the kubelet.
        container_id: parts.iter().skip(at + 1).find_map(|part| container_id(part)),
        qos: qos(
            parts.get(at).copied().unwrap_or_default(),
            at.checked_sub(1).and_then(|above| parts.get(above)).copied(),
        ),
    }
}

/// Returns the UID in `pod<uid>`, `kubepods-burstable-pod<uid>.slice` (with `_` for `-`) or
/// `kubelet-kubepods-pod<uid>.slice`.
fn pod_uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match name.rsplit_once("-pod") {
        Some((above, uid)) if above.ends_with("kubepods") || above.contains("kubepods-") => uid.replace('_', "-"),
        _ => name.strip_prefix("pod")?.to_owned(),
    };
    // A UUID has five parts; the hash of a static pod has one part.
    let parts: Vec<usize> = uid.split('-').map(str::len).collect();
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (hex == 32 && matches!(parts[..], [8, 4, 4, 4, 12] | [32])).then_some(uid)
}

/// Returns the 64 hex digits, without a runtime's prefix (`cri-containerd-`, `crio-`, `docker-`) and without `.scope`.
fn container_id(part: &str) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit('-').next()?;
    // CRI-O runs its monitor process in a separate cgroup with the same ID.
    let monitor = name.contains("conmon");
    (id.len() == 64 && !monitor && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

fn qos(pod: &str, above: Option<&str>) -> Option<String> {
    let class = ["burstable", "besteffort"].into_iter().find(|class| pod.contains(class) || above == Some(class));
    let guaranteed = pod.contains("kubepods-pod") || above.is_some_and(|above| above.starts_with("kubepods"));
    class.or(guaranteed.then_some("guaranteed")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f8a7c2e-11aa-4bbb-8ccc-123456789abc";
    const SLICE: &str = "0f8a7c2e_11aa_4bbb_8ccc_123456789abc";
    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OUTER: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The name of a case, the file, and the expected pod, container and class.
    type Case<'a> = (&'a str, String, Option<&'a str>, Option<&'a str>, Option<&'a str>);

    fn check(cases: &[Case<'_>]) {
        for (name, text, pod_uid, container_id, qos) in cases {
            let expected = Membership {
                pod_uid: pod_uid.map(str::to_owned),
                container_id: container_id.map(str::to_owned),
                qos: qos.map(str::to_owned),
            };
            assert_eq!(parse(text), expected, "{name}");
        }
    }

    #[test]
    fn every_driver_and_runtime_names_the_same_pod_and_container() {
        let slice = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice");
        let (burstable, best) = (Some("burstable"), Some("besteffort"));
        let found = |name, text, qos| (name, text, Some(UID), Some(ID), qos);
        check(&[
            found("v2, systemd, containerd", format!("0::/{slice}/cri-containerd-{ID}.scope\n"), burstable),
            found("v2, systemd, CRI-O with crun", format!("0::/{slice}/crio-{ID}.scope/container\n"), burstable),
            found("v2, systemd, Docker", format!("0::/{slice}/docker-{ID}.scope\n"), burstable),
            found("v2, cgroupfs", format!("0::/kubepods/besteffort/pod{UID}/{ID}\n"), best),
            found("v2, cgroupfs, guaranteed", format!("0::/kubepods/pod{UID}/{ID}\n"), Some("guaranteed")),
            found(
                "v2, systemd, guaranteed",
                format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope"),
                Some("guaranteed"),
            ),
            found(
                "v1, several controllers",
                format!("12:rdma:/\n4:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/\n0::/system.slice\n"),
                burstable,
            ),
            found(
                "systemd kubelet, cgroupfs containerd",
                format!(
                    "11:pids:/system.slice/containerd.service/kubepods-besteffort-pod{SLICE}.slice:cri-containerd:{ID}\n"
                ),
                best,
            ),
            found(
                "a private cgroup namespace",
                format!("0::/../../kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope"),
                burstable,
            ),
        ]);
    }

    #[test]
    fn in_nested_nodes_the_pod_and_its_own_container_count() {
        let inner = format!("kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{ID}.scope");
        check(&[
            (
                "kind, systemd",
                format!(
                    "0::/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/{inner}"
                ),
                Some(UID),
                Some(ID),
                Some("besteffort"),
            ),
            (
                "kind, cgroupfs",
                format!("0::/docker/{OUTER}/kubelet/kubepods/burstable/pod{UID}/{ID}"),
                Some(UID),
                Some(ID),
                Some("burstable"),
            ),
            (
                "Docker inside a pod",
                format!("0::/kubepods/burstable/pod{UID}/{ID}/docker/{OUTER}"),
                Some(UID),
                Some(ID),
                Some("burstable"),
            ),
        ]);
    }

    /// A container with a writable cgroup tree creates these folders below its own.
    #[test]
    fn a_folder_below_a_container_is_no_pod() {
        const OTHER: &str = "ffffffff-11aa-4bbb-8ccc-123456789abc";
        let other = OTHER.replace('-', "_");
        let own = |name, text: String| (name, text, Some(UID), Some(ID), Some("burstable"));
        check(&[
            own("cgroupfs", format!("0::/kubepods/burstable/pod{UID}/{ID}/pod{OTHER}/{OUTER}")),
            own("a whole tree", format!("0::/kubepods/burstable/pod{UID}/{ID}/kubepods/besteffort/pod{OTHER}/{OUTER}")),
            own(
                "systemd",
                format!(
                    "0::/kubepods.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope/kubepods-pod{other}.slice/{OUTER}"
                ),
            ),
            (
                "below the pod",
                format!("0::/kubepods/burstable/pod{UID}/pod{OTHER}"),
                Some(UID),
                None,
                Some("burstable"),
            ),
            (
                "v1",
                format!("4:memory:/kubepods/burstable/pod{UID}/{ID}/pod{OTHER}\n1:pids:/\n"),
                Some(UID),
                Some(ID),
                Some("burstable"),
            ),
            (
                "a sibling of the probe",
                format!("0::/../cri-containerd-{ID}.scope/kubepods/pod{OTHER}"),
                None,
                Some(ID),
                None,
            ),
            ("plain Docker", format!("0::/docker/{ID}/pod{OTHER}"), None, Some(ID), None),
        ]);
    }

    #[test]
    fn paths_without_a_pod_have_no_pod() {
        check(&[
            ("plain Docker", format!("0::/system.slice/docker-{ID}.scope"), None, Some(ID), None),
            ("a service", "0::/system.slice/nvidia-persistenced.service".into(), None, None, None),
            ("a user's slice that poses as a pod", format!("0::/user.slice/my-pod{SLICE}.slice"), None, None, None),
            ("CRI-O's monitor", format!("0::/machine.slice/crio-conmon-{ID}.scope"), None, None, None),
            ("nothing", String::new(), None, None, None),
            ("rubbish", "::\n:\npod".into(), None, None, None),
        ]);
    }

    #[test]
    fn whatever_parses_as_a_pod_names_one() {
        for text in [format!("0::pod{UID}/{ID}"), format!("0::/x:pod{UID}"), format!("0::/pod{UID}")] {
            assert_eq!(parse(&text).pod_uid.as_deref(), Some(UID), "{text}");
            assert!(names_pod(&text), "{text}");
        }
    }

    #[test]
    fn a_static_pod_has_a_hash_in_place_of_a_uid() {
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        let text =
            format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/crio-{ID}.scope");
        check(&[("static pod", text, Some(hash), Some(ID), Some("burstable"))]);
    }

    #[test]
    fn only_an_init_far_above_a_pod_belongs_to_a_node() {
        let of_pod = format!("0::/kubelet.slice/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope\n");
        let (pod, namespace) = (of_pod.as_str(), "0::/\n");
        for (init, own) in [
            ("0::/init.scope\n", pod),
            ("0::/init\n", pod),
            ("0::/\n", pod),
            ("0::/../../../../init.scope\n", namespace),
            ("0::/../../../init\n", namespace),
        ] {
            assert!(is_init_of_a_node(init, own), "{init} from {own}");
        }
        let sibling = format!("0::/../docker-{ID}.scope\n");
        let deeper = format!("0::/../docker-{ID}.scope/init.scope\n");
        let of_container = format!("0::/../cri-containerd-{ID}.scope\n");
        for (init, own) in [
            ("0::/\n", namespace),
            ("0::/init.scope\n", namespace),
            ("0::/../init.scope\n", namespace),
            ("0::/../../init.scope\n", namespace),
            (sibling.as_str(), namespace),
            (deeper.as_str(), namespace),
            (of_container.as_str(), namespace),
            (pod, pod),
            ("", pod),
            ("", namespace),
            ("0::/init.scope\n", "0::/user.slice/session-1.scope\n"),
            ("0::/init.scope\n", ""),
            ("0::/system.slice/x.service\n", pod),
            ("1:name=systemd:/\n0::/../../../x\n", namespace),
        ] {
            assert!(!is_init_of_a_node(init, own), "{init} from {own}");
        }
    }
}
