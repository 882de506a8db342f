//! `parse`: finds pod, container and QoS class in the text of `/proc/PID/cgroup`, without I/O.
//! `names_pod`, `is_of_no_container`: whether a process may be in a pod, or is in no container.
//! `may_be_the_kubelets`, `is_init_of_a_node`: whether a process may be the kubelet, or is the init of a nested node.
//!
//! Formats: cgroup v1 and v2; the kubelet's systemd driver (`kubepods-burstable-pod<uid>.slice`) and cgroupfs driver
//! (`burstable/pod<uid>`); containerd, CRI-O, Docker. A node that is itself a container (kind, sysbox) has an outer
//! path in front of the pod's path.
//!
//! Names in a path are not reliable: a container, a user with a session, or a service to which systemd delegates its
//! cgroup can create folders with any name below its own cgroup. Therefore, the first pod of a path counts, and only if
//! no such cgroup is above it. The probe is a pod of the same kubelet. If a path and the path of the probe begin with
//! the same parts, these parts belong to the node, whatever their names are.

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

/// Parses the whole file, which has one line per hierarchy: `number:controllers:path`. `own`: the file of the probe.
pub(crate) fn parse(text: &str, own: &str) -> Membership {
    let memberships = paths(text).map(|path| membership(path, own));
    // cgroup v1 has a line for each controller, and some lines contain only the root path. The line with the most
    // information is used.
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
    may_be_the_kubelets(cgroup, "")
}

/// Returns whether a process may be the kubelet of the node. `own`: the file of the probe. If a kubelet runs in a
/// container, this container is in the path of the kubelet and in the path of the probe.
pub(crate) fn may_be_the_kubelets(cgroup: &str, own: &str) -> bool {
    let is_of_others = |path: &str| {
        let parts = parts(path);
        let below = &parts[shared(&parts, own)..];
        let above = below.split_last().map_or(below, |(_, above)| above);
        parts.iter().rev().take(2).any(|part| is_container(part))
            || below.iter().any(|part| is_container_of_another_manager(part) || is_container(part))
            || above.iter().any(|part| is_delegated(part))
    };
    !cgroup.trim().is_empty() && !names_pod(cgroup) && !paths(cgroup).any(is_of_others)
}

/// Returns whether process 1 is the init of a node that is itself a container (kind, k3d). `init` and `own`: the cgroups of
/// process 1 and of the probe.
///
/// Two things are required: the probe is in a pod, and process 1 is in the cgroup of an init. Inside a cgroup
/// namespace, the path to that cgroup leads up past pod, class and `kubepods`: at least three levels. Another container
/// of the pod is at a distance of one or two levels. In all other cases, process 1 counts as a workload.
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

/// Services of systemd whose cgroups only software of the node changes. If the kubelet uses the systemd driver but
/// containerd does not, containerd creates pods below its own service.
const RUNTIMES: [&str; 7] = ["containerd", "crio", "docker", "k3s", "rke2", "k0s", "kube"];

/// Returns whether processes below this part can choose the names of the following parts. systemd delegates services
/// and scopes, but no slices. `user@1000.service` is the service of a user.
fn is_delegated(part: &str) -> bool {
    let is_of_runtime = || RUNTIMES.iter().any(|name| part.contains(name));
    is_container(part)
        || part.starts_with("lxc")
        || part.ends_with(".scope")
        || (part.ends_with(".service") && !is_of_runtime())
}

/// Returns whether this part belongs to a container or machine without 64 hex digits in its name (LXC,
/// `systemd-nspawn`).
fn is_container_of_another_manager(part: &str) -> bool {
    part.starts_with("lxc") || part == "machine.slice"
}

/// Returns the parts of a path. If the kubelet uses the systemd driver but containerd does not, containerd writes
/// `…-pod<uid>.slice:cri-containerd:<id>`.
fn parts(path: &str) -> Vec<&str> {
    path.split(['/', ':']).filter(|part| !part.is_empty()).collect()
}

/// Returns the number of parts at the start of a path that are also the start of a path of the probe.
fn shared(path: &[&str], own: &str) -> usize {
    let equal = |own| parts(own).iter().zip(path).take_while(|(own, part)| own == part).count();
    paths(own).map(equal).max().unwrap_or_default()
}

fn membership(path: &str, own: &str) -> Membership {
    let parts = parts(path);
    let shared = shared(&parts, own);
    let is_of_node = |at: usize| !parts[shared.min(at)..at].iter().any(|part| is_delegated(part));
    let pod = parts.iter().enumerate().find_map(|(at, part)| Some((at, pod_uid(part)?)));
    let Some((at, pod_uid)) = pod.filter(|(at, _)| is_of_node(*at)) else {
        // The first container is used. If the probe is in the same container, this container is in the shared parts.
        let found = (shared..parts.len()).find_map(|at| Some((at, container_id(parts[at])?)));
        let container_id = match found {
            Some((at, id)) => is_of_node(at).then_some(id),
            None => parts[..shared].iter().rev().find_map(|part| container_id(part)),
        };
        return Membership { container_id, ..Membership::default() };
    };
    Membership {
        pod_uid: Some(pod_uid),
        // The first container below the pod is used. The kubelet does not manage a container inside it (Docker in a pod).
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
        check_from(PROBE, cases);
    }

    fn check_from(own: &str, cases: &[Case<'_>]) {
        for (name, text, pod_uid, container_id, qos) in cases {
            let expected = Membership {
                pod_uid: pod_uid.map(str::to_owned),
                container_id: container_id.map(str::to_owned),
                qos: qos.map(str::to_owned),
            };
            assert_eq!(parse(text, own), expected, "{name}");
        }
    }

    /// The probe in its own cgroup namespace, which contains nothing about the node.
    const PROBE: &str = "0::/\n";

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
        let pods = format!("0::/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice");
        let systemd = format!("{pods}/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{SLICE}.slice");
        let cgroupfs = format!("/docker/{OUTER}/kubelet/kubepods/burstable");
        let in_docker = format!("0::/kubepods/burstable/pod{UID}/{ID}/docker/{OUTER}");
        let pod = |name, text, qos| (name, text, Some(UID), Some(ID), Some(qos));
        check(&[pod("Docker inside a pod", in_docker, "burstable")]);
        check_from(
            &format!("{pods}/kubelet-kubepods-podx.slice/cri-containerd-{OUTER}.scope\n"),
            &[pod("kind, systemd", format!("{systemd}/cri-containerd-{ID}.scope"), "besteffort")],
        );
        check_from(
            &format!("4:memory:{cgroupfs}/podx/{OUTER}\n1:name=systemd:/\n"),
            &[
                pod("kind, cgroupfs", format!("4:memory:{cgroupfs}/pod{UID}/{ID}"), "burstable"),
                pod(
                    "another class",
                    format!("4:memory:/docker/{OUTER}/kubelet/kubepods/besteffort/pod{UID}/{ID}"),
                    "besteffort",
                ),
            ],
        );
        check_from(
            &format!("0::/docker/{OUTER}\n"),
            &[
                pod("kind, from the node itself", format!("0::{cgroupfs}/pod{UID}/{ID}"), "burstable"),
                ("the node", format!("0::/docker/{OUTER}/kubelet"), None, Some(OUTER), None),
                ("a container of the node", format!("0::/docker/{OUTER}/default/{ID}"), None, Some(ID), None),
            ],
        );
        // Without a common start, the container above can be any container of the machine.
        check(&[("kind beside the probe", format!("0::{cgroupfs}/pod{UID}/{ID}"), None, Some(OUTER), None)]);
    }

    /// The folders above the pods depend on the driver, the runtime and `--cgroup-root`. The runtime of the probe and
    /// the runtime of a pod with a RuntimeClass can use different drivers.
    #[test]
    fn the_kubelets_folder_can_be_below_any_slice_or_a_runtime() {
        let slice = format!("kubepods-burstable-pod{SLICE}.slice");
        let found = |name, text: String| (name, text, Some(UID), Some(ID), Some("burstable"));
        let paths = [
            found("a root", format!("0::/k8s.slice/k8s-kubepods.slice/k8s-{slice}/cri-containerd-{ID}.scope")),
            found("a root, cgroupfs", format!("0::/gpu/cluster/kubepods/burstable/pod{UID}/{ID}")),
            found(
                "containerd without systemd",
                format!("0::/system.slice/containerd.service/{slice}:cri-containerd:{ID}"),
            ),
            found("k3s", format!("0::/system.slice/k3s-agent.service/{slice}:cri-containerd:{ID}")),
            found(
                "microk8s",
                format!("0::/system.slice/snap.microk8s.daemon-kubelite.service/{slice}:cri-containerd:{ID}"),
            ),
            found(
                "another driver than the probe",
                format!("0::/../../../../system.slice/containerd.service/{slice}:cri-containerd:{ID}"),
            ),
        ];
        for own in [
            PROBE,
            "",
            "0::/user.slice/user-0.slice/session-1.scope\n",
            "0::/kubepods.slice/kubepods-podx.slice/x.scope\n",
        ] {
            check_from(own, &paths);
        }
    }

    /// A user with a session, a service or a container outside of Kubernetes creates these folders without any right on
    /// the node.
    #[test]
    fn a_folder_that_a_process_outside_of_kubernetes_made_is_no_pod_and_no_container() {
        let pod = format!("kubepods.slice/kubepods-pod{SLICE}.slice");
        let user = "user.slice/user-1000.slice/user@1000.service";
        let none = |name, text: String| (name, text, None, None, None);
        let paths = [
            none("a user", format!("0::/{user}/{pod}/cri-containerd-{ID}.scope")),
            none("a user's container", format!("0::/{user}/{ID}.scope")),
            none("a user's runtime", format!("0::/{user}/containerd.service/{pod}:cri-containerd:{ID}")),
            none("a service", format!("0::/system.slice/x.service/{pod}/{ID}")),
            none("a session", format!("1:name=systemd:/user.slice/session-1.scope/{pod}/{ID}\n4:memory:/user.slice\n")),
            none("systemd-nspawn", format!("0::/machine.slice/systemd-nspawn@x.service/payload/{pod}/{ID}")),
            none("LXC", format!("0::/lxc.payload.x/{pod}/{ID}")),
            none("from the probe's namespace", format!("0::/../../../../{user}/{pod}/{ID}")),
            ("Docker", format!("0::/system.slice/docker-{OUTER}.scope/{pod}/{ID}"), None, Some(OUTER), None),
            ("cgroupfs", format!("0::/docker/{OUTER}/kubepods/pod{UID}/{ID}"), None, Some(OUTER), None),
        ];
        let in_pod = format!("0::/kubepods.slice/kubepods-podx.slice/cri-containerd-{OUTER}.scope\n");
        for own in [PROBE, "", "0::/user.slice/user-0.slice/session-1.scope\n", &in_pod] {
            check_from(own, &paths);
        }
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
            assert_eq!(parse(&text, PROBE).pod_uid.as_deref(), Some(UID), "{text}");
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
