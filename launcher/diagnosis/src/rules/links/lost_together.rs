//! Rule about a GPU and another PCIe device that failed at the same moment.
//! `has_failed`, `stops_responding`: whether a card has failed, and whether it does not respond after an event.

use jiff::SignedDuration;

use crate::evidence;
use crate::input::node::Node;
use crate::input::timeline::{concerns, is_off_bus};
use crate::rule::{AER_DOC, Draft, rules};
use crate::rules::links::rdma_ports::{is_active, name_of};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::topology::NicPort;
use syringe_core::kernel_log::host_lines;
use syringe_core::pci::PciAddress;

rules! {
    TOGETHER: "devices-lost-together" Critical Hardware AER_DOC, "A GPU and other devices failed at the same moment",
        CheckCabling "When {node} is drained, check what the devices in the evidence share (PCIe switch, riser, baseboard, power supply; lspci -t) \
            before a single device is replaced.",
        means "A GPU fell off the bus, and within seconds a network card or disk stopped: a fault of a part that they share, such as a PCIe \
            switch, is more likely than separate faults.",
        reads "xid: Xid 79, PCIe errors (AER), network cards, disks; topology.nics", in_plan SharedCause;
}

/// Faults within this time are one event. The kernel gives up a disk some seconds after the failure of its switch.
const SAME_MOMENT: SignedDuration = SignedDuration::from_secs(10);

/// Codes of lines of `host_lines.tsv` after which a device does not respond.
const NOT_RESPONDING: [&str; 6] =
    ["fatal_error", "recovery_aborted", "hardware_error", "health_compromised", "disk_lost", "disk_reset"];

/// Positions of a card relative to a GPU at which a PCIe switch is above both.
const BELOW_ONE_SWITCH: [&str; 2] = ["PIX", "PXB"];

pub(super) fn check(node: &Node<'_>) -> Option<Draft> {
    let falls: Vec<&KernelEvent> =
        node.timeline.unexplained().map(|(_, event)| event).filter(|event| is_off_bus(event)).collect();
    let with_a_fall = |event: &&KernelEvent| {
        falls.iter().any(|fall| at_once(event, fall) && event.pci_address.as_ref() != fall.pci_address.as_ref())
    };
    let others: Vec<&KernelEvent> = node
        .timeline
        .current()
        .filter(|event| stops_responding(event))
        .filter(with_a_fall)
        .filter(|event| !is_elsewhere(node, event, &falls))
        .collect();
    let ports = ports_beside(node, &falls);
    if others.is_empty() && ports.is_empty() {
        return None;
    }
    let with_port = !ports.is_empty();
    let with_another = |event: &&KernelEvent| with_port || others.iter().any(|other| at_once(event, other));
    let of_port =
        |event: &&KernelEvent| event.kind == Kind::Aer && event.sub_code.as_deref() == Some("uncorrected_fatal");
    let dead_ports = node.timeline.current().filter(of_port).filter(with_another);
    let falls = falls.iter().copied().filter(with_another);
    let line = |event: &KernelEvent| {
        let place = event.pci_address.as_ref().map(|pci| format!(" at {}", pci.sysfs())).unwrap_or_default();
        format!("{}{place}", evidence::event(event))
    };
    let events: Vec<&KernelEvent> = falls.chain(others.iter().copied()).chain(dead_ports).collect();
    // None of the devices is returned because of this finding.
    let draft = Draft { is_outside: true, ..Draft::on_node(TOGETHER) };
    let draft = events.iter().fold(draft, |draft, event| draft.with_time_of(event));
    Some(draft.with_all_evidence(events.into_iter().map(line)).with_all_evidence(ports))
}

/// Devices below one PCIe switch have bus numbers that differ by at most this number.
const BUSES_OF_SWITCH: u32 = 2;

/// Returns the network ports without a link whose card is beside a GPU that fell off the bus, if most other ports have a
/// link.
fn ports_beside(node: &Node<'_>, falls: &[&KernelEvent]) -> Vec<String> {
    let ports = node.topology().map(|topology| topology.nics.as_slice()).unwrap_or_default();
    let is_dead = |port: &&NicPort| port.state.is_some() && !is_active(port);
    let is_beside = |port: &&NicPort| {
        let card = port.pci_address.as_ref().and_then(PciAddress::domain_and_bus);
        falls
            .iter()
            .filter_map(|fall| fall.pci_address.as_ref()?.domain_and_bus())
            .any(|(domain, bus)| card.is_some_and(|(own, card)| own == domain && card.abs_diff(bus) <= BUSES_OF_SWITCH))
    };
    let dead: Vec<&NicPort> = ports.iter().filter(is_dead).collect();
    let beside: Vec<&NicPort> = dead.iter().copied().filter(is_beside).collect();
    if dead.len() * 2 >= ports.len() {
        return Vec::new();
    }
    let told = |port: &NicPort| {
        let pci = port.pci_address.as_ref().map(|pci| format!(" at {}", pci.sysfs())).unwrap_or_default();
        format!("{}{pci}: state {}", name_of(port), evidence::data(port.state.as_deref().unwrap_or_default()))
    };
    beside.into_iter().map(told).collect()
}

fn at_once(one: &KernelEvent, other: &KernelEvent) -> bool {
    let times = one.first.or(one.last).zip(other.first.or(other.last));
    times.is_some_and(|(one, other)| one.duration_since(other).abs() <= SAME_MOMENT)
}

/// Returns whether a network card or disk does not respond after this event.
pub(super) fn stops_responding(event: &KernelEvent) -> bool {
    let is_listed = || event.sub_code.as_deref().is_some_and(|code| NOT_RESPONDING.contains(&code));
    host_lines::row_of(event).is_some() && is_listed()
}

/// Returns whether the card of an event is not below one PCIe switch with any GPU that fell off the bus.
fn is_elsewhere(node: &Node<'_>, event: &KernelEvent, falls: &[&KernelEvent]) -> bool {
    let ports = node.topology().map(|topology| topology.nics.as_slice()).unwrap_or_default();
    let fallen = || node.gpus.iter().filter(|gpu| falls.iter().any(|fall| concerns(fall, gpu)));
    let of_card = ports.iter().find(|port| port.pci_address.is_some() && port.pci_address == event.pci_address);
    let near = of_card.map(|port| port.near.as_slice()).unwrap_or_default();
    let known = || near.iter().filter(|near| fallen().any(|gpu| gpu.index == Some(near.gpu)));
    known().next().is_some() && known().all(|near| !BELOW_ONE_SWITCH.contains(&near.via.as_str()))
}

/// Returns whether a card reported that it does not respond or did not start, so that a missing driver is a
/// consequence.
pub(super) fn has_failed(node: &Node<'_>, card: Option<&PciAddress>) -> bool {
    let Some(card) = card else { return false };
    node.timeline.current().any(|event| {
        event.pci_address.as_ref() == Some(card)
            && (stops_responding(event) || event.sub_code.as_deref() == Some("not_started"))
    })
}
