//! `addresses`: finds PCI addresses in the kernel log that belong to no GPU or NVSwitch of the node, also not to a lost
//! GPU.
//!
//! A log can be copied from another machine, and a device can be removed. A device at such an address cannot be reset.

use std::collections::BTreeSet;

use crate::input::boards;
use crate::input::layers::{Layer, things};
use crate::input::node::Node;
use syringe_core::classification::Severity;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::kernel_log::event_meaning;
use syringe_core::pci::PciAddress;

/// Returns the PCI addresses without a device.
pub(crate) fn addresses(node: &Node<'_>) -> BTreeSet<PciAddress> {
    let events = node.kernel_log().map(|log| log.events.as_slice()).unwrap_or_default();
    let current =
        |event: &&KernelEvent| event.boot_id.is_none() || event.boot_id.as_deref() == node.report.running_boot();
    // A GPU that fell off the bus may be missing in every list, unless the number of responding GPUs matches the number
    // in Kubernetes.
    let listed = u32::try_from(node.listed().count()).ok();
    let is_counted = [node.kubernetes.gpu_label_count, node.kubernetes.gpu_capacity]
        .into_iter()
        .flatten()
        .any(|count| Some(count) == listed);
    let was_lost = |address: &PciAddress| {
        !is_counted
            && events
                .iter()
                .filter(current)
                .any(|event| event.is_off_bus() && event.pci_address.as_ref() == Some(address))
    };
    let (has_all_gpus, has_all_switches) = (has_all_gpus(node), has_all_switches(node));
    let is_absent = |event: &KernelEvent, address: &PciAddress| match event.kind {
        Kind::Xid
        | Kind::RmInitFailed
        | Kind::GspFailed
        | Kind::NvlinkInitFailed
        | Kind::NotSupported
        | Kind::BarUnassigned => has_all_gpus && !is_gpu(node, address) && !has_uuid(node, event) && !was_lost(address),
        Kind::Sxid => has_all_switches && !is_switch(node, address),
        _ => false,
    };
    // Application errors are harmless, whatever the device.
    let is_grave =
        |event: &&KernelEvent| event_meaning::of(event).is_none_or(|meaning| meaning.severity > Severity::Info);
    let found =
        events.iter().filter(current).filter(is_grave).filter_map(|event| Some((event, event.pci_address.as_ref()?)));
    found.filter(|(event, address)| is_absent(event, address)).map(|(_, address)| address.clone()).collect()
}

fn is_gpu(node: &Node<'_>, address: &PciAddress) -> bool {
    node.listed().any(|gpu| gpu.pci.as_ref() == Some(address))
}

/// Returns whether the UUID in the event is that of a GPU of the node.
fn has_uuid(node: &Node<'_>, event: &KernelEvent) -> bool {
    let Some(uuid) = &event.gpu_uuid else { return false };
    let in_kubelet = node.kubelet().is_some_and(|kubelet| {
        let allocated = kubelet.allocations.iter().flat_map(|one| &one.devices);
        allocated.chain(kubelet.registered.iter().flat_map(|one| &one.devices)).any(|device| device.starts_with(uuid))
    });
    in_kubelet || node.listed().any(|gpu| gpu.uuid.as_ref() == Some(uuid))
}

/// Returns whether all GPUs of the node are known with their addresses: NVML and PCI were read and list the same GPUs,
/// and no source lists more GPUs.
fn has_all_gpus(node: &Node<'_>) -> bool {
    let listed = u32::try_from(node.listed().count()).unwrap_or(u32::MAX);
    let mode = |gpu| node.inventory_of(gpu).and_then(|gpu| gpu.virtualization_mode.as_deref());
    // On a host of virtual machines, the kernel log also names virtual functions.
    let is_host = node.answering().any(|gpu| mode(gpu).is_some_and(|mode| mode.starts_with("host_")));
    let all_answer = node.listed().all(|gpu| gpu.answers && gpu.pci.is_some());
    let read = things(node, Layer::Pci).is_some_and(|gpus| !gpus.is_empty()) && things(node, Layer::Nvml).is_some();
    let counts = [node.kubernetes.gpu_label_count, node.kubernetes.gpu_capacity];
    let expects_more = counts.into_iter().flatten().any(|count| count > listed);
    let is_part = boards::of_node(node).is_some_and(|board| {
        board.switches.iter().any(|(gpus, _)| *gpus > listed as usize) && !listed.is_power_of_two()
    });
    read && all_answer && !is_host && !expects_more && !is_part
}

/// Returns whether all NVSwitches of the node are known: the product has no NVSwitches, or the PCI bus lists as many as
/// the board has.
fn has_all_switches(node: &Node<'_>) -> bool {
    let Some(switches) = things(node, Layer::Switches) else { return false };
    let mut all = node.answering().filter_map(boards::of).peekable();
    let has_board = all.peek().is_some();
    // The links of a compute tray lead to switches of another machine.
    if has_board && all.all(|board| board.switches.is_empty()) {
        return switches.is_empty();
    }
    let expected = boards::of_node(node).and_then(|board| board.switches_of(boards::count(node)));
    match expected {
        Some(expected) => switches.len() >= expected,
        None => !has_board && switches.is_empty() && node.answering().next().is_some(),
    }
}

fn is_switch(node: &Node<'_>, address: &PciAddress) -> bool {
    let named = |layer| {
        let all = things(node, layer).unwrap_or_default();
        all.iter().any(|switch| switch.names.contains(&format!("pci {}", address.sysfs())))
    };
    named(Layer::Switches) || named(Layer::LinkedSwitches)
}
