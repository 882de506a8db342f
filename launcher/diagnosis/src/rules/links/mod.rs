//! `GROUPS`: the rules about NVLink, NVSwitch, Fabric Manager, PCIe, devices lost together, GPUDirect, peer-to-peer,
//! network cards, RDMA ports and counters.

mod fabric_manager;
mod gpudirect;
mod link_quality;
mod lost_together;
mod missing_cards;
mod network_cards;
mod nvlink_events;
mod nvlink_state;
mod pcie;
mod peer_to_peer;
mod rdma_counters;
mod rdma_ports;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(fabric_manager::RULES, fabric_manager::check),
    RuleGroup::new(nvlink_state::RULES, nvlink_state::check),
    RuleGroup::new(nvlink_events::RULES, nvlink_events::check),
    RuleGroup::new(link_quality::RULES, link_quality::check),
    RuleGroup::new(pcie::RULES, pcie::check),
    RuleGroup::new(lost_together::RULES, |node| lost_together::check(node).into_iter().collect()),
    RuleGroup::new(peer_to_peer::RULES, peer_to_peer::check).with_unread(peer_to_peer::unread),
    RuleGroup::new(rdma_ports::RULES, rdma_ports::check),
    RuleGroup::new(rdma_counters::RULES, rdma_counters::check),
    RuleGroup::new(network_cards::RULES, network_cards::check),
    RuleGroup::new(missing_cards::RULES, missing_cards::check).with_refine(missing_cards::refine),
    RuleGroup::new(gpudirect::RULES, gpudirect::check),
];
