//! Device files of the NVIDIA driver: which exist, and which should exist. Only by name: whether a container may open
//! them depends on its device cgroup (see `container_devices`).

use std::path::Path;

use super::pci;
use crate::files;
use crate::paths::Paths;

/// Sub-folders of `/dev` with capability devices (MIG, IMEX channels).
const FOLDERS: [&str; 2] = ["nvidia-caps", "nvidia-caps-imex-channels"];

/// Maximum number of names per folder; the others are counted. MIG creates hundreds of capability devices, IMEX up to 2048.
const MAX_PER_FOLDER: usize = 32;

/// Folder of the kernel module below `/proc`, with one folder for each GPU, named by its address.
pub(super) const GPUS: &str = "driver/nvidia/gpus";

/// The device files of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceFiles {
    pub(super) present: Vec<String>,
    pub(super) missing: Vec<String>,
}

/// Reads `/dev`. `modules`: the loaded kernel modules of interest.
pub(super) fn read(paths: &Paths, gpus: &[pci::Function], modules: &[String]) -> DeviceFiles {
    let present = present(&paths.dev);
    let missing = expected(paths, gpus, modules).into_iter().filter(|name| !present.contains(name)).collect();
    DeviceFiles { present, missing }
}

/// The device files in one `/dev`.
pub(super) fn present(dev: &Path) -> Vec<String> {
    let mut present: Vec<String> = files::names(dev)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.starts_with("nvidia") && !dev.join(name).is_dir())
        .collect();
    present.sort_by_key(|name| natural(name));
    for folder in FOLDERS {
        present.extend(capabilities(&dev.join(folder), folder));
    }
    present
}

fn expected(paths: &Paths, gpus: &[pci::Function], modules: &[String]) -> Vec<String> {
    let loaded = |name: &str| modules.iter().any(|module| module == name);
    let mut names = Vec::new();
    if loaded("nvidia") {
        names.push("nvidiactl".to_owned());
        let bound = gpus.iter().filter(|gpu| gpu.driver().as_deref() == Some("nvidia"));
        let mut minors: Vec<u32> = bound
            .filter_map(|gpu| driver_information(paths, gpu.address.sysfs(), "Device Minor")?.parse().ok())
            .collect();
        minors.sort_unstable();
        names.extend(minors.into_iter().map(|minor| format!("nvidia{minor}")));
    }
    if loaded("nvidia_uvm") {
        names.push("nvidia-uvm".to_owned());
    }
    names
}

/// A value in the information file of the kernel module about a GPU (`Device Minor: 3`), by the address of the GPU.
pub(super) fn driver_information(paths: &Paths, address: &str, name: &str) -> Option<String> {
    let text = files::text(&paths.proc.join(GPUS).join(address).join("information"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn capabilities(path: &Path, folder: &str) -> Vec<String> {
    let mut names = files::names(path).unwrap_or_default();
    names.sort_by_key(|name| natural(name));
    let more = names.len().saturating_sub(MAX_PER_FOLDER);
    names.truncate(MAX_PER_FOLDER);
    let shown = names.iter().map(|name| syringe_core::text::clean(&format!("{folder}/{name}"), 80));
    shown.chain((more > 0).then(|| format!("{folder}/… ({more} more)"))).collect()
}

/// Sorts `nvidia10` after `nvidia9`.
fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem.to_owned(), name.get(stem.len()..).and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_device_file_that_the_driver_expects_but_dev_lacks_is_missing() {
        let tree = Tree::new();
        for (bus, minor, driver) in [("5d", 0, "nvidia"), ("5e", 10, "nvidia"), ("5f", 2, "vfio-pci")] {
            tree.pci(&format!("pci0000:00/0000:{bus}:00.0"), "0x10de", "0x2330", "0x030200");
            tree.link(
                &format!("sys/bus/pci/devices/0000:{bus}:00.0/driver"),
                &format!("/sys/bus/pci/drivers/{driver}"),
            );
            tree.file(
                &format!("proc/driver/nvidia/gpus/0000:{bus}:00.0/information"),
                format!("Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n"),
            );
        }
        tree.file("dev/nvidia10", "")
            .file("dev/nvidiactl", "")
            .file("dev/null", "")
            .file("dev/nvidia-caps/nvidia-cap1", "");
        let gpus = pci::nvidia(&tree.paths()).expect("sysfs is there");
        let nodes = read(&tree.paths(), &gpus, &["nvidia".into(), "nvidia_uvm".into()]);
        assert_eq!(nodes.missing, ["nvidia0", "nvidia-uvm"]);
        assert_eq!(nodes.present, ["nvidia10", "nvidiactl", "nvidia-caps/nvidia-cap1"]);
    }

    #[test]
    fn without_the_module_nothing_is_expected() {
        assert_eq!(read(&Tree::new().paths(), &[], &[]), DeviceFiles::default());
    }

    #[test]
    fn hundreds_of_capabilities_are_counted_and_not_listed() {
        let tree = Tree::new();
        for number in 0..40 {
            tree.file(&format!("dev/nvidia-caps/nvidia-cap{number}"), "");
        }
        let present = read(&tree.paths(), &[], &[]).present;
        assert_eq!(present.len(), MAX_PER_FOLDER + 1);
        assert_eq!(present[9], "nvidia-caps/nvidia-cap9");
        assert_eq!(present[MAX_PER_FOLDER], "nvidia-caps/… (8 more)");
    }
}
