//! `read`: reads the driver's files in `/proc/driver/nvidia` and PCI configuration spaces, for `--raw-log`.
//!
//! Configuration spaces of NVIDIA's GPUs and NVSwitches are read, and of the bridges above these devices. The files are
//! for people and vendors. No rule reads these files.
//!
//! Only regular files with known names are read. The kernel creates these files, but users can choose some of the texts
//! in them (parameters of the module).

use std::path::Path;

use syringe_core::pci::PciAddress;
use syringe_core::raw_file::RawFile;
use syringe_core::text::clean;

use super::driver::device_files::GPUS;
use super::pci;
use super::pci::pcie_path;
use crate::paths::Paths;
use crate::{bounded, files};

/// Files in `/proc/driver/nvidia`.
const OF_DRIVER: [&str; 3] = ["version", "params", "registry"];
/// Files in `/proc/driver/nvidia/gpus/ADDRESS`. `power` and `numa_status` are left out, because reading them waits for
/// locks that a hung GPU can hold.
const OF_GPU: [&str; 2] = ["information", "registry"];
/// Maximum number of files. A node of 16 GPUs and 12 NVSwitches has about 150.
const MAX_FILES: usize = 256;
/// Maximum size of a text file. Text files usually have about 1 KiB.
const MAX_TEXT: usize = 16 << 10;
/// Maximum number and length of the lines of a text file.
const MAX_LINES: usize = 256;
const MAX_LINE: usize = 1000;
/// Maximum size of all files. The dump of a configuration space has 13 KiB.
const MAX_ALL: usize = 1 << 20;
/// Size of the configuration space of PCI Express.
const MAX_CONFIG: usize = 4096;
/// Zeros at the end are left out in blocks of this size: most devices use less than a quarter of the space.
const BLOCK: usize = 256;
/// Size of the vendor and device ID. The kernel reads both from the device in one access.
const IDENTITY: usize = 4;

/// Reads the files. The files of the driver come first.
pub(crate) fn read(paths: &Paths) -> Vec<RawFile> {
    let gpus = files::names(&paths.proc.join(GPUS)).unwrap_or_default();
    let gpus = gpus.iter().filter_map(|name| PciAddress::parse(name).map(|_| format!("{GPUS}/{name}")));
    let of_driver = OF_DRIVER.iter().map(|name| format!("driver/nvidia/{name}"));
    let of_gpus = gpus.flat_map(|folder| OF_GPU.map(|name| format!("{folder}/{name}")));
    let mut all: Vec<RawFile> = of_driver.chain(of_gpus).filter_map(|path| text(paths, &path)).collect();
    let devices = pci::nvidia(paths).unwrap_or_default();
    let devices = devices.iter().filter(|function| function.is_gpu() || function.is_nvswitch());
    let (mut own, mut above) = (Vec::new(), Vec::new());
    for device in devices {
        own.push(device.address.clone());
        let chain = pcie_path::place(&device.folder).map(|place| place.chain).unwrap_or_default();
        above.extend(chain.into_iter().map(|(address, _)| address));
    }
    above.retain(|address| !own.contains(address));
    above.sort_unstable();
    above.dedup();
    all.extend(own.iter().chain(&above).filter_map(|address| configuration_space(paths, address)));
    cut(&mut all);
    all
}

fn cut(all: &mut Vec<RawFile>) {
    const WHAT: &str = "files of the driver and of PCI devices";
    let count = all.len();
    all.truncate(MAX_FILES);
    let mut bytes = 0;
    all.retain(|file| {
        bytes += size(file);
        bytes <= MAX_ALL
    });
    if all.len() < count {
        bounded::note_cut(WHAT, count, all.len());
    }
}

fn size(file: &RawFile) -> usize {
    file.lines.iter().map(String::len).sum()
}

/// Returns a file of procfs.
fn text(paths: &Paths, path: &str) -> Option<RawFile> {
    let data = plain(&paths.proc.join(path), MAX_TEXT)?;
    let text = String::from_utf8_lossy(&data);
    let lines: Vec<String> = text.lines().take(MAX_LINES).map(|line| clean(line, MAX_LINE)).collect();
    (!lines.is_empty()).then(|| RawFile { path: format!("/proc/{path}"), lines })
}

/// Returns the configuration space of a device, as far as the kernel provides it. A suspended device is not woken up.
fn configuration_space(paths: &Paths, address: &PciAddress) -> Option<RawFile> {
    let folder = pci::folder(paths, address);
    let state = plain(&folder.join("power/runtime_status"), MAX_LINE).unwrap_or_default();
    if state.trim_ascii_end() == b"suspended" {
        return None;
    }
    let file = folder.join("config");
    let identity = plain(&file, IDENTITY)?;
    // Each read from a device that does not respond can take as long as the timeout of the link, so nothing more is
    // read from it.
    let answers = identity.iter().any(|byte| *byte != 0xff);
    let mut bytes = if answers { plain(&file, MAX_CONFIG)? } else { identity };
    let blocks = bytes.chunks(BLOCK).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap_or_default() + 1;
    bytes.truncate(blocks * BLOCK);
    Some(RawFile::of_bytes(format!("/sys/bus/pci/devices/{}/config", address.sysfs()), &bytes))
}

/// Returns the start of a regular file; `None` for links and devices.
fn plain(path: &Path, cap: usize) -> Option<Vec<u8>> {
    files::link_metadata(path)
        .ok()?
        .is_file()
        .then(|| files::head(path, cap).ok())
        .flatten()
        .filter(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn paths_of(files: &[RawFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_of_the_driver_and_configuration_spaces_up_to_the_root_port_are_read() {
        let tree = Tree::new();
        tree.file("proc/driver/nvidia/version", "NVRM version: 570.124.06\nGCC version: 12\n");
        tree.file("proc/driver/nvidia/registry", "RegistryDwords: \"a=1\u{1b}[2J\"\n");
        tree.file("proc/driver/nvidia/suspend_depth", "default\n");
        tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/information", "Model: \t NVIDIA H100\n");
        tree.file("proc/driver/nvidia/gpus/0000:5d:00.0/power", "waits for a lock of the driver\n");
        tree.file("proc/driver/nvidia/gpus/evil/information", "no address\n");
        tree.pci("pci0000:5a/0000:5a:01.0", "0x8086", "0x352a", "0x060400");
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5b:00.0", "0x1000", "0xc030", "0x060400");
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5b:00.0/0000:5d:00.0", "0x10de", "0x2330", "0x030200");
        tree.pci("pci0000:5a/0000:5a:01.0/0000:5b:00.0/0000:5d:00.1", "0x10de", "0x22ba", "0x040300");
        tree.pci("pci0000:6a/0000:6a:00.0", "0x10de", "0x22a3", "0x068000");
        for (address, config) in [
            ("0000:5a:01.0", vec![6; 256]),
            ("0000:5d:00.0", vec![7; 8192]),
            ("0000:5b:00.0", [vec![7; 257], vec![0; 3839]].concat()),
            ("0000:5d:00.1", vec![8; 64]),
        ] {
            tree.pci_file(address, "config", config);
        }
        tree.pci_file("0000:6a:00.0", "config", vec![0xff; 4096]);
        tree.pci("pci0000:7a/0000:7a:00.0", "0x10de", "0x22a3", "0x068000");
        tree.pci_file("0000:7a:00.0", "config", vec![9; 256]);
        tree.file("sys/devices/pci0000:7a/0000:7a:00.0/power/runtime_status", "suspended\n");
        let files = read(&tree.paths());
        assert_eq!(
            paths_of(&files),
            [
                "/proc/driver/nvidia/version",
                "/proc/driver/nvidia/registry",
                "/proc/driver/nvidia/gpus/0000:5d:00.0/information",
                "/sys/bus/pci/devices/0000:5d:00.0/config",
                "/sys/bus/pci/devices/0000:6a:00.0/config",
                "/sys/bus/pci/devices/0000:5a:01.0/config",
                "/sys/bus/pci/devices/0000:5b:00.0/config",
            ]
        );
        assert_eq!(files[0].lines, ["NVRM version: 570.124.06", "GCC version: 12"]);
        assert_eq!(files[1].lines, ["RegistryDwords: \"a=1 [2J\""], "text of others is cleaned");
        let bytes: Vec<_> = files[3..].iter().map(|file| file.bytes().expect("a dump").len()).collect();
        assert_eq!(bytes, [4096, 4, 256, 512], "a device that does not answer is read no further than its identity");
    }

    #[test]
    fn links_long_files_and_many_files_are_bounded() {
        let tree = Tree::new();
        tree.file("secret", "root:x\n").link("proc/driver/nvidia/version", "../../../secret");
        tree.file("proc/driver/nvidia/params", "x".repeat(1 << 20))
            .file("proc/driver/nvidia/registry", "y\n".repeat(5000));
        for number in 0..300 {
            let folder = format!("proc/{GPUS}/{number:04x}:00:00.0");
            tree.file(&format!("{folder}/information"), "z\n".repeat(400));
        }
        let files = read(&tree.paths());
        assert_eq!(files[0].path, "/proc/driver/nvidia/params", "a link is not followed");
        assert!(files[0].lines[0].chars().count() <= MAX_LINE, "{}", files[0].lines[0].len());
        assert_eq!(files[1].lines.len(), MAX_LINES);
        assert!(files.len() <= MAX_FILES);
        let problems = bounded::take_problems();
        assert!(problems.iter().any(|problem| problem.code == "too_many"), "{problems:?}");
    }

    #[test]
    fn all_files_together_are_bounded() {
        let file = |number: usize| RawFile::of_bytes(format!("{number}"), &[number as u8; MAX_CONFIG]);
        let mut all: Vec<_> = (0..200).map(file).collect();
        cut(&mut all);
        assert!(all.len() > 70 && all.len() < 90 && all.iter().map(size).sum::<usize>() <= MAX_ALL, "{}", all.len());
    }

    #[test]
    fn a_node_without_a_driver_has_only_configuration_spaces() {
        let tree = Tree::new();
        tree.pci("pci0000:5a/0000:5d:00.0", "0x10de", "0x2330", "0x030200").pci_file("0000:5d:00.0", "config", [1; 64]);
        assert_eq!(paths_of(&read(&tree.paths())), ["/sys/bus/pci/devices/0000:5d:00.0/config"]);
        assert_eq!(read(&Tree::new().paths()), []);
    }
}
