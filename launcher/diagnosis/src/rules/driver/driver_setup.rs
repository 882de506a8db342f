//! Rules about the setup of a working driver: versions on disk, missing or denied device files, NUMA balancing on
//! Grace.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, rules};
use crate::rules::driver::driver_not_loaded;
use jiff::SignedDuration;
use syringe_core::classification::Severity;
use syringe_core::facts::driver_load::DriverLoad;

rules! {
    UPDATE_PENDING: "driver-update-pending" Info Driver NVML_DOC, "A different driver version is on disk",
        None "No action now. Plan a drain of {node}: the version on disk is loaded at the next reboot.",
        means "The driver version on disk differs from the loaded version, and is used at the next load.",
        reads "host.driver";
    HALF_UPDATED: "driver-update-incomplete" Warning Driver NVML_DOC, "The kernel module on disk and the driver library have different versions",
        UpdateSoftware "Complete the update of the driver on {node}, or revert it, before the next reboot: the module on disk does not work with \
            the library, and after a reboot no GPU can be used.",
        means "An update of the driver has replaced the kernel module on disk, but not the library. The loaded module still works.",
        reads "host.driver";
    LIBRARY_NEWER: "driver-library-newer" Warning Driver NVML_DOC, "The driver library on disk is newer than the loaded kernel module",
        DrainAndReboot "Drain and reboot {node}, or reload the nvidia modules: new containers get the library on disk, which does not work \
            with the loaded module. Containers that are running continue.",
        means "The driver was updated, and the old kernel module is still loaded: programs in new containers fail to initialize CUDA and NVML.",
        reads "host.driver";
    DEVICE_NODES: "device-nodes-missing" Warning Driver DEBUG_DOC, "GPU device files are missing",
        UpdateSoftware "Create the missing device files on {node} (nvidia-modprobe -c NUMBER for nvidiaNUMBER, nvidia-modprobe -c 0 -u for nvidia-uvm), or restart the component \
            that creates them.",
        means "The driver works, but files in /dev that programs need to open a GPU are missing.",
        reads "host.device_nodes, inventory.gpus";
    DENIED: "device-files-denied-by-selinux" Warning Driver CONTAINER_SELINUX_DOC, "SELinux denies access to NVIDIA's device files",
        UpdateSoftware "Allow the containers of {node} to use the device files (setsebool -P container_use_devices on, or a policy for the type in \
            the record), then restart the pods that failed. `ausearch -m avc` shows all denials.",
        means "The driver works, but SELinux denied a program the use of NVIDIA's device files. A program without them finds no GPU.",
        reads "host.driver_load, host.driver";
    NUMA_BALANCING: "numa-balancing-on-grace" Info Driver GRACE_DOC,
        "Automatic NUMA balancing is on, on a node with Grace processors",
        UpdateSoftware "If GPU programs on {node} are slow, turn NUMA balancing off (sysctl -w \
            kernel.numa_balancing=0, and in /etc/sysctl.d).",
        means "The kernel automatically moves pages between the memory of Grace and of its GPU, which interrupts programs \
            that use both. NVIDIA recommends turning this off on Grace.",
        reads "host.numa_balancing, inventory.gpus";
}

/// The booleans of the SELinux policy for containers.
const CONTAINER_SELINUX_DOC: Option<&str> = Some("https://github.com/containers/container-selinux");

/// NVIDIA's guide to operating system settings on Grace.
const GRACE_DOC: Option<&str> = Some("https://docs.nvidia.com/grace-perf-tuning-guide/os-settings.html");

/// Product names of GPUs that share a module with a Grace processor.
const WITH_GRACE: [&str; 3] = ["GH200", "GB200", "GB300"];

/// Returns findings about the configuration of a driver that works.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let Some(host) = node.host() else { return drafts };
    let is_grace = |name: &str| WITH_GRACE.iter().any(|product| name.contains(product));
    let on_grace = node.listed().filter_map(|gpu| gpu.name.as_deref()).any(is_grace);
    if host.numa_balancing == Some(true) && on_grace {
        drafts.push(Draft::on_node(NUMA_BALANCING).with_evidence("kernel.numa_balancing is on"));
    }
    let broken = node.driver.is_broken();
    drafts
        .extend(host.driver_load.as_ref().filter(|_| host.driver.loaded.is_some()).and_then(|load| denied(node, load)));
    // NVML works, so the files may exist elsewhere (a driver container has its own /dev). Therefore this is only a
    // warning.
    if !host.device_nodes_missing.is_empty() && !broken && host.driver.loaded.is_some() {
        let names = evidence::names(&host.device_nodes_missing, 8);
        drafts.push(Draft::on_node(DEVICE_NODES).with_evidence(format!("missing in /dev: {names}")));
    }
    if let (Some(loaded), false) = (&host.driver.loaded, broken) {
        let others = [("module on disk", &host.driver.module_on_disk), ("library on disk", &host.driver.library)];
        let differing = others.into_iter().filter_map(|(what, version)| {
            let version = version.as_ref().filter(|version| *version != loaded)?;
            Some(format!("loaded {}, {what} {}", evidence::data(loaded), evidence::data(version)))
        });
        let differing: Vec<String> = differing.collect();
        if !differing.is_empty() {
            let parted = host.driver.module_on_disk.as_ref().zip(host.driver.library.as_ref());
            if parted.is_some_and(|(module, library)| module != library && library == loaded) {
                drafts.push(
                    Draft::on_node(HALF_UPDATED).with_all_evidence(differing).with_step_before(HALF_UPDATED.advice),
                );
                return drafts;
            }
            let is_newer = host.driver.library.as_deref().is_some_and(|library| version(library) > version(loaded));
            let rule = if is_newer { LIBRARY_NEWER } else { UPDATE_PENDING };
            drafts.push(Draft::on_node(rule).with_all_evidence(differing));
        }
    }
    drafts
}

/// Finds a denial of NVIDIA's device files to a container by SELinux.
fn denied(node: &Node<'_>, load: &DriverLoad) -> Option<Draft> {
    let denial = load.selinux_denial.as_ref()?;
    let has = |words: &str| denial.record.contains(words);
    let is_of_container = CONTAINER_TYPES.iter().any(|kind| {
        denial.record.split(' ').any(|word| {
            word.strip_prefix("scontext=").is_some_and(|context| context.split(':').any(|part| part == *kind))
        })
    });
    let enforces = load.selinux.as_deref().is_none_or(|mode| mode == "enforcing") && !has("permissive=1");
    let is_recent = node.age(denial.at).is_none_or(|age| age <= RECENT_DENIAL);
    (has("nvidia") && has("chr_file") && is_of_container && enforces).then(|| {
        let severity = if is_recent { DENIED.severity } else { Severity::Info };
        Draft::on_node(DENIED).with_severity(severity).with_evidence(driver_not_loaded::audit_line(denial))
    })
}

/// Types of SELinux in which containers run.
const CONTAINER_TYPES: [&str; 4] = ["container_t", "container_init_t", "container_device_t", "spc_t"];

/// An older denial may be of a pod that no longer exists.
const RECENT_DENIAL: SignedDuration = SignedDuration::from_hours(24);

/// Returns the numbers of a driver version: `[570, 124, 6]`.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map_while(|part| part.parse().ok()).collect()
}
