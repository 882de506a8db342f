//! Rules about unusable GPUs: off the bus, lost, hanging, not initialized, missing from NVML, not bound to the driver,
//! excluded, draining, passed through, or needing a reset.
//!
//! The rules compare the PCI bus, NVML and the kernel log. Each GPU gets one finding, the most certain one.
//! `rules/kubernetes/gpus.rs` finds GPUs that are missing only in Kubernetes.

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Gpu, Node, SETTLE_TIME, STALE_AFTER};
use crate::input::timeline::{concerns, is_off_bus, is_xid, precedes};
use crate::rule::aging;
use crate::rule::{DEBUG_DOC, Draft, InPlan, NVML_DOC, XID_DOC, have_shared_cause, rules};
use crate::rules::gpu::refused_gpus::refused_at_load;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::host::PciGpu;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::{NO_FIRMWARE_IMAGE, NO_POWER};
use syringe_core::nvml_codes as codes;

rules! {
    OFF_BUS: "gpu-off-bus" Fatal Hardware XID_DOC, "GPU fell off the PCIe bus",
        DrainAndReboot "Cordon and drain {node}, then power-cycle it (a reset cannot reach {gpu}). If it happens \
            again, return the GPU (RMA).",
        means "The GPU no longer responds on the PCIe bus (Xid 79). Its processes cannot use the GPU.",
        reads "xid: 79, host.pci_gpus, inventory.gpus", in_plan PowerCycle;
    LOST: "gpu-lost" Fatal Hardware NVML_DOC, "NVML reports the GPU as lost",
        DrainAndReboot "Cordon and drain {node}, then power-cycle it. If {gpu} is lost again, return it (RMA).",
        means "NVML reports that the GPU is lost. All calls to it fail until the node is restarted.",
        reads "inventory, telemetry, ecc (problems)", in_plan PowerCycle;
    INIT_FAILED: "gpu-init-failed" Fatal Driver DEBUG_DOC, "The driver could not initialize the GPU",
        DrainAndReboot "Drain and reboot {node}. If {gpu} still does not initialize, check power and firmware, then \
            contact the vendor.",
        means "The driver found the GPU but could not initialize it (RmInitAdapter). The GPU is not usable.",
        reads "xid: RmInitAdapter lines, inventory.gpus, host.gsp_firmware_versions, host.driver", about Driver;
    NOT_IN_NVML: "gpu-missing-from-nvml" Fatal Hardware DEBUG_DOC, "GPU on the PCI bus is missing from NVML",
        DrainAndReboot "Drain and reboot {node}. If {gpu} is still missing, check its power and seating.",
        means "The GPU is on the PCI bus and bound to the driver, but NVML does not list it.",
        reads "host.pci_gpus, inventory.gpus";
    RESET_REQUIRED: "gpu-reset-required" Critical Hardware NVML_DOC, "NVML reports that the GPU requires a reset",
        DrainAndReset "Move the workloads off {gpu} of {node}, then reset {gpu}.",
        means "NVML rejects calls to the GPU until it is reset.",
        reads "inventory, telemetry, ecc (problems)";
    UNRESPONSIVE: "gpu-unresponsive" Critical Driver DEBUG_DOC, "Calls to the GPU do not return",
        DrainAndReboot "Drain and reboot {node}: a driver that hangs on {gpu} rarely recovers.",
        means "Calls to this GPU did not return within the time limit.",
        reads "inventory, telemetry, ecc (problems)";
    REFUSED: "gpu-cannot-be-opened" Critical Driver NVML_DOC, "NVML lists the GPU but cannot open it",
        DrainAndReboot "Check the kernel log of {node} for {gpu}, and its power cables. Then drain and reboot {node}.",
        means "NVML counts the GPU but cannot open it.",
        reads "inventory (problems)";
    NOT_BOUND: "gpu-not-bound" Warning Driver DEBUG_DOC, "GPU without a driver",
        UpdateSoftware "Find out why the nvidia driver is not bound to {gpu} on {node} (kernel log at driver load), \
            then bind it.",
        means "The GPU is on the PCI bus, but no driver is bound to it.",
        reads "host.pci_gpus";
    EXCLUDED: "gpu-excluded" Info Driver NVML_DOC, "GPU is excluded from the driver",
        None "No action if {gpu} of {node} was excluded on purpose. Otherwise, remove {gpu} from the setting \
            NVreg_ExcludedGpus of the nvidia \
            module, and load the driver again.",
        means "An administrator excluded the GPU from the driver. It is on the PCI bus, but programs cannot use it.",
        reads "inventory.excluded, host.pci_gpus";
    DRAINING: "gpu-draining" Warning Driver NVML_DOC, "GPU is in the drain state of the driver",
        UpdateSoftware "If nobody maintains {gpu} of {node} now, end its drain state (nvidia-smi drain -p ADDRESS -m 0). Until \
            then, new programs cannot use {gpu}.",
        means "The GPU is in the drain state (nvidia-smi drain). NVML does not list it, and new programs cannot use it.",
        reads "inventory.draining, host.pci_gpus";
    PASSTHROUGH: "gpu-passthrough" Critical Driver None, "GPU is passed through to virtual machines",
        None "No action: {gpu} is bound to vfio-pci. Containers cannot use GPUs of virtual machines.",
        means "The GPU is bound to vfio-pci for virtual machines. Containers of this node cannot use it.",
        reads "host.pci_gpus, kubernetes.labels";
    OTHER_CARD: "gpu-bound-to-nouveau" Info Driver None, "A card of another model is bound to nouveau",
        None "No action, if {gpu} of {node} is a display card. Containers cannot use it.",
        means "The open-source driver nouveau is bound to a card of another model than the GPUs that NVML lists: \
            usually a display card.",
        reads "host.pci_gpus, inventory.gpus";
}

/// Returns one finding for each GPU that cannot be used.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = node.gpus.iter().filter_map(|gpu| of_gpu(node, gpu)).collect();
    drafts.extend(off_bus_elsewhere(node));
    shared_cause(&mut drafts);
    drafts.extend(uninitialized_somewhere(node, &drafts));
    for draft in &mut drafts {
        needs_cold_start(node, draft);
        lacks_firmware(node, draft);
        lacks_confidential_processor(node, draft);
        has_other_guest_driver(node, draft);
        of_virtual_machine(node, draft);
    }
    let works = node.inventory().is_some_and(|inventory| !inventory.gpus.is_empty());
    if node.is_passed_through() && !works {
        let rest: Vec<Draft> = node
            .listed()
            .filter(|gpu| !drafts.iter().any(|draft| draft.is_on(gpu)))
            .map(|gpu| match node.pci_of(gpu).is_some_and(|device| device.driver.is_none()) {
                true => Draft::on_gpu(NOT_BOUND, gpu)
                    .with_evidence("bound to no driver; other GPUs of the node are bound to vfio-pci")
                    .with_action(ActionCode::UpdateSoftware, BIND_TO_VFIO),
                false => passthrough(node, gpu),
            })
            .collect();
        drafts.extend(rest);
    }
    drafts
}

fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let device = node.pci_of(gpu);
    // If NVML can read the GPU, one of the two readings is wrong. Another rule reports this.
    let silent = device.is_some_and(|device| device.answers == Some(false)) && !node.is_readable(gpu);
    let events: Vec<(usize, &KernelEvent)> =
        node.timeline.unexplained().filter(|(_, event)| is_off_bus(event) && concerns(event, gpu)).collect();
    if silent || !events.is_empty() {
        return Some(off_bus(node, gpu, &events, silent));
    }
    // Lines of the driver about a failed initialization are more specific than a general error of NVML.
    let general = node.gpu_problem(gpu, &[codes::GPU_NOT_FOUND]).or_else(|| node.gpu_problem(gpu, &codes::FAILURES));
    if let Some((problem, draft)) =
        general.filter(|_| !gpu.answers).and_then(|found| Some((found, init_failed(node, gpu)?)))
    {
        return Some(draft.with_evidence(evidence::reason(&problem.why)).with_all_evidence(counted(node)));
    }
    if let Some(problem) = node.gpu_problem(gpu, &[codes::GPU_LOST, codes::GPU_NOT_FOUND]) {
        let draft =
            Draft::on_gpu(LOST, gpu).with_evidence(evidence::reason(&problem.why)).with_all_evidence(counted(node));
        return Some(draft.with_all_evidence(identity(node, gpu)));
    }
    if let Some(problem) = node.gpu_problem(gpu, &[codes::RESET_REQUIRED]) {
        return Some(Draft::on_gpu(RESET_REQUIRED, gpu).with_evidence(evidence::reason(&problem.why)));
    }
    if let Some(problem) = node.gpu_problem(gpu, &[codes::TIMEOUT]) {
        return Some(Draft::on_gpu(UNRESPONSIVE, gpu).with_evidence(evidence::reason(&problem.why)));
    }
    // All calls to the GPU failed, for a reason other than those above, usually `Unknown Error`.
    if let Some(problem) = node.gpu_problem(gpu, &codes::FAILURES).filter(|_| !gpu.answers) {
        return Some(
            Draft::on_gpu(REFUSED, gpu).with_evidence(evidence::reason(&problem.why)).with_all_evidence(counted(node)),
        );
    }
    let listed = device.and_then(|device| unlisted(node, gpu, device));
    // If the bus or NVML was not read, the driver line is the only information about the GPU.
    let unread = !gpu.answers && (node.inventory().is_none() || device.is_none());
    listed.or_else(|| refused_at_load(node, gpu).filter(|_| unread)).or_else(|| init_failed(node, gpu))
}

fn off_bus(node: &Node<'_>, gpu: &Gpu, events: &[(usize, &KernelEvent)], silent: bool) -> Draft {
    let positions: Vec<usize> = events.iter().map(|(at, _)| *at).collect();
    let mut draft = Draft::on_gpu(OFF_BUS, gpu).with_events(events.iter().map(|(_, event)| *event));
    if silent {
        draft = draft.with_evidence("the PCI configuration space of the GPU returns all ones");
    }
    if gpu.from_log && node.host().is_some() {
        draft = draft.with_evidence("the GPU is no longer on the PCI bus");
    }
    // The GPU fell off the bus and responds again after a bus reset. The cause is still unknown, and NVML's response
    // may be older than the loss.
    let settled = node.age(draft.when).is_some_and(|age| age > SETTLE_TIME);
    if node.is_readable(gpu) && !silent && settled {
        draft.rule = draft.rule.in_plan(InPlan::LostBefore);
        draft = draft.with_severity(Severity::Critical).with_evidence("NVML can read the GPU again").with_action(
            ActionCode::DrainAndReboot,
            "Drain and reboot {node}: a reset is not sufficient after {gpu} fell off the bus, although NVML answers again. If it happens \
             again, return the GPU (RMA).",
        );
        let events: Vec<&KernelEvent> = events.iter().map(|(_, event)| *event).collect();
        draft = draft.aged(node, gpu, &events, true);
    } else {
        let events: Vec<&KernelEvent> = events.iter().map(|(_, event)| *event).collect();
        draft = draft.with_all_evidence(counted(node)).unless_unread(node, &events);
    }
    let near = |event: &&KernelEvent| events.iter().any(|(_, fall)| precedes(event, fall));
    // Another report of the slot has priority over a link-down, because a link-down is only its consequence.
    let slot = node.timeline.current().filter(near).filter_map(of_slot);
    if let Some(words) = slot.min_by_key(|words| words.contains("link went down")) {
        let joined = draft.joined_with(ActionCode::CheckCabling, SLOT.replace("{words}", words));
        draft = joined.without_return("If it happens again, test the GPU in another slot.");
    }
    draft
        .with_all_evidence(node.timeline.consequences(&positions))
        .with_all_evidence(identity(node, gpu))
        .with_all_evidence(holder(node, gpu))
        .with_all_evidence(node.timeline.shortly_before(events))
}

/// Action for a GPU if its slot reported that it is empty.
const SLOT: &str = "While {node} is down, check the seating, the riser and the power of the slot of {gpu}: {words} before {gpu} was lost.";

/// Returns the report of the slot if the event indicates the seating, the power supply or a person at the machine.
fn of_slot(event: &KernelEvent) -> Option<&'static str> {
    match event.sub_code.as_deref().filter(|_| event.kind == Kind::PcieLink)? {
        "card_not_present" => Some("the slot reported that no card is in it"),
        "link_down" => Some("the slot reported that its link went down"),
        "power_fault" => Some("the slot reported a power fault"),
        "attention_button" => Some("the attention button of the slot was pressed, which switches its power off,"),
        _ => None,
    }
}

/// Returns the pod that uses the GPU.
fn holder(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    let allocation = node.allocations_of(gpu).next()?;
    let pod = evidence::data(&allocation.holder());
    Some(format!("in use by pod {pod}, container {}", evidence::data(&allocation.container)))
}

/// Returns the identity of the board for an RMA: `UUID GPU-…, serial 16…`. NVML no longer reports these values.
fn identity(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    let of_gpu = |event: &&KernelEvent| concerns(event, gpu);
    let logged = node.timeline.current().filter(of_gpu).find_map(|event| event.details.get("board_serial"));
    let entry = node.inventory_of(gpu);
    let serial = entry.and_then(|entry| entry.serial.as_ref()).or(logged);
    let slot = entry.and_then(|entry| entry.platform.as_ref()?.slot);
    let words = [
        gpu.uuid.as_ref().map(|uuid| format!("UUID {}", evidence::data(uuid))),
        serial.map(|serial| format!("serial {}", evidence::data(serial))),
        slot.map(|slot| format!("slot {slot}")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| format!("identity: {}", words.join(", ")))
}

/// Replaces the advice to return a GPU if several GPUs fell off the bus, or two at the same moment.
fn shared_cause(drafts: &mut [Draft]) {
    let fell = |draft: &Draft| draft.rule.id == OFF_BUS.id && draft.severity > Severity::Info;
    let fallen: Vec<&Draft> = drafts.iter().filter(|draft| fell(draft)).collect();
    if !have_shared_cause(&fallen) {
        return;
    }
    for draft in drafts.iter_mut().filter(|draft| fell(draft)) {
        let shared = "If it happens again, check what these GPUs share (power supply, riser, PCIe switch, baseboard) \
            before you return a GPU.";
        *draft = draft.clone().without_return(shared);
    }
}

/// Compares the numbers of GPUs: `NVML lists 7 GPUs, PCI lists 8`.
fn counted(node: &Node<'_>) -> Option<String> {
    let (nvml, pci) = (node.inventory()?.gpus.len(), node.host()?.pci_gpus.len());
    (nvml != pci).then(|| format!("NVML lists {}, PCI lists {pci}", evidence::count(nvml, "GPU")))
}

/// Returns a finding about a GPU that is on the bus but missing from NVML, although NVML works.
fn unlisted(node: &Node<'_>, gpu: &Gpu, device: &PciGpu) -> Option<Draft> {
    let inventory = node.inventory()?;
    let listed = gpu.index.is_some() || inventory.gpus.iter().any(|other| other.pci_address == gpu.pci);
    if listed || device.in_nvml == Some(true) {
        return None;
    }
    if node.is_excluded(gpu.pci.as_ref()) {
        return Some(Draft::on_gpu(EXCLUDED, gpu).with_evidence("NVML: in the list of excluded GPUs"));
    }
    if gpu.pci.as_ref().is_some_and(|address| inventory.draining.contains(address)) {
        return Some(Draft::on_gpu(DRAINING, gpu).with_evidence("NVML: drain state on"));
    }
    match device.driver.as_deref() {
        Some("vfio-pci") => Some(passthrough(node, gpu)),
        // If no GPU works, there is one finding about the driver.
        Some("nouveau") if inventory.gpus.is_empty() => None,
        Some("nouveau") if is_other_card(node, device) => {
            Some(Draft::on_gpu(OTHER_CARD, gpu).with_evidence("bound to nouveau; NVML lists no GPU of this model"))
        }
        Some("nvidia") => Some(refused_at_load(node, gpu).unwrap_or_else(|| uninitialized(node, gpu))),
        Some(other) => Some(Draft::on_gpu(NOT_BOUND, gpu).with_evidence(format!("bound to {}", evidence::data(other)))),
        None if refused_at_load(node, gpu).is_some() => refused_at_load(node, gpu),
        // The driver tried to initialize the GPU and failed.
        None if probe_failed(node).next().is_some() => Some(
            Draft::on_gpu(INIT_FAILED, gpu)
                .with_severity(Severity::Critical)
                .with_events(probe_failed(node))
                .with_evidence("on the PCI bus, but no driver is bound to it")
                .with_all_evidence(counted(node)),
        ),
        None => Some(
            Draft::on_gpu(NOT_BOUND, gpu)
                .with_evidence("on the PCI bus, but no driver is bound to it")
                .with_all_evidence(counted(node)),
        ),
    }
}

/// Returns the lines about devices that the driver tried to initialize and could not.
fn probe_failed<'n>(node: &Node<'n>) -> impl Iterator<Item = &'n KernelEvent> {
    node.timeline.of_kind(Kind::ProbeFailed).filter(|event| event.sub_code.as_deref() == Some("failed"))
}

/// Returns whether NVML lists no GPU with the same device id.
fn is_other_card(node: &Node<'_>, device: &PciGpu) -> bool {
    let id = device.device_id.as_ref();
    let is_same = |gpu: &Gpu| node.pci_of(gpu).and_then(|known| known.device_id.as_ref()) == id;
    id.is_some() && !node.answering().any(is_same)
}

/// Returns the finding about a GPU that is bound to vfio-pci.
fn passthrough(node: &Node<'_>, gpu: &Gpu) -> Draft {
    let draft = Draft::on_gpu(PASSTHROUGH, gpu).with_severity(Severity::Info).with_evidence("bound to vfio-pci");
    let workload = node.kubernetes.labels.workload_config.as_deref();
    if workload != Some("container") {
        return draft;
    }
    let severity = if node.answering().next().is_none() { Severity::Critical } else { Severity::Warning };
    draft
        .with_severity(severity)
        .with_evidence("label nvidia.com/gpu.workload.config=container")
        .with_action(ActionCode::UpdateSoftware, REBIND)
}

/// Action for a GPU that vfio-pci did not take.
const BIND_TO_VFIO: &str = "If {gpu} of {node} is meant for virtual machines: find out in the kernel log why vfio-pci did not take it (for example, a console \
     or another driver uses its memory), bind it to vfio-pci again, and restart the device plugin for virtual machines.";

/// Action for a GPU of virtual machines on a node for containers.
const REBIND: &str = "If {gpu} of {node} is not meant for a virtual machine, bind it to the nvidia driver again (remove it from the setting that \
     binds it to vfio-pci, then reboot or write its address to the driver's bind file). The label of {node} says that its GPUs are for containers.";

/// Replaces the reboot by a power cycle if the GPU could not start because its protected memory (WPR2) was still in
/// use. A warm reboot does not end this state.
fn needs_cold_start(node: &Node<'_>, draft: &mut Draft) {
    let is_of_it = |event: &&KernelEvent| {
        let place = (&event.pci_address, &draft.scope.pci);
        event.raw.to_ascii_lowercase().contains("wpr2")
            && (place.0.is_none() || place.1.is_none() || place.0 == place.1)
    };
    if !waits_for_reboot(draft) {
        return;
    }
    let Some(event) = node.timeline.current().find(is_of_it) else { return };
    draft.rule = draft.rule.in_plan(InPlan::ColdStart);
    *draft = draft.clone().with_evidence(format!("kernel log: \"{}\"", evidence::reason(&event.raw))).with_action(
        ActionCode::DrainAndReboot,
        "Drain and power-cycle {node} (a cold start): the protected memory of {gpu} (WPR2) is still in use from before, and a warm reboot \
         does not clear it. If {gpu} still does not initialize, contact the vendor.",
    );
}

/// Returns whether a finding is about a GPU that the driver could not start, and recommends a reboot.
fn waits_for_reboot(draft: &Draft) -> bool {
    let fails = [INIT_FAILED.id, NOT_IN_NVML.id, REFUSED.id].contains(&draft.rule.id);
    fails && draft.severity >= Severity::Critical && draft.action == ActionCode::DrainAndReboot
}

/// Replaces the reboot if the driver found no GSP firmware, or if the firmware on disk belongs to other versions than the
/// loaded driver. A reboot installs no firmware.
fn lacks_firmware(node: &Node<'_>, draft: &mut Draft) {
    let Some(host) = node.host().filter(|_| waits_for_reboot(draft)) else { return };
    let Some(loaded) = host.driver.loaded.as_deref() else { return };
    let versions = &host.gsp_firmware_versions;
    if versions.iter().any(|version| version == loaded) {
        return;
    }
    let mut lines = node.timeline.of_kind(Kind::GspFailed);
    let line = lines.find(|event| event.sub_code.as_deref() == Some(NO_FIRMWARE_IMAGE));
    let loaded = evidence::data(loaded);
    let why = match (line, versions.is_empty()) {
        (Some(event), _) => evidence::kernel_line(event),
        (None, true) => return,
        (None, false) => {
            let found = evidence::names(versions, 4);
            format!("the loaded driver is {loaded}, and the disk has the GSP firmware of {found} only")
        }
    };
    let advice = format!(
        "Install the GSP firmware of the driver {loaded} on {{node}} (the package of the driver contains the firmware), or boot a driver whose \
         firmware is installed. Then load the driver again. Without its firmware, the driver cannot start {{gpu}}."
    );
    let step = format!("Install the GSP firmware of the driver {loaded} on {{node}}.");
    let found = if versions.is_empty() { "none".to_owned() } else { evidence::names(versions, 4) };
    let reason = Some(format!("the disk has no GSP firmware of the loaded driver {loaded} (found: {found})"));
    *draft = Draft { reason, ..draft.clone() }
        .with_evidence(why)
        .with_action(ActionCode::UpdateSoftware, advice)
        .with_step_before(step);
}

/// Returns the kernel lines of this boot, including samples of the lines of the driver that were not recognized.
fn driver_lines<'n>(node: &'n Node<'_>) -> impl Iterator<Item = &'n String> {
    let unread = node.kernel_log().into_iter().flat_map(|log| &log.coverage).flat_map(|source| &source.unread_samples);
    node.timeline.current().map(|event| &event.raw).chain(unread)
}

/// Words, in lower case, of the driver about a guest driver that the host of a vGPU does not support.
const OTHER_GUEST: [&str; 2] = ["vgpu", "incompatible"];

/// Replaces the reboot if the host of a vGPU does not support the driver of the guest.
fn has_other_guest_driver(node: &Node<'_>, draft: &mut Draft) {
    let is_of_guest = |line: &&String| {
        let line = line.to_ascii_lowercase();
        OTHER_GUEST.iter().all(|word| line.contains(word))
    };
    let Some(line) = driver_lines(node).find(is_of_guest).filter(|_| waits_for_reboot(draft)) else { return };
    let reason =
        Some(format!("the vGPU manager of the host does not support this driver (\"{}\")", evidence::reason(line)));
    *draft = Draft { reason, ..draft.clone() }.with_action(
        ActionCode::UpdateSoftware,
        "Install the guest driver of the vGPU release that the host of {node} runs, or have the host updated: NVIDIA's vGPU software supports only \
         certain versions together. A reboot does not change this.",
    );
}

/// Words of the driver about a GPU in confidential-computing mode on a processor without this feature.
const NO_CONFIDENTIAL_CPU: &str = "CPU does not support confidential compute";

/// Replaces the reboot if the GPU is in confidential-computing mode on an unsuitable processor. The mode persists over
/// reboots.
fn lacks_confidential_processor(node: &Node<'_>, draft: &mut Draft) {
    let mut lines = driver_lines(node).filter(|line| line.contains(NO_CONFIDENTIAL_CPU)).peekable();
    if lines.peek().is_none() || !waits_for_reboot(draft) {
        return;
    }
    let advice = "Switch the confidential-computing mode of {gpu} off (NVIDIA's gpu-admin-tools, with the GPU idle), or use {gpu} in a \
        confidential virtual machine on a processor that supports it. A reboot does not change the mode.";
    *draft = draft
        .clone()
        .with_evidence(format!("kernel log: \"{NO_CONFIDENTIAL_CPU}\""))
        .with_action(ActionCode::UpdateSoftware, advice);
}

/// For a virtual machine, adds the condition for the initialization of a GPU: the reboot of the machine alone may not
/// reset the GPU.
fn of_virtual_machine(node: &Node<'_>, draft: &mut Draft) {
    let fails = matches!(draft.rule.id, id if id == INIT_FAILED.id || id == NOT_IN_NVML.id);
    if !fails || draft.severity < Severity::Critical || draft.action != ActionCode::DrainAndReboot {
        return;
    }
    let Some(line) = boards::hypervisor(node) else { return };
    *draft = draft.clone().with_evidence(evidence::kernel_line(line)).with_action(
        ActionCode::DrainAndReboot,
        "{node} is a virtual machine. Drain it, stop it and start it again, so that the host resets {gpu}. If {gpu} still does not initialize, \
         check on the host that {gpu} is passed through alone and completely (IOMMU group, ROM, size of its memory \
         regions), and that the host can reset it. Drivers before R465 refuse a GeForce card in a virtual machine \
         that shows its hypervisor. In this case, update the driver, or hide the hypervisor.",
    );
}

fn is_init_failure(event: &KernelEvent) -> bool {
    event.kind == Kind::RmInitFailed || is_xid(event, &[143])
}

/// Returns a finding if the log reports that the driver could not initialize the GPU. A later attempt may have
/// succeeded.
fn init_failed(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let failed = |event: &&KernelEvent| is_init_failure(event) && concerns(event, gpu);
    let events: Vec<&KernelEvent> = node.timeline.current().filter(failed).collect();
    let newest = events.iter().filter_map(|event| event.ordered_at()).max();
    let draft = Draft::on_gpu(INIT_FAILED, gpu).with_events(events.iter().copied());
    let works = node.is_readable(gpu) && !events.iter().any(|event| event.kind == Kind::Xid);
    if events.is_empty() {
        return None;
    }
    let draft = for_missing_power(draft, &events);
    if !works {
        // If the GPU responds, the driver initialized it later, and a reset is sufficient.
        let draft = if node.is_readable(gpu) { draft.with_meaning(&aging::worst(&events)) } else { draft };
        return Some(draft.unless_recovered(node.recovery(gpu, &events), node.booted().is_some()));
    }
    let old = node.age(newest).is_some_and(|age| age > STALE_AFTER);
    let severity = if old { Severity::Info } else { Severity::Warning };
    let watch = "No action now: NVML can read {gpu} of {node}. Watch whether it fails to initialize again.";
    Some(draft.with_severity(severity).with_evidence("NVML can read the GPU now").with_action(ActionCode::Watch, watch))
}

const CONNECT_POWER: &str = "Power {node} off when it is drained, connect the auxiliary power cables of {gpu}, check the power supply and the riser, \
     and start {node}.";

/// Sets the action for a GPU whose auxiliary power cables are not connected according to the driver.
fn for_missing_power(draft: Draft, events: &[&KernelEvent]) -> Draft {
    let lacks_power = events.iter().any(|event| event.sub_code.as_deref() == Some(NO_POWER));
    if lacks_power { draft.with_action(ActionCode::CheckCabling, CONNECT_POWER) } else { draft }
}

/// Returns a finding from lines without an address. Older drivers log only the minor number of the GPU, or nothing.
fn uninitialized_somewhere(node: &Node<'_>, drafts: &[Draft]) -> Option<Draft> {
    let found = drafts.iter().any(|draft| draft.rule.id == INIT_FAILED.id || draft.rule.id == NOT_IN_NVML.id);
    let nameless = node.timeline.of_kind(Kind::RmInitFailed).filter(|event| event.pci_address.is_none());
    let events: Vec<&KernelEvent> = nameless.collect();
    let all_read = node.listed().next().is_some() && node.listed().all(|gpu| node.is_readable(gpu));
    (!events.is_empty() && !found && !all_read).then(|| {
        Draft::on_node(INIT_FAILED)
            .with_events(events)
            .with_evidence("the log line does not name the GPU")
            .with_severity(Severity::Critical)
    })
}

fn uninitialized(node: &Node<'_>, gpu: &Gpu) -> Draft {
    let failed = |event: &&KernelEvent| is_init_failure(event) && concerns(event, gpu);
    let events: Vec<&KernelEvent> = node.timeline.current().filter(failed).collect();
    let probe = node.timeline.of_kind(Kind::ProbeFailed).map(evidence::event);
    let rule = if events.is_empty() { NOT_IN_NVML } else { INIT_FAILED };
    for_missing_power(Draft::on_gpu(rule, gpu), &events)
        .with_events(events)
        .with_evidence("bound to the nvidia driver on PCI, missing from NVML")
        .with_all_evidence(counted(node))
        .with_all_evidence(probe)
}

/// Finds GPUs that fell off the bus and that no other source lists, because the report has no `host` section, or
/// because the device is gone from PCI.
fn off_bus_elsewhere(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let unknown = node
        .timeline
        .unexplained()
        .filter(|(_, event)| is_off_bus(event) && !node.gpus.iter().any(|gpu| concerns(event, gpu)));
    for (at, event) in unknown {
        let gpu = Gpu {
            index: event.gpu_index,
            uuid: event.gpu_uuid.clone(),
            pci: event.pci_address.clone(),
            ..Gpu::default()
        };
        if drafts.iter().any(|draft| draft.is_on(&gpu)) {
            continue;
        }
        let gone = node.host().is_some().then(|| "the GPU is no longer on the PCI bus".to_owned());
        let draft = Draft::on_gpu(OFF_BUS, &gpu).with_event(event).with_all_evidence(gone);
        drafts.push(draft.with_all_evidence(node.timeline.consequences(&[at])));
    }
    drafts
}
