//! Tests of the search for the NVML library, in file trees.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::Tree;

fn shown(tree: &Tree, found: Vec<Library>) -> Vec<String> {
    let inside = |library: Library| {
        library.path.strip_prefix(tree.path()).unwrap_or(&library.path).to_string_lossy().into_owned()
    };
    found.into_iter().map(inside).collect()
}

fn found(tree: &Tree, loaded: Option<&str>) -> Vec<String> {
    shown(tree, libraries(&tree.paths(), loaded))
}

#[test]
fn absolute_links_are_followed_inside_the_root() {
    let tree = Tree::new();
    let folder = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let real = format!("{folder}/nvidia/current/libnvidia-ml.so.535.261.03");
    tree.file(&real, "").link("etc/alternatives/nvml", &format!("/{real}"));
    tree.link(&format!("{folder}/libnvidia-ml.so.1"), "/etc/alternatives/nvml");
    assert_eq!(found(&tree, None), [real]);
}

#[test]
fn the_library_of_the_loaded_modules_version_comes_first() {
    let tree = Tree::new();
    tree.file("usr/lib64/libnvidia-ml.so.550.163.01", "");
    tree.link("usr/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.550.163.01");
    tree.file("home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.570.124.06", "");
    tree.link("home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1", "libnvidia-ml.so.570.124.06");
    let (fits, other) =
        ("home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.570.124.06", "usr/lib64/libnvidia-ml.so.550.163.01");
    assert_eq!(found(&tree, Some("570.124.06")), [fits, other]);
    assert_eq!(found(&tree, None), [other, fits], "in the order of the search");
}

#[test]
fn driver_containers_and_listed_folders_are_searched() {
    let tree = Tree::new();
    tree.file("run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", "");
    tree.file("etc/ld.so.conf.d/nvidia.conf", "# comment\n/opt/gpu/lib\n").file("opt/gpu/lib/libnvidia-ml.so.1", "");
    let bottlerocket = format!("{}-bottlerocket-linux-gnu", std::env::consts::ARCH);
    let tesla = format!("{bottlerocket}/sys-root/usr/lib/nvidia/tesla/535/libnvidia-ml.so.1");
    tree.file(&tesla, "");
    let expected = ["run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", &tesla, "opt/gpu/lib/libnvidia-ml.so.1"];
    assert_eq!(found(&tree, Some("570.124.06")), expected);
}

#[test]
fn a_list_of_folders_that_others_can_write_is_not_followed() {
    let tree = Tree::new();
    tree.file("etc/ld.so.conf.d/nvidia.conf", "/opt/gpu/lib\n").file("opt/gpu/lib/libnvidia-ml.so.1", "");
    let list = tree.path().join("etc/ld.so.conf.d/nvidia.conf");
    fs::set_permissions(list, fs::Permissions::from_mode(0o666)).expect("ours");
    assert_eq!(found(&tree, None), [""; 0]);
}

#[test]
fn a_library_that_others_can_write_is_last_and_never_opened() {
    let tree = Tree::new();
    tree.file("run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", "").file("usr/lib64/libnvidia-ml.so.1", "");
    let open = tree.path().join("run/nvidia/driver/usr");
    fs::set_permissions(open, fs::Permissions::from_mode(0o777)).expect("ours");
    let found = libraries(&tree.paths(), None);
    assert!(found[0].file.is_ok() && found[0].path.ends_with("usr/lib64/libnvidia-ml.so.1"), "{found:?}");
    assert!(found[1].file.as_ref().expect_err("refused").to_string().contains("/usr can be changed by users other"));
    assert_eq!(found.len(), 2);
}

#[test]
fn a_library_of_a_workload_is_foreign() {
    let tree = Tree::new();
    tree.file("usr/lib64/libnvidia-ml.so.1", "");
    fs::set_permissions(tree.path().join("usr"), fs::Permissions::from_mode(0o777)).expect("ours");
    let paths = Paths { owner: Owner::Workload, ..tree.paths() };
    let found = libraries(&paths, None);
    assert!(found[0].foreign && found[0].file.is_ok(), "{found:?}");
    assert!(!libraries(&tree.paths(), None)[0].foreign);
}

/// A user who can write to the parent folder of a driver's root could replace that root with the root of an image.
#[test]
fn a_drivers_root_behind_a_link_out_or_an_open_folder_is_not_searched() {
    let outside = Tree::new();
    outside.file("usr/lib64/libnvidia-ml.so.1", "");
    for target in [outside.path().display().to_string(), format!("../../../..{}", outside.path().display())] {
        let tree = Tree::new();
        tree.link("run/nvidia/driver", &target);
        assert_eq!(found(&tree, None), [""; 0], "{target}");
    }
    let tree = Tree::new();
    tree.file("run/nvidia/driver/usr/lib64/libnvidia-ml.so.1", "");
    fs::set_permissions(tree.path().join("run/nvidia"), fs::Permissions::from_mode(0o777)).expect("ours");
    let found = libraries(&tree.paths(), None);
    assert!(found.iter().all(|library| library.file.is_err()), "{found:?}");
    assert!(found[0].file.as_ref().expect_err("refused").to_string().contains("/run/nvidia can be changed"));
}

const MAPS: &str = "7f00-7f01 r-xp 00000000 08:01 42   /opt/odd/libnvidia-ml.so.570.1\n";

#[test]
fn a_library_that_a_process_of_the_node_has_open_is_found_in_the_nodes_root() {
    let tree = Tree::new();
    tree.file("opt/odd/libnvidia-ml.so.570.1", "");
    tree.file("proc/77/maps", MAPS).file("proc/77/cgroup", "0::/system.slice/nvidia-persistenced.service\n");
    tree.file("proc/78/maps", "7f00-7f01 r-xp 0 08:01 42 /usr/lib/libc.so.6\n")
        .file("proc/78/cgroup", "0::/init.scope\n");
    assert_eq!(shown(&tree, mapped_libraries(&tree.paths())), ["opt/odd/libnvidia-ml.so.570.1"]);
    assert_eq!(mapped_path("0-1 r-xp 0 0:0 0 /usr/lib/libnvidia-ml.so.1 (deleted)"), None);
    let workload = Paths { owner: Owner::Workload, ..tree.paths() };
    assert_eq!(shown(&tree, mapped_libraries(&workload)), [""; 0]);
}

/// Root owns the files of every image, so it is not sufficient to check the owner.
#[test]
fn a_library_below_the_folders_of_images_is_not_opened() {
    for folder in IMAGES {
        let tree = Tree::new();
        let path = format!("{folder}1/rootfs/libnvidia-ml.so.1");
        tree.file(path.trim_start_matches('/'), "").file("proc/77/maps", format!("0-1 r-xp 0 08:01 42   {path}\n"));
        tree.file("proc/77/cgroup", "0::/system.slice/x.service\n");
        assert_eq!(shown(&tree, mapped_libraries(&tree.paths())), [""; 0], "{folder}");
    }
}

/// A process of a pod provides a path. The pod's own root has a library at this path. On the node, the same path is a file
/// that the container runtime unpacked for the pod, and root owns that file.
#[test]
fn libraries_of_processes_of_pods_are_ignored() {
    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let of_pods = [
        "0::/kubepods.slice/kubepods-besteffort.slice/x\n".to_owned(),
        format!("0::/../cri-containerd-{ID}.scope\n"),
        format!("0::/../docker-{ID}.scope\n"),
        format!("0::/../../pod0f8a7c2e-11aa-4bbb-8ccc-123456789abc/{ID}\n"),
        format!("12:pids:/\n4:memory:/kubepods/burstable/pod1/{ID}\n"),
        format!("0::/docker/{ID}\n"),
        format!("0::/machine.slice/libpod-{ID}.scope\n"),
        format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
        String::new(),
    ];
    for cgroup in of_pods {
        let tree = Tree::new();
        tree.file("opt/odd/libnvidia-ml.so.570.1", "").file("proc/77/root/opt/odd/libnvidia-ml.so.570.1", "");
        tree.file("proc/77/maps", MAPS).file("proc/77/cgroup", &cgroup);
        assert_eq!(shown(&tree, mapped_libraries(&tree.paths())), [""; 0], "{cgroup}");
    }
    let tree = Tree::new();
    tree.file("opt/odd/libnvidia-ml.so.570.1", "").file("proc/77/maps", MAPS);
    assert_eq!(shown(&tree, mapped_libraries(&tree.paths())), [""; 0], "the owner of the process is unknown");
}
