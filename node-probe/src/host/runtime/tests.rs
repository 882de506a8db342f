//! Tests that the configuration of the kubelet's containerd process is selected, on each distribution.

use syringe_core::facts::container_runtime::ContainerRuntime;

use super::*;
use crate::host::process::daemons;
use crate::testing::Tree;

const NVIDIA: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\nruntime_type = \
                      \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\n\
                      BinaryName = \"/usr/bin/nvidia-container-runtime\"\n";

const SERVICE: &str = "0::/system.slice/containerd.service\n";

fn process(tree: &Tree, pid: u32, arguments: &str, cgroup: &str) {
    let folder = format!("proc/{pid}");
    tree.file(&format!("{folder}/comm"), "containerd\n").file(&format!("{folder}/cgroup"), cgroup);
    tree.file(&format!("{folder}/cmdline"), arguments.replace(' ', "\0") + "\0");
    tree.file(
        &format!("{folder}/stat"),
        format!("{pid} (containerd) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 9 0 6000 0 0"),
    );
    tree.file("proc/stat", "btime 1763688000\n");
}

fn of(tree: &Tree) -> ContainerRuntime {
    let (_, named) = daemons::read(&tree.paths());
    read(&tree.paths(), &named).expect("a runtime").0
}

#[test]
fn the_process_names_its_configuration() {
    for (arguments, path) in [
        (
            "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml -a /run/k3s/containerd/containerd.sock",
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        ),
        (
            "/var/lib/k0s/bin/containerd --root=/var/lib/k0s/containerd --config=/etc/k0s/containerd.toml",
            "/etc/k0s/containerd.toml",
        ),
        (
            "/snap/microk8s/7589/bin/containerd --config /var/snap/microk8s/7589/args/containerd.toml --root x",
            "/var/snap/microk8s/7589/args/containerd.toml",
        ),
        ("/usr/bin/containerd -c /etc/containerd/config-kops.toml -l info", "/etc/containerd/config-kops.toml"),
        (
            "/bin/containerd --address /run/containerd/containerd.sock --config /etc/cri/containerd.toml",
            "/etc/cri/containerd.toml",
        ),
        ("/usr/bin/containerd", "/etc/containerd/config.toml"),
    ] {
        let tree = Tree::new();
        process(&tree, 700, arguments, SERVICE);
        tree.file(&path[1..], NVIDIA).file("usr/bin/nvidia-container-runtime", "");
        let facts = of(&tree);
        assert_eq!((facts.config_path.as_deref(), facts.complete), (Some(path), true), "{arguments}");
        assert_eq!(facts.started_at.map(|at| at.to_string()).as_deref(), Some("2025-11-21T01:21:00Z"));
        let nvidia = facts.handlers.iter().find(|handler| handler.is_nvidia()).expect("its handler");
        assert_eq!(nvidia.binary_exists, Some(true), "{arguments}");
    }
}

#[test]
fn a_program_that_is_not_there_is_seen_to_be_missing() {
    let tree = Tree::new();
    process(&tree, 700, "/usr/bin/containerd", SERVICE);
    tree.file("etc/containerd/config.toml", NVIDIA);
    assert_eq!(of(&tree).handlers[0].binary_exists, Some(false));
    tree.file("etc/containerd/config.toml", NVIDIA.replace("/usr/bin/nvidia", "nvidia"));
    assert_eq!(of(&tree).handlers[0].binary_exists, None, "the program may be in the PATH");
}

#[test]
fn the_containerd_of_docker_of_the_host_and_of_a_pod_are_not_the_kubelets() {
    let tree = Tree::new();
    process(&tree, 500, "containerd --config /run/docker/containerd.toml", "0::/system.slice/docker.service\n");
    tree.file("run/docker/containerd.toml", "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
    let pod = "0::/kubepods.slice/kubepods-pod0f8a7c2e_11aa_4bbb_8ccc_123456789abc.slice/x.scope\n";
    process(&tree, 600, "containerd --config /tmp/mine.toml", pod);
    tree.file("tmp/mine.toml", NVIDIA);
    process(&tree, 700, "/usr/bin/containerd", SERVICE);
    tree.file("etc/containerd/config.toml", "version = 2\n");
    assert_eq!(of(&tree).config_path.as_deref(), Some("/etc/containerd/config.toml"));
}

#[test]
fn without_a_process_a_configuration_is_a_guess() {
    let tree = Tree::new();
    tree.file("etc/containerd/config.toml", NVIDIA);
    assert!(!of(&tree).complete);
    assert!(read(&Tree::new().paths(), &[]).is_none(), "nothing at all");
}

#[test]
fn the_operators_toolkit_has_a_configuration_of_its_own() {
    let tree = Tree::new();
    process(&tree, 700, "/usr/bin/containerd", SERVICE);
    tree.file("etc/containerd/config.toml", NVIDIA.replace("/usr/bin/", "/usr/local/nvidia/toolkit/"));
    tree.file("etc/nvidia-container-runtime/config.toml", "[nvidia-container-runtime]\nmode = \"legacy\"\n");
    tree.file(
        "usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml",
        "[nvidia-container-runtime]\nmode = \"cdi\"\n[nvidia-container-runtime.modes.cdi]\ndefault-kind = \
         \"management.nvidia.com/gpu\"\n",
    );
    let toolkit = of(&tree).toolkit.expect("its configuration");
    assert_eq!(
        (toolkit.mode.as_deref(), toolkit.default_kind.as_deref()),
        (Some("cdi"), Some("management.nvidia.com/gpu"))
    );
}
