//! Rules about the InfiniBand and RoCE ports next to the GPUs: not active, slow, missing, of two link layers, without
//! modules. `distance`, `is_active`, `carries_default_route`, `name_of`, `on_device_of`: functions about one port, for
//! other rules.
//!
//! The ports of the other GPUs show how many ports should be active, and at which rate. If each GPU has its own ports,
//! one GPU with an active port is enough for the comparison, because all rails are equal. Some ports are not checked:
//! ports farther away than those next to GPUs (storage, management), ports with the default route of the node, and
//! ports that are unused in the same way next to all GPUs.

use std::collections::BTreeMap;

use crate::evidence;
use crate::evidence::Label;
use crate::finding::Scope;
use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::{DEBUG_DOC, Draft, Rule, rules};
use crate::rules::links::lost_together;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind};
use syringe_core::facts::topology::NicPort;

rules! {
    about Network;
    NOT_ACTIVE: "rdma-port-not-active" Warning Fabric DEBUG_DOC, "A network port next to a GPU is not active",
        CheckCabling "Check cable, transceiver and switch port of the network port of {node} in the evidence. Jobs on \
            several nodes that use {gpu} fail or are slow.",
        means "An InfiniBand or RoCE port next to a GPU is not active, although the ports next to the other GPUs are \
            active.",
        reads "topology.nics", in_plan WorkContinues;
    SLOW: "rdma-port-slow" Warning Fabric DEBUG_DOC, "A network port next to a GPU is slower than the ports next to \
        the other GPUs",
        CheckCabling "Check cable and transceiver of the network port of {node} in the evidence. Jobs on several nodes wait for the slowest \
            port.",
        means "An InfiniBand or RoCE port next to a GPU runs at a lower rate than the ports next to the other GPUs.",
        reads "topology.nics", in_plan WorkContinues;
    GONE: "rdma-port-missing" Warning Fabric DEBUG_DOC, "A GPU has no network port next to it, unlike the other GPUs",
        CheckCabling "Check whether the network card next to {gpu} of {node} is on the PCI bus (lspci), and its seating.",
        means "Almost all GPUs of the node have an InfiniBand or RoCE port at the same PCIe switch, but one GPU has \
            no such port: its network card may be gone.",
        reads "topology.nics", in_plan WorkContinues;
    TWO_LAYERS: "rdma-ports-of-two-kinds" Info Fabric DEBUG_DOC, "Some ports next to GPUs are Ethernet and the others InfiniBand",
        Watch "Compare the link type that is set in the firmware of these cards of {node} (mlxconfig: LINK_TYPE): collective operations that use \
            all ports need one type.",
        means "Every GPU has the same number of ports next to it. Some of these ports are Ethernet ports, and the \
            other ports are InfiniBand ports. Cards that support both types have a setting in their firmware.",
        reads "topology.nics";
    FAR: "rdma-port-on-other-socket" Info Fabric DEBUG_DOC, "A GPU has no network port on its NUMA node, unlike the other GPUs",
        Watch "Check whether a network card of {node} is in the wrong slot or gone: the transfers of {gpu} to other nodes cross the link between \
            CPU sockets.",
        means "Almost all GPUs of the node have an InfiniBand or RoCE port on their NUMA node, but one GPU has no \
            such port.",
        reads "topology.nics, topology.gpus", in_plan WorkContinues;
    MODULES: "rdma-module-missing" Warning Fabric DEBUG_DOC, "Kernel modules of RDMA are not loaded",
        UpdateSoftware "If jobs use RDMA on {node}, load the modules in the evidence there (modprobe), and let them \
            load at each boot. Programs open RDMA ports through ib_uverbs, and mlx5_ib creates the ports. ib_umad is \
            for management, and rdma_ucm is for connections by IP address.",
        means "The kernel has the module of a network card or of the RDMA core, but not all modules with which programs use RDMA.",
        reads "host.rdma_modules_missing, topology.nics", in_plan WorkContinues;
}

/// Minimum number of GPUs, or of inactive InfiniBand ports, for a pattern.
const PATTERN: usize = 4;

const INFINIBAND: &str = "InfiniBand";

/// States of an InfiniBand port that has a working cable but was not configured by a subnet manager.
const UNCONFIGURED: [&str; 2] = ["INIT", "ARMED"];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(topology) = node.topology().filter(|_| !node.is_booting()) else { return Vec::new() };
    let mut drafts: Vec<Draft> = [INFINIBAND, "Ethernet"]
        .into_iter()
        .flat_map(|layer| Rails::new(node, &topology.nics, layer).drafts(node))
        .collect();
    let gone = gone(node, &topology.nics);
    let far = far(node, &topology.nics);
    drafts.extend(far.into_iter().filter(|far| !gone.iter().any(|gone| gone.scope == far.scope)));
    drafts.extend(gone);
    drafts.extend(modules(node, &topology.nics));
    drafts.extend(two_layers(node, &topology.nics));
    drafts
}

/// Returns a finding about missing modules. Programs cannot use active ports without the module that provides the ports
/// to them.
fn modules(node: &Node<'_>, ports: &[NicPort]) -> Option<Draft> {
    let missing = &node.host()?.rdma_modules_missing;
    let active = ports.iter().filter(|port| is_active(port)).count();
    let is_fault = active > 0 && missing.iter().any(|module| module == "ib_uverbs");
    let severity = if is_fault { Severity::Warning } else { Severity::Info };
    let line = || format!("not loaded: {}; {active} RDMA ports are active", evidence::names(missing, 4));
    // A card that is used only for Ethernet does not need RDMA.
    let is_used = !ports.is_empty() || boards::of_node(node).is_some();
    (!missing.is_empty() && is_used).then(|| Draft::on_node(MODULES).with_severity(severity).with_evidence(line()))
}

/// Finds GPUs without a port on their NUMA node, although almost all others have one.
fn far(node: &Node<'_>, ports: &[NicPort]) -> Vec<Draft> {
    let numa = |gpu: &&Gpu| node.topology_of(gpu).and_then(|gpu| gpu.numa_node);
    let has = |gpu: &&Gpu| ports.iter().any(|port| port.numa_node.is_some() && port.numa_node == numa(gpu));
    let (without, share) = lacking(node, node.answering().filter(|gpu| numa(gpu).is_some()), has);
    let line = |gpu: &Gpu| {
        let numa = numa(&gpu).unwrap_or_default();
        format!("no InfiniBand or RoCE port on NUMA node {numa}; {share} have a port on their NUMA node")
    };
    without.into_iter().map(|gpu| Draft::on_gpu(FAR, gpu).with_evidence(line(gpu))).collect()
}

/// Returns the distance between a port and its nearest GPUs. A path through several PCIe switches counts as a path
/// through one switch.
pub(super) fn distance(port: &NicPort) -> Option<u32> {
    let of = |via: &str| match via {
        "PIX" | "PXB" => 0,
        "PHB" => 1,
        _ => 2,
    };
    port.near.iter().map(|near| of(&near.via)).min()
}

/// The nearest ports of one link layer whose state is known.
struct Rails<'n> {
    layer: &'static str,
    ports: Vec<&'n NicPort>,
    /// The rate that most of the active ports have.
    rate: f64,
    /// Number of ports with full rate by GPU.
    full: BTreeMap<u32, usize>,
    /// Number of ports with full rate that at least half of the GPUs have. If the rails are symmetric, the highest
    /// number of any GPU.
    usual: usize,
    /// Whether each GPU has the same number of ports next to it. Each GPU then has its own rail, and all rails should
    /// be equal.
    symmetric: bool,
}

impl<'n> Rails<'n> {
    fn new(node: &Node<'_>, ports: &'n [NicPort], layer: &'static str) -> Self {
        let of_layer = || {
            let is_of_layer = |port: &&NicPort| port.link_layer.as_deref() == Some(layer) && port.state.is_some();
            ports.iter().filter(is_of_layer).filter(|port| !carries_default_route(port))
        };
        let nearest = of_layer().filter_map(distance).min();
        let ports: Vec<&NicPort> = of_layer().filter(|port| nearest.is_some() && distance(port) == nearest).collect();
        let mut rates: Vec<f64> =
            ports.iter().filter(|port| is_active(port)).filter_map(|port| port.rate_gigabits_per_second).collect();
        rates.sort_by(f64::total_cmp);
        let symmetric = is_symmetric(node, &ports);
        let typical = if symmetric { rates.last() } else { rates.get(rates.len() / 2) };
        let rate = typical.copied().unwrap_or_default();
        let mut rails = Self { layer, ports, rate, full: BTreeMap::new(), usual: 0, symmetric };
        rails.full = node.answering().filter_map(|gpu| gpu.index).map(|gpu| (gpu, rails.of(gpu))).collect();
        let mut counts: Vec<usize> = rails.full.values().copied().collect();
        counts.sort_unstable();
        let usual = if symmetric { counts.last() } else { counts.get(counts.len() / 2) };
        rails.usual = usual.copied().unwrap_or_default();
        rails
    }

    fn of(&self, gpu: u32) -> usize {
        self.ports.iter().filter(|port| self.is_full(port) && port.near.iter().any(|near| near.gpu == gpu)).count()
    }

    fn is_full(&self, port: &NicPort) -> bool {
        is_active(port) && !self.is_slow(port)
    }

    fn is_slow(&self, port: &NicPort) -> bool {
        is_active(port) && port.rate_gigabits_per_second.is_some_and(|rate| rate < self.rate * 0.99)
    }

    /// Returns whether most ports, or the ports of most GPUs, are active at the full rate. RoCE ports are also used for
    /// other purposes.
    fn has_pattern(&self) -> bool {
        let full = self.ports.iter().filter(|port| self.is_full(port)).count();
        let gpus = self.full.values().filter(|count| **count >= self.usual).count();
        if self.symmetric {
            let used = self.full.values().filter(|count| **count > 0).count();
            return used > 0 && (self.layer == INFINIBAND || used * 2 >= self.full.len());
        }
        if self.layer == INFINIBAND {
            return full * 2 > self.ports.len() || gpus * 2 > self.full.len().max(2);
        }
        self.full.len() >= PATTERN && gpus * 4 >= self.full.len() * 3
    }

    fn drafts(&self, node: &Node<'_>) -> Vec<Draft> {
        let is_unconfigured = |port: &NicPort| {
            self.layer == INFINIBAND && port.state.as_deref().is_some_and(|state| UNCONFIGURED.contains(&state))
        };
        if self.layer == INFINIBAND && !self.ports.iter().any(|port| is_active(port) || is_unconfigured(port)) {
            return self.none_active();
        }
        let mut drafts = Vec::new();
        for port in self.ports.iter().filter(|port| !self.is_full(port)) {
            let short =
                port.near.iter().filter(|near| self.full.get(&near.gpu).is_some_and(|count| *count < self.usual));
            let short: Vec<&Gpu> = short.filter_map(|near| node.gpu(near.gpu)).collect();
            let gpus: Vec<&Gpu> = if is_unconfigured(port) {
                port.near.iter().filter_map(|near| node.gpu(near.gpu)).collect()
            } else if self.has_pattern() {
                short
            } else {
                Vec::new()
            };
            let Some(first) = gpus.first() else { continue };
            let draft = self.draft(node, port, first);
            drafts.push(match gpus.len() {
                1 => draft,
                _ => {
                    let labels: Vec<Label> = gpus.iter().map(|gpu| (gpu.index, gpu.label())).collect();
                    let names = evidence::gpus(&labels);
                    let advice = evidence::about(&draft.advice, &names);
                    let (scope, action) = (Scope::default(), draft.action);
                    Draft { scope, ..draft }.with_evidence(format!("next to {names}")).with_action(action, advice)
                }
            });
        }
        drafts
    }

    fn draft(&self, node: &Node<'_>, port: &NicPort, gpu: &Gpu) -> Draft {
        let active = self.ports.iter().filter(|port| is_active(port)).count();
        let name = format!("{} port {} ({})", evidence::data(&port.device), port.port, self.layer);
        if let Some(rate) = port.rate_gigabits_per_second.filter(|_| self.is_slow(port)) {
            let rail = self.layer == INFINIBAND || self.symmetric;
            let severity = if rail { Severity::Warning } else { Severity::Info };
            let evidence = format!("{name}: {rate} Gbit/s, but other ports next to GPUs have {}", self.rate);
            return Draft::on_gpu(SLOW, gpu).with_severity(severity).with_evidence(evidence);
        }
        let state = evidence::data(port.state.as_deref().unwrap_or_default());
        let evidence = format!("{name}: state {state}; {active} of {} ports next to GPUs are active", self.ports.len());
        let draft = Draft::on_gpu(NOT_ACTIVE, gpu).with_evidence(evidence);
        match switched_off_by_card(node, port).or_else(|| why_not_active(port)) {
            Some((evidence, action, advice)) => draft.with_evidence(evidence).with_action(action, advice),
            None => draft,
        }
    }

    /// Checks whether no port is active. A few InfiniBand ports without a cable are spare ports, but many inactive
    /// ports belong to a network.
    fn none_active(&self) -> Vec<Draft> {
        let names: Vec<String> = self.ports.iter().map(|port| evidence::data(&port.device)).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let severity = if names.len() >= PATTERN { Severity::Warning } else { Severity::Info };
        let evidence =
            format!("none of {} InfiniBand ports next to GPUs is active: {}", names.len(), evidence::some(&names, 4));
        let draft = Draft::on_node(NOT_ACTIVE).with_severity(severity).with_evidence(evidence);
        let reasons: Vec<_> = self.ports.iter().map(|port| why_not_active(port)).collect();
        match reasons.first() {
            Some(Some((evidence, action, advice))) if reasons.iter().all(|reason| *reason == reasons[0]) => {
                vec![draft.with_evidence(evidence.clone()).with_action(*action, *advice)]
            }
            _ => vec![draft],
        }
    }
}

/// Returns the reason if a card that reported an error of its cable or module, or its own failure, switched the port
/// off.
fn switched_off_by_card(node: &Node<'_>, port: &NicPort) -> Option<(String, ActionCode, &'static str)> {
    port.physical_state.as_deref().filter(|state| SWITCHED_OFF_STATES.contains(state))?;
    let is_of_port = |event: &&KernelEvent| {
        let is_error = event.sub_code.as_deref() == Some("cable_error") || lost_together::stops_responding(event);
        is_error && event.pci_address.is_some() && event.pci_address == port.pci_address
    };
    let event = node.timeline.of_kind(KernelEventKind::Nic).filter(is_of_port).max_by_key(|event| event.last)?;
    Some((format!("before: {}", evidence::event(event)), ActionCode::CheckCabling, BY_CARD))
}

/// Returns the reason why a port is not active, and the action, from its physical state or its network interface.
fn why_not_active(port: &NicPort) -> Option<(String, ActionCode, &'static str)> {
    let interface = port.interface.as_ref().filter(|interface| interface.enabled == Some(false));
    if let Some(interface) = interface {
        let name = evidence::data(&interface.name);
        return Some((format!("interface {name} is switched off"), ActionCode::UpdateSoftware, SWITCHED_OFF));
    }
    let is_infiniband = port.link_layer.as_deref() == Some(INFINIBAND);
    let waits = is_infiniband && port.state.as_deref().is_some_and(|state| UNCONFIGURED.contains(&state));
    // This state is possible only with a working link.
    let physical = port.physical_state.as_deref().or(waits.then_some("LinkUp"))?;
    let (meaning, action, advice) = match physical {
        "Polling" => ("no signal from the other end", ActionCode::CheckCabling, NO_SIGNAL),
        state if SWITCHED_OFF_STATES.contains(&state) => ("switched off", ActionCode::UpdateSoftware, SWITCHED_OFF),
        "PortConfigurationTraining" | "LinkErrorRecovery" => {
            ("there is a signal, but the link does not come up", ActionCode::CheckCabling, NO_TRAINING)
        }
        "LinkUp" if waits => ("the link works", ActionCode::UpdateSoftware, NO_SUBNET_MANAGER),
        _ => return None,
    };
    let read = port.physical_state.as_deref().map(|state| format!("physical state {}: ", evidence::data(state)));
    Some((format!("{}{meaning}", read.unwrap_or_default()), action, advice))
}

/// Physical states of a port that is switched off.
const SWITCHED_OFF_STATES: [&str; 2] = ["Disabled", "Sleep"];

const BY_CARD: &str = "The card of {node} switched the port off itself, because of the fault in its kernel line in \
     the evidence. Repair this fault: follow the action of the finding about the card.";
const NO_SIGNAL: &str = "Check the port of {node} in the evidence: whether its cable is plugged in at both ends, \
     whether its transceivers work, and whether the port of the switch is on. Jobs on several nodes that use {gpu} fail or are slow.";
const SWITCHED_OFF: &str = "Find out who switched off the port of {node} in the evidence, and switch it on (ip link set up, ibportstate enable). \
     The cable is not the cause.";
const NO_TRAINING: &str =
    "Replace cable and transceiver of the port of {node} in the evidence: the link starts, but does not come up.";
const NO_SUBNET_MANAGER: &str = "Check the subnet manager (UFM, opensm) of the network of {node}: the cable works, but the port in the evidence was \
     not configured. Jobs on several nodes that use {gpu} fail or are slow.";

/// Returns whether the port has the default route of the node. The port is then used by the node.
pub(super) fn carries_default_route(port: &NicPort) -> bool {
    port.interface.as_ref().is_some_and(|interface| interface.default_route)
}

/// Returns the name of a port in evidence.
pub(super) fn name_of(port: &NicPort) -> String {
    format!("{} port {}", evidence::data(&port.device), port.port)
}

/// Applies a rule to the GPU next to a port, or to the node if the port is next to several GPUs.
pub(super) fn on_device_of(node: &Node<'_>, port: &NicPort, rule: Rule) -> Draft {
    match port.near.as_slice() {
        [near] if distance(port) == Some(0) => node.gpu(near.gpu).map(|gpu| Draft::on_gpu(rule, gpu)),
        _ => None,
    }
    .unwrap_or_else(|| Draft::on_node(rule))
}

/// Returns whether there is a port for each of several GPUs, and each GPU has the same number of ports next to it.
fn is_symmetric(node: &Node<'_>, ports: &[&NicPort]) -> bool {
    let near = |gpu: &Gpu| ports.iter().filter(|port| port.near.iter().any(|near| Some(near.gpu) == gpu.index)).count();
    let counts: Vec<usize> = node.answering().map(near).collect();
    counts.len() >= PATTERN
        && ports.len() >= counts.len()
        && counts.windows(2).all(|pair| pair[0] == pair[1])
        && counts.first().is_some_and(|count| *count > 0)
}

/// Finds rails with two link layers: each GPU has the same number of ports at its PCIe switch, and a minority of these
/// ports has another layer.
fn two_layers(node: &Node<'_>, ports: &[NicPort]) -> Option<Draft> {
    let next: Vec<&NicPort> = ports.iter().filter(|port| distance(port) == Some(0) && port.state.is_some()).collect();
    let of = |layer: &str| -> Vec<&NicPort> {
        next.iter().copied().filter(|port| port.link_layer.as_deref() == Some(layer)).collect()
    };
    let (infiniband, ethernet) = (of(INFINIBAND), of("Ethernet"));
    let few = if infiniband.len() < ethernet.len() { &infiniband } else { &ethernet };
    let is_minority = !few.is_empty() && few.len() * 2 < next.len();
    // If one layer alone provides a port for each GPU, the ports of the other layer have another purpose.
    let is_rail = is_symmetric(node, &next) && !is_symmetric(node, &infiniband) && !is_symmetric(node, &ethernet);
    let layer = few.first().and_then(|port| port.link_layer.clone()).unwrap_or_default();
    (is_minority && is_rail).then(|| {
        let names: Vec<String> = few.iter().map(|port| evidence::data(&port.device)).collect();
        let line = format!(
            "{} of {} ports at the PCIe switches of the GPUs are {layer}: {}",
            few.len(),
            next.len(),
            evidence::some(&names, 4)
        );
        Draft::on_node(TWO_LAYERS).with_evidence(line)
    })
}

pub(super) fn is_active(port: &NicPort) -> bool {
    port.state.as_deref().is_some_and(|state| state.starts_with("ACTIVE"))
}

/// Finds GPUs without a port at their PCIe switch, although almost all others have one. In a virtual machine, the
/// positions are virtual.
fn gone(node: &Node<'_>, ports: &[NicPort]) -> Vec<Draft> {
    let next = || ports.iter().filter(|port| distance(port) == Some(0)).flat_map(|port| &port.near);
    let (without, share) = lacking(node, node.answering(), |gpu| next().any(|near| Some(near.gpu) == gpu.index));
    let line = || format!("no InfiniBand or RoCE port at its PCIe switch; {share} have such a port");
    let cards = node.topology().map(|topology| topology.cards_without_ports.as_slice()).unwrap_or_default();
    let bound: Vec<String> = cards
        .iter()
        .filter(|card| card.driver.as_deref() == Some("vfio-pci"))
        .filter_map(|card| Some(format!("the card at {} is bound to vfio-pci", card.pci_address.as_ref()?.sysfs())))
        .collect();
    let draft = |gpu: &Gpu| {
        let draft = Draft::on_gpu(GONE, gpu).with_evidence(line());
        if bound.is_empty() {
            return draft;
        }
        draft.with_all_evidence(bound.clone()).with_action(ActionCode::UpdateSoftware, FOR_VIRTUAL_MACHINES)
    };
    without.into_iter().map(draft).collect()
}

const FOR_VIRTUAL_MACHINES: &str = "Bind the card in the evidence to its network driver (mlx5_core) if jobs on {node} use it. It is reserved for a virtual \
    machine now.";

/// Returns the GPUs that lack something that almost all others have, and a text with the number of the others: `7 of 8
/// GPUs`. Empty in a virtual machine.
fn lacking<'n>(
    node: &Node<'_>,
    gpus: impl Iterator<Item = &'n Gpu>,
    has: impl Fn(&&'n Gpu) -> bool,
) -> (Vec<&'n Gpu>, String) {
    let (with, without): (Vec<&Gpu>, Vec<&Gpu>) = gpus.partition(has);
    let all = with.len() + without.len();
    let is_pattern = all >= PATTERN && with.len() * 4 >= all * 3 && boards::is_bare_metal(node);
    (if is_pattern { without } else { Vec::new() }, format!("{} of {all} GPUs", with.len()))
}
