//! `operating_system`, `uptime_seconds`, `memory`, `hugepages`, `iommu`: read facts about the machine.
//! `numa_nodes`, `numa_balancing`: NUMA. `modules`, `rdma_modules_missing`: kernel modules.

use std::io;

use syringe_core::facts::host::HugePages;
use syringe_core::text::clean;

use crate::paths::Paths;
use crate::{files, in_root};

/// Modules that matter on a GPU node. `nouveau` and `vfio_pci` explain why the NVIDIA driver has no GPU.
const MODULES: [&str; 12] = [
    "nvidia",
    "nvidia_uvm",
    "nvidia_modeset",
    "nvidia_drm",
    "nvidia_peermem",
    "nvidia_fs",
    "nvidia_vgpu_vfio",
    "gdrdrv",
    "nouveau",
    "vfio_pci",
    "mlx5_core",
    "ib_core",
];

/// Maximum size of `/proc/modules`. On a machine with all its drivers the file has about 20 KiB.
const MAX_MODULES: usize = 512 * 1024;

/// Returns `PRETTY_NAME` of the host's `os-release`.
pub(super) fn operating_system(paths: &Paths) -> Option<String> {
    let file = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| in_root::find(&paths.host, path))?;
    let text = file.text()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(clean(name.trim_matches(['"', '\'']), 100))
}

/// Returns the whole seconds since boot.
pub(super) fn uptime_seconds(paths: &Paths) -> Option<u64> {
    files::text(&paths.proc.join("uptime"))?.split('.').next()?.parse().ok()
}

/// Returns the loaded modules of interest, in the order of [`MODULES`].
pub(super) fn modules(paths: &Paths) -> io::Result<Vec<String>> {
    let text = files::whole(&paths.proc.join("modules"), MAX_MODULES)?;
    let text = String::from_utf8_lossy(&text);
    let loaded: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    Ok(MODULES.iter().filter(|module| loaded.contains(module)).map(|&module| module.to_owned()).collect())
}

/// Modules that programs need to use RDMA cards. A module that is built into the kernel can also be absent from sysfs,
/// so nothing is concluded if the RDMA core is built in.
const RDMA_MODULES: [&str; 4] = ["mlx5_ib", "ib_uverbs", "ib_umad", "rdma_ucm"];

/// Returns the RDMA modules that are not loaded, if `loaded` contains the module of a card or the RDMA core.
pub(super) fn rdma_modules_missing(paths: &Paths, loaded: &[String]) -> Vec<String> {
    let has = |module: &str| loaded.iter().any(|one| one == module);
    let in_sysfs = |module: &str| files::metadata(&paths.sys.join("module").join(module)).is_ok();
    let is_used = ["mlx5_core", "ib_core"].iter().any(|module| has(module) && in_sysfs(module));
    let is_built_in = !has("ib_core") && in_sysfs("ib_core");
    if !is_used || is_built_in {
        return Vec::new();
    }
    let missing = RDMA_MODULES.iter().filter(|module| **module != "mlx5_ib" || has("mlx5_core"));
    missing.filter(|module| !in_sysfs(module)).map(|&module| module.to_owned()).collect()
}

/// Returns the total and the available memory in bytes.
pub(super) fn memory(paths: &Paths) -> (Option<u64>, Option<u64>) {
    let text = files::text(&paths.proc.join("meminfo")).unwrap_or_default();
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    (bytes("MemTotal"), bytes("MemAvailable"))
}

/// Returns the huge pages by size, smallest first.
pub(super) fn hugepages(paths: &Paths) -> Vec<HugePages> {
    let folder = paths.sys.join("kernel/mm/hugepages");
    let mut sizes: Vec<HugePages> = files::names(&folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| {
            let size_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let total = files::number(&folder.join(name).join("nr_hugepages"))?;
            let free = files::number(&folder.join(name).join("free_hugepages"))?;
            Some(HugePages { size_kib, total, free })
        })
        .collect();
    sizes.sort_by_key(|pages| pages.size_kib);
    sizes
}

/// Returns the number of NUMA nodes.
pub(super) fn numa_nodes(paths: &Paths) -> Option<u32> {
    let names = files::names(&paths.sys.join("devices/system/node")).ok()?;
    let nodes =
        names.iter().filter(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok()));
    u32::try_from(nodes.count()).ok()
}

/// Returns whether automatic NUMA balancing is on: the value is 1, or 2 for balancing between memory tiers.
pub(super) fn numa_balancing(paths: &Paths) -> Option<bool> {
    files::text(&paths.proc.join("sys/kernel/numa_balancing")).map(|text| text.trim() != "0")
}

/// Returns whether an IOMMU is active.
pub(super) fn iommu(paths: &Paths) -> Option<bool> {
    match files::names(&paths.sys.join("class/iommu")) {
        Ok(names) => Some(!names.is_empty()),
        // The folder exists only if the kernel supports IOMMUs.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && files::metadata(&paths.sys.join("class")).is_ok_and(|class| class.is_dir()) =>
        {
            Some(false)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn the_machine_is_described_in_its_own_numbers() {
        let tree = Tree::new();
        tree.file("usr/lib/os-release", "NAME=x\nPRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\n")
            .link("etc/os-release", "/usr/lib/os-release");
        tree.file("proc/uptime", "171620.23 999.0\n");
        tree.file("proc/meminfo", "MemTotal:       2113525404 kB\nMemFree: 1 kB\nMemAvailable:   1890000000 kB\n");
        tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
        tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n");
        tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
        tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n");
        tree.folder("sys/devices/system/node/node0")
            .folder("sys/devices/system/node/node1")
            .folder("sys/class/iommu/dmar0");
        tree.file("sys/devices/system/node/online", "0-1\n");
        tree.file("proc/sys/kernel/numa_balancing", "1\n");
        let paths = tree.paths();
        assert_eq!(operating_system(&paths).as_deref(), Some("Ubuntu 24.04.2 LTS"));
        assert_eq!(uptime_seconds(&paths), Some(171_620));
        assert_eq!(memory(&paths), (Some(2_113_525_404 * 1024), Some(1_890_000_000 * 1024)));
        let pages = hugepages(&paths);
        assert_eq!((pages[0].size_kib, pages[0].total, pages[0].free, pages.len()), (2048, 512, 100, 2));
        assert_eq!((numa_nodes(&paths), iommu(&paths)), (Some(2), Some(true)));
        assert_eq!(numa_balancing(&paths), Some(true));
    }

    #[test]
    fn missing_facts_are_absent() {
        let tree = Tree::new();
        let paths = tree.paths();
        assert_eq!((memory(&paths), uptime_seconds(&paths), numa_nodes(&paths)), ((None, None), None, None));
        assert_eq!((iommu(&paths), operating_system(&paths), numa_balancing(&paths)), (None, None, None));
        assert!(modules(&paths).is_err());
        tree.folder("sys/class");
        assert_eq!(iommu(&paths), Some(false));
    }

    #[test]
    fn a_module_with_the_same_prefix_is_not_the_module() {
        let tree = Tree::new();
        tree.file("proc/modules", "nvidia_uvm 4 0 - Live 0x0\nnouveau 1 0 - Live 0x0\next4 1 1 - Live 0x0\n");
        assert_eq!(modules(&tree.paths()).expect("the file is there"), ["nvidia_uvm", "nouveau"]);
    }

    #[test]
    fn rdma_modules_are_missing_only_next_to_a_module_that_needs_them() {
        let tree = Tree::new();
        tree.folder("sys/module/mlx5_core").folder("sys/module/ib_uverbs");
        let missing = |loaded: &[&str]| {
            let loaded: Vec<String> = loaded.iter().map(|&module| module.to_owned()).collect();
            rdma_modules_missing(&tree.paths(), &loaded)
        };
        assert_eq!(missing(&["nvidia", "mlx5_core"]), ["mlx5_ib", "ib_umad", "rdma_ucm"]);
        assert!(missing(&["nvidia"]).is_empty());
        tree.folder("sys/module/ib_core");
        assert_eq!(missing(&["nvidia", "ib_core"]), ["ib_umad", "rdma_ucm"]);
        assert!(missing(&["nvidia", "mlx5_core"]).is_empty(), "the RDMA core is built in");
    }
}
