//! Rules about missing network cards or ports: cards without a driver or RDMA device, fewer ports than the instance
//! type or other socket.
//!
//! The rules about ports compare only the ports that exist. The rules in this module also find ports that all GPUs
//! lack.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::Node;
use crate::input::{boards, instance_types};
use crate::rule::{DEBUG_DOC, Draft, rules};
use crate::rules::links::lost_together::has_failed;
use crate::rules::links::rdma_ports::{self, distance};
use syringe_core::classification::Severity;
use syringe_core::facts::topology::{NetworkCard, NicPort, Topology};
use syringe_core::report::Status;

rules! {
    about Network;
    NO_DRIVER: "network-card-without-driver" Warning Driver DEBUG_DOC, "An RDMA network card has no driver",
        UpdateSoftware "Load the driver of the card in the evidence on {node} (mlx5_core and mlx5_ib, or efa), or install it for the running \
            kernel (DOCA or MLNX_OFED, the EFA installer): without it, jobs on several nodes use TCP.",
        means "A card for InfiniBand or EFA is on the PCI bus, and no driver is bound to it, so that it has no ports.",
        reads "topology.cards_without_ports, inventory.gpus", in_plan WorkContinues;
    NO_PORTS: "network-card-without-rdma" Info Driver DEBUG_DOC, "A network card has no RDMA device",
        Watch "If jobs are meant to use RDMA on {node}, load the RDMA module of the card's driver (mlx5_ib; for EFA ib_uverbs), and check that RDMA is \
            enabled for the card (devlink dev param: enable_roce). Otherwise, no action is needed.",
        means "A card that can use RDMA has no RDMA device: it is used for Ethernet only, or a module is missing.",
        reads "topology.cards_without_ports";
    FEWER: "rdma-ports-fewer-than-instance" Warning Fabric DEBUG_DOC, "The machine has fewer InfiniBand ports than its instance type",
        UpdateSoftware "Compare the network cards of {node} on the PCI bus (lspci) with its instance type. If a card is missing there, have \
            the provider replace the machine. If no card is missing there, load the driver of the cards.",
        means "Every machine of the instance type has a certain number of InfiniBand ports, and this node has fewer.",
        reads "topology.nics, kubernetes.instance_type", in_plan WorkContinues;
    UNEVEN: "rdma-ports-per-socket-differ" Info Fabric DEBUG_DOC, "The sockets have different numbers of network ports of one model",
        Watch "Compare the network cards of {node} with those of a node of the same kind (lspci): a card may be gone.",
        means "There are fewer cards of one model next to the GPUs than GPUs, and one NUMA node has fewer of these \
            cards than another NUMA node.",
        reads "topology.nics, topology.gpus";
}

/// Minimum number of GPUs of a node that is built for jobs on several nodes.
const MANY: usize = 4;
/// Maximum number of cards in the evidence.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(topology) = node.topology().filter(|_| !node.is_booting()) else { return Vec::new() };
    let by_number = fewer(node, topology).or_else(|| uneven(node, topology));
    let found = [no_driver(node, topology), no_ports(node, topology), by_number];
    found.into_iter().flatten().collect()
}

/// Moves ports that are missing next to a GPU into the finding about the cards without a driver: such a card has no port.
pub(super) fn refine(_node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let is_cause = |draft: &Draft| draft.rule.id == NO_DRIVER.id && draft.severity >= Severity::Warning;
    if !drafts.iter().any(is_cause) {
        return;
    }
    let (missing, others): (Vec<Draft>, Vec<Draft>) =
        std::mem::take(drafts).into_iter().partition(|draft| draft.rule.id == rdma_ports::GONE.id);
    *drafts = others;
    let lines = missing.into_iter().flat_map(|draft| {
        let (_, gpu) = draft.label();
        draft.evidence.into_iter().map(move |line| format!("{gpu}: {line}"))
    });
    if let Some(cause) = drafts.iter_mut().find(|draft| is_cause(draft)) {
        cause.evidence.extend(lines);
    }
}

fn name(card: &NetworkCard) -> String {
    let place = card.pci_address.as_ref().map(|pci| format!(" at {}", pci.sysfs())).unwrap_or_default();
    format!("card {}{place} ({})", evidence::data(&card.device_id), evidence::data(&card.kind))
}

fn lines<'c>(cards: impl Iterator<Item = &'c NetworkCard>, what: &str) -> Vec<String> {
    evidence::lines(cards.map(|card| format!("{}: {what}", name(card))), NAMED)
}

fn no_driver(node: &Node<'_>, topology: &Topology) -> Option<Draft> {
    // A card that failed loses its driver as a consequence.
    let is_idle = |card: &&NetworkCard| card.driver.is_none() && !has_failed(node, card.pci_address.as_ref());
    let unbound = || topology.cards_without_ports.iter().filter(is_idle);
    let lines = lines(unbound(), "no driver is bound to it");
    // Ethernet cards, and cards of a node with few GPUs, may be unused.
    let is_needed = unbound().any(|card| card.kind != "ethernet") && node.answering().count() >= MANY;
    let severity = if is_needed { Severity::Warning } else { Severity::Info };
    (!lines.is_empty()).then(|| Draft::on_node(NO_DRIVER).with_severity(severity).with_all_evidence(lines))
}

fn no_ports(node: &Node<'_>, topology: &Topology) -> Option<Draft> {
    let of_virtual_machine = |driver: &str| driver.starts_with("vfio");
    let cards = topology.cards_without_ports.iter();
    let bound = cards.filter(|card| card.driver.as_deref().is_some_and(|driver| !of_virtual_machine(driver)));
    // A separate finding reports a missing module.
    let is_explained = node.host().is_some_and(|host| !host.rdma_modules_missing.is_empty());
    let lines = lines(bound, "its driver is bound, and it has no RDMA device");
    (!lines.is_empty() && !is_explained).then(|| Draft::on_node(NO_PORTS).with_all_evidence(lines))
}

fn fewer(node: &Node<'_>, topology: &Topology) -> Option<Draft> {
    let name = node.kubernetes.instance_type.as_deref()?;
    let expected = instance_types::of(name)?.infiniband_ports?;
    let is_read = node.report.sections.topology.as_ref().is_some_and(|section| section.status == Status::Ok);
    let ports = topology.nics.iter().filter(|port| port.link_layer.as_deref() == Some("InfiniBand")).count();
    let name = evidence::data(name);
    let line = || format!("{ports} InfiniBand ports; each machine of the type {name} has {expected}");
    (is_read && node.shows_whole_node() && ports < expected).then(|| Draft::on_node(FEWER).with_evidence(line()))
}

/// Finds a card model whose number differs between NUMA nodes with GPUs. If GPUs have ports at their PCIe switches,
/// another rule compares the GPUs.
fn uneven(node: &Node<'_>, topology: &Topology) -> Option<Draft> {
    let gpus = node.answering().count();
    boards::of(node.answering().next()?).filter(|_| gpus >= MANY)?;
    if boards::is_bare_metal(node) && topology.nics.iter().any(|port| distance(port) == Some(0)) {
        return None;
    }
    let mut models: BTreeMap<&str, BTreeMap<u32, usize>> = BTreeMap::new();
    let places = || topology.gpus.iter().filter_map(|gpu| gpu.numa_node);
    for port in topology.nics.iter().filter(|port: &&NicPort| !port.near.is_empty()) {
        let Some((model, place)) = port.board_id.as_deref().zip(port.numa_node) else { continue };
        let counts = models.entry(model).or_insert_with(|| places().map(|place| (place, 0)).collect());
        counts.entry(place).and_modify(|count| *count += 1);
    }
    models.into_iter().find_map(|(model, counts)| {
        let (least, most) = (*counts.values().min()?, *counts.values().max()?);
        let all: usize = counts.values().sum();
        let places: Vec<String> = counts.iter().map(|(place, count)| format!("{count} on NUMA node {place}")).collect();
        let line = format!("ports of the model {}: {}", evidence::data(model), places.join(", "));
        (most > least && most > 1 && all < gpus).then(|| Draft::on_node(UNEVEN).with_evidence(line))
    })
}

#[cfg(test)]
mod tests {
    use syringe_core::classification::Severity;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::facts::topology::{NearGpu, NetworkCard, NicPort, Topology};
    use syringe_core::report::{Report, Section};

    use super::check;
    use crate::input::node::Node;

    /// Returns the ids and severities of findings after a change of the GPUs and ports of a healthy scenario.
    fn found(scenario: &str, instance: Option<&str>, change: fn(&mut Topology)) -> Vec<(&'static str, Severity)> {
        let scenario = scenarios::all().find(|one| one.name == scenario).expect("a scenario");
        let mut report: Report = scenario.report();
        let topology =
            report.sections.topology.as_mut().and_then(|section: &mut Section<Topology>| section.data.as_mut());
        change(topology.expect("the section"));
        let facts = KubernetesFacts { instance_type: instance.map(str::to_owned), ..KubernetesFacts::default() };
        let drafts = check(&Node::new(&report, &facts));
        drafts.into_iter().map(|draft| (draft.rule.id, draft.severity)).collect()
    }

    fn card(kind: &str, driver: Option<&str>) -> NetworkCard {
        let device_id = "15b3:1021".to_owned();
        NetworkCard { pci_address: None, device_id, kind: kind.to_owned(), driver: driver.map(str::to_owned) }
    }

    #[test]
    fn cards_without_ports_are_judged_by_kind_driver_and_node() {
        let without = |node: &str, change: fn(&mut Topology)| found(node, None, change);
        assert_eq!(without("whole-h100-8", |_| ()), []);
        let all_gone = without("whole-h100-8", |topology| {
            topology.nics.clear();
            topology.cards_without_ports = vec![card("infiniband", None); 8];
        });
        assert_eq!(all_gone, [("network-card-without-driver", Severity::Warning)]);
        let unbound: fn(&mut Topology) = |topology| topology.cards_without_ports = vec![card("infiniband", None)];
        assert_eq!(without("whole-t4-1", unbound), [("network-card-without-driver", Severity::Info)]);
        let ethernet = without("whole-h100-8", |topology| topology.cards_without_ports = vec![card("ethernet", None)]);
        assert_eq!(ethernet, [("network-card-without-driver", Severity::Info)]);
        let passed = without("whole-h100-8", |topology| {
            topology.cards_without_ports = vec![card("infiniband", Some("vfio-pci"))];
        });
        assert_eq!(passed, []);
        let bound = without("whole-h100-8", |topology| {
            topology.cards_without_ports = vec![card("ethernet", Some("mlx5_core"))];
        });
        assert_eq!(bound, [("network-card-without-rdma", Severity::Info)]);
    }

    #[test]
    fn an_instance_type_with_infiniband_has_all_its_ports() {
        let of = |instance, change| found("whole-h100-8", Some(instance), change);
        let seven: fn(&mut Topology) = |topology| topology.nics.truncate(7);
        assert_eq!(of("Standard_ND96isr_H100_v5", |_| ()), []);
        assert_eq!(of("Standard_ND96isr_H100_v5", seven), [("rdma-ports-fewer-than-instance", Severity::Warning)]);
        assert_eq!(of("p5.48xlarge", seven), [], "the number of interfaces is chosen");
    }

    #[test]
    fn one_of_four_cards_that_is_gone_makes_the_sockets_differ() {
        let ports = |places: &[u32]| -> Vec<NicPort> {
            let port = |(at, place): (usize, &u32)| NicPort {
                device: format!("mlx5_{at}"),
                board_id: Some("MT_0000000838".into()),
                numa_node: Some(*place),
                near: vec![NearGpu { gpu: 0, via: "NODE".into() }],
                ..NicPort::default()
            };
            places.iter().enumerate().map(port).collect()
        };
        let with = |places: &'static [u32]| {
            let scenario = scenarios::all().find(|one| one.name == "whole-gb200-4").expect("a scenario");
            let mut report: Report = scenario.report();
            let topology = report.sections.topology.as_mut().and_then(|section| section.data.as_mut()).expect("it");
            topology.nics = ports(places);
            let facts = KubernetesFacts::default();
            check(&Node::new(&report, &facts)).len()
        };
        assert_eq!((with(&[0, 0, 1]), with(&[0, 0, 1, 1]), with(&[0, 1]), with(&[])), (1, 0, 0, 0));
    }
}
