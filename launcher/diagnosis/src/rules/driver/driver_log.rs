//! Rules about driver lines in the kernel log other than Xids: failed probes, rejected clients and modules, errors,
//! assertions, crashes. `CRASHES`, `in_records`: the kinds of crash lines, and the lines of crash records that name
//! functions of the driver.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, NVML_DOC, Rule, XID_DOC, rules};
use jiff::SignedDuration;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::host_lines;

rules! {
    PROBE_FAILED: "driver-probe-failed" Warning Driver DEBUG_DOC, "The driver failed to probe a device",
        UpdateSoftware "Check the kernel log of {node} at the time of the driver load: another driver or a failed card \
            prevented the driver from initializing a device.",
        means "The driver could not initialize a device when it was loaded.",
        reads "xid: driver lines";
    API_MISMATCH: "client-version-mismatch" Info Driver NVML_DOC,
        "A client with a different driver version was rejected",
        UpdateSoftware "Find the container on {node} that ships its own NVIDIA libraries. The container toolkit must \
            inject the libraries of the node.",
        means "A program with libraries of another driver version tried to use the driver and was rejected.",
        reads "xid: driver lines";
    PEERMEM: "nvidia-peermem-error" Warning Driver DEBUG_DOC, "nvidia-peermem reported errors",
        UpdateSoftware "Reload nvidia_peermem on {node} after the RDMA driver, or use DMA-BUF. GPUDirect RDMA may not \
            work.",
        means "nvidia-peermem logged errors. Transfers between GPUs and network cards can be slow or fail.",
        reads "xid: nvidia-peermem lines";
    MODULE_REFUSED: "driver-module-refused" Warning Driver DEBUG_DOC, "The kernel does not load a module that belongs to the driver",
        UpdateSoftware "Build the module in the evidence again for the kernel and the driver of {node} (`dkms autoinstall`, or the driver's \
            pod), and load it after the module nvidia.",
        means "A module that needs the module nvidia (nvidia_uvm, nvidia_modeset, nvidia_drm, nvidia_fs, gdrdrv) does not fit the kernel or \
            the loaded driver, and is not loaded. CUDA needs nvidia_uvm. The other modules are for displays and \
                transfers.",
        reads "xid: module_refused, host.modules";
    UVM_FATAL: "uvm-fatal-error" Fatal Driver XID_DOC, "The unified memory driver (nvidia-uvm) failed permanently",
        DrainAndReboot "Drain and reboot {node}, or unload and load all nvidia modules. Until then no CUDA program can \
            start.",
        means "The part of the driver that manages unified memory has failed, and no new CUDA program can start.",
        reads "xid: nvidia-uvm lines";
    UVM_ERRORS: "uvm-errors-logged" Info Driver XID_DOC, "nvidia-uvm logged errors",
        Watch "This finding alone needs no action, but it can explain failing CUDA programs on {node}. If the errors repeat, \
            update the driver.",
        means "nvidia-uvm logged errors from which it recovered.",
        reads "xid: nvidia-uvm lines";
    CRASHED: "driver-crashed-in-kernel" Warning Driver DEBUG_DOC, "The kernel crashed or hung in a module of the NVIDIA driver",
        DrainAndReboot "Reboot {node} when its jobs have ended: after a crash the driver can hang at any time. If it repeats, update \
            the driver and send the kernel log to the vendor.",
        means "The kernel reported a crash (BUG, Oops, general protection fault) or a soft lockup in a function of an NVIDIA module.",
        reads "xid: lines of a crash";
    RESET_REQUIRED: "driver-reset-required" Warning Driver XID_DOC, "The driver requires a reset of a GPU",
        DrainAndReset "Drain {node} and reset its GPUs, or reboot the node. Until then, the driver rejects work on a \
            GPU (NV_ERR_RESET_REQUIRED).",
        means "The driver logged that a GPU must be reset. New CUDA programs can fail on the GPU until then.",
        reads "xid: assertion lines";
    ASSERTION: "driver-assertion" Info Driver XID_DOC, "The driver logged assertion failures",
        Watch "This finding alone needs no action, but it can explain driver problems on {node}. If the failures repeat, update the \
            driver.",
        means "An internal check of the driver failed. This alone has no effect.",
        reads "xid: assertion lines";
}

/// Finds driver-related modules that the kernel did not load. If a module is loaded now, the earlier attempt came
/// before the load of a module that it needs.
fn refused_modules(node: &Node<'_>) -> Option<Draft> {
    let modules = || node.host().map(|host| host.modules.as_slice()).unwrap_or_default();
    let is_of_driver = |name: &String| name.starts_with("nvidia") || name == "gdrdrv";
    let is_absent = |event: &&KernelEvent| {
        let name = event.details.get("module").filter(|name| is_of_driver(name));
        name.is_some_and(|name| !modules().contains(name))
    };
    let lines: Vec<&KernelEvent> = node.timeline.of_kind(Kind::ModuleRefused).filter(is_absent).collect();
    let newest = lines.last()?;
    // CUDA needs nvidia-uvm. The other modules are for displays and transfers.
    let is_needed = node.host().is_some() && lines.iter().any(|event| event.details["module"] == "nvidia_uvm");
    let severity = if is_needed { Severity::Warning } else { Severity::Info };
    let draft = Draft::on_node(MODULE_REFUSED).with_severity(severity).with_events(lines.iter().copied());
    Some(draft.with_evidence(evidence::kernel_line(newest)))
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let broken = node.driver.is_broken();
    let table = [(Kind::ApiMismatch, API_MISMATCH, true), (Kind::ProbeFailed, PROBE_FAILED, true)];
    let mut drafts: Vec<Draft> = uvm(node);
    drafts.extend(assertions(node));
    drafts.extend(peermem(node));
    // A module that depends on a driver that is not loaded cannot be loaded.
    drafts.extend(if broken { None } else { refused_modules(node) });
    for (kind, rule, evidence_of_other) in table {
        // If there is a finding about the driver as a whole, these lines are evidence for it, not separate findings.
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

/// Returns a finding about errors of nvidia-peermem. If the kernel does not load the module, its line contains the
/// reason: the RDMA modules of the kernel were replaced, or they are missing and no program on the node can use the
/// module.
fn peermem(node: &Node<'_>) -> Option<Draft> {
    let lines: Vec<&KernelEvent> = node.timeline.of_kind(Kind::PeermemError).collect();
    let newest = lines.last()?;
    let draft = Draft::on_node(PEERMEM).with_events(lines.iter().copied()).aged_on_node(node, &lines);
    let symbol = newest.details.get("symbol").map(|name| evidence::data(name)).unwrap_or_default();
    Some(match newest.sub_code.as_deref() {
        Some("symbol_version") => {
            let reason = format!(
                "the kernel does not load nvidia_peermem: it was built for other RDMA modules than those that are loaded (symbol {symbol})"
            );
            let draft = draft.with_evidence(evidence::kernel_line(newest)).with_action(
                ActionCode::UpdateSoftware,
                "Build the nvidia modules of {node} again with the RDMA modules that are loaded now (DOCA or MOFED): recreate the driver's \
                 pod, or run dkms, after each change of the RDMA driver.",
            );
            Draft { reason: Some(reason), ..draft }
        }
        Some("unknown_symbol") => draft
            .with_severity(Severity::Info)
            .with_evidence(evidence::kernel_line(newest))
            .with_action(
                ActionCode::Watch,
                "The kernel does not load nvidia_peermem, because no loaded RDMA module has what it needs. If {node} is meant to use \
                 GPUDirect RDMA, install the RDMA modules (DOCA or MOFED) before the driver. Otherwise, no action is \
                     needed.",
            ),
        _ => draft,
    })
}

/// Returns whether all devices that the driver could not probe are bound to vfio-pci.
fn is_passed_through(node: &Node<'_>) -> bool {
    let gpus = node.host().map(|host| host.pci_gpus.as_slice()).unwrap_or_default();
    let bound_to = |driver: &str| gpus.iter().filter(|gpu| gpu.driver.as_deref() == Some(driver)).count();
    let passed_through = bound_to("vfio-pci");
    passed_through > 0 && passed_through + bound_to("nvidia") == gpus.len()
}

/// Maximum time between the first line of a record of the kernel and the line with the function.
const ONE_RECORD: SignedDuration = SignedDuration::from_secs(2);

/// Names of the rows of `host_lines.tsv` about a crash of the kernel.
pub(super) const CRASHES: [&str; 4] = ["oops", "bad_access", "bug", "branch_check"];

/// Names of the rows of `host_lines.tsv` about a processor that does not leave the kernel.
const HANGS: [&str; 4] = ["soft_lockup", "hard_lockup", "rcu_stall", "workqueue_lockup"];

/// Returns the lines that name a function of an NVIDIA module. Their record must begin with a line of one of these
/// rows. A record that begins with `WARNING` is a failed check, after which the kernel continues undamaged.
pub(super) fn in_records<'n>(node: &'n Node<'_>, rows: &[&str]) -> Vec<&'n KernelEvent> {
    let begins = |event: &&KernelEvent| host_lines::row_of(event).is_some_and(|row| rows.contains(&row.name));
    let starts: Vec<&KernelEvent> = node.timeline.of_kind(Kind::Host).filter(begins).collect();
    let is_of = |place: &KernelEvent, start: &KernelEvent| {
        let mut times = place
            .occurred_at()
            .into_iter()
            .flat_map(|at| start.occurred_at().into_iter().map(move |start| (at, start)));
        times.any(|(at, start)| at.duration_since(start).abs() <= ONE_RECORD)
    };
    let places =
        node.timeline.of_kind(Kind::Assertion).filter(|event| event.sub_code.as_deref() == Some("kernel_crash"));
    places.filter(|place| starts.iter().any(|start| is_of(place, start))).collect()
}

/// Returns findings about failed assertions of the driver, and about kernel crashes in its modules.
fn assertions(node: &Node<'_>) -> Vec<Draft> {
    let crashes = in_records(node, &[&CRASHES[..], &HANGS].concat());
    let is_crash = |event: &KernelEvent| crashes.iter().any(|crash| std::ptr::eq(*crash, event));
    let of = |rule: Rule, wanted: &dyn Fn(&str, bool) -> bool| {
        let is_wanted = |event: &&KernelEvent| wanted(event.sub_code.as_deref().unwrap_or_default(), is_crash(event));
        let lines: Vec<&KernelEvent> = node.timeline.of_kind(Kind::Assertion).filter(is_wanted).collect();
        (!lines.is_empty()).then(|| Draft::on_node(rule).with_events(lines.iter().copied()).aged_on_node(node, &lines))
    };
    let rules = [
        of(CRASHED, &|_, is_crash| is_crash),
        of(RESET_REQUIRED, &|sub, _| sub == "reset_required"),
        of(ASSERTION, &|sub, is_crash| !is_crash && sub != "reset_required"),
    ];
    rules.into_iter().flatten().collect()
}

/// Returns findings about errors of the nvidia-uvm module. A fatal error lasts until the modules are reloaded.
fn uvm(node: &Node<'_>) -> Vec<Draft> {
    let (fatal, other): (Vec<&KernelEvent>, Vec<&KernelEvent>) =
        node.timeline.of_kind(Kind::Uvm).partition(|event| event.sub_code.as_deref() == Some("fatal"));
    let groups = [(UVM_FATAL, fatal), (UVM_ERRORS, other)].into_iter().filter(|(_, events)| !events.is_empty());
    groups.map(|(rule, events)| Draft::on_node(rule).with_events(events)).collect()
}
