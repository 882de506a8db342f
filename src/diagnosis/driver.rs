//! Driver, firmware and configuration: why the GPUs cannot be used although the hardware works.
//!
//! NVML can fail to start for several reasons, each with a different solution. The facts of the host (loaded module,
//! files on disk, driver of the PCI device) tell them apart.

use super::draft::Draft;
use super::driver_rules::{
    API_MISMATCH, ASSERTION, BLOCKED, DEVICE_NODES, GSP, GSP_LINES, GSP_OFF, GSP_SEVERAL, HANGS, MISMATCH,
    NO_FABRIC_MANAGER, NO_LIBRARY, NOT_FOUND, NOT_LOADED, NOUVEAU, NVML_FAILED, PEERMEM, PERSISTENCE, PROBE_FAILED,
    UPDATE_PENDING, UVM_ERRORS, UVM_FATAL,
};
use super::node::{Gpu, Node};
use super::refused::{WRONG_DRIVER, refused_without_address, wrong_driver};
use super::timeline::{AFTERMATH, concerns, follows, is_off_bus};
use super::{ActionCode, Severity, lost, processes, quote};
use crate::facts::host::{DriverVersions, Host};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use crate::nvml_codes as codes;

/// Findings about the driver as a whole, then about its configuration.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = usable(node);
    let broken = drafts.iter().any(|draft| draft.severity >= Severity::Critical);
    if let Some(host) = node.host() {
        drafts.extend(set_up(node, host, broken));
    }
    drafts.extend(persistence(node));
    drafts.extend(gsp(node));
    drafts.extend(logged(node, broken));
    drafts
}

/// Returns a finding if NVML cannot be used.
fn usable(node: &Node<'_>) -> Vec<Draft> {
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
        let evidence = format!("nouveau is bound to {bound} of {}", quote::count(all.len(), "GPU"));
        return vec![Draft::on_node(NOUVEAU).with_evidence(evidence)];
    }
    let works = node.inventory().is_some_and(|inventory| !inventory.gpus.is_empty());
    if works {
        // It timed out later: NVML is busy, or a GPU hangs.
        let slow = node.nvml_problem(&[codes::TIMEOUT]).map(|problem| {
            let words = format!("{}: {}", quote::data(&problem.what), quote::reason(&problem.why));
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
    const REASONS: [(&[&str], super::rules::Rule); 4] = [
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
    let mut draft = if rule.id == NOT_LOADED.id && !unsupported.is_empty() {
        wrong_driver(Draft::on_node(WRONG_DRIVER), &unsupported)
    } else {
        Draft::on_node(rule)
    };
    draft = draft.with_all_evidence(problem.map(|problem| quote::reason(&problem.why)));
    if let Some(driver) = driver {
        let versions = [("loaded module", &driver.loaded), ("library on disk", &driver.library)];
        let words = versions
            .map(|(what, version)| format!("{what} {}", version.as_deref().map_or("none".to_owned(), quote::data)));
        draft = draft.with_evidence(words.join(", ")).with_all_evidence(module_of_kernel(node, driver));
    }
    let pci = node.host().map_or(0, |host| host.pci_gpus.len());
    if pci > 0 {
        draft = draft.with_evidence(format!("PCI shows {}", quote::count(pci, "GPU")));
    }
    if rule.id == HANGS.id && may_be_waking(node) {
        draft = draft.with_severity(Severity::Warning).with_action(ActionCode::Watch, WAKING).with_evidence(
            "nvidia-persistenced is not running, no process has a GPU open, and the kernel log has no Xid: this may be \
             the first initialization",
        );
    }
    Some(draft.with_all_evidence(node.timeline.of_kind(Kind::ApiMismatch).map(quote::event).take(1)))
}

/// Returns whether a module could be loaded, if none is loaded.
fn module_of_kernel(node: &Node<'_>, driver: &DriverVersions) -> Option<String> {
    let listed = driver.module_listed.filter(|_| driver.loaded.is_none())?;
    let kernel = node
        .report
        .kernel
        .as_deref()
        .map_or_else(|| "the running kernel".to_owned(), |kernel| format!("kernel {}", quote::data(kernel)));
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
        section.processes.iter().all(|process| process.uses.is_empty() && process.holds.is_empty())
    });
    let trouble = [Kind::Xid, Kind::OffBus, Kind::HungTask, Kind::GspFailed, Kind::RmInitFailed];
    let quiet = node.kernel_log().is_some() && !node.timeline.current().any(|event| trouble.contains(&event.kind));
    asleep && unused && quiet
}

fn set_up(node: &Node<'_>, host: &Host, broken: bool) -> Vec<Draft> {
    let mut drafts = Vec::new();
    // NVML works, so the files may exist elsewhere (a driver container has its own /dev). This is no more than a
    // warning.
    if !host.device_nodes_missing.is_empty() && !broken && host.driver.loaded.is_some() {
        let names: Vec<String> = host.device_nodes_missing.iter().take(8).map(|name| quote::data(name)).collect();
        drafts.push(Draft::on_node(DEVICE_NODES).with_evidence(format!("missing in /dev: {}", names.join(", "))));
    }
    if let (Some(loaded), false) = (&host.driver.loaded, broken) {
        let others = [("module on disk", &host.driver.module_on_disk), ("library on disk", &host.driver.library)];
        let differing = others.into_iter().filter_map(|(what, version)| {
            let version = version.as_ref().filter(|version| *version != loaded)?;
            Some(format!("loaded {}, {what} {}", quote::data(loaded), quote::data(version)))
        });
        let differing: Vec<String> = differing.collect();
        if !differing.is_empty() {
            drafts.push(Draft::on_node(UPDATE_PENDING).with_all_evidence(differing));
        }
    }
    drafts.extend(fabric_manager(node));
    drafts
}

/// NVSwitches on the PCI bus of the node need Fabric Manager on the node. On racks (GB200) it runs elsewhere.
pub(super) fn fabric_manager(node: &Node<'_>) -> Option<Draft> {
    let (topology, host) = (node.topology()?, node.host()?);
    if topology.nvswitches.is_empty() || host.daemons.fabric_manager != Some(false) {
        return None;
    }
    let states: Vec<&str> = topology.gpus.iter().filter_map(|gpu| Some(gpu.fabric.as_ref()?.state.as_str())).collect();
    let registered = !states.is_empty() && states.iter().all(|state| *state == "completed");
    let switches = u32::try_from(topology.nvswitches.len()).unwrap_or(u32::MAX);
    let draft = Draft::on_node(NO_FABRIC_MANAGER)
        .with_evidence(format!("{switches} NVSwitches on PCI, nv-fabricmanager is not running"));
    Some(if registered {
        // Running work continues, but a GPU cannot be used again after a reset.
        draft.with_severity(Severity::Warning).with_evidence("all GPUs are still registered with the fabric")
    } else {
        let waiting = states.iter().filter(|state| **state != "completed").count();
        draft.with_all_evidence(
            (waiting > 0).then(|| format!("{} not registered with the fabric", quote::count(waiting, "GPU"))),
        )
    })
}

fn persistence(node: &Node<'_>) -> Vec<Draft> {
    let daemon = node.host().and_then(|host| host.daemons.persistenced);
    let off = node
        .gpus
        .iter()
        .filter(|gpu| node.inventory_of(gpu).is_some_and(|inventory| inventory.persistence_mode == Some(false)));
    let evidence = if daemon == Some(false) {
        "persistence mode off, nvidia-persistenced not running"
    } else {
        "persistence mode off"
    };
    off.map(|gpu| Draft::on_gpu(PERSISTENCE, gpu).with_evidence(evidence)).collect()
}

/// GSP firmware: Xid 119, 120 and 175.
fn gsp(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let positions = |gpu| -> Vec<usize> {
        let of_gpu = node.timeline.unexplained().filter(|(_, event)| {
            super::timeline::is_xid(event, &super::timeline::GSP_CODES) && super::timeline::concerns(event, gpu)
        });
        of_gpu.map(|(at, _)| at).collect()
    };
    let failing: Vec<_> = node.gpus.iter().map(|gpu| (gpu, positions(gpu))).filter(|(_, at)| !at.is_empty()).collect();
    let limited = node.timeline.of_kind(Kind::GspRateLimit).next().is_some();
    for (gpu, at) in &failing {
        let rule = if failing.len() > 1 { GSP_SEVERAL } else { GSP };
        let events: Vec<_> = at.iter().map(|&at| node.timeline.events[at].fact).collect();
        let mut draft = Draft::on_gpu(rule, gpu).with_events(events.iter().copied());
        if limited {
            draft = draft.with_evidence("the driver rate-limits these lines: the count is a lower bound");
        }
        let stuck = processes::stuck_on(node, gpu);
        if stuck.is_empty() {
            draft = draft.aged(node, gpu, &events, true);
        } else {
            let pids: Vec<String> = stuck.iter().take(4).map(u32::to_string).collect();
            draft = draft.with_evidence(format!("uninterruptible processes: pid {}", pids.join(", ")));
        }
        drafts.push(draft.with_all_evidence(node.timeline.consequences(at)));
    }
    drafts.extend(gsp_lines(node, &failing.iter().map(|(gpu, _)| *gpu).collect::<Vec<_>>()));
    drafts.extend(gsp_differs(node));
    drafts
}

/// GSP lines of the driver for GPUs without such an Xid. `failing` are the GPUs that have one.
fn gsp_lines(node: &Node<'_>, failing: &[&Gpu]) -> Vec<Draft> {
    let is_line = |event: &KernelEvent| matches!(event.kind, Kind::GspFailed | Kind::GspRateLimit);
    // GSP errors of a GPU that falls off the bus are part of that fault.
    let open: Vec<&KernelEvent> =
        node.timeline.unexplained().map(|(_, event)| event).filter(|event| is_line(event)).collect();
    let mut drafts = Vec::new();
    for gpu in node.gpus.iter().filter(|gpu| !failing.contains(gpu)) {
        let events: Vec<&KernelEvent> = open.iter().copied().filter(|event| concerns(event, gpu)).collect();
        if !events.is_empty() {
            drafts.push(gsp_logged(Draft::on_gpu(GSP_LINES, gpu), &events).aged(node, gpu, &events, true));
        }
    }
    let is_of_lost = |event: &KernelEvent| {
        let falls = node.timeline.current().filter(|fall| is_off_bus(fall));
        falls.into_iter().any(|fall| follows(fall, event, Some(AFTERMATH)))
    };
    let nameless: Vec<&KernelEvent> =
        open.iter().copied().filter(|event| event.pci_address.is_none() && !is_of_lost(event)).collect();
    if !nameless.is_empty() && failing.is_empty() {
        drafts.push(gsp_logged(Draft::on_node(GSP_LINES), &nameless).aged_on_node(node, &nameless));
    }
    drafts
}

/// If the driver rate-limits GSP errors, its log line says that the GPU likely needs a reset.
fn gsp_logged(draft: Draft, events: &[&KernelEvent]) -> Draft {
    let draft = draft.with_events(events.iter().copied());
    if events.iter().all(|event| event.kind != Kind::GspRateLimit) {
        return draft;
    }
    draft.with_action(
        ActionCode::DrainAndReset,
        "The driver reports that {gpu} likely needs a reset. Drain its workloads on {node}, then reset it.",
    )
}

fn gsp_differs(node: &Node<'_>) -> Vec<Draft> {
    let enabled = |gpu| node.inventory_of(gpu).and_then(|inventory| inventory.gsp_enabled);
    let some_on = node.gpus.iter().any(|gpu| enabled(gpu) == Some(true));
    let off = node.gpus.iter().filter(|gpu| some_on && enabled(gpu) == Some(false));
    off.map(|gpu| Draft::on_gpu(GSP_OFF, gpu).with_evidence("GSP firmware off")).collect()
}

/// Driver lines that are not Xids.
fn logged(node: &Node<'_>, broken: bool) -> Vec<Draft> {
    let table = [
        (Kind::PeermemError, PEERMEM, false),
        (Kind::Assertion, ASSERTION, false),
        (Kind::ApiMismatch, API_MISMATCH, true),
        (Kind::ProbeFailed, PROBE_FAILED, true),
    ];
    let mut drafts: Vec<Draft> = uvm(node);
    if !broken {
        drafts.extend(refused_without_address(node));
    }
    for (kind, rule, evidence_of_other) in table {
        // If there is a finding about the driver as a whole, these lines are its evidence, not findings.
        let silent = node.inventory().is_some() && node.listed().any(|gpu| !gpu.answers);
        if evidence_of_other && (broken || silent) || kind == Kind::ProbeFailed && is_passed_through(node) {
            continue;
        }
        let lines: Vec<&KernelEvent> = node.timeline.of_kind(kind).collect();
        if !lines.is_empty() {
            drafts.push(Draft::on_node(rule).with_events(lines.iter().copied()).aged_on_node(node, &lines));
        }
    }
    drafts
}

/// Returns whether all devices that the driver could not probe are bound to vfio-pci.
fn is_passed_through(node: &Node<'_>) -> bool {
    let gpus = node.host().map(|host| host.pci_gpus.as_slice()).unwrap_or_default();
    let bound_to = |driver: &str| gpus.iter().filter(|gpu| gpu.driver.as_deref() == Some(driver)).count();
    let passed_through = bound_to("vfio-pci");
    passed_through > 0 && passed_through + bound_to("nvidia") == gpus.len()
}

/// Errors of the nvidia-uvm module. A fatal error lasts until the modules are loaded again.
fn uvm(node: &Node<'_>) -> Vec<Draft> {
    let (fatal, other): (Vec<&KernelEvent>, Vec<&KernelEvent>) =
        node.timeline.of_kind(Kind::Uvm).partition(|event| event.sub_code.as_deref() == Some("fatal"));
    let groups = [(UVM_FATAL, fatal), (UVM_ERRORS, other)].into_iter().filter(|(_, events)| !events.is_empty());
    groups.map(|(rule, events)| Draft::on_node(rule).with_events(events)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnosis::{ClusterFacts, diagnose};
    use crate::report::Report;

    /// The findings of a node whose NVML library was not found.
    fn without_library(host: Option<Value>) -> Vec<String> {
        let problem = json!({"what": "NVML", "why": "no NVML library could be opened", "code": "library_not_found"});
        let mut sections = json!({"inventory": {"status": "error", "problems": [problem]}});
        if let Some(host) = host {
            sections["host"] = json!({"status": "ok", "data": host});
        }
        let report: Report = serde_json::from_value(json!({"sections": sections})).expect("a report");
        let findings = diagnose(&report, &ClusterFacts::default()).findings;
        findings.into_iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn a_missing_library_is_the_trouble_only_where_the_module_is_loaded() {
        let gpus = json!([{"pci_address": "00000000:5d:00.0", "driver": "nvidia"}]);
        let loaded = json!({"pci_gpus": gpus, "driver": {"loaded": "570.124.06"}});
        assert_eq!(without_library(Some(loaded)), ["nvml-library-missing"]);
        let bare = json!({"pci_gpus": gpus, "driver": {"loaded": null}});
        assert_eq!(without_library(Some(bare)), ["driver-not-loaded"]);
        assert_eq!(without_library(None), ["driver-not-found"], "nobody looked");
    }
}
