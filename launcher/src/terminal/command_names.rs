//! `command_of`: the command of a tool. `with_commands`: replaces the names of tools in a text with their commands.
//!
//! Texts contain names of tools, because most texts are read by models. For a person, this module replaces these names
//! with commands when a text is printed.

use std::borrow::Cow;

/// The command of each tool.
pub(crate) const COMMANDS: [(&str, &str); 14] = [
    ("list_gpu_nodes", "nodes"),
    ("get_gpu_health", "health"),
    ("get_gpu_inventory", "inventory"),
    ("diagnose_gpu_node", "diagnose"),
    ("describe_gpu_node", "describe"),
    ("analyze_xid_errors", "xid"),
    ("get_gpu_telemetry", "telemetry"),
    ("snapshot_ecc", "ecc"),
    ("inspect_topology", "topology"),
    ("compare_gpu_nodes", "compare"),
    ("explain_gpu_pod", "explain"),
    ("get_pod_gpu_allocation", "pods"),
    ("kill_gpu_process", "kill-gpu-process"),
    ("reset_gpu", "reset-gpu"),
];

/// Returns the command of a tool: `diagnose` for `diagnose_gpu_node`.
pub fn command_of(tool: &str) -> &str {
    COMMANDS.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, command)| command)
}

/// Words after `TOOL for` that are not the name of a node.
const NO_NAMES: [&str; 5] = ["a", "an", "it", "the", "this"];

/// Returns the text with a command in place of each tool name: `gpu-syringe diagnose gpu-2` for `diagnose_gpu_node for
/// gpu-2`. In each line, the text from the first to the last quotation mark is not changed, because it is third-party
/// text.
pub(crate) fn with_commands(text: &str) -> Cow<'_, str> {
    if !text.contains('"') {
        return replaced(text);
    }
    let of_line = |line: &str| match (line.find('"'), line.rfind('"')) {
        (Some(first), Some(last)) => {
            format!("{}{}{}", replaced(&line[..first]), &line[first..last], replaced(&line[last..]))
        }
        _ => replaced(line).into_owned(),
    };
    Cow::Owned(text.split_inclusive('\n').map(of_line).collect())
}

fn replaced(text: &str) -> Cow<'_, str> {
    let mut rest = text;
    let mut result = String::new();
    while let Some((start, end, command)) = first_tool(rest) {
        result.push_str(&rest[..start]);
        if !result.ends_with("gpu-syringe ") {
            result.push_str("gpu-syringe ");
        }
        result.push_str(command);
        rest = &rest[end..];
        if let Some((name, after)) = node_after(rest) {
            result.push_str(&format!(" {name}"));
            rest = after;
        }
    }
    if result.is_empty() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(result + rest)
}

/// Returns the start and end of the first name of a tool in a text, and the command of the tool.
fn first_tool(text: &str) -> Option<(usize, usize, &'static str)> {
    let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let found = |(tool, command): &(&'static str, &'static str)| {
        let is_word = |start: &usize| {
            let (before, after) = (&text[..*start], &text[start + tool.len()..]);
            !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
        };
        let start = text.match_indices(tool).map(|(start, _)| start).find(is_word)?;
        Some((start, start + tool.len(), *command))
    };
    COMMANDS.iter().filter_map(found).min()
}

/// Returns the node in `… for NODE` or `… for node NODE`, and the text after it. `None` for several nodes.
fn node_after(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix(" for ")?;
    let text = text.strip_prefix("node ").unwrap_or(text);
    let end =
        text.find(|letter: char| !(letter.is_ascii_alphanumeric() || "-.".contains(letter))).unwrap_or(text.len());
    let name = text[..end].trim_end_matches('.');
    let after = &text[name.len()..];
    (!name.is_empty() && !NO_NAMES.contains(&name) && !after.starts_with(',')).then_some((name, after))
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

    #[test]
    fn the_name_of_a_tool_is_its_command() {
        let program = crate::args::command();
        for (tool, command) in COMMANDS {
            assert_eq!(program.find_subcommand(tool).map(clap::Command::get_name), Some(command), "{tool}");
        }
    }

    #[test]
    fn a_text_for_people_names_commands() {
        for (text, expected) in [
            ("Run list_gpu_nodes to see them.", "Run gpu-syringe nodes to see them."),
            ("run diagnose_gpu_node for node gpu-1 and compare", "run gpu-syringe diagnose gpu-1 and compare"),
            ("(diagnose_gpu_node for the node returns it)", "(gpu-syringe diagnose for the node returns it)"),
            ("diagnose_gpu_node for a.b, c", "gpu-syringe diagnose for a.b, c"),
            ("See snapshot_ecc for gpu-1.", "See gpu-syringe ecc gpu-1."),
            ("the code drain_and_reset_gpu stays", "the code drain_and_reset_gpu stays"),
        ] {
            assert_eq!(with_commands(text), expected);
        }
    }
}
