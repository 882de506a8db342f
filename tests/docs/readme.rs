//! Tests that the README shows the correct output and exit codes of `--demo` commands, lists every tool, prompt and
//! resource, and has links for hosts that start the program.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::commands::shown;
use crate::markdown::{page, root};

/// The output and the exit code of a command.
struct Ran {
    output: String,
    status: i32,
}

/// Runs the program with table output, as on a terminal.
fn run(arguments: &[String]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
    command.env_clear().env("HOME", home.path()).env("XDG_STATE_HOME", home.path()).args(arguments);
    let output = command.env("GPU_SYRINGE_OUTPUT", "table").output().unwrap();
    Ran { output: String::from_utf8(output.stdout).unwrap(), status: output.status.code().unwrap_or(-1) }
}

/// Returns whether a line of a recorded session matches a line of the output. `…` matches any text.
fn matches(shown: &str, line: &str) -> bool {
    let pieces: Vec<_> = shown.trim_end().split('…').map(regex::escape).collect();
    regex::Regex::new(&format!("^{}$", pieces.join(".*"))).unwrap().is_match(line.trim_end())
}

/// A recorded command with its output and, if shown, its exit code.
struct Recorded {
    command: String,
    output: Vec<String>,
    status: i32,
}

fn recorded() -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    for block in page("README.md").blocks.iter().filter(|block| block.language == "console") {
        let mut is_status = false;
        for line in block.text.lines() {
            match line.strip_prefix("$ ") {
                Some("echo $?") => is_status = true,
                Some(command) => {
                    is_status = false;
                    all.push(Recorded { command: command.to_owned(), output: Vec::new(), status: 0 });
                }
                None => {
                    let last = all.last_mut().unwrap();
                    if is_status {
                        last.status = line.trim().parse().unwrap();
                    } else if !line.trim().is_empty() {
                        last.output.push(line.to_owned());
                    }
                }
            }
        }
    }
    all
}

#[test]
fn the_recorded_session_is_what_the_program_prints() {
    let sessions = recorded();
    assert!(sessions.len() >= 2, "{}", sessions.len());
    for Recorded { command, output, status } in sessions {
        let words = shlex::split(&command).unwrap();
        assert_eq!(words[0], "gpu-syringe", "{command}");
        let ran = run(&words[1..]);
        assert_eq!(ran.status, status, "{command}: {}", ran.output);
        let mut lines = ran.output.lines().filter(|line| !line.trim().is_empty());
        let mut skips = false;
        for shown in &output {
            // A line that only contains `…` matches any number of lines.
            if shown.trim() == "…" {
                skips = true;
                continue;
            }
            let found = if skips {
                lines.any(|line| matches(shown, line))
            } else {
                lines.next().is_some_and(|line| matches(shown, line))
            };
            assert!(found, "{command} does not print, after the lines before it: {shown}\n{}", ran.output);
            skips = false;
        }
        assert!(skips || lines.next().is_none(), "{command} prints more:\n{}", ran.output);
    }
}

/// A command with `--demo` outside of a recorded session must have exit code 0, or the exit code in its comment.
#[test]
fn each_demo_command_of_the_readme_ends_as_it_says() {
    let mut checked = 0;
    for command in shown(&page("README.md")) {
        if !command.arguments.iter().any(|word| word == "--demo") || command.arguments.iter().any(|word| word == "mcp")
        {
            continue;
        }
        let is_recorded = recorded().iter().any(|one| shlex::split(&one.command).unwrap()[1..] == command.arguments);
        if is_recorded {
            continue;
        }
        checked += 1;
        let named = command
            .comment
            .split("exit code ")
            .nth(1)
            .and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok());
        let ran = run(&command.arguments);
        assert_eq!(ran.status, named.unwrap_or(0), "{:?}: {}", command.arguments, ran.output);
    }
    assert!(checked > 0);
}

/// The links that add the server to a host contain the configuration of the server as a parameter.
#[test]
fn the_links_for_hosts_start_the_program() {
    let config = |link: &str| {
        let (_, query) = link.split_once('?')?;
        let (_, value) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "config")?;
        Some(value.into_owned())
    };
    let links = page("README.md").links;
    let of =
        |host: &str| links.iter().find(|link| link.text.contains(host)).and_then(|link| config(&link.text)).unwrap();
    // The parameter is base64, which `ByteString` of the Kubernetes types decodes.
    let cursor: ByteString = serde_json::from_value(json!(of("cursor.com"))).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&cursor.0).unwrap(),
        json!({ "command": "gpu-syringe", "args": ["mcp"] })
    );
    let code: Value = serde_json::from_str(&of("vscode.dev")).unwrap();
    assert_eq!(code, json!({ "type": "stdio", "command": "gpu-syringe", "args": ["mcp"] }));
}

/// Sends requests to the server as an AI host does, and returns the results.
fn ask(methods: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-syringe"));
    command.env_clear().env("HOME", home.path()).env("XDG_STATE_HOME", home.path()).args(["--demo", "mcp"]);
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = server.stdin.take().unwrap();
    let client = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
    writeln!(input, "{}", json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client })).unwrap();
    writeln!(input, "{}", json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).unwrap();
    for (id, method) in (1..).zip(methods) {
        writeln!(input, "{}", json!({ "jsonrpc": "2.0", "id": id, "method": method })).unwrap();
    }
    let mut answers = vec![Value::Null; methods.len() + 1];
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    for answer in lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).take(answers.len()) {
        let id = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
        answers[id] = answer["result"].clone();
    }
    drop(input);
    server.wait().unwrap();
    answers.split_off(1)
}

#[test]
fn the_readme_names_every_tool_prompt_and_resource() {
    let answers = ask(&["tools/list", "prompts/list", "resources/list", "resources/templates/list"]);
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut names = Vec::new();
    for (answer, list, name) in
        [(0, "tools", "name"), (1, "prompts", "name"), (2, "resources", "uri"), (3, "resourceTemplates", "uriTemplate")]
    {
        let all = answers[answer][list].as_array().unwrap();
        assert!(!all.is_empty(), "{list}");
        names.extend(all.iter().map(|one| one[name].as_str().unwrap().replace("{code}", "CODE")));
    }
    let absent: Vec<_> = names.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(absent.is_empty(), "missing in the README: {absent:?}");
}

#[test]
fn a_shown_line_stands_for_the_lines_that_it_matches() {
    assert!(matches("gpu-2 via pod in … ms", "gpu-2 via pod in 12 ms"));
    assert!(matches("a … b … c", "a 1 b 2 c") && matches("begins …", "begins and goes on") && matches("same", "same "));
    assert!(!matches("a … b", "a 1 b 2") && !matches("same", "same not") && !matches("a … b", "a 1 c"));
}
