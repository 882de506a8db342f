//! Joins events to GPUs, and narrows a log to a time window.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::catalogue::{self, Class, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use crate::pci::PciAddress;

/// The origin of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOrigin {
    /// The log of this node: the GPUs of the running boot are those in NVML.
    ThisNode,
    /// A given file: its addresses may be those of another node.
    Anyone,
}

/// Sets NVML index and UUID of every event about a GPU of the inventory.
///
/// `gpus`: address, NVML index, UUID. `ports`: PCIe port → the GPU below it; an AER or link event on such a port is an
/// event of that GPU. It keeps its own address and gains the detail `gpu_below`.
///
/// The GPU at an address may have been replaced. Therefore a UUID in the log is kept, and the UUID of the inventory is
/// only added for the running boot of this node. An event of a replaced GPU gets no index.
pub fn join(
    log: &mut KernelLog,
    whose: LogOrigin,
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
        // The kernel may name a GPU's other functions (its audio or USB part); the driver only knows function 0.
        let Some(&(index, uuid)) = gpus.get(below.unwrap_or(&pci)) else { continue };
        let swapped = event.gpu_uuid.as_ref().zip(uuid).is_some_and(|(then, now)| then != now);
        event.gpu_index = (!swapped).then_some(index);
        if event.gpu_uuid.is_none() && event.boot_id.is_none() && whose == LogOrigin::ThisNode {
            event.gpu_uuid = uuid.cloned();
        }
    }
}

fn travels_through_ports(event: &KernelEvent) -> bool {
    matches!(event.kind, KernelEventKind::Aer | KernelEventKind::PcieLink)
}

/// Narrows a log to the window that begins at `time`.
///
/// The window does not remove events that describe a state. Events that ended before the window are removed and
/// counted, except those of the running boot that describe the state of a GPU until a reset (`is_state`), and driver
/// loads, which end such a state. Events without a time are kept. An event that continues into the window keeps its
/// count and its `first`.
pub fn since(log: &mut KernelLog, time: Timestamp) {
    let all = log.events.len();
    log.events.retain(|event| event.last.is_none_or(|last| last >= time) || is_state(event));
    let left_out = u64::try_from(all - log.events.len()).unwrap_or(u64::MAX);
    log.events_before = log.events_before.saturating_add(left_out);
    log.since = log.since.max(Some(time));
    for coverage in &mut log.coverage {
        // A log that ended before the window does not cover it.
        let latest = coverage.to.map_or(time, |to| to.min(time));
        if coverage.from.is_some_and(|from| from < latest) {
            coverage.from = Some(latest);
            coverage.complete_since_boot = coverage.complete_since_boot.map(|_| false);
        }
    }
}

/// Xids below critical that describe a state until a reset: recorded repairs.
const WAITS_FOR_RESET: [u32; 5] = [63, 154, 160, 161, 177];

/// Returns whether an event describes a state that lasts until a reset, a driver load or a reboot.
fn is_state(event: &KernelEvent) -> bool {
    use KernelEventKind as Kind;
    let grave = event.code.is_some_and(|code| match event.kind {
        Kind::Xid => {
            WAITS_FOR_RESET.contains(&code)
                || catalogue::xid(code)
                    .is_some_and(|entry| entry.severity >= Severity::Critical && entry.class != Class::Application)
        }
        Kind::Sxid => event.details.get("nv_severity").is_some_and(|word| word == "Fatal"),
        _ => false,
    });
    let of_driver = event.kind == Kind::Uvm && event.sub_code.as_deref() == Some("fatal");
    let lasting = matches!(
        event.kind,
        Kind::OffBus
            | Kind::RmInitFailed
            | Kind::GspFailed
            | Kind::GspRateLimit
            | Kind::DriverLoaded
            | Kind::ModuleRefused
            | Kind::NvlinkInitFailed
            | Kind::HungTask
            | Kind::ProbeFailed
            | Kind::BarUnassigned
            | Kind::NotSupported
    );
    event.boot_id.is_none() && (grave || lasting || of_driver || is_state_of_bus(event))
}

/// Returns whether a PCIe line describes a port below which no device responds until the link is restored.
fn is_state_of_bus(event: &KernelEvent) -> bool {
    let sub_code = event.sub_code.as_deref().unwrap_or_default();
    match event.kind {
        KernelEventKind::PcieLink => matches!(sub_code, "link_down" | "card_not_present" | "power_state"),
        KernelEventKind::Aer => matches!(sub_code, "uncorrected_fatal" | "cannot_recover" | "recovery_failed"),
        _ => false,
    }
}
