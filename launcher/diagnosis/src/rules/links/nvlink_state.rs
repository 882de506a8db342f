//! Rules about the current state of NVLink and fabric: links that are down, error counters, registration.
//!
//! NVML lists more links than a board uses, so "inactive" alone is no fault. The other GPUs of the node show how many
//! links should be up.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::boards;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, FABRIC_DOC, XID_DOC, rules};
use crate::rules::links::fabric_manager;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::topology::{Fabric, GpuTopology, NvlinkGroup};

rules! {
    DOWN: "nvlink-down" Critical Fabric FABRIC_DOC, "NVLinks are down",
        DrainAndReset "Drain {node} and reset {gpu}. If the same links stay down, check board and cables.",
        means "Some NVLinks of this GPU are down, although these links are up on other GPUs of the model, or the board \
            of this model uses them.",
        reads "topology.nvlinks", in_plan WorkContinues;
    UNBRIDGED: "nvlink-bridge-not-working" Info Fabric FABRIC_DOC, "No NVLink of a card is up, but other cards have a bridge",
        CheckCabling "No action if {gpu} of {node} has no NVLink bridge. Otherwise check the seating of the bridge: the bridges of other cards work.",
        means "No NVLink of a card is up, but cards of the same model are connected by a bridge. The card has no bridge, or its bridge does not \
            work.",
        reads "topology.nvlinks, inventory.name", in_plan WorkContinues;
    SLOW: "nvlink-slow" Warning Fabric FABRIC_DOC, "Some NVLinks of a GPU are slower than its other NVLinks",
        CheckCabling "Reset {gpu} of {node} at the next drain. If the same links stay slow, check the board and its cables: jobs on several GPUs \
            wait for the slowest link.",
        means "Some active NVLinks of a GPU run at a lower speed than most of its links.",
        reads "topology.nvlinks", in_plan WorkContinues;
    ERRORS: "nvlink-errors" Warning Fabric XID_DOC, "High NVLink error counters",
        Watch "Read the counters of {gpu} again later: only growing counters indicate a fault. If they grow, check \
            seating and cables.",
        means "The error counters of some NVLinks are far above those of the other links of the GPU, or count severe \
            errors.",
        reads "topology.nvlinks";
    COUNTED: "nvlink-errors-counted" Info Fabric XID_DOC, "NVLink errors were counted and recovered",
        None "No action now: these are totals since the driver was loaded. If NCCL is slow, read the counters of {gpu} \
            again and compare.",
        means "NVLink counted errors from which it recovered.",
        reads "topology.nvlinks";
    NOT_REGISTERED: "fabric-not-registered" Critical Fabric FABRIC_DOC,
        "GPU is not registered with the NVSwitch fabric",
        UpdateSoftware "Restart Fabric Manager on {node} (on racks: IMEX and the NVLink manager), in the version of \
            the driver. CUDA cannot start on {gpu}.",
        means "The GPU is not registered with the NVSwitch fabric. CUDA cannot initialize on it (error 802).",
        reads "topology.fabric, host.rdma_modules_missing", in_plan ComesFirst;
    UNHEALTHY: "fabric-unhealthy" Critical Fabric FABRIC_DOC, "The fabric reports problems for the GPU",
        CheckCabling "Drain {node}. Check its NVSwitch trays, cables and fabric configuration, then reset {gpu}.",
        means "The fabric reports a problem for the GPU: degraded bandwidth, a route, or its configuration.",
        reads "topology.fabric";
    LIMITED: "fabric-limited" Warning Fabric FABRIC_DOC, "The fabric has limited capacity",
        CheckCabling "Check the NVLinks of {gpu} on {node} at the next maintenance. The bandwidth is reduced.",
        means "The fabric works, but with reduced capacity.",
        reads "topology.fabric";
}

/// A count is high if it is at least this many times the count of the other links, and at least the minimum below.
const OUTLIER_TIMES: u64 = 10;
const OUTLIER_LEAST: u64 = 100;

/// The fabric of a node that booted less than this ago may still be starting.
const STARTING_SECONDS: u64 = 600;

/// Counters for which one error is too many: the link was retrained, or retraining failed.
const SEVERE_COUNTERS: [&str; 4] = ["recovery", "link_recovery_failed", "ecc", "malformed_packets"];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in node.answering() {
        let Some(topology) = node.topology_of(gpu) else { continue };
        drafts.extend(down(node, gpu, topology));
        drafts.extend(slow(gpu, topology));
        drafts.extend(counters(gpu, topology));
        let switched = on_switch(topology) || node.topology().is_some_and(|all| !all.nvswitches.is_empty());
        drafts.extend(topology.fabric.as_ref().and_then(|fabric| registration(node, gpu, fabric, switched)));
    }
    drafts
}

pub(super) fn links_are_down(node: &Node<'_>, gpu: &Gpu) -> bool {
    let draft = node.topology_of(gpu).and_then(|topology| down(node, gpu, topology));
    draft.is_some_and(|draft| draft.severity > Severity::Info)
}

pub(super) fn links_are_up(node: &Node<'_>, gpu: &Gpu) -> bool {
    node.topology_of(gpu).is_some_and(|topology| down(node, gpu, topology).is_none() && active(topology) > 0)
}

fn active(topology: &GpuTopology) -> u32 {
    let groups = topology.nvlinks.iter().filter(|group| group.active == Some(true));
    u32::try_from(groups.map(|group| group.links.len()).sum::<usize>()).unwrap_or(0)
}

/// Returns whether the links of this GPU model lead to switches: NVSwitches are on the PCI bus, or a GPU of this model
/// has a link to a switch, is registered with the fabric, or has active NVLink 5 links (NVLink 5 requires switches; on
/// racks, they are not on the PCI bus of the node). A GPU on which all links are down shows none of these signs itself.
fn is_switched(node: &Node<'_>, gpu: &Gpu) -> bool {
    let siblings =
        || node.answering().filter(|other| other.name == gpu.name).filter_map(|other| node.topology_of(other));
    let registered = |topology: &GpuTopology| {
        topology
            .fabric
            .as_ref()
            .is_some_and(|fabric| fabric.state == "completed" && fabric.status.as_deref() != Some("not_supported"))
    };
    let nvlink_5 = |topology: &GpuTopology| {
        topology
            .nvlinks
            .iter()
            .any(|group| group.active == Some(true) && group.version.is_some_and(|version| version >= 5))
    };
    node.topology().is_some_and(|all| !all.nvswitches.is_empty())
        || siblings().any(|topology| on_switch(topology) || registered(topology) || nvlink_5(topology))
}

/// Returns whether the GPU is one of several on a board that connects its GPUs by NVLink.
fn is_on_board(node: &Node<'_>, gpu: &Gpu) -> bool {
    boards::of(gpu).is_some() && boards::is_bare_metal(node) && node.answering().count() > 1
}

fn on_switch(topology: &GpuTopology) -> bool {
    topology.nvlinks.iter().any(|group| group.remote_type.as_deref() == Some("switch"))
}

/// Returns a finding if fewer links are up than on the other GPUs, or than an NVSwitch board uses.
fn down(node: &Node<'_>, gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let up = active(topology);
    let listed: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let siblings = node.answering().filter(|other| other.name == gpu.name).filter_map(|other| node.topology_of(other));
    let most = siblings.map(active).max().unwrap_or(up);
    let wired = boards::of(gpu).map_or(0, |board| board.links);
    let has_switches = is_switched(node, gpu) || is_on_board(node, gpu);
    let wired = if has_switches { wired.min(u32::try_from(listed).unwrap_or(0)) } else { 0 };
    let expected = most.max(wired);
    let silent: Vec<u32> = topology
        .nvlinks
        .iter()
        .filter(|group| group.active == Some(false))
        .flat_map(|group| group.links.iter().copied())
        .collect();
    // No link is up and there are no switches: a card without a bridge, or with a bridge that does not work.
    let unbridged = up == 0 && !has_switches;
    // MIG mode disables the links of an A100.
    let cut = node.inventory_of(gpu).and_then(|inventory| inventory.mig_mode).is_some_and(|mode| mode.current);
    if up >= expected || silent.is_empty() || cut {
        return None;
    }
    let mut links = silent;
    links.sort_unstable();
    let evidence = format!("{up} of {expected} NVLinks up; inactive: {}", evidence::ranges(&links));
    if unbridged {
        // A card without a bridge and a card with a broken bridge report the same facts.
        return Some(Draft::on_gpu(UNBRIDGED, gpu).with_evidence(evidence));
    }
    let severity = if has_switches { Severity::Critical } else { Severity::Warning };
    let draft = Draft::on_gpu(DOWN, gpu).with_severity(severity).with_evidence(evidence);
    Some(match waits_for_manager(node, topology) {
        false => draft,
        true => draft
            .with_evidence("no link of any GPU is up, and the fabric is not started")
            .with_action(ActionCode::UpdateSoftware, LATER),
    })
}

/// Action for links that are down because nothing has started the fabric.
const LATER: &str = "No reset now: the fabric starts the NVLinks of {gpu} on {node}. Start it first (see the finding about Fabric Manager or \
                     the registration), then run this diagnosis again; reset {gpu} only if links are still down.";

/// Returns whether no link of any GPU is up and the GPU is not registered with the fabric: then the links are down because
/// nothing manages the fabric.
fn waits_for_manager(node: &Node<'_>, topology: &GpuTopology) -> bool {
    let all_down = node.answering().all(|gpu| node.topology_of(gpu).is_some_and(|topology| active(topology) == 0));
    let is_registered = topology.fabric.as_ref().is_some_and(|fabric| fabric.state == "completed");
    let waits =
        topology.fabric.as_ref().is_some_and(|fabric| fabric.state == "in_progress" || fabric.state == "not_started");
    all_down && !is_registered && (waits || fabric_manager::fabric_manager(node).is_some())
}

/// Returns a finding if some active links are slower than most.
fn slow(gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let usual = boards::usual_link_speed(topology)?;
    let is_slow = |group: &&NvlinkGroup| {
        group.active == Some(true) && group.speed_megabytes_per_second.is_some_and(|speed| speed < usual)
    };
    let line = |group: &NvlinkGroup| {
        let speed = group.speed_megabytes_per_second.unwrap_or_default();
        format!("links {}: {speed} MB/s, the others {usual} MB/s", evidence::ranges(&group.links))
    };
    let lines: Vec<String> = topology.nvlinks.iter().filter(is_slow).map(line).collect();
    (!lines.is_empty()).then(|| Draft::on_gpu(SLOW, gpu).with_all_evidence(lines))
}

/// Checks totals since the driver was loaded. One reading does not show whether they grow, so only severe or outlying
/// counters are a finding.
fn counters(gpu: &Gpu, topology: &GpuTopology) -> Option<Draft> {
    let mut by_name: BTreeMap<&str, Vec<(u64, &NvlinkGroup)>> = BTreeMap::new();
    for group in &topology.nvlinks {
        for (name, &count) in group.errors.iter().filter(|(_, count)| **count > 0) {
            by_name.entry(name).or_default().push((count, group));
        }
    }
    let links: usize = topology.nvlinks.iter().map(|group| group.links.len()).sum();
    let mut severe = Vec::new();
    let mut counted = Vec::new();
    for (name, groups) in by_name {
        // Corrected errors, which are normal on NVLink 5.
        let is_fec = name.split('_').any(|word| word.starts_with("fec"));
        if is_fec || name.contains("symbol") || name.ends_with("successful") || name.contains("ber") {
            continue;
        }
        let total: u64 = groups.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count));
        let worst = groups.iter().max_by_key(|(count, _)| *count);
        let Some((count, group)) = worst else { continue };
        let others = total.saturating_sub(*count) / u64::try_from(links.saturating_sub(1)).unwrap_or(0).max(1);
        // The effective errors of all links are one counter.
        let of_all = name.starts_with("effective") && group.links.len() == links;
        let outlier = !of_all && *count >= OUTLIER_LEAST && *count >= others.saturating_mul(OUTLIER_TIMES);
        let words = format!("{}: {count} on links {}", evidence::data(name), evidence::ranges(&group.links));
        if SEVERE_COUNTERS.contains(&name) || outlier {
            severe.push(words);
        } else {
            counted.push(words);
        }
    }
    match (severe.is_empty(), counted.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Draft::on_gpu(COUNTED, gpu).with_all_evidence(counted)),
        (false, _) => Some(Draft::on_gpu(ERRORS, gpu).with_all_evidence(severe).with_evidence("since driver load")),
    }
}

/// Action for a fabric whose configuration is the only problem.
const MISCONFIGURED: &str = "Drain {node}. Compare its fabric configuration with that of the other nodes (Fabric Manager or the NVLink manager of \
                             the rack: partitions, topology, versions), correct it, then reset {gpu}.";

/// Kinds of an incorrect configuration of the fabric: NVML's name, meaning, action.
const MISCONFIGURATIONS: [(&str, &str, ActionCode, &str); 7] = [
    (
        "incorrect_sysguid",
        "the system GUID of the GPU is not the one that the fabric expects",
        ActionCode::UpdateSoftware,
        MISCONFIGURED,
    ),
    (
        "incorrect_chassis_sn",
        "the serial number of the chassis is not the one that the fabric expects",
        ActionCode::UpdateSoftware,
        MISCONFIGURED,
    ),
    (
        "no_partition",
        "the GPU is in no partition of the fabric",
        ActionCode::UpdateSoftware,
        "Put {gpu} of {node} into a partition (Fabric Manager or the NVLink manager of the rack): the fabric gives it no NVLinks before.",
    ),
    (
        "insufficient_nvlinks",
        "too few NVLinks of the GPU are up",
        ActionCode::CheckCabling,
        "Drain {node}. Check the NVLinks of {gpu} (cables, switch trays, the finding about links that are down), then reset {gpu}.",
    ),
    (
        "incompatible_gpu_fw",
        "the firmware of the GPU does not fit the fabric",
        ActionCode::UpdateSoftware,
        "Drain {node}. Update the firmware of {gpu} to the version that the software of the switches requires, then reset {gpu}.",
    ),
    (
        "invalid_location",
        "the GPU is at a position that the fabric does not have",
        ActionCode::CheckCabling,
        "Drain {node}. Compare the slot and tray of {gpu} with the topology file of the rack, then reset {gpu}.",
    ),
    (
        "gpu_state_invalid",
        "the GPU is in a state in which it cannot join the fabric",
        ActionCode::DrainAndReset,
        "Drain {node} and reset {gpu}.",
    ),
];

/// Adds what NVML says about an incorrect configuration.
fn with_configuration(draft: Draft, fabric: &Fabric) -> Draft {
    let only = fabric.health_issues.as_slice() == ["incorrect_configuration"];
    let Some(name) = fabric.misconfiguration.as_deref() else {
        return if only { draft.with_action(ActionCode::UpdateSoftware, MISCONFIGURED) } else { draft };
    };
    let kind = MISCONFIGURATIONS.iter().find(|(kind, ..)| *kind == name);
    let (reason, action, advice) = match kind {
        Some((_, reason, action, advice)) => (Some((*reason).to_owned()), *action, *advice),
        None => (None, ActionCode::UpdateSoftware, MISCONFIGURED),
    };
    let draft = draft.with_evidence(format!("configuration: {}", evidence::data(name)));
    if only { Draft { reason, ..draft }.with_action(action, advice) } else { draft }
}

/// Action for a GPU that cannot register because modules with which the switches are managed are not loaded.
const MODULES: &str = "Load mlx5_ib and ib_umad on {node} (modprobe), and let them load before the driver; then restart Fabric Manager. \
                       It manages the NVSwitches of this board through network cards. CUDA cannot start on {gpu}.";

/// Adds the modules that are missing, if the NVSwitches of the board are managed through network cards.
fn with_modules(draft: Draft, node: &Node<'_>) -> Draft {
    let needed = ["mlx5_ib", "ib_umad"];
    let missing = node.host().into_iter().flat_map(|host| &host.rdma_modules_missing);
    let missing: Vec<&str> = missing.map(String::as_str).filter(|module| needed.contains(module)).collect();
    let by_cards = boards::of_node(node).and_then(|board| board.switches_of(boards::count(node))) == Some(0);
    if missing.is_empty() || !by_cards {
        return draft;
    }
    let reason = format!("Fabric Manager does not reach the NVSwitches: {} not loaded", missing.join(" and "));
    Draft { reason: Some(reason), ..draft }
        .with_evidence(format!("kernel modules not loaded: {}", missing.join(", ")))
        .with_action(ActionCode::UpdateSoftware, MODULES)
}

/// Checks the registration with the fabric. `switched`: whether there is a switch to register with. On a single GPU in a
/// virtual machine, registration never starts.
fn registration(node: &Node<'_>, gpu: &Gpu, fabric: &Fabric, switched: bool) -> Option<Draft> {
    let Fabric { state, status, health, health_issues, .. } = fabric;
    let failed = status.as_deref().filter(|status| !matches!(*status, "success" | "not_supported"));
    let fault = match state.as_str() {
        "not_started" if !switched => None,
        "in_progress" | "not_started" => Some(format!("fabric state: {}", evidence::data(state))),
        "completed" => failed.map(|status| format!("fabric registration failed: {}", evidence::data(status))),
        _ => None,
    };
    if let Some(fault) = fault {
        // Without Fabric Manager no GPU can register; `fabric_manager` reports this.
        let managed = fabric_manager::fabric_manager(node).is_none();
        let draft = Draft::on_gpu(NOT_REGISTERED, gpu).with_evidence(fault);
        let up = node.host().and_then(|host| host.uptime_seconds).filter(|up| *up < STARTING_SECONDS);
        let draft = match up.filter(|_| state == "in_progress") {
            Some(up) => {
                draft.with_severity(Severity::Warning).with_evidence(format!("the node booted {up} s ago")).with_action(
                    ActionCode::Watch,
                    "Wait some minutes and run this diagnosis of {node} again: {gpu} may still be registering.",
                )
            }
            None => with_modules(draft, node),
        };
        return managed.then_some(draft);
    }
    let issues = evidence::names(health_issues, 6);
    let evidence = |health: &str| format!("fabric health: {health} {issues}").trim_end().to_owned();
    match health.as_deref() {
        Some("unhealthy") => {
            let draft = Draft::on_gpu(UNHEALTHY, gpu).with_evidence(evidence("unhealthy"));
            Some(with_configuration(draft, fabric))
        }
        Some("limited_capacity") => {
            let draft = Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("limited capacity"));
            Some(with_configuration(draft, fabric))
        }
        _ if !issues.is_empty() => {
            Some(with_configuration(Draft::on_gpu(LIMITED, gpu).with_evidence(evidence("issues:")), fabric))
        }
        _ => None,
    }
}
