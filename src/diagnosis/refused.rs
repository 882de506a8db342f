//! GPUs that the driver refuses when it loads: unsupported ones, and those without a usable memory region.
//!
//! The driver logs its reason, and the reason decides on the remedy. `lost` and `driver` decide when these lines count.

use super::ActionCode;
use super::draft::Draft;
use super::node::{Gpu, Node};
use super::rules::{DEBUG_DOC, rules};
use super::timeline::concerns;
use crate::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    NOT_MAPPED: "gpu-memory-not-mapped" Fatal Driver DEBUG_DOC, "The firmware gave the GPU no usable memory region",
        UpdateSoftware "Enable 'Above 4G Decoding' (and large BARs) in the firmware of {node}, or boot it with \
            pci=realloc; the driver cannot start {gpu} without its BAR.";
    WRONG_DRIVER: "driver-wrong-flavour" Fatal Driver DEBUG_DOC, "The installed driver does not support the GPU",
        UpdateSoftware "Install a driver on {node} that supports {gpu}: another version, or the other flavour of its \
            kernel modules.";
}

/// The driver's own reason why it did not take a GPU: it replaces the general advice.
pub(super) fn refused_at_load(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let of = |kind| -> Vec<&KernelEvent> { node.timeline.of_kind(kind).filter(|event| concerns(event, gpu)).collect() };
    let (unsupported, unmapped) = (of(Kind::NotSupported), of(Kind::BarUnassigned));
    if !unsupported.is_empty() {
        return Some(wrong_driver(Draft::on_gpu(WRONG_DRIVER, gpu), &unsupported));
    }
    (!unmapped.is_empty()).then(|| Draft::on_gpu(NOT_MAPPED, gpu).with_events(unmapped))
}

/// Lines by which the driver refuses a GPU that they do not name. They count unless NVML answers for every GPU on the bus.
pub(super) fn refused_without_address(node: &Node<'_>) -> Vec<Draft> {
    let both_read = node.inventory().is_some() && node.host().is_some();
    if both_read && node.listed().all(|gpu| gpu.answers) {
        return Vec::new();
    }
    let of = |kind| -> Vec<&KernelEvent> {
        node.timeline.of_kind(kind).filter(|event| event.pci_address.is_none() && event.gpu_index.is_none()).collect()
    };
    let (unsupported, unmapped) = (of(Kind::NotSupported), of(Kind::BarUnassigned));
    let unsupported = (!unsupported.is_empty()).then(|| wrong_driver(Draft::on_node(WRONG_DRIVER), &unsupported));
    let unmapped = (!unmapped.is_empty()).then(|| Draft::on_node(NOT_MAPPED).with_events(unmapped));
    unsupported.into_iter().chain(unmapped).collect()
}

/// What the driver says of GPUs that it does not support, with the remedy that the words name.
pub(super) fn wrong_driver(draft: Draft, events: &[&KernelEvent]) -> Draft {
    let why = events.iter().find_map(|event| event.sub_code.as_deref()).unwrap_or_default();
    let advice = match why {
        "needs_open_module" => {
            "Install the open kernel modules of the driver on {node} (GPU Operator: driver.kernelModuleType=open): {gpu} \
             works with no others."
        }
        "needs_proprietary_module" => {
            "Install the proprietary kernel modules of the driver on {node} (GPU Operator: \
             driver.kernelModuleType=proprietary): {gpu} has no GSP, which the open ones need."
        }
        "needs_legacy_driver" => {
            "Install the legacy driver that the kernel log of {node} names: this one is too new for {gpu}."
        }
        _ => WRONG_DRIVER.advice,
    };
    draft.with_events(events.iter().copied()).with_action(ActionCode::UpdateSoftware, advice)
}
