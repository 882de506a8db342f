//! `command_of`: the name of the command that runs a tool, for the command line, next steps and printed commands.

/// The command of each tool.
const COMMANDS: [(&str, &str); 13] = [
    ("list_gpu_nodes", "nodes"),
    ("get_gpu_health", "health"),
    ("get_gpu_inventory", "inventory"),
    ("diagnose_gpu_node", "diagnose"),
    ("describe_gpu_node", "describe"),
    ("analyze_xid_errors", "xid"),
    ("get_gpu_telemetry", "telemetry"),
    ("snapshot_ecc", "ecc"),
    ("inspect_topology", "topology"),
    ("explain_gpu_pod", "explain"),
    ("get_pod_gpu_allocation", "pods"),
    ("kill_gpu_process", "kill-gpu-process"),
    ("reset_gpu", "reset-gpu"),
];

/// Returns the command of a tool: `diagnose` for `diagnose_gpu_node`.
pub fn command_of(tool: &str) -> &str {
    COMMANDS.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, command)| command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;

    #[test]
    fn every_tool_has_a_command() {
        let tools = crate::tools::all(Mode::Operator);
        assert_eq!(tools.len(), COMMANDS.len());
        for tool in tools {
            assert!(COMMANDS.iter().any(|(name, _)| *name == tool.name), "{}", tool.name);
        }
    }
}
