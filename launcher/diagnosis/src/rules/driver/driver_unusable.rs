//! The driver as a whole: why NVML cannot be used although the hardware works.
//!
//! NVML can fail to start for several reasons, each with a different solution. The facts of the host (loaded module, files
//! on disk, driver of the PCI device) tell them apart.

use crate::input::node::Node;
use crate::rule::declaration::{DEBUG_DOC, NVML_DOC, rules};
use crate::rule::draft::Draft;
use crate::rule::evidence;
use crate::rules::driver::driver_not_loaded;
use crate::rules::gpu::refused_gpus::{WRONG_DRIVER, wrong_driver};
use crate::rules::gpu::unusable as lost;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::DriverVersions;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::nvml_codes as codes;

rules! {
    NOT_LOADED: "driver-not-loaded" Fatal Driver NVML_DOC, "The NVIDIA driver is not loaded",
        UpdateSoftware "Install or load the nvidia kernel module on {node}. With the GPU Operator, check that its \
            driver pod is ready.",
        means "GPUs are on the PCI bus, and the kernel module of the driver is not loaded. No program can use them.",
        reads "inventory (NVML's error), host.pci_gpus, host.driver";
    MISMATCH: "driver-version-mismatch" Fatal Driver NVML_DOC,
        "Driver library and kernel module have different versions",
        DrainAndReboot "Drain and reboot {node}, or reload the nvidia modules: the driver was updated while the old \
            module was loaded.",
        means "The user-space library and the loaded kernel module have different versions, so that NVML and CUDA \
            refuse to start.",
        reads "inventory (NVML's error), host.driver, inventory.nvml_library";
    NOT_FOUND: "driver-not-found" Critical Driver NVML_DOC, "No NVIDIA driver was found",
        UpdateSoftware "If {node} has GPUs, install or load the NVIDIA driver. With the GPU Operator, check that its \
            driver pod is ready. If the kernel module is loaded, only the user-space libraries are missing.",
        means "Neither the driver's library nor its kernel module was found where drivers are installed.",
        reads "inventory (NVML's error), host.driver";
    NO_LIBRARY: "nvml-library-missing" Critical Driver NVML_DOC, "The NVML library was not found",
        UpdateSoftware "Reinstall the user-space libraries of the driver on {node}. Containers need them in addition \
            to the kernel module.",
        means "The kernel module is loaded, and the library libnvidia-ml.so.1 was not found. Containers do not get \
            the driver's libraries.",
        reads "inventory (NVML's error), host.driver";
    BLOCKED: "nvml-access-blocked" Critical Driver NVML_DOC, "NVML cannot access the device files",
        UpdateSoftware "Create the missing /dev/nvidia* files on {node} (nvidia-modprobe, nvidia-persistenced or the \
            container toolkit create them).",
        means "NVML may not open the device files of the GPUs, or they do not exist.",
        reads "inventory (NVML's error), host.device_nodes";
    HANGS: "nvml-not-answering" Critical Driver DEBUG_DOC, "NVML does not respond in time",
        DrainAndReboot "Drain {node}. If NVML still hangs (nvidia-smi hangs too), reboot the node and check the \
            kernel log.",
        means "NVML did not answer within the time limit: the driver or a GPU hangs.",
        reads "inventory, telemetry, topology, ecc, mig (problems)";
    NVML_FAILED: "nvml-failed" Critical Driver NVML_DOC, "NVML failed",
        UpdateSoftware "Check the kernel log of {node} for driver messages, then repair or reinstall the driver.",
        means "NVML could not be used, and none of the known causes was found.",
        reads "inventory (NVML's error)";
    NOUVEAU: "driver-nouveau" Critical Driver DEBUG_DOC, "The GPUs are bound to the nouveau driver",
        UpdateSoftware "Blacklist nouveau on {node}, rebuild the initramfs and reboot. Then load the nvidia driver.",
        means "The open-source driver nouveau is bound to the GPUs, so that NVIDIA's driver cannot use them.",
        reads "host.pci_gpus, host.modules";
}

/// Returns whether the driver as a whole does not work.
pub(crate) fn is_broken(node: &Node<'_>) -> bool {
    judge(node).iter().any(|draft| draft.severity >= Severity::Critical)
}

/// Returns a finding if NVML cannot be used.
pub(crate) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let host = node.host();
    let all_on = |driver: &str| {
        host.is_some_and(|host| {
            !host.pci_gpus.is_empty() && host.pci_gpus.iter().all(|gpu| gpu.driver.as_deref() == Some(driver))
        })
    };
    let nouveau = host.is_some_and(|host| host.pci_gpus.iter().any(|gpu| gpu.driver.as_deref() == Some("nouveau")));
    if nouveau {
        let all = host.map(|host| host.pci_gpus.as_slice()).unwrap_or_default();
        let bound = all.iter().filter(|gpu| gpu.driver.as_deref() == Some("nouveau")).count();
        let evidence = format!("nouveau is bound to {bound} of {}", evidence::count(all.len(), "GPU"));
        return vec![Draft::on_node(NOUVEAU).with_evidence(evidence)];
    }
    let works = node.inventory().is_some_and(|inventory| !inventory.gpus.is_empty());
    if works {
        // It timed out later: NVML is busy, or a GPU hangs.
        let slow = node.nvml_problem(&[codes::TIMEOUT]).map(|problem| {
            let words = format!("{}: {}", evidence::data(&problem.what), evidence::reason(&problem.why));
            let watch = "Run the diagnosis again in a minute. If NVML on {node} hangs again, drain the node and check the kernel log.";
            Draft::on_node(HANGS)
                .with_severity(Severity::Warning)
                .with_action(ActionCode::Watch, watch)
                .with_evidence(words)
        });
        return slow.into_iter().collect();
    }
    if all_on("vfio-pci") {
        return node.listed().map(lost::passthrough).collect();
    }
    // A node without GPUs needs no driver. `cluster` checks whether it should have GPUs.
    if host.is_some_and(|host| host.pci_gpus.is_empty()) && host.is_some_and(|host| host.driver.loaded.is_none()) {
        return Vec::new();
    }
    refusal(node).into_iter().collect()
}

/// Returns the reason of NVML, or a reason from the facts of the host.
fn refusal(node: &Node<'_>) -> Option<Draft> {
    const REASONS: [(&[&str], crate::rule::declaration::Rule); 4] = [
        (&[codes::VERSION_MISMATCH], MISMATCH),
        (&[codes::DRIVER_NOT_LOADED], NOT_LOADED),
        (&[codes::ACCESS_BLOCKED, codes::NO_PERMISSION], BLOCKED),
        (&[codes::TIMEOUT], HANGS),
    ];
    let driver = node.host().map(|host| &host.driver);
    let not_loaded = driver.is_some_and(|driver| driver.loaded.is_none());
    let found = REASONS.into_iter().find_map(|(codes, rule)| Some((rule, node.nvml_problem(codes)?)));
    let library = node.nvml_problem(&[codes::LIBRARY_NOT_FOUND]);
    // For other NVML errors the kernel log has more information.
    let other = || node.nvml_problem(&codes::FAILURES);
    let (rule, problem) = match (found, library) {
        (Some((rule, problem)), _) => (rule, Some(problem)),
        (None, library) if not_loaded => (NOT_LOADED, library.or_else(other)),
        // It is not known whether the module is loaded, so more than the library may be missing.
        (None, Some(problem)) => (if driver.is_some() { NO_LIBRARY } else { NOT_FOUND }, Some(problem)),
        (None, None) => (NVML_FAILED, Some(other()?)),
    };
    let unsupported: Vec<&KernelEvent> = node.timeline.of_kind(Kind::NotSupported).collect();
    // The reason takes the place of the fact that it explains.
    let reason = (rule.id == NOT_LOADED.id).then(|| match unsupported.as_slice() {
        [] => driver_not_loaded::reason(node),
        events => Some(wrong_driver(Draft::on_node(WRONG_DRIVER), events)),
    });
    let explained = reason.flatten();
    let background = if explained.is_some() { None } else { driver_not_loaded::background(node) };
    let mut draft =
        explained.unwrap_or_else(|| Draft::on_node(rule)).with_all_evidence(background.filter(|_| not_loaded));
    draft = draft.with_all_evidence(problem.map(|problem| evidence::reason(&problem.why)));
    if let Some(driver) = driver {
        let versions = [("loaded module", &driver.loaded), ("library on disk", &driver.library)];
        let words = versions
            .map(|(what, version)| format!("{what} {}", version.as_deref().map_or("none".to_owned(), evidence::data)));
        draft = draft.with_evidence(words.join(", ")).with_all_evidence(module_of_kernel(node, driver));
    }
    let pci = node.host().map_or(0, |host| host.pci_gpus.len());
    if pci > 0 {
        draft = draft.with_evidence(format!("PCI shows {}", evidence::count(pci, "GPU")));
    }
    if rule.id == HANGS.id && may_be_waking(node) {
        draft = draft.with_severity(Severity::Warning).with_action(ActionCode::Watch, WAKING).with_evidence(
            "nvidia-persistenced is not running, no process has a GPU open, and the kernel log has no Xid: this may be \
             the first initialization",
        );
    }
    Some(draft.with_all_evidence(node.timeline.of_kind(Kind::ApiMismatch).map(evidence::event).take(1)))
}

/// Returns whether a module could be loaded, if none is loaded.
fn module_of_kernel(node: &Node<'_>, driver: &DriverVersions) -> Option<String> {
    let listed = driver.module_listed.filter(|_| driver.loaded.is_none())?;
    let kernel = node
        .report
        .kernel
        .as_deref()
        .map_or_else(|| "the running kernel".to_owned(), |kernel| format!("kernel {}", evidence::data(kernel)));
    Some(match listed {
        true => format!("nvidia.ko for {kernel} is on disk"),
        false => format!("modules.dep of {kernel} lists no nvidia.ko: it was not built or installed"),
    })
}

const WAKING: &str = "Run the diagnosis of {node} again in a minute, and start nvidia-persistenced there. Without it, the \
                      first call initializes all GPUs, which takes half a minute or more.";

/// Returns whether NVML may be slow because it initializes the GPUs without persistence mode, and nothing indicates a
/// hang.
fn may_be_waking(node: &Node<'_>) -> bool {
    let asleep = node.host().is_some_and(|host| host.daemons.persistenced == Some(false));
    let unused = node.processes().is_some_and(|section| {
        section.processes.iter().all(|process| process.uses.is_empty() && process.open_device_files.is_empty())
    });
    let trouble = [Kind::Xid, Kind::OffBus, Kind::HungTask, Kind::GspFailed, Kind::RmInitFailed];
    let quiet = node.kernel_log().is_some() && !node.timeline.current().any(|event| trouble.contains(&event.kind));
    asleep && unused && quiet
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnose;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    /// The findings of a node whose NVML library was not found.
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
        assert_eq!(without_library(None), ["driver-not-found"], "nobody looked");
    }
}
