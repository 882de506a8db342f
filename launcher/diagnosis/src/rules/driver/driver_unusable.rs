//! Rules about an unusable driver or NVML: not loaded, not found, mismatched versions, blocked, hanging, or nouveau
//! bound to the GPUs. `driver_not_loaded` finds the reason why the module is not loaded.

use crate::evidence;
use crate::input::driver::{Driver, Refusal};
use crate::input::node::Node;
use crate::input::processes;
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, Rule, rules};
use crate::rules::driver::driver_not_loaded;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::DriverVersions;
use syringe_core::facts::kernel_log::KernelEventKind as Kind;
use syringe_core::nvml_codes as codes;
use syringe_core::report::Problem;

rules! {
    about Driver;
    NOT_LOADED: "driver-not-loaded" Fatal Driver NVML_DOC, "The NVIDIA driver is not loaded",
        UpdateSoftware "Install or load the nvidia kernel module on {node}. With the GPU Operator, check that its \
            driver pod is ready.",
        means "GPUs are on the PCI bus, but the kernel module of the driver is not loaded. No program can use them.",
        reads "inventory (NVML's error), host.pci_gpus, host.driver", about DriverAbsent;
    MISMATCH: "driver-version-mismatch" Fatal Driver NVML_DOC,
        "Driver library and kernel module have different versions",
        DrainAndReboot "Drain and reboot {node}, or reload the nvidia modules: the driver was updated while the old \
            module was loaded.",
        means "The user-space library and the loaded kernel module have different versions, so that NVML and CUDA do \
            not start.",
        reads "inventory (NVML's error), host.driver, inventory.nvml_library";
    NOT_FOUND: "driver-not-found" Critical Driver NVML_DOC, "No NVIDIA driver was found",
        UpdateSoftware "If {node} has GPUs, install or load the NVIDIA driver. With the GPU Operator, check that its \
            driver pod is ready. If the kernel module is loaded, only the user-space libraries are missing.",
        means "The driver's library and its kernel module are both missing from the places where drivers are \
            installed.",
        reads "inventory (NVML's error), host.driver", about DriverAbsent;
    NO_LIBRARY: "nvml-library-missing" Critical Driver NVML_DOC, "The NVML library was not found",
        UpdateSoftware "Reinstall the user-space libraries of the driver on {node}. Containers need them in addition \
            to the kernel module.",
        means "The kernel module is loaded, but the library libnvidia-ml.so.1 was not found. Containers do not get the \
            driver's libraries.",
        reads "inventory (NVML's error), host.driver";
    BLOCKED: "nvml-access-blocked" Critical Driver NVML_DOC, "NVML cannot access the device files",
        UpdateSoftware "Create the missing /dev/nvidia* files on {node} (nvidia-modprobe, nvidia-persistenced or the \
            container toolkit create them).",
        means "NVML has no access to the device files of the GPUs, or they do not exist.",
        reads "inventory (NVML's error), host.device_nodes";
    HANGS: "nvml-not-answering" Critical Driver DEBUG_DOC, "NVML does not respond in time",
        DrainAndReboot "Drain {node}. If NVML still hangs (nvidia-smi hangs too), reboot the node and check the kernel \
            log.",
        means "NVML did not respond within the time limit: the driver or a GPU hangs.",
        reads "inventory, telemetry, topology, ecc, mig (problems)";
    NVML_FAILED: "nvml-failed" Critical Driver NVML_DOC, "NVML failed",
        UpdateSoftware "Check the kernel log of {node} for driver messages, then repair or reinstall the driver.",
        means "NVML could not be used, and none of the known causes was found.",
        reads "inventory (NVML's error)";
    NOUVEAU: "driver-nouveau" Critical Driver DEBUG_DOC, "nouveau is bound to GPUs, and NVML lists none",
        UpdateSoftware "Blacklist nouveau on {node}, rebuild the initramfs and reboot. Then load the nvidia driver.",
        means "The open-source driver nouveau is bound to the GPUs, so that NVIDIA's driver cannot use them.",
        reads "host.pci_gpus, host.modules";
}

/// Returns a finding if NVML cannot be used.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let draft = match node.driver {
        Driver::Usable => timed_out_later(node),
        Driver::Nouveau => Some(nouveau(node)),
        // If the probe has no access, the node has no fault. The list of unread sections reports the missing access.
        Driver::Unusable(Refusal::AccessBlocked, _) if has_device_files(node) => None,
        Driver::Unusable(refusal, problem) => Some(unusable(node, refusal, problem)),
        Driver::Waking(problem) => Some(
            unusable(node, Refusal::Timeout, Some(problem))
                .with_severity(Severity::Warning)
                .with_action(ActionCode::Watch, WAKING),
        ),
    };
    draft.into_iter().collect()
}

/// Returns whether the node has the device files of its GPUs, and none is missing.
fn has_device_files(node: &Node<'_>) -> bool {
    node.host().is_some_and(|host| {
        host.device_nodes_missing.is_empty()
            && ["nvidiactl", "nvidia0"].iter().all(|name| host.device_nodes.iter().any(|one| one == name))
    })
}

fn nouveau(node: &Node<'_>) -> Draft {
    let all = node.host().map(|host| host.pci_gpus.as_slice()).unwrap_or_default();
    let bound = all.iter().filter(|gpu| gpu.driver.as_deref() == Some("nouveau")).count();
    Draft::on_node(NOUVEAU)
        .with_evidence(format!("nouveau is bound to {bound} of {}", evidence::count(all.len(), "GPU")))
}

/// Returns a finding if NVML listed the GPUs, but timed out later: NVML is busy, or a GPU hangs.
fn timed_out_later(node: &Node<'_>) -> Option<Draft> {
    node.inventory().filter(|inventory| !inventory.gpus.is_empty())?;
    let problem = node.nvml_problem(&[codes::TIMEOUT])?;
    let watch =
        "Run the diagnosis again in a minute. If NVML on {node} hangs again, drain the node and check the kernel log.";
    let draft = Draft::on_node(HANGS).with_severity(Severity::Warning).with_action(ActionCode::Watch, watch);
    Some(draft.with_evidence(format!("{}: {}", evidence::data(&problem.what), evidence::reason(&problem.why))))
}

fn rule_of(refusal: Refusal) -> Rule {
    match refusal {
        Refusal::VersionMismatch => MISMATCH,
        Refusal::NotLoaded => NOT_LOADED,
        Refusal::AccessBlocked => BLOCKED,
        Refusal::Timeout => HANGS,
        Refusal::NoLibrary => NO_LIBRARY,
        Refusal::NotFound => NOT_FOUND,
        Refusal::Other => NVML_FAILED,
    }
}

/// Changes the action on a node that reserves its GPUs for virtual machines: vfio-pci is loaded, no GPU has a driver,
/// and vfio-pci cannot bind the GPUs without an IOMMU.
fn for_virtual_machines(node: &Node<'_>, draft: Draft) -> Draft {
    let Some(host) = node.host() else { return draft };
    let has_vfio = host.modules.iter().any(|module| module == "vfio_pci");
    if !has_vfio || host.iommu != Some(false) || host.pci_gpus.iter().any(|gpu| gpu.driver.is_some()) {
        return draft;
    }
    draft
        .with_evidence("the module vfio_pci is loaded, and the IOMMU is off")
        .with_action(ActionCode::UpdateSoftware, WITHOUT_IOMMU)
}

const WITHOUT_IOMMU: &str = "If {node} passes its GPUs to virtual machines: turn the IOMMU on in the BIOS (VT-d, AMD-Vi) and in the kernel (intel_iommu=on), then \
    reboot {node}. vfio-pci cannot take a GPU without it. Otherwise install or load the nvidia driver.";

fn unusable(node: &Node<'_>, refusal: Refusal, problem: Option<&Problem>) -> Draft {
    let driver = node.host().map(|host| &host.driver);
    // A separate finding reports a GPU that the driver does not support.
    let unsupported = refusal == Refusal::NotLoaded && node.timeline.of_kind(Kind::NotSupported).next().is_some();
    let explained = if refusal == Refusal::NotLoaded && !unsupported { driver_not_loaded::reason(node) } else { None };
    let unexplained = explained.is_none() && !unsupported;
    let not_loaded = driver.is_some_and(|driver| driver.loaded.is_none());
    let background = if unexplained && not_loaded { driver_not_loaded::background(node) } else { None };
    let mut draft = explained
        .unwrap_or_else(|| Draft::on_node(rule_of(refusal)))
        .with_all_evidence(background)
        .with_all_evidence(problem.map(|problem| evidence::reason(&problem.why)));
    if let Some(driver) = driver {
        let versions = [("loaded module", &driver.loaded), ("library on disk", &driver.library)];
        let words = versions
            .map(|(what, version)| format!("{what} {}", version.as_deref().map_or("none".to_owned(), evidence::data)));
        draft = draft.with_evidence(words.join(", ")).with_all_evidence(module_of_kernel(node, driver));
    }
    if let Some(driver) = driver.filter(|driver| refusal == Refusal::VersionMismatch && reboot_changes_nothing(driver))
    {
        let module = driver.loaded.as_deref().map(evidence::data).unwrap_or_default();
        draft =
            draft.with_evidence(format!("module on disk {module}: a reboot loads the same module again")).with_action(
                ActionCode::UpdateSoftware,
                format!(
                    "Reinstall one version of the driver on {{node}}: the library on disk has another version than the \
                    module on disk ({module}), for example because two installers were used. A reboot does not help."
                ),
            );
    }
    let pci = node.host().map_or(0, |host| host.pci_gpus.len());
    if pci > 0 {
        draft = draft.with_evidence(format!("PCI shows {}", evidence::count(pci, "GPU")));
    }
    if unexplained && not_loaded {
        draft = driver_not_loaded::with_failed_probes(node, draft);
        draft = driver_not_loaded::with_crash(node, draft);
        draft = for_virtual_machines(node, draft);
    }
    if matches!(node.driver, Driver::Waking(_)) {
        draft = draft.with_evidence(
            "nvidia-persistenced is not running, no process has a GPU open, and the kernel log has no Xid: this may be \
             the first initialization",
        );
    }
    // The driver refuses only programs that start now.
    let work = if refusal == Refusal::VersionMismatch { processes::work(node) } else { Vec::new() };
    if !work.is_empty() {
        let line = format!("programs that started before the update continue: {}", evidence::some(&work, NAMED));
        draft = Draft { can_wait: true, ..draft }.with_evidence(line);
    }
    draft.with_all_evidence(node.timeline.of_kind(Kind::ApiMismatch).map(evidence::event).take(1))
}

/// Maximum number of programs in the evidence.
const NAMED: usize = 3;

/// Returns whether the module on disk has the loaded version, but the library on disk has a different version. A reboot
/// does not change this.
fn reboot_changes_nothing(driver: &DriverVersions) -> bool {
    let same = driver.loaded.is_some() && driver.loaded == driver.module_on_disk;
    same && driver.library.is_some() && driver.library != driver.loaded
}

/// If no module is loaded, returns a line that states whether `nvidia.ko` for the running kernel is on disk.
fn module_of_kernel(node: &Node<'_>, driver: &DriverVersions) -> Option<String> {
    let listed = driver.module_listed.filter(|_| driver.loaded.is_none())?;
    let kernel = node
        .report
        .kernel
        .as_deref()
        .map_or_else(|| "the running kernel".to_owned(), |kernel| format!("kernel {}", evidence::data(kernel)));
    Some(match listed {
        true => format!("nvidia.ko for {kernel} is on disk"),
        false => format!("modules.dep of {kernel} lists no nvidia.ko: the module was not built or installed"),
    })
}

const WAKING: &str = "Run the diagnosis of {node} again in a minute, and start nvidia-persistenced there. Without it, the \
                      first call initializes all GPUs, which takes half a minute or more.";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnose;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    /// Returns the ids of the findings about a node on which the NVML library was not found.
    fn without_library(host: Option<Value>) -> Vec<String> {
        let problem = json!({"what": "NVML", "why": "no NVML library could be opened", "code": "library_not_found"});
        let mut sections = json!({"inventory": {"status": "error", "problems": [problem]}});
        if let Some(host) = host {
            sections["host"] = json!({"status": "ok", "data": host});
        }
        let report: Report = serde_json::from_value(json!({"sections": sections})).expect("a report");
        let findings = diagnose(&report, &KubernetesFacts::default()).findings;
        findings.into_iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn a_missing_library_is_the_finding_only_if_the_module_is_loaded() {
        let gpus = json!([{"pci_address": "00000000:5d:00.0", "driver": "nvidia"}]);
        let loaded = json!({"pci_gpus": gpus, "driver": {"loaded": "570.124.06"}});
        assert_eq!(without_library(Some(loaded)), ["nvml-library-missing"]);
        let bare = json!({"pci_gpus": gpus, "driver": {"loaded": null}});
        assert_eq!(without_library(Some(bare)), ["driver-not-loaded"]);
        assert_eq!(without_library(None), ["driver-not-found"], "the host was not read");
    }
}
