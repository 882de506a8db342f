//! `read`: finds existing and missing device files of the driver in `/dev`. `list`: the device files in a container.
//! `driver_information`: a value from the information file of the kernel module about a GPU.
//!
//! Only the names are checked: whether a container may open a file depends on its device cgroup (see
//! `container_devices`).

use std::io;
use std::path::Path;

use rustix::fs::FileType;
use syringe_core::report::Problem;
use syringe_core::text::clean;

use crate::files;
use crate::host::pci;
use crate::in_root::Root;
use crate::paths::Paths;

/// Sub-folders of `/dev` with capability devices (MIG, IMEX channels).
const FOLDERS: [&str; 2] = ["nvidia-caps", "nvidia-caps-imex-channels"];

/// Maximum number of names per sub-folder. Other names are only counted. MIG creates hundreds of devices, IMEX up to
/// 2048.
const MAX_PER_FOLDER: usize = 32;

/// Maximum number of files in `/dev` itself. Other files are only counted. 16 GPUs with 16 vGPUs each have 272 files. A
/// user who can create files in the `/dev` of a container chooses their number and names.
const MAX_FILES: usize = 512;

/// Maximum length of a name.
const MAX_NAME: usize = 80;

/// Folder of the kernel module below `/proc`. It has one folder for each GPU, named after the GPU's address.
pub(in crate::host) const GPUS: &str = "driver/nvidia/gpus";

/// The device files of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct DeviceFiles {
    pub(in crate::host) present: Vec<String>,
    pub(in crate::host) missing: Vec<String>,
}

/// Names of device files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct DeviceList {
    pub(in crate::host) names: Vec<String>,
    /// Number of files that are not listed.
    pub(in crate::host) more: usize,
}

/// Reads `/dev`. `modules`: the loaded kernel modules of interest.
pub(in crate::host) fn read(
    paths: &Paths,
    gpus: &[pci::Function],
    modules: &[String],
    problems: &mut Vec<Problem>,
) -> DeviceFiles {
    let (main, folders) = (main_files(&paths.dev), FOLDERS.map(|folder| (folder, capabilities(&paths.dev, folder))));
    let expected = expected(paths, gpus, modules).into_iter();
    // If the list is missing or incomplete, a file that is not listed may exist.
    let complete = main.as_ref().is_ok_and(|main| main.more == 0);
    let present = main.unwrap_or_default();
    if present.more > 0 {
        let why = format!("/dev has {} more files of this name; only {MAX_FILES} are listed", present.more);
        problems.push(files::problem("too_many_devices", "device files (/dev/nvidia*)", why, ""));
    }
    let missing = expected.filter(|name| complete && !present.names.contains(name)).collect();
    let mut present = present.names;
    for (folder, DeviceList { names, more }) in folders {
        present.extend(names);
        present.extend((more > 0).then(|| format!("{folder}/… ({more} more)")));
    }
    DeviceFiles { present, missing }
}

/// Returns the device files in the `/dev` of a container and its sub-folders. The container chooses the content of this
/// folder, so links are resolved inside the container's root, and only files whose type is in `kinds` are listed.
pub(in crate::host) fn list(root: &Root, kinds: &'static [FileType]) -> DeviceList {
    let names = |folder: &str, prefix| {
        let names = root.find(folder).and_then(|folder| folder.names_of_kinds(prefix, kinds).ok());
        names.unwrap_or_default()
    };
    let (of_dev, left) = names("dev", "nvidia");
    let mut all = first(of_dev, MAX_FILES);
    all.more += left;
    for folder in FOLDERS {
        let (below, left) = names(&format!("dev/{folder}"), "");
        let below = below.into_iter().map(|name| format!("{folder}/{name}"));
        let DeviceList { names, more } = first(below.collect(), MAX_PER_FOLDER);
        all.names.extend(names);
        all.more += more + left;
    }
    all
}

/// Returns the device files in `/dev` itself. A missing folder counts as an empty folder.
fn main_files(dev: &Path) -> io::Result<DeviceList> {
    let entries = match files::entries(dev) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let files = entries.into_iter().filter(|entry| entry.name.starts_with("nvidia") && !entry.is_folder);
    Ok(first(files.map(|entry| entry.name).collect(), MAX_FILES))
}

/// Returns the first `most` names in order, and the number of the other names.
fn first(mut names: Vec<String>, most: usize) -> DeviceList {
    names.sort_by_key(|name| natural_order(name));
    let more = names.len().saturating_sub(most);
    names.truncate(most);
    DeviceList { names: names.iter().map(|name| clean(name, MAX_NAME)).collect(), more }
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

/// Returns a value from the kernel module's information file about a GPU (`Device Minor: 3`), by the address of the GPU.
pub(in crate::host) fn driver_information(paths: &Paths, address: &str, name: &str) -> Option<String> {
    let text = files::text(&paths.proc.join(GPUS).join(address).join("information"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn capabilities(dev: &Path, folder: &str) -> DeviceList {
    let names = files::names(&dev.join(folder)).unwrap_or_default();
    first(names.into_iter().map(|name| format!("{folder}/{name}")).collect(), MAX_PER_FOLDER)
}

/// Sorts `nvidia10` after `nvidia9`.
fn natural_order(name: &str) -> (String, u64) {
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
        let nodes = read(&tree.paths(), &gpus, &["nvidia".into(), "nvidia_uvm".into()], &mut Vec::new());
        assert_eq!(nodes.missing, ["nvidia0", "nvidia-uvm"]);
        assert_eq!(nodes.present, ["nvidia10", "nvidiactl", "nvidia-caps/nvidia-cap1"]);
    }

    #[test]
    fn without_the_module_nothing_is_expected() {
        assert_eq!(read(&Tree::new().paths(), &[], &[], &mut Vec::new()), DeviceFiles::default());
    }

    #[test]
    fn hundreds_of_capabilities_are_counted_and_not_listed() {
        let tree = Tree::new();
        for number in 0..40 {
            tree.file(&format!("dev/nvidia-caps/nvidia-cap{number}"), "");
        }
        let present = read(&tree.paths(), &[], &[], &mut Vec::new()).present;
        assert_eq!(present.len(), MAX_PER_FOLDER + 1);
        assert_eq!(present[9], "nvidia-caps/nvidia-cap9");
        assert_eq!(present[MAX_PER_FOLDER], "nvidia-caps/… (8 more)");
    }

    #[test]
    fn a_hundred_thousand_device_files_are_counted_and_a_problem() {
        let tree = Tree::in_memory();
        tree.folder("dev");
        for number in 0..99_990 {
            std::fs::write(tree.path().join(format!("dev/nvidia{number}{}", "x".repeat(200))), "").expect("written");
        }
        tree.file("dev/nvidiactl", "");
        let mut problems = Vec::new();
        let nodes = read(&tree.paths(), &[], &["nvidia".into()], &mut problems);
        assert_eq!((nodes.present.len(), nodes.missing), (MAX_FILES, Vec::<String>::new()));
        assert!(nodes.present.iter().all(|name| name.chars().count() <= MAX_NAME), "{:?}", nodes.present[0]);
        // On a busy machine, the listing may stop before the last file, so the number of files in the message is not
        // checked.
        assert!(problems[0].code == "too_many_devices" && problems[0].why.contains("more files"), "{problems:?}");
        let listed = list(&Root::open(tree.path()).expect("there"), &[FileType::RegularFile]);
        assert!(!listed.names.is_empty() && listed.names.len() <= MAX_FILES && listed.more > 1000, "{}", listed.more);
    }
}
