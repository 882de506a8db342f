//! Rules about network cards themselves: PCIe link and settings, firmware, RoCE addresses, bonds.
//!
//! Cards of the same kind next to GPUs are compared with each other. If all cards have the same value, this value is
//! the configuration of the node.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::rule::{DEBUG_DOC, Draft, rules};
use crate::rules::links::rdma_ports::{carries_default_route, distance, is_active, name_of, on_device_of};
use syringe_core::classification::Severity;
use syringe_core::facts::topology::{NicPort, NicSlot};

rules! {
    about Network;
    SLOT: "nic-slot-degraded" Warning Fabric DEBUG_DOC, "The PCIe link of a network card is slower than card and slot support",
        CheckCabling "Reseat the network card of {node} in the evidence at the next maintenance, or check its riser \
            and the settings of its slot. The card cannot reach the rate of its port.",
        means "The PCIe link of an InfiniBand or RoCE card has fewer lanes or a lower generation than card and slot support, or its slot offers \
            less than the slots of the other cards.",
        reads "topology.nics", in_plan WorkContinues;
    SETTINGS: "nic-pcie-settings-differ" Warning Fabric DEBUG_DOC, "PCIe settings of a network card differ from the \
        other network cards",
        UpdateSoftware "Give the card of {node} in the evidence the settings of the other cards (BIOS, or setpci for \
            the register Device Control), or reboot {node}: a hot reset of a card can lose its settings. Transfers of the card are slow.",
        means "The largest read request or the largest payload of a network card is smaller than on the other cards \
            of its kind, or the payload is smaller than the payload of the PCIe port above the card.",
        reads "topology.nics", in_plan WorkContinues;
    FIRMWARE: "nic-firmware-differs" Warning Fabric DEBUG_DOC, "Network cards of the same model have different firmware",
        UpdateSoftware "At the next maintenance of {node}, update the firmware of the cards in the evidence to one version (mlxfwmanager), and restart the cards \
            when {node} is drained (mlxfwreset, which ends their connections). A new version works only after the restart.",
        means "Network cards with the same board id (PSID) run different firmware versions, for example because an update did not reach all of them.",
        reads "topology.nics", in_plan WorkContinues;
    ADDRESS: "roce-address-missing" Warning Fabric DEBUG_DOC, "A RoCE port has no address, unlike the other RoCE \
        ports",
        UpdateSoftware "Check the IP address of the interface of {node} in the evidence (ip address; netplan, NetworkManager): without it the port \
            has no RoCE v2 GID, and jobs that use the port cannot connect.",
        means "An active RoCE port next to a GPU has no RoCE v2 address (GID) other than a link-local address, \
            although the other ports have one.",
        reads "topology.nics", in_plan WorkContinues;
    BOND: "network-bond-degraded" Warning Fabric None, "A bond of network interfaces has a member without a link",
        CheckCabling "Check cable, transceiver and switch port of the interface of {node} in the evidence. Until then the bond has less bandwidth \
            and no spare link.",
        means "A bond of network interfaces works, but not all of its members have a link. The RDMA port of the bond stays active.",
        reads "topology.bonds, topology.nics", in_plan WorkContinues;
}

/// Minimum number of cards with the same value if one card with another value is reported.
const MAJORITY: usize = 3;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let cards = cards(&topology.nics);
    let mut drafts: Vec<Draft> = addresses(node, &topology.nics);
    drafts.extend(firmware(&cards));
    if boards::is_bare_metal(node) {
        drafts.extend(slots(node, &cards));
        drafts.extend(settings(node, &cards));
    }
    drafts.extend(bonds(node));
    drafts
}

/// Returns one port of each card, an active port if possible.
fn cards(ports: &[NicPort]) -> Vec<&NicPort> {
    let mut cards: Vec<&NicPort> = Vec::new();
    for port in ports {
        match cards.iter_mut().find(|card| card.device == port.device) {
            Some(card) if is_active(port) && !is_active(card) => *card = port,
            Some(_) => {}
            None => cards.push(port),
        }
    }
    cards
}

/// Returns whether two cards are of the same kind and have the same position relative to GPUs.
fn are_alike(one: &NicPort, other: &NicPort) -> bool {
    one.device != other.device
        && (&one.link_layer, &one.board_id, distance(one)) == (&other.link_layer, &other.board_id, distance(other))
}

/// Returns the common value of the other cards of the same kind, if it differs from the value of this card.
fn of_others<T: PartialEq>(cards: &[&NicPort], card: &NicPort, value: impl Fn(&NicPort) -> Option<T>) -> Option<T> {
    let own = value(card)?;
    let mut others: Vec<T> =
        cards.iter().filter(|other| are_alike(card, other)).filter_map(|other| value(other)).collect();
    // One other card may also differ, because two cards can have the same fault.
    let common = others.iter().position(|one| {
        let same = others.iter().filter(|other| *other == one).count();
        same >= MAJORITY && same + 1 >= others.len()
    })?;
    let common = others.swap_remove(common);
    (common != own).then_some(common)
}

fn slots(node: &Node<'_>, cards: &[&NicPort]) -> Vec<Draft> {
    let mut drafts: Vec<(String, Draft)> = Vec::new();
    for card in cards.iter().filter(|card| is_active(card)) {
        let Some(slot) = &card.slot else { continue };
        let width = below(slot.width, slot.max_width, slot.port_max_width).map(|(is, can)| format!("x{is} of x{can}"));
        let generation = below(slot.generation, slot.max_generation, slot.port_max_generation)
            .map(|(is, can)| format!("generation {is} of {can}"));
        let short: Vec<String> = width.into_iter().chain(generation).collect();
        let offered = |slot: &NicSlot| slot.port_max_generation.zip(slot.port_max_width);
        let usual = of_others(cards, card, |card| card.slot.as_ref().and_then(offered));
        let what = if short.is_empty() {
            let (Some((generation, width)), Some(usual)) = (offered(slot), usual) else { continue };
            let is_limit = slot.max_width.is_some_and(|max| width < max.min(usual.1))
                || slot.max_generation.is_some_and(|max| generation < max.min(usual.0));
            if !is_limit {
                continue;
            }
            format!(
                "the slot offers generation {generation} x{width}; the slots of the other cards offer generation {} \
                x{}",
                usual.0, usual.1
            )
        } else {
            short.join(", ")
        };
        let place = card.pci_address.as_ref().map(|pci| format!(" at {}", pci.sysfs())).unwrap_or_default();
        let line = format!("{}{place}: {what}", name_of(card));
        drafts.push((what, on_device_of(node, card, SLOT).with_evidence(line)));
    }
    // If most cards have this value, it is a setting of the BIOS or a property of the board.
    let active = cards.iter().filter(|card| is_active(card)).count();
    let alike = |what: &String| drafts.iter().filter(|(other, _)| other == what).count();
    let is_usual: Vec<bool> = drafts.iter().map(|(what, _)| alike(what) > 1 && alike(what) * 2 > active).collect();
    let lowered = drafts.into_iter().zip(is_usual).map(|((_, draft), is_usual)| match is_usual {
        true => draft.with_severity(Severity::Info),
        false => draft,
    });
    lowered.collect()
}

/// Returns the value of a link and the value that both ends support, if the value of the link is lower.
fn below(is: Option<u32>, of_card: Option<u32>, of_port: Option<u32>) -> Option<(u32, u32)> {
    let can = of_card?.min(of_port.unwrap_or(u32::MAX));
    is.filter(|is| *is < can && *is > 0).map(|is| (is, can))
}

fn settings(node: &Node<'_>, cards: &[&NicPort]) -> Vec<Draft> {
    let request = |card: &NicPort| card.slot.as_ref()?.max_read_request_bytes;
    let payload = |card: &NicPort| card.slot.as_ref()?.max_payload_bytes;
    let mut drafts = Vec::new();
    for card in cards {
        let Some(slot) = &card.slot else { continue };
        let differs = |name: &str, value: Option<u32>, usual: Option<u32>| {
            let (value, usual) = value.zip(usual)?;
            Some((value < usual, format!("{}: {name} {value} bytes; the other cards have {usual}", name_of(card))))
        };
        let mut found: Vec<(bool, String)> = Vec::new();
        found.extend(differs("largest read request", request(card), of_others(cards, card, request)));
        found.extend(differs("largest payload", payload(card), of_others(cards, card, payload)));
        // Software can allow a larger payload at the port only if the card never requests this much at once.
        if let (Some(own), Some(port), Some(request)) = (payload(card), slot.port_max_payload_bytes, request(card))
            && own < port
            && request > own
        {
            found.push((false, format!("{}: largest payload {own} bytes, {port} at the port above it", name_of(card))));
        }
        if found.is_empty() {
            continue;
        }
        let is_small = found.iter().any(|(is_small, _)| *is_small);
        let severity = if is_small && is_active(card) { Severity::Warning } else { Severity::Info };
        let draft = on_device_of(node, card, SETTINGS).with_severity(severity);
        drafts.push(draft.with_all_evidence(found.into_iter().map(|(_, line)| line)));
    }
    drafts
}

/// Finds cards of one model with different firmware. Cards with different purposes can be updated at different times.
fn firmware(cards: &[&NicPort]) -> Vec<Draft> {
    let mut models: BTreeMap<&str, Vec<&NicPort>> = BTreeMap::new();
    for card in cards.iter().filter(|card| card.firmware.is_some()) {
        models.entry(card.board_id.as_deref().unwrap_or_default()).or_default().push(card);
    }
    let draft = |(model, cards): (&str, Vec<&NicPort>)| {
        let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for card in &cards {
            let version = card.firmware.as_deref().unwrap_or_default();
            versions.entry(version).or_default().push(evidence::data(&card.device));
        }
        if versions.len() < 2 || model.is_empty() {
            return None;
        }
        let purposes: BTreeSet<Option<u32>> = cards.iter().map(|card| distance(card)).collect();
        let serves_gpus =
            purposes.len() == 1 && cards.iter().all(|card| is_active(card) && !carries_default_route(card));
        let severity = if serves_gpus { Severity::Warning } else { Severity::Info };
        let mut lines: Vec<(usize, String)> = versions
            .into_iter()
            .map(|(version, names)| {
                let version = evidence::data(version);
                (names.len(), format!("{}: firmware {version} on {}", evidence::data(model), evidence::some(&names, 4)))
            })
            .collect();
        lines.sort();
        let lines = lines.into_iter().map(|(_, line)| line).take(4);
        Some(Draft::on_node(FIRMWARE).with_severity(severity).with_all_evidence(lines))
    };
    models.into_iter().filter_map(draft).collect()
}

/// Finds RoCE ports without an address. If no port has an address, pods have their own interfaces.
fn addresses(node: &Node<'_>, ports: &[NicPort]) -> Vec<Draft> {
    let rails: Vec<&NicPort> = ports
        .iter()
        .filter(|port| is_active(port) && !carries_default_route(port) && !port.near.is_empty())
        .filter(|port| port.roce_v2_address.is_some())
        .collect();
    let missing = rails.iter().filter(|port| of_others(&rails, port, |port| port.roce_v2_address) == Some(true));
    let draft = |port: &&NicPort| {
        let name = port.interface.as_ref().map(|interface| format!(", interface {}", evidence::data(&interface.name)));
        let line =
            format!("{}{}: no RoCE v2 address; the other ports have one", name_of(port), name.unwrap_or_default());
        on_device_of(node, port, ADDRESS).with_evidence(line)
    };
    missing.map(draft).collect()
}

fn bonds(node: &Node<'_>) -> Vec<Draft> {
    let Some(topology) = node.topology() else { return Vec::new() };
    let is_of_rdma = |bond: &str| {
        let interfaces = topology.nics.iter().filter_map(|port| port.interface.as_ref());
        interfaces.into_iter().any(|interface| interface.bond.as_deref() == Some(bond))
    };
    let degraded = topology.bonds.iter().filter(|bond| !bond.down.is_empty());
    let draft = |bond: &syringe_core::facts::topology::Bond| {
        // A second cable for the management network is optional.
        let has_link = !bond.up.is_empty();
        let severity = if is_of_rdma(&bond.name) || (bond.default_route && !has_link) {
            Severity::Warning
        } else {
            Severity::Info
        };
        let route = if bond.default_route { ", with the default route" } else { "" };
        let line = format!(
            "{}{route}: no link at {}; {}",
            evidence::data(&bond.name),
            evidence::names(&bond.down, 4),
            if has_link { format!("link at {}", evidence::names(&bond.up, 4)) } else { "no other device".to_owned() }
        );
        Draft::on_node(BOND).with_severity(severity).with_evidence(line)
    };
    degraded.map(draft).collect()
}
