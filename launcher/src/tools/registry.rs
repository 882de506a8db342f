//! `all`: returns the tools of a mode, in the order in which they are listed.

use crate::settings::Mode;
use crate::tools::gpu_section::SectionTool;
use crate::tools::inspect_topology::TopologySection;
use crate::tools::snapshot_ecc::EccSection;
use crate::tools::tool::ToolEntry;
use crate::tools::{
    analyze_xid_errors, compare_gpu_nodes, describe_gpu_node, diagnose_gpu_node, explain_gpu_pod, get_gpu_health,
    get_gpu_inventory, get_gpu_telemetry, get_pod_gpu_allocation, kill_gpu_process, list_gpu_nodes, reset_gpu,
};

/// Returns every tool of this mode, in the order in which they are listed. Tools that change a node exist only in
/// operator mode.
pub fn all(mode: Mode) -> Vec<ToolEntry> {
    let mut tools = vec![
        ToolEntry::of::<list_gpu_nodes::ListGpuNodes>(),
        ToolEntry::of::<diagnose_gpu_node::DiagnoseGpuNode>(),
        ToolEntry::of::<describe_gpu_node::DescribeGpuNode>(),
        ToolEntry::of::<get_pod_gpu_allocation::GetPodGpuAllocation>(),
        ToolEntry::of::<get_gpu_health::GetGpuHealth>(),
        ToolEntry::of::<get_gpu_inventory::GetGpuInventory>(),
        ToolEntry::of::<get_gpu_telemetry::GetGpuTelemetry>(),
        ToolEntry::of::<analyze_xid_errors::AnalyzeXidErrors>(),
        ToolEntry::of::<explain_gpu_pod::ExplainGpuPod>(),
        ToolEntry::of::<SectionTool<EccSection>>(),
        ToolEntry::of::<SectionTool<TopologySection>>(),
        ToolEntry::of::<compare_gpu_nodes::CompareGpuNodes>(),
    ];
    if mode == Mode::Operator {
        tools.push(ToolEntry::of::<kill_gpu_process::KillGpuProcess>());
        tools.push(ToolEntry::of::<reset_gpu::ResetGpu>());
    }
    tools
}
