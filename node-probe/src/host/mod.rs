//! `read`: reads the `host` section, which does not need NVML. `identity`: host name, boot id and kernel of the node.
//! `ContainerOptions`: the containers to read in addition to the node.
//!
//! All reads start from [`Paths`], so that a saved file tree is read like a machine. Every wait has a time limit. Only
//! `container_devices` starts a process, and only `pod_resources` opens a connection. If a source is missing, only its
//! own fields are affected.
//!
//! ```text
//!   mod          the host section
//!   system       the operating system, memory, kernel modules
//!   pci/         functions on the PCI bus ── topology (pcie_path, nics), lost_gpus
//!   driver/      versions of the driver ── load, version, kernel_module_file, nvml_library, library_folders, device_files,
//!                uninitialized_gpus
//!   levels/      file systems, clock, CPUs, limits
//!   process/     /proc/PID ── section (who uses the GPUs), blocked_threads, open_device_files, daemons, services,
//!                units, action_facts
//!   kubelet/     device allocation ── dra, pod_resources (grpc, protobuf), nvidia_stack, stack_log
//!   runtime/     the container runtime ── containerd, crio, toolkit, cdi/, container_devices, container_view
//!   raw_files    files of the driver and configuration spaces, for people
//!   scope        how much of the node the probe sees
//! ```

pub(crate) mod driver;
pub(crate) mod kubelet;
mod levels;
mod pci;
mod process;
pub(crate) mod raw_files;
pub(crate) mod runtime;
mod scope;
mod system;

use syringe_core::facts::container::ContainerAccess;
use syringe_core::facts::host::Host;
use syringe_core::probe_command::{ContainerId, StackContainer};
use syringe_core::report::Section;
use syringe_core::text::clean;

pub(crate) use self::driver::library_folders::DRIVER_ROOTS;
pub(crate) use self::driver::uninitialized_gpus::uninitialized_gpus;
pub(crate) use self::kubelet::kubelet;
pub(crate) use self::pci::bound_gpus;
pub(crate) use self::pci::lost_gpus::name_lost;
pub(crate) use self::pci::topology::{complete_topology, pci_topology};
pub(crate) use self::process::action_facts::{describe, gpu_minor, held_by};
pub(crate) use self::process::section::processes;
pub(crate) use self::process::{Stat, read_stat};
pub(crate) use self::scope::scope;
use crate::files;
use crate::paths::Paths;

/// The identity of a node and its boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Host name in the UTS namespace of the probe. With hostNetwork it is the name of the node.
    pub(crate) hostname: Option<String>,
    /// ID that changes with every boot.
    pub(crate) boot_id: Option<String>,
    pub(crate) kernel: Option<String>,
}

/// Reads the identity of the node from `/proc/sys/kernel`.
pub(crate) fn identity(paths: &Paths) -> Identity {
    let kernel = paths.proc.join("sys/kernel");
    let read = |file: &str, cap| files::text(&kernel.join(file)).map(|text| clean(&text, cap));
    Identity { hostname: read("hostname", 253), boot_id: read("random/boot_id", 40), kernel: read("osrelease", 100) }
}

/// Containers to read in addition to the node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ContainerOptions<'a> {
    /// ID of a container whose devices are read.
    pub(crate) container: Option<&'a ContainerId>,
    /// A container whose log is read.
    pub(crate) stack_log: Option<&'a StackContainer>,
}

/// Reads the `host` section. `collect` sets `in_nvml` of the GPUs later.
pub(crate) fn read(paths: &Paths, options: ContainerOptions<'_>) -> Section<Host> {
    let mut problems = Vec::new();
    let functions = pci::nvidia(paths).unwrap_or_else(|error| {
        let next_step = "Mount the sysfs of the host for the probe. In a privileged pod, it is mounted at /sys.";
        problems.push(files::problem("sysfs", "GPUs on the PCI bus (/sys/bus/pci/devices)", error, next_step));
        Vec::new()
    });
    let modules = system::modules(paths).unwrap_or_else(|error| {
        problems.push(files::problem("procfs", "loaded kernel modules (/proc/modules)", error, ""));
        Vec::new()
    });
    let gpus: Vec<pci::Function> = functions.into_iter().filter(pci::Function::is_gpu).collect();
    let nodes = driver::device_files::read(paths, &gpus, &modules, &mut problems);
    let process =
        options.container.and_then(|id| runtime::container_devices::process(paths, id.as_str(), &mut problems));
    let stack_log = options.stack_log.and_then(|of| kubelet::stack_log::read(paths, of, &mut problems));
    let driver = driver::versions(paths);
    let (daemons, named) = process::daemons::read(paths);
    let has_gpus = !gpus.is_empty();
    let driver_load = has_gpus.then(|| driver::load::read(paths, driver.loaded.is_some())).flatten();
    let (container_runtime, cdi_folders) = runtime::read(paths, &named).unzip();
    let (memory_total_bytes, memory_available_bytes) = system::memory(paths);
    let mut host = Host {
        operating_system: system::operating_system(paths),
        uptime_seconds: system::uptime_seconds(paths),
        driver,
        rdma_modules_missing: system::rdma_modules_missing(paths, &modules),
        modules,
        pci_gpus: gpus.iter().map(pci::describe).collect(),
        device_nodes: nodes.present,
        device_nodes_missing: nodes.missing,
        daemons,
        gsp_firmware_versions: driver::gsp_firmware(paths),
        cdi_spec: driver::cdi_spec(paths),
        container_toolkit: driver::container_toolkit(paths),
        iommu: system::iommu(paths),
        numa_nodes: system::numa_nodes(paths),
        numa_balancing: system::numa_balancing(paths),
        hugepages: system::hugepages(paths),
        memory_total_bytes,
        memory_available_bytes,
        levels: levels::read(paths, &named),
        services: process::services::processes(paths, &named),
        services_not_running: process::units::not_running(paths, &named),
        service_logs: process::services::logs(paths),
        container: None,
        container_runtime,
        cdi: runtime::cdi::read(paths, cdi_folders.flatten()),
        driver_load,
        nvidia_stack: kubelet::nvidia_stack::read(paths, &named, has_gpus),
        stack_log,
        // `collect` starts CUDA after all sections were read.
        cuda: None,
    };
    // The container is read last. It can make its reads slow, but then only the facts about the container are
    // incomplete.
    host.container = process.as_ref().and_then(|of| {
        let access = runtime::container_devices::access(paths, of, &mut problems)?;
        let view = Some(runtime::container_view::read(paths, of));
        of.is_still_there(&mut problems).then_some(ContainerAccess { view, ..access })
    });
    Section::read(host, problems)
}

#[cfg(test)]
mod tests {
    use syringe_core::report::Status;

    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_machine_without_any_gpu_reads_without_a_problem() {
        let tree = Tree::new();
        tree.folder("sys/bus/pci/devices").file("proc/modules", "ext4 1 1 - Live 0x0\n");
        let section = read(&tree.paths(), ContainerOptions::default());
        assert_eq!(section.status, Status::Ok, "{:?}", section.problems);
        assert_eq!(section.data.expect("data").pci_gpus, []);
    }

    /// A container can make each read below its root slow, until the time limit of the section is reached.
    #[test]
    fn the_root_of_a_container_is_read_after_the_facts_of_the_node() {
        let tree = Tree::new();
        let id = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        tree.file("proc/20/cgroup", format!("0::/kubepods/x/{id}\n")).file("proc/20/root/dev/nvidia0", "");
        tree.file("proc/modules", "nvidia 1 1 - Live 0x0\n").file("etc/os-release", "ID=x\n");
        let id: ContainerId = id.parse().expect("an ID");
        let host = read(&tree.paths(), ContainerOptions { container: Some(&id), stack_log: None });
        let container = host.data.expect("data").container.expect("a container");
        assert_eq!((container.devices.len(), container.view.is_some()), (1, true));
        let reads = crate::bounded::fault::reads_below(tree.path());
        let below = |path: &std::path::PathBuf, folder: &str| path.starts_with(tree.path().join(folder));
        let first = reads.iter().position(|path| below(path, "proc/20/root")).expect("the root was read");
        let of_container = ["proc/20", "sys/fs/cgroup", "dev", "proc/self"];
        let of_node = |path: &&std::path::PathBuf| !of_container.iter().any(|folder| below(path, folder));
        assert_eq!(reads[first..].iter().find(of_node), None);
    }

    #[test]
    fn an_empty_tree_gives_problems_instead_of_no_gpus() {
        let section = read(&Tree::new().paths(), ContainerOptions::default());
        assert_eq!(section.status, Status::Partial);
        let codes: Vec<&str> = section.problems.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(codes, ["sysfs", "procfs"]);
    }

    #[test]
    fn identity_is_read_and_cleaned() {
        let tree = Tree::new();
        tree.file("proc/sys/kernel/hostname", "gpu-1\u{1b}[2J\n").file("proc/sys/kernel/random/boot_id", "c0ffee\n");
        let identity = identity(&tree.paths());
        assert_eq!(identity.hostname.as_deref(), Some("gpu-1 [2J"));
        assert_eq!((identity.boot_id.as_deref(), identity.kernel), (Some("c0ffee"), None));
    }
}
