//! Rules about GPUs that the driver rejects when it loads: no memory region, an unsuitable driver, or a wrong GPU
//! identity. `refused_at_load`: the reason for one GPU. `explain_absent_driver`: replaces the finding about a missing
//! driver if the driver supports no GPU.
//!
//! The driver logs the reason, and the reason determines the solution.

use crate::input::driver::{Driver, Refusal};
use crate::input::node::{Gpu, Node};
use crate::input::timeline::concerns;
use crate::rule::{About, DEBUG_DOC, Draft, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    NOT_MAPPED: "gpu-memory-not-mapped" Fatal Driver DEBUG_DOC,
        "The firmware assigned no usable memory region (BAR) to the GPU",
        UpdateSoftware "Enable 'Above 4G Decoding' (and large BARs) in the firmware of {node}, or boot it with \
            pci=realloc. The driver cannot start {gpu} without its BAR.",
        means "The firmware of the server assigned no memory region (BAR) to the GPU, so the driver rejects the GPU.",
        reads "xid: driver lines";
    WRONG_DRIVER: "driver-wrong-kernel-module-type" Fatal Driver DEBUG_DOC, "The installed driver does not support the GPU",
        UpdateSoftware "Install a driver on {node} that supports {gpu}: another version, or the other type of kernel \
            modules (open or proprietary).",
        means "The installed kernel module does not support this GPU: the open module supports Turing and later, the \
            proprietary module supports GPUs before Blackwell.",
        reads "xid: driver lines, host.driver", about Driver;
    UNLIKE_PEERS: "gpu-rejected-unlike-peers" Fatal Hardware DEBUG_DOC, "The driver rejects this GPU but works with \
        equal GPUs",
        DrainAndReboot "Drain and power-cycle {node}. If the driver rejects {gpu} again, run the field diagnostic and \
            return {gpu} (RMA). Do not change the driver, which works with the equal GPUs of the node.",
        means "The driver logged that it does not support the GPU, but it works with other GPUs of the same device id. The GPU reports a \
            wrong identity: its hardware or firmware is faulty.",
        reads "xid: driver lines, host.pci_gpus";
}

/// Returns the finding with the logged reason why the driver rejected a GPU. The reason replaces the general advice.
pub(crate) fn refused_at_load(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let of = |kind| -> Vec<&KernelEvent> { node.timeline.of_kind(kind).filter(|event| concerns(event, gpu)).collect() };
    let (unsupported, unmapped) = (of(Kind::NotSupported), of(Kind::BarUnassigned));
    if !unsupported.is_empty() {
        // If a line requires another type of kernel module, the driver is wrong, not the GPU.
        let names_modules = unsupported.iter().any(|event| event.sub_code.as_deref() != Some("not_supported"));
        if !names_modules && has_working_peer(node, gpu) {
            return Some(Draft::on_gpu(UNLIKE_PEERS, gpu).with_events(unsupported));
        }
        let draft = wrong_driver(node, Draft::on_gpu(WRONG_DRIVER, gpu), &unsupported);
        return Some(if is_legacy_card(node, gpu) { as_legacy_card(draft) } else { draft });
    }
    (!unmapped.is_empty()).then(|| Draft::on_gpu(NOT_MAPPED, gpu).with_events(unmapped))
}

/// Returns whether a GPU with the same PCI device id works.
fn has_working_peer(node: &Node<'_>, gpu: &Gpu) -> bool {
    let id = |gpu: &Gpu| node.pci_of(gpu).and_then(|entry| entry.device_id.as_deref());
    id(gpu).is_some() && node.gpus.iter().any(|other| other.answers && id(other) == id(gpu))
}

/// Lowest PCI device id of Maxwell, the oldest architecture that a driver branch of the last ten years supports.
const FIRST_MAXWELL: u16 = 0x1340;

/// Returns whether the GPU is older than all GPUs that the driver supports, and other GPUs work. Such a GPU is a
/// display card.
fn is_legacy_card(node: &Node<'_>, gpu: &Gpu) -> bool {
    let id = node.pci_of(gpu).and_then(|entry| u16::from_str_radix(entry.device_id.as_deref()?, 16).ok());
    id.is_some_and(|id| id < FIRST_MAXWELL) && node.gpus.iter().any(|other| other.answers)
}

fn as_legacy_card(draft: Draft) -> Draft {
    draft.with_severity(Severity::Info).with_action(
        ActionCode::None,
        "No action for the GPUs that work: {gpu} of {node} is older than every GPU that this driver supports. A display needs no \
         driver of NVIDIA.",
    )
}

/// Returns findings from lines about a rejected GPU that do not name the GPU. The lines are ignored if NVML responds
/// for every GPU on the bus, or if the driver does not work for another reason.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let both_read = node.inventory().is_some() && node.host().is_some();
    if node.driver.is_broken() || both_read && node.listed().all(|gpu| gpu.answers) {
        return Vec::new();
    }
    let of = |kind| -> Vec<&KernelEvent> {
        node.timeline.of_kind(kind).filter(|event| event.pci_address.is_none() && event.gpu_index.is_none()).collect()
    };
    let (unsupported, unmapped) = (of(Kind::NotSupported), of(Kind::BarUnassigned));
    let unsupported = (!unsupported.is_empty()).then(|| wrong_driver(node, Draft::on_node(WRONG_DRIVER), &unsupported));
    let unmapped = (!unmapped.is_empty()).then(|| Draft::on_node(NOT_MAPPED).with_events(unmapped));
    unsupported.into_iter().chain(unmapped).collect()
}

/// Replaces the finding about a missing driver if the driver supports no GPU of the node.
pub(super) fn explain_absent_driver(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let events: Vec<&KernelEvent> = node.timeline.of_kind(Kind::NotSupported).collect();
    if events.is_empty() || !matches!(node.driver, Driver::Unusable(Refusal::NotLoaded, _)) {
        return;
    }
    let is_absent = |draft: &Draft| draft.rule.about == About::DriverAbsent;
    // If the lines name the GPUs, there is a finding about each of them.
    if let Some(first) = drafts.iter().position(|draft| draft.rule.id == WRONG_DRIVER.id) {
        let absent: Vec<Draft> = drafts.iter().filter(|draft| is_absent(draft)).cloned().collect();
        let evidence: Vec<String> = absent.into_iter().flat_map(|draft| draft.evidence).collect();
        drafts[first] = drafts[first].clone().with_all_evidence(evidence);
        drafts.retain(|draft| !is_absent(draft));
        return;
    }
    for draft in drafts.iter_mut().filter(|draft| is_absent(draft)) {
        let evidence = std::mem::take(&mut draft.evidence);
        *draft = wrong_driver(node, Draft::on_node(WRONG_DRIVER), &events).with_all_evidence(evidence);
    }
}

/// Adds the lines about an unsupported GPU, and the solution that these lines recommend.
fn wrong_driver(node: &Node<'_>, draft: Draft, events: &[&KernelEvent]) -> Draft {
    let why = events.iter().find_map(|event| event.sub_code.as_deref()).unwrap_or_default();
    let advice = match why {
        "needs_open_module" => {
            "Install the open kernel modules of the driver on {node} (GPU Operator: driver.kernelModuleType=open): {gpu} \
             requires them."
        }
        "needs_proprietary_module" => {
            "Install the proprietary kernel modules of the driver on {node} (GPU Operator: \
             driver.kernelModuleType=proprietary): {gpu} has no GSP, which the open modules require."
        }
        "needs_legacy_driver" => {
            "Install the legacy driver that the kernel log of {node} names: the installed driver is too new for {gpu}."
        }
        // Another type of modules is no alternative to the open modules, which support all later GPUs.
        _ if node.host().is_some_and(|host| host.driver.flavor.as_deref() == Some("open")) => {
            "Install a newer driver branch on {node} that supports {gpu}: the installed version does not know this GPU."
        }
        _ => WRONG_DRIVER.advice,
    };
    draft.with_events(events.iter().copied()).with_action(ActionCode::UpdateSoftware, advice)
}
