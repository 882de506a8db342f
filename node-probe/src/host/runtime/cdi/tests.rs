//! Tests of the comparison between CDI specifications and the node.

use super::*;
use crate::testing::Tree;

const SPEC: &str = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: \
                    /dev/nvidia0\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/nvidia-uvm\n    major: 511\n    minor: 0\n  mounts:\n  \
                    - hostPath: /usr/lib/libcuda.so.570.124.06\n    containerPath: /x\n";

fn of(tree: &Tree) -> Cdi {
    read(&tree.paths(), None).expect("a node")
}

#[test]
fn a_specification_is_compared_with_the_libraries_and_devices_of_the_node() {
    let tree = Tree::new();
    tree.file("etc/cdi/nvidia.yaml", SPEC).file("dev/nvidia0", "");
    let cdi = of(&tree);
    let [spec] = cdi.specs.as_slice() else { panic!("{cdi:?}") };
    assert_eq!(
        (spec.path.as_str(), spec.kind.as_str(), &spec.devices[..]),
        ("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", &["all".to_owned()][..])
    );
    assert_eq!(spec.driver_version.as_deref(), Some("570.124.06"));
    assert_eq!(spec.missing_libraries, ["/usr/lib/libcuda.so.570.124.06"]);
    let uvm = StaleDevice { path: "/dev/nvidia-uvm".to_owned(), in_spec: Some("511:0".to_owned()), on_node: None };
    assert_eq!(spec.stale_devices, [uvm], "nvidia0 exists, and has no number in the file");
    // A file that is not a device has the number 0:0.
    tree.file("usr/lib/libcuda.so.570.124.06", "").file("dev/nvidia-uvm", "");
    let spec = &of(&tree).specs[0];
    assert_eq!((spec.missing_libraries.len(), spec.stale_devices[0].on_node.as_deref()), (0, Some("0:0")));
}

#[test]
fn the_folders_come_in_rising_precedence_and_other_vendors_are_left_out() {
    let tree = Tree::new();
    tree.file("var/run/cdi/management.yaml", SPEC.replace("kind: nvidia", "kind: management.nvidia"));
    tree.file("etc/cdi/nvidia.yaml", SPEC).file("etc/cdi/other.json", "{\"kind\": \"vendor.com/nic\"}");
    tree.file("var/run/cdi/k8s.gpu.nvidia.com-claim_0f8a.yaml", SPEC).file("etc/cdi/x.txt", "nvidia");
    let cdi = of(&tree);
    let kinds: Vec<&str> = cdi.specs.iter().map(|spec| spec.kind.as_str()).collect();
    assert_eq!((kinds, cdi.claim_specs), (vec!["nvidia.com/gpu", "management.nvidia.com/gpu"], 1));
    assert_eq!((cdi.unread.len(), &cdi.folders[..]), (0, &["/etc/cdi".to_owned(), "/var/run/cdi".to_owned()][..]));
}

#[test]
fn the_usual_folders_are_read_beside_those_of_containerd() {
    let tree = Tree::new();
    tree.file("var/run/cdi/nvidia.yaml", SPEC).file("var/cdi/static/nvidia.yaml", SPEC);
    let cdi = read(&tree.paths(), Some(vec!["/var/cdi/static".to_owned(), "/etc/cdi/".to_owned()])).expect("a node");
    assert_eq!(
        (cdi.specs.len(), &cdi.folders[..]),
        (2, &["/var/run/cdi", "/var/cdi/static", "/etc/cdi/"].map(str::to_owned)[..])
    );
}

#[test]
fn what_cannot_be_read_is_said_and_an_empty_node_has_none() {
    let tree = Tree::new();
    tree.file("etc/cdi/nvidia.yaml", "kind: nvidia.com/gpu\ndevices: [{name: all}]\n").folder("etc/cdi/folder.yaml");
    tree.file("etc/cdi/vendor.yaml", "devices: {}\n");
    assert_eq!(of(&tree).unread, ["/etc/cdi/folder.yaml", "/etc/cdi/nvidia.yaml"]);
    let cdi = of(&Tree::new());
    assert_eq!((cdi.specs.len(), cdi.unread.len(), cdi.folders.len()), (0, 0, 2));
    let (tree, outside) = (Tree::new(), Tree::new());
    outside.file("x", SPEC);
    tree.link("etc/cdi/nvidia.yaml", outside.path().join("x").to_str().expect("UTF-8"));
    assert_eq!((of(&tree).specs.len(), of(&tree).unread.len()), (0, 1), "the link leads out of the root");
}

#[test]
fn the_device_of_a_driver_root_is_not_compared_with_the_hosts() {
    let tree = Tree::new();
    tree.file(
        "etc/cdi/nvidia.yaml",
        SPEC.replace("path: /dev/nvidia-uvm", "hostPath: /run/nvidia/driver/dev/nvidia-uvm\n    path: /dev/nvidia-uvm")
            .replace("- path: /dev/nvidia0", "- path: /etc/passwd"),
    );
    assert_eq!(of(&tree).specs[0].stale_devices, []);
}
