//! `join_gpus`: sets the GPU of each event, by matching PCI addresses in the log with the GPUs of the inventory.
//! `LogOrigin`: whether the log is from this node, or a file that may be from another node.

use std::collections::BTreeMap;

use crate::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use crate::pci::PciAddress;

/// The origin of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOrigin {
    /// The log of this node. The GPUs of the running boot are the GPUs in NVML.
    ThisNode,
    /// A log file that the user provided. Its addresses may belong to another node.
    AnyNode,
}

/// Sets the NVML index and the UUID of every event about a GPU of the inventory.
///
/// `gpus`: address, NVML index and UUID. `ports`: PCIe port → the GPU below it. An AER or link event on such a port is an
/// event of that GPU. The event keeps the address of the port and gets the detail `gpu_below`.
///
/// The GPU at an address may have been replaced. Therefore a UUID in the log is kept, and the UUID of the inventory is
/// added only for the running boot of this node. An event of a replaced GPU gets no index.
pub fn join_gpus(
    log: &mut KernelLog,
    origin: LogOrigin,
    gpus: &[(PciAddress, u32, Option<String>)],
    ports: &[(PciAddress, PciAddress)],
) {
    let gpus: BTreeMap<&PciAddress, (u32, Option<&String>)> =
        gpus.iter().map(|(pci, index, uuid)| (pci, (*index, uuid.as_ref()))).collect();
    let ports: BTreeMap<&PciAddress, &PciAddress> = ports.iter().map(|(port, gpu)| (port, gpu)).collect();
    for event in &mut log.events {
        let Some(pci) = event.pci_address.clone() else { continue };
        let below = ports.get(&pci).filter(|_| travels_through_ports(event)).copied();
        if let Some(gpu) = below {
            event.details.insert("gpu_below".to_owned(), gpu.as_str().to_owned());
        }
        // The kernel may report another PCI function of a GPU (audio or USB). The driver uses only function 0.
        let Some(&(index, uuid)) = gpus.get(below.unwrap_or(&pci)) else { continue };
        let swapped = event.gpu_uuid.as_ref().zip(uuid).is_some_and(|(then, now)| then != now);
        event.gpu_index = (!swapped).then_some(index);
        if event.gpu_uuid.is_none() && event.boot_id.is_none() && origin == LogOrigin::ThisNode {
            event.gpu_uuid = uuid.cloned();
        }
    }
}

fn travels_through_ports(event: &KernelEvent) -> bool {
    matches!(event.kind, KernelEventKind::Aer | KernelEventKind::PcieLink)
}
