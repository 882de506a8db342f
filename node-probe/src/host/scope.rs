//! `scope`: determines whether the probe sees the GPUs, processes and files of the node, or only of a container.

use syringe_core::report::{Extent, ReportScope};

use crate::host::driver::device_files;
use crate::paths::{Owner, Paths};
use crate::{files, paths};

/// Programs that contain the kubelet: if one of them is visible, the processes of the node are visible. For nodes that are
/// containers themselves (kind, k3d), there is no better indicator.
const KUBELETS: [&str; 5] = ["kubelet", "k3s-server", "k3s-agent", "rke2", "kubelite"];

/// Returns the visible part of the node; `None` if the whole node is visible.
pub(crate) fn scope(paths: &Paths) -> Option<ReportScope> {
    let on_node = paths.owner == Owner::Node && (paths::is_initial_pid_namespace(&paths.proc) || sees_a_kubelet(paths));
    let extent = |all: bool| if all { Extent::Node } else { Extent::Container };
    let scope = ReportScope { gpus: gpus(paths), processes: extent(on_node), files: extent(on_node) };
    (scope != ReportScope::default()).then_some(scope)
}

fn sees_a_kubelet(paths: &Paths) -> bool {
    let comm = |pid| files::text(&paths.proc.join(format!("{pid}/comm"))).unwrap_or_default();
    files::pids(&paths.proc).unwrap_or_default().into_iter().any(|pid| KUBELETS.contains(&comm(pid).as_str()))
}

/// Returns [`Extent::Node`] if there is a device file for each GPU of the driver, or if there is no driver.
fn gpus(paths: &Paths) -> Extent {
    let Ok(addresses) = files::names(&paths.proc.join(device_files::GPUS)) else { return Extent::Node };
    let minor = |address: &String| device_files::driver_information(paths, address, "Device Minor")?.parse().ok();
    let minors: Vec<Option<u32>> = addresses.iter().map(minor).collect();
    if minors.contains(&None) {
        return Extent::Unknown;
    }
    let here = |minor: u32| files::exists(&paths.dev.join(format!("nvidia{minor}")));
    if minors.into_iter().flatten().all(here) { Extent::Node } else { Extent::Container }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    const NODE: Extent = Extent::Node;
    const CONTAINER: Extent = Extent::Container;

    fn with_gpus(minors: &[u32]) -> Tree {
        let tree = Tree::new();
        for minor in minors {
            let file = format!("proc/driver/nvidia/gpus/0000:{minor:02x}:00.0/information");
            tree.file(&file, format!("Device Minor: \t {minor}\n"));
        }
        tree
    }

    #[test]
    fn on_a_node_all_of_it_is_seen() {
        let tree = with_gpus(&[0, 1]);
        tree.link("proc/self/ns/pid", "pid:[4026531836]").file("dev/nvidia0", "").file("dev/nvidia1", "");
        assert_eq!(scope(&tree.paths()), None);
    }

    #[test]
    fn a_node_that_is_a_container_shows_its_kubelet() {
        let tree = Tree::new();
        tree.link("proc/self/ns/pid", "pid:[4026532199]").file("proc/1/comm", "systemd\n");
        let files_and_processes = |scope: Option<ReportScope>| scope.map(|scope| (scope.processes, scope.files));
        assert_eq!(files_and_processes(scope(&tree.paths())), Some((CONTAINER, CONTAINER)));
        tree.file("proc/230/comm", "kubelet\n");
        assert_eq!(scope(&tree.paths()), None);
    }

    #[test]
    fn a_container_with_some_of_the_gpus_says_so() {
        let tree = with_gpus(&[0, 1]);
        tree.link("proc/self/ns/pid", "pid:[4026531836]").file("dev/nvidia1", "");
        assert_eq!(scope(&tree.paths()), Some(ReportScope { gpus: CONTAINER, processes: NODE, files: NODE }));
        tree.file("proc/driver/nvidia/gpus/0000:09:00.0/information", "Model: x\n");
        assert_eq!(scope(&tree.paths()).map(|scope| scope.gpus), Some(Extent::Unknown));
    }
}
