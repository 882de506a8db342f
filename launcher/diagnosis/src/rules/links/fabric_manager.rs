//! Rule about nodes with NVSwitches on which Fabric Manager is not running.

use crate::evidence;
use crate::input::boards;
use crate::input::node::Node;
use crate::rule::{Draft, FABRIC_DOC, rules};
use syringe_core::classification::Severity;

rules! {
    NO_FABRIC_MANAGER: "fabric-manager-not-running" Critical Fabric FABRIC_DOC,
        "Fabric Manager is not running on an NVSwitch system",
        UpdateSoftware "Start nvidia-fabricmanager on {node}, in the version of the driver. CUDA cannot start on GPUs \
            that are not registered.",
        means "The board has NVSwitches, but Fabric Manager is not running. CUDA cannot initialize on the GPUs.",
        reads "topology.nvswitches, topology.fabric, host.daemons, inventory.name", in_plan ComesFirst;
    NO_IMEX: "imex-not-running" Info Fabric IMEX_DOC, "IMEX is not running on a node of an NVLink rack",
        Watch "No action for jobs on {node} alone. For jobs on several nodes of the rack, start nvidia-imex there (nvidia-imex-ctl -N shows \
            the domain), unless a ComputeDomain of the DRA driver starts it for each job.",
        means "The GPUs are registered with the fabric of a rack, and the IMEX daemon of the node is not running: programs cannot share GPU \
            memory with other nodes.",
        reads "topology.fabric, host.daemons", about Workload;
}

/// NVIDIA's guide to IMEX.
const IMEX_DOC: Option<&str> = Some("https://docs.nvidia.com/multi-node-nvlink-systems/imex-guide/");

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    fabric_manager(node).into_iter().chain(imex(node)).collect()
}

/// Returns a finding if GPUs belong to the fabric of several nodes, and the daemon that exports memory to them does not run.
fn imex(node: &Node<'_>) -> Option<Draft> {
    let cliques = node.topology()?.gpus.iter().filter_map(|gpu| gpu.fabric.as_ref());
    let of_rack = cliques.filter(|fabric| fabric.cluster_uuid.is_some() && fabric.state == "completed").count();
    let line = format!("{} in the fabric of a cluster; nvidia-imex is not running", evidence::count(of_rack, "GPU"));
    (of_rack > 0 && node.host()?.daemons.imex == Some(false)).then(|| Draft::on_node(NO_IMEX).with_evidence(line))
}

/// Boards with NVSwitches need Fabric Manager on the node, even if the NVSwitches are not on the PCI bus (HGX B200). On
/// racks (GB200), Fabric Manager runs elsewhere.
pub(super) fn fabric_manager(node: &Node<'_>) -> Option<Draft> {
    let (topology, host) = (node.topology()?, node.host()?);
    let on_board = boards::of_node(node).and_then(|board| board.switches_of(boards::count(node)));
    if (topology.nvswitches.is_empty() && on_board.is_none()) || host.daemons.fabric_manager != Some(false) {
        return None;
    }
    let states: Vec<&str> = topology.gpus.iter().filter_map(|gpu| Some(gpu.fabric.as_ref()?.state.as_str())).collect();
    let registered = !states.is_empty() && states.iter().all(|state| *state == "completed");
    let switches = match topology.nvswitches.len() {
        0 => "the board has NVSwitches".to_owned(),
        switches => format!("{switches} NVSwitches on PCI"),
    };
    let draft = Draft::on_node(NO_FABRIC_MANAGER).with_evidence(format!("{switches}; nv-fabricmanager is not running"));
    Some(if registered {
        // Running work continues, but a GPU cannot be used again after a reset.
        draft.with_severity(Severity::Warning).with_evidence("all GPUs are still registered with the fabric")
    } else {
        let waiting = states.iter().filter(|state| **state != "completed").count();
        draft.with_all_evidence(
            (waiting > 0).then(|| format!("{} not registered with the fabric", evidence::count(waiting, "GPU"))),
        )
    })
}
