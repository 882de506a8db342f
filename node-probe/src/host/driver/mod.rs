//! `versions`, `gsp_firmware`: read driver versions and the versions of GSP firmware files.
//! `cdi_spec`, `container_toolkit`: find the paths of a CDI specification and of NVIDIA's container runtime.
//! The modules find device files, kernel modules and libraries of the driver, and why the driver is not loaded.
//!
//! This module only reads files: no library is loaded, and no package database is read.

pub(in crate::host) mod device_files;
mod kernel_module_file;
pub(in crate::host) mod library_folders;
pub(in crate::host) mod load;
pub(crate) mod nvml_library;
pub(in crate::host) mod uninitialized_gpus;
pub(crate) mod version;

use syringe_core::facts::host::DriverVersions;

use self::nvml_library::{Library, libraries};
use crate::files;
use crate::in_root::{self, HostFile, Root};
use crate::paths::Paths;

/// The mount point of the root of the GPU Operator's driver container on the host.
const OPERATOR_ROOT: &str = library_folders::DRIVER_ROOTS[0];

/// Folders of GSP firmware, below the host's root.
const FIRMWARE_FOLDERS: [&str; 4] = [
    "lib/firmware/nvidia",
    "usr/lib/firmware/nvidia",
    "run/nvidia/driver/lib/firmware/nvidia",
    "home/kubernetes/bin/nvidia/firmware/nvidia",
];

/// Folders of CDI specifications, below the host's root.
const CDI_FOLDERS: [&str; 2] = ["etc/cdi", "var/run/cdi"];

/// Maximum number of bytes that are read of a CDI specification. The kind of the devices is in its first lines.
const CDI_HEAD: usize = 64 * 1024;

/// Paths of NVIDIA's container runtime, below the host's root.
const TOOLKIT: [&str; 5] = [
    "usr/local/nvidia/toolkit/nvidia-container-runtime",
    "usr/bin/nvidia-container-runtime",
    "usr/local/bin/nvidia-container-runtime",
    "opt/nvidia/toolkit/nvidia-container-runtime",
    "usr/bin/nvidia-ctk",
];

pub(in crate::host) fn versions(paths: &Paths) -> DriverVersions {
    let banner = version::banner(paths);
    let loaded = version::loaded(paths);
    // NVML is loaded from this library, unless its version differs from the version of the kernel module. A library
    // that must not be loaded is still reported.
    let library = libraries(paths, loaded.as_deref()).into_iter().find(|library| library.version.is_some());
    let by_operator = library.as_ref().is_some_and(|library| library.path.starts_with(paths.host.join(OPERATOR_ROOT)));
    let (first, second) = if by_operator { (OPERATOR_ROOT, "") } else { ("", OPERATOR_ROOT) };
    let kernel = files::text(&paths.proc.join("sys/kernel/osrelease"));
    let host = Root::open(&paths.host).ok();
    let roots: Vec<Root> = [first, second].iter().filter_map(|below| host.as_ref()?.below(below)).collect();
    let in_roots = |kernel: &String| roots.iter().find_map(|root| kernel_module_file::version(root, kernel));
    let listed = |kernel: &String| roots.iter().filter_map(|root| kernel_module_file::is_listed(root, kernel)).max();
    DriverVersions {
        loaded,
        flavor: banner.as_deref().map(flavor),
        module_on_disk: kernel.as_ref().and_then(in_roots),
        module_listed: kernel.as_ref().and_then(listed),
        module_use_count: files::number(&paths.sys.join("module/nvidia/refcnt")),
        library_path: library.as_ref().map(|Library { path, .. }| files::shown(&paths.host, path)),
        library: library.and_then(|library| library.version),
    }
}

/// Returns the flavor of the module, from `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release
/// Build …`.
fn flavor(banner: &str) -> String {
    let open = banner.lines().next().is_some_and(|line| line.contains("Open Kernel Module"));
    if open { "open" } else { "proprietary" }.to_owned()
}

/// Returns the driver versions that have GSP firmware on disk.
pub(in crate::host) fn gsp_firmware(paths: &Paths) -> Vec<String> {
    let mut versions: Vec<String> = FIRMWARE_FOLDERS
        .iter()
        .flat_map(|folder| {
            let names = names(paths, folder);
            names
                .into_iter()
                .filter(|name| version::is_version(name))
                .filter(move |name| has_gsp(paths, &format!("{folder}/{name}")))
        })
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

fn has_gsp(paths: &Paths, folder: &str) -> bool {
    names(paths, folder).iter().any(|name| name.starts_with("gsp") && name.contains(".bin"))
}

/// Returns the names in a folder of the host; an empty list if the folder does not exist.
fn names(paths: &Paths, folder: &str) -> Vec<String> {
    in_root::find(&paths.host, folder).and_then(|folder| folder.names().ok()).unwrap_or_default()
}

/// Returns the path of a CDI specification that describes NVIDIA devices.
pub(in crate::host) fn cdi_spec(paths: &Paths) -> Option<String> {
    let is_spec = |name: &String| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    let mut candidates = CDI_FOLDERS.iter().flat_map(|folder| {
        let specs = names(paths, folder).into_iter().filter(is_spec);
        specs.filter_map(move |name| in_root::find(&paths.host, &format!("{folder}/{name}")))
    });
    candidates.find(names_nvidia).map(|spec| files::shown(&paths.host, &spec.path))
}

fn names_nvidia(spec: &HostFile) -> bool {
    spec.head(CDI_HEAD).is_ok_and(|head| String::from_utf8_lossy(&head).contains("nvidia.com/"))
}

/// Returns the path of the NVIDIA container runtime, if installed.
pub(in crate::host) fn container_toolkit(paths: &Paths) -> Option<String> {
    let exists = |path: &&&str| in_root::find(&paths.host, path).is_some();
    TOOLKIT.iter().find(exists).map(|path| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn an_updated_library_with_an_old_module_is_detected() {
        let tree = Tree::new();
        tree.file("sys/module/nvidia/version", "570.124.06\n");
        tree.file(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n",
        );
        tree.link("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "libnvidia-ml.so.580.65.06");
        tree.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.65.06", "");
        let DriverVersions { loaded, flavor, module_on_disk, library, library_path, .. } = versions(&tree.paths());
        assert_eq!((loaded.as_deref(), library.as_deref()), (Some("570.124.06"), Some("580.65.06")));
        assert_eq!((flavor.as_deref(), module_on_disk), (Some("open"), None));
        assert_eq!(library_path.as_deref(), Some("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.65.06"));
    }

    #[test]
    fn a_missing_module_differs_from_a_module_that_cannot_be_read() {
        let tree = Tree::new();
        let listed = |tree: &Tree| versions(&tree.paths()).module_listed;
        tree.file("proc/sys/kernel/osrelease", "6.8.0-60-generic\n");
        assert_eq!(listed(&tree), None, "no modules.dep");
        tree.file("lib/modules/6.8.0-60-generic/modules.dep", "kernel/drivers/net/dummy.ko.zst:\n");
        assert_eq!(listed(&tree), Some(false));
        tree.file("lib/modules/6.8.0-60-generic/modules.dep", "updates/dkms/nvidia.ko.zst: kernel/x.ko\n");
        assert_eq!((listed(&tree), versions(&tree.paths()).module_on_disk), (Some(true), None), "it is compressed");
    }

    #[test]
    fn the_library_of_the_loaded_module_is_preferred() {
        let tree = Tree::new();
        tree.file("sys/module/nvidia/version", "550.163.01\n");
        tree.file("run/nvidia/driver/usr/lib64/libnvidia-ml.so.535.261.03", "");
        // On Debian, the library is reached through /etc/alternatives, with absolute links.
        tree.link("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/etc/alternatives/libnvidia-ml.so.1");
        tree.link("etc/alternatives/libnvidia-ml.so.1", "/usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1");
        tree.link("usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.1", "libnvidia-ml.so.550.163.01");
        tree.file("usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.550.163.01", "");
        assert_eq!(versions(&tree.paths()).library.as_deref(), Some("550.163.01"));
    }

    #[test]
    fn the_old_banner_is_proprietary_and_names_the_version() {
        let tree = Tree::new();
        tree.file(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue\nGCC version: gcc 12.3.0\n",
        );
        let versions = versions(&tree.paths());
        assert_eq!((versions.loaded.as_deref(), versions.flavor.as_deref()), (Some("535.261.03"), Some("proprietary")));
    }

    #[test]
    fn a_link_to_a_file_outside_of_the_root_is_not_opened() {
        let (tree, outside) = (Tree::new(), Tree::new());
        outside.file("x", "kind: nvidia.com/gpu\n");
        tree.link("etc/cdi/x.yaml", outside.path().join("x").to_str().expect("UTF-8"));
        assert_eq!(cdi_spec(&tree.paths()), None);
        // The same file inside the root is read, so the first file was ignored only because its link leads out of the
        // root.
        tree.file("etc/cdi/y.yaml", "kind: nvidia.com/gpu\n");
        assert_eq!(cdi_spec(&tree.paths()).as_deref(), Some("/etc/cdi/y.yaml"));
    }

    #[test]
    fn firmware_cdi_and_toolkit_are_found_where_the_host_keeps_them() {
        let tree = Tree::new();
        tree.file("usr/lib/firmware/nvidia/570.124.06/gsp_ga10x.bin", "").folder("usr/lib/firmware/nvidia/550.90.07");
        tree.link("lib", "usr/lib").folder("usr/lib/firmware/nvidia/ga102");
        tree.file("etc/cdi/vendor.json", "{\"kind\": \"example.com/x\"}").link("var/run", "/run");
        tree.file("run/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n");
        tree.file("usr/bin/nvidia-container-runtime", "");
        let paths = tree.paths();
        assert_eq!(gsp_firmware(&paths), ["570.124.06"]);
        assert_eq!(cdi_spec(&paths).as_deref(), Some("/run/cdi/nvidia.yaml"));
        assert_eq!(container_toolkit(&paths).as_deref(), Some("/usr/bin/nvidia-container-runtime"));
    }
}
