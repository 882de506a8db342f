//! Which GPU an event is about, and which events are recent enough.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::catalogue::{self, Class, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind, KernelLog};
use crate::pci::PciAddress;

/// Whose log it is, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOf {
    /// The node's own: the GPUs of the running boot are those that NVML lists.
    ThisNode,
    /// A file that somebody gave: the same addresses may be other GPUs of another node.
    Anyone,
}

/// Fills in NVML index and UUID of every event whose PCI function is a GPU of the inventory.
///
/// `gpus`: address, NVML index, UUID. `ports`: PCIe port → the GPU below it; an AER or link event on such a port is an
/// event of that GPU. It keeps its own address and gains the detail `gpu_below`.
///
/// An address is a place, and a GPU in it may have been swapped. So the UUID that the log itself says stands; the
/// inventory's is added for the running boot of this node only. An event of another GPU than the one that is there now
/// gets no index.
pub fn join(
    log: &mut KernelLog,
    whose: LogOf,
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
        if event.gpu_uuid.is_none() && event.boot_id.is_none() && whose == LogOf::ThisNode {
            event.gpu_uuid = uuid.cloned();
        }
    }
}

fn travels_through_ports(event: &KernelEvent) -> bool {
    matches!(event.kind, KernelEventKind::Aer | KernelEventKind::PcieLink)
}

/// Narrows a log to the window that begins at `time`: what was asked for is what the log then speaks of.
///
/// A window filters events, never state. Events that ended before it are left out and counted, but for those of the running
/// boot that tell how a GPU is until somebody resets it (`is_state`), and for driver loads, which end such a state. An
/// event without a time stays. The count of an event that went on into the window holds its earlier lines; its `first` tells.
pub fn since(log: &mut KernelLog, time: Timestamp) {
    let all = log.events.len();
    log.events.retain(|event| event.last.is_none_or(|last| last >= time) || is_state(event));
    let left_out = u64::try_from(all - log.events.len()).unwrap_or(u64::MAX);
    log.events_before = log.events_before.saturating_add(left_out);
    log.since = log.since.max(Some(time));
    for coverage in &mut log.coverage {
        // A log that ended before the window has none of it.
        let latest = coverage.to.map_or(time, |to| to.min(time));
        if coverage.from.is_some_and(|from| from < latest) {
            coverage.from = Some(latest);
            coverage.complete_since_boot = coverage.complete_since_boot.map(|_| false);
        }
    }
}

/// Xids that a critical severity does not tell of, but that leave the GPU waiting for a reset: recorded repairs.
const WAITS_FOR_RESET: [u32; 5] = [63, 154, 160, 161, 177];

/// Whether an event tells of something that lasts until a reset, a driver load or a reboot.
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
    let of_gpu = matches!(
        event.kind,
        Kind::OffBus
            | Kind::RmInitFailed
            | Kind::GspFailed
            | Kind::GspRateLimit
            | Kind::DriverLoaded
            | Kind::NvlinkInitFailed
            | Kind::HungTask
            | Kind::ProbeFailed
            | Kind::BarUnassigned
            | Kind::NotSupported
    );
    event.boot_id.is_none() && (grave || of_gpu || of_driver || is_state_of_bus(event))
}

/// Whether a PCIe line tells that nothing below a port answers until the link is brought back.
fn is_state_of_bus(event: &KernelEvent) -> bool {
    let sub_code = event.sub_code.as_deref().unwrap_or_default();
    match event.kind {
        KernelEventKind::PcieLink => matches!(sub_code, "link_down" | "card_not_present" | "power_state"),
        KernelEventKind::Aer => matches!(sub_code, "uncorrected_fatal" | "cannot_recover" | "recovery_failed"),
        _ => false,
    }
}
