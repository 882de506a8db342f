//! The list of all tools.

use crate::settings::Mode;
use crate::tools::tool::Entry;
use crate::tools::{
    analyze_xid_errors, describe_gpu_node, diagnose_gpu_node, explain_gpu_pod, get_gpu_health, get_gpu_inventory,
    get_gpu_telemetry, get_pod_gpu_allocation, inspect_topology, kill_gpu_process, list_gpu_nodes, reset_gpu,
    snapshot_ecc,
};

/// Every tool of this mode, in the order of the list. Tools that change a node exist only in
/// operator mode.
pub fn all(mode: Mode) -> Vec<Entry> {
    let mut tools = vec![
        Entry::of::<list_gpu_nodes::ListGpuNodes>(),
        Entry::of::<diagnose_gpu_node::DiagnoseGpuNode>(),
        Entry::of::<describe_gpu_node::DescribeGpuNode>(),
        Entry::of::<get_pod_gpu_allocation::GetPodGpuAllocation>(),
        Entry::of::<get_gpu_health::GetGpuHealth>(),
        Entry::of::<get_gpu_inventory::GetGpuInventory>(),
        Entry::of::<get_gpu_telemetry::GetGpuTelemetry>(),
        Entry::of::<analyze_xid_errors::AnalyzeXidErrors>(),
        Entry::of::<explain_gpu_pod::ExplainGpuPod>(),
        Entry::of::<snapshot_ecc::SnapshotEcc>(),
        Entry::of::<inspect_topology::InspectTopology>(),
    ];
    if mode == Mode::Operator {
        tools.push(Entry::of::<kill_gpu_process::KillGpuProcess>());
        tools.push(Entry::of::<reset_gpu::ResetGpu>());
    }
    tools
}
