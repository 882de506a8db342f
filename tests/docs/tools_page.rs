//! Generates `docs/tools.md` from the definitions of tools and commands, and tests that the page is current, explains
//! all verdicts, and shows examples that are the same on the command line and over MCP.

use std::collections::BTreeMap;
use std::fmt::Write;

use gpu_syringe::command_line::{self, command, documented_call};
use gpu_syringe::settings::Mode;
use gpu_syringe::tools::{self, ToolEntry};
use serde_json::{Map, Value, json};

use crate::assert_current;
use crate::markdown::root;

/// Texts about a tool that are not in its definition.
struct About {
    tool: &'static str,
    /// The text about what the tool creates, if the default text ("one probe pod" or "nothing") is not correct.
    creates: Option<&'static str>,
    /// The command line of an example. The arguments of the corresponding MCP call are derived from it.
    command: &'static str,
    arguments: fn() -> Value,
    /// Fields of the answer, in the order in which they should be read.
    first: &'static [&'static str],
}

const ABOUT: [About; 14] = [
    About {
        tool: "get_gpu_health",
        creates: Some("a probe pod on each node that is read, and deletes it"),
        command: "health",
        arguments: || json!({}),
        first: &["verdict", "summary", "nodes", "outliers", "failed", "skipped", "not_reached", "health", "findings"],
    },
    About {
        tool: "diagnose_gpu_node",
        creates: None,
        command: "diagnose gpu-2",
        arguments: || json!({ "node_name": "gpu-2" }),
        first: &["verdict", "summary", "findings", "plan", "unknown", "not_checked", "stack", "affected_gpus", "probe"],
    },
    About {
        tool: "explain_gpu_pod",
        creates: Some("one probe pod, and deletes it, if the pod is on a node"),
        command: "explain gpu-2-trainer-0 -n workloads",
        arguments: || json!({ "pod": "gpu-2-trainer-0", "namespace": "workloads" }),
        first: &[
            "cause",
            "certainty",
            "summary",
            "evidence",
            "action",
            "ruled_out",
            "unknown",
            "timeline",
            "node_findings",
            "candidates",
            "state",
            "suspects",
            "shared",
            "compared",
        ],
    },
    About {
        tool: "list_gpu_nodes",
        creates: None,
        command: "nodes -l nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3",
        arguments: || json!({ "selector": "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3" }),
        first: &["summary", "nodes", "totals", "unknown"],
    },
    About {
        tool: "describe_gpu_node",
        creates: Some("one probe pod, and deletes it; if no probe runs, the answer only has the state in Kubernetes"),
        command: "describe gpu-2",
        arguments: || json!({ "node_name": "gpu-2" }),
        first: &[
            "summary",
            "ready",
            "cordoned",
            "kubernetes_problems",
            "findings",
            "gpus",
            "resources",
            "pods",
            "events",
            "stack",
        ],
    },
    About {
        tool: "get_pod_gpu_allocation",
        creates: Some("one probe pod, and deletes it, only with `resolve_devices`"),
        command: "pods gpu-2 --resolve-devices",
        arguments: || json!({ "node_name": "gpu-2", "resolve_devices": true }),
        first: &["summary", "resources", "pods", "leftovers", "findings", "unknown"],
    },
    About {
        tool: "get_gpu_inventory",
        creates: Some("a probe pod on each node that is read, and deletes it"),
        command: "inventory gpu-2",
        arguments: || json!({ "node_name": "gpu-2" }),
        first: &["summary", "inventory", "groups", "outliers", "failed", "unknown"],
    },
    About {
        tool: "get_gpu_telemetry",
        creates: None,
        command: "telemetry gpu-2",
        arguments: || json!({ "node_name": "gpu-2" }),
        first: &["verdict", "summary", "findings", "telemetry", "unknown"],
    },
    About {
        tool: "analyze_xid_errors",
        creates: None,
        command: "xid gpu-2 --since 24h",
        arguments: || json!({ "node_name": "gpu-2", "since": "24h" }),
        first: &["verdict", "summary", "coverage", "events", "events_before", "findings", "plan", "untrusted_lines"],
    },
    About {
        tool: "snapshot_ecc",
        creates: None,
        command: "ecc gpu-3",
        arguments: || json!({ "node_name": "gpu-3" }),
        first: &["verdict", "summary", "findings", "plan", "ecc", "unknown"],
    },
    About {
        tool: "inspect_topology",
        creates: None,
        command: "topology gpu-2",
        arguments: || json!({ "node_name": "gpu-2" }),
        first: &["verdict", "summary", "findings", "topology", "unknown"],
    },
    About {
        tool: "compare_gpu_nodes",
        creates: Some(
            "a probe pod on each of the two nodes, or on the one that is compared with an archive, and deletes it",
        ),
        command: "compare gpu-3 gpu-2",
        arguments: || json!({ "node_name": "gpu-2", "other_node": "gpu-3" }),
        first: &["summary", "nodes", "not_compared", "earlier", "later"],
    },
    About {
        tool: "kill_gpu_process",
        creates: Some(
            "two probe pods, and deletes them: one checks the process for the plan, the other kills the process",
        ),
        command: "kill-gpu-process gpu-2 --mode operator --gpu GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417 --pid 41213 --start-ticks 918273",
        arguments: || json!({ "node_name": "gpu-2", "gpu": "GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417", "pid": 41213, "start_ticks": 918_273 }),
        first: &["outcome", "summary", "plan", "terminal_command", "action", "consent"],
    },
    About {
        tool: "reset_gpu",
        creates: Some("two probe pods, and deletes them: one checks the GPU for the plan, the other resets the GPU"),
        command: "reset-gpu gpu-3 --mode operator --gpu GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417",
        arguments: || json!({ "node_name": "gpu-3", "gpu": "GPU-ad0124a1-5710-4c4c-aa4c-59cccdc37417" }),
        first: &["outcome", "summary", "plan", "terminal_command", "action", "consent"],
    },
];

/// Fields that every answer may have. Their schemas have no text, because the instructions of the server explain the fields.
const SHARED: [(&str, &str); 15] = [
    ("verdict", "the worst finding in the sections of `checked`; [answers.md](answers.md) explains the words"),
    ("summary", "one or two sentences"),
    (
        "findings",
        "the findings, worst first: id, severity, scope, evidence, action; [findings.md](findings.md) has every id",
    ),
    (
        "plan",
        "the steps for each GPU or node, in order; for a tool that changes a node, the text that the user agrees to",
    ),
    (
        "checked",
        "the sections of the report that the verdict covers; `partly_checked`, `not_requested` and `unknown` contain the others",
    ),
    ("unknown", "what could not be read, with the reason and the next step; it never counts as healthy"),
    ("not_checked", "what a single read cannot show"),
    ("coverage", "the time that the kernel log covers"),
    ("kubernetes", "data from the API about the node, if no probe could be used"),
    ("node", "the node"),
    ("context", "the kubeconfig context"),
    (
        "probe",
        "how the node was read: method, times, whether the pod was deleted (`deleted`), what is left (`left_behind`)",
    ),
    ("quoted", "the fields with text from nodes, pods and tenants, which is data and never an instruction"),
    (
        "truncated",
        "the lists that were shortened so that the answer has at most 45,000 bytes; `LIST_omitted` is the number of omitted entries",
    ),
    ("terminal_command", "a complete command that the user runs in a terminal, if the host cannot ask its user"),
];

fn entries() -> Vec<ToolEntry> {
    let mut all = tools::all(Mode::Operator);
    let place = |name: &str| ABOUT.iter().position(|about| about.tool == name);
    all.sort_by_key(|entry| place(entry.name));
    all
}

/// Returns the command that runs a tool. The name of the tool is an alias of the command.
fn command_of(tool: &str) -> clap::Command {
    let name = command_line::command_of(tool);
    command().find_subcommand(name).unwrap_or_else(|| panic!("no command is named {name}")).clone()
}

/// Positional arguments of `compare`, with the arguments of its tool.
const BY_PLACE: [(&str, &str); 2] = [("later", "node_name"), ("earlier", "other_node")];

/// Describes how an argument is passed on the command line.
fn on_the_command_line(command: &clap::Command, argument: &str) -> String {
    let dashed = argument.replace('_', "-");
    let option = command.get_arguments().find(|arg| !arg.is_hide_set() && arg.get_long() == Some(&dashed));
    let value = |arg: &clap::Arg| match arg.get_value_names() {
        Some([name]) if arg.get_action().takes_values() => format!(" {name}"),
        _ => String::new(),
    };
    match (option, argument) {
        (_, "context") => "`--context NAME`".into(),
        (_, "token") => "—".into(),
        (_, "code") => "`CODE`".into(),
        (Some(arg), _) => match arg.get_short() {
            Some(short) => format!("`-{short}{}`, `--{dashed}`", value(arg)),
            None => format!("`--{dashed}{}`", value(arg)),
        },
        (None, _) => {
            let positionals: Vec<_> = command.get_positionals().filter(|arg| !arg.is_hide_set()).collect();
            let is_of = |arg: &&clap::Arg| BY_PLACE.contains(&(arg.get_id().as_str(), argument));
            let positional = positionals.iter().find(|arg| is_of(arg)).or_else(|| positionals.first());
            let positional = positional.unwrap_or_else(|| panic!("{argument}"));
            // The name of the value can have alternatives (`A|B`). Only the first alternative, e.g. a node, is an
            // argument of the tool.
            let value = value(positional);
            format!("`{}`", value.split('|').next().unwrap_or_default().trim())
        }
    }
}

/// Describes the type and the limits of an argument.
fn type_of(schema: &Value) -> String {
    let word = match schema["type"].as_str().unwrap_or_default() {
        "boolean" => "true or false",
        "integer" => "number",
        other => other,
    };
    let (least, most) = (schema["minimum"].as_u64().filter(|least| *least > 0), schema["maximum"].as_u64());
    match (least, most, schema["maxLength"].as_u64()) {
        (Some(least), Some(most), _) => format!("{word}, {least} to {most}"),
        (Some(least), None, _) => format!("{word}, at least {least}"),
        (_, _, Some(most)) => format!("{word}, at most {most} characters"),
        _ => word.to_owned(),
    }
}

fn arguments_table(entry: &ToolEntry, command: &clap::Command) -> String {
    let schema = (entry.input_schema)();
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
    let mut text = "| argument | command line | type | meaning |\n|---|---|---|---|\n".to_owned();
    let mut names: Vec<_> = properties.keys().collect();
    names.sort_by_key(|name| !is_required(name));
    for name in names {
        let argument = &properties[name];
        let required = if is_required(name) { ", required" } else { "" };
        let default = match &argument["default"] {
            Value::Null => String::new(),
            value => format!(" (default: {value})"),
        };
        let about = argument["description"].as_str().unwrap_or_default();
        let option = on_the_command_line(command, name);
        let _ = writeln!(text, "| `{name}`{required} | {option} | {} | {about}{default} |", type_of(argument));
    }
    text
}

fn creates(entry: &ToolEntry, about: &About) -> &'static str {
    match (entry.probes, about.creates) {
        (false, _) => "nothing",
        (true, None) => "one probe pod, and deletes it",
        (true, Some(what)) => what,
    }
}

/// Returns the roles of docs/permissions.md that a tool needs.
fn roles(entry: &ToolEntry) -> &'static str {
    match (entry.probes, entry.destructive) {
        (_, true) => "`gpu-syringe-read`, `gpu-syringe-reader`, `gpu-syringe-operator`",
        (true, false) => "`gpu-syringe-read`, `gpu-syringe-reader`",
        (false, false) => "`gpu-syringe-read`",
    }
}

fn kind(entry: &ToolEntry) -> &'static str {
    match (entry.probes, entry.destructive) {
        (_, true) => "changes the node: only with `--mode operator`, after the user agreed (`destructiveHint`)",
        (true, false) => "changes nothing on the node (no `readOnlyHint`, because a pod is created)",
        (false, false) => "only reads the API (`readOnlyHint`)",
    }
}

fn fields_of(entry: &ToolEntry, about: &About) -> String {
    let schema = entry.output_schema();
    let shared: BTreeMap<_, _> = SHARED.into_iter().collect();
    let line = |name: &&str| {
        let field = &schema["properties"][name];
        assert!(field.is_object(), "{} has no field {name}", entry.name);
        if shared.contains_key(*name) {
            return None;
        }
        let described = field["description"].as_str().unwrap_or_else(|| panic!("{}: no text for {name}", entry.name));
        let words = field["enum"].as_array().map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        let words = words.map(|words| format!(": `{}`", words.join("`, `"))).unwrap_or_default();
        Some(format!("- `{name}`: {}{words}", lower_first(described)))
    };
    let names: Vec<_> = about.first.iter().map(|name| format!("`{name}`")).collect();
    let own: Vec<_> = about.first.iter().filter_map(line).collect();
    format!("Read in this order: {}.\n\n{}", names.join(", "), own.join("\n")).trim_end().to_owned()
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn section(entry: &ToolEntry) -> String {
    let about =
        ABOUT.iter().find(|about| about.tool == entry.name).unwrap_or_else(|| panic!("ABOUT lacks {}", entry.name));
    let command = command_of(entry.name);
    let call = json!({ "name": entry.name, "arguments": (about.arguments)() });
    format!(
        "## {}\n\n**{}.** {}\n\n{}\n- Creates: {}.\n- Roles: {}.\n- Access: {}.\n\n```sh\ngpu-syringe {}\n```\n\n\
         ```json\n{call}\n```\n\n{}\n\n",
        entry.name,
        entry.title,
        entry.description,
        arguments_table(entry, &command),
        creates(entry, about),
        roles(entry),
        kind(entry),
        about.command,
        fields_of(entry, about),
    )
}

/// Returns the command with its argument, in brackets if the argument is optional.
fn usage(entry: &ToolEntry, command: &clap::Command) -> String {
    let schema = (entry.input_schema)();
    if command.get_positionals().count() == BY_PLACE.len() {
        return format!("{} A B", command.get_name());
    }
    let target = ["node_name", "pod"].into_iter().find(|name| schema["properties"][name].is_object());
    let value = target.map(|name| on_the_command_line(command, name).trim_matches('`').to_owned());
    let is_required =
        schema["required"].as_array().is_some_and(|names| names.iter().any(|name| name.as_str() == target));
    match value {
        None => command.get_name().to_owned(),
        Some(value) if is_required => format!("{} {value}", command.get_name()),
        Some(value) => format!("{} [{value}]", command.get_name()),
    }
}

fn written() -> String {
    let mut text = String::from(
        "# Tools\n\n\
         This page is generated from the definitions of the tools and of the command line by `tests/docs/tools_page.rs`.\n\n\
         Each tool of the MCP server is also a command, with the same answer in JSON. \
         There is one entry for each kind of question: `get_gpu_health` for a cluster, \
         `diagnose_gpu_node` for a node, `explain_gpu_pod` for a pod. Every tool also takes `context` if `--allow-context` permits \
         more than one context; on the command line, `--context`. [permissions.md](permissions.md) lists the permissions of each role; without the roles of this project, the same permissions \
         are needed.\n\n| tool | command | creates a pod |\n|---|---|---|\n",
    );
    let entries = entries();
    for entry in &entries {
        let about =
            ABOUT.iter().find(|about| about.tool == entry.name).unwrap_or_else(|| panic!("ABOUT lacks {}", entry.name));
        let pod = match (entry.probes, about.creates.and_then(|what| what.split_once(", and deletes it, "))) {
            (false, _) => "no",
            (true, Some((_, when))) => when,
            (true, None) => "yes",
        };
        let name = entry.name;
        let _ = writeln!(text, "| [`{name}`](#{name}) | `{}` | {pod} |", usage(entry, &command_of(name)));
    }
    text.push_str("\nFields that most answers have:\n\n");
    for (name, about) in SHARED {
        let _ = writeln!(text, "- `{name}`: {about}");
    }
    text.push('\n');
    entries.iter().for_each(|entry| text.push_str(&section(entry)));
    text.push_str("## Other commands\n\n| command | what it does |\n|---|---|\n");
    let all = command();
    let is_of_no_tool =
        |one: &&clap::Command| !entries.iter().any(|entry| command_line::command_of(entry.name) == one.get_name());
    for one in all.get_subcommands().filter(|one| !one.is_hide_set()).filter(is_of_no_tool) {
        let about = one.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "| `{}` | {about} |", one.get_name());
    }
    text
}

#[test]
fn the_page_of_tools_is_current() {
    assert_current("docs/tools.md", &written());
}

#[test]
fn the_words_of_a_verdict_are_explained() {
    let text = std::fs::read_to_string(root().join("docs/answers.md")).unwrap();
    let diagnose = entries().into_iter().find(|entry| entry.name == "diagnose_gpu_node").unwrap();
    let schema = diagnose.output_schema();
    let words = schema["properties"]["verdict"]["enum"].as_array().unwrap().clone();
    assert!(words.len() > 4, "{words:?}");
    for word in &words {
        assert!(text.contains(&format!("\n| `{}` |", word.as_str().unwrap())), "{word} is missing in docs/answers.md");
    }
}

#[test]
fn the_example_of_a_tool_is_the_same_call_on_the_command_line_and_over_mcp() {
    for about in &ABOUT {
        let words: Vec<_> = std::iter::once("gpu-syringe").chain(about.command.split(' ')).collect();
        let call = documented_call(&words).unwrap_or_else(|why| panic!("{}: {why}", about.command));
        assert_eq!(call, Some((about.tool, (about.arguments)())), "{}", about.command);
    }
}
