//! Modules of the tools, one file each, with their registry, their shared arguments and the steps of actions.
//! The command line has the same tools as an MCP host.

mod action_answer;
pub mod analyze_xid_errors;
pub mod common_args;
mod compare_gpu_nodes;
pub mod describe_gpu_node;
pub mod diagnose_gpu_node;
pub mod explain_gpu_pod;
pub mod get_gpu_health;
pub mod get_gpu_inventory;
pub mod get_gpu_telemetry;
pub mod get_pod_gpu_allocation;
pub mod gpu_processes;
pub mod gpu_section;
pub mod inspect_topology;
pub mod kill_gpu_process;
pub mod list_gpu_nodes;
mod nodes_of_changes;
mod one_or_many;
mod operator_action;
pub mod registry;
pub mod reset_gpu;
pub mod snapshot_ecc;
pub mod tool;

pub(crate) use common_args::node_name;
pub use common_args::{FleetArgs, NodeArgs};
pub(crate) use operator_action::MAX_ACTION_TIME;
pub use registry::all;
pub(crate) use tool::run;
pub use tool::{RenderedAnswer, Tool, ToolEntry};
