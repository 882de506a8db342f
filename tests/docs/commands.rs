//! Tests that the commands and MCP host configurations in the documents are valid. `shown`: finds the commands in a
//! page.

use clap::error::ErrorKind;
use gpu_syringe::command_line::documented_call;
use serde_json::Value;
use syringe_core::section_name::SectionName;

use crate::markdown::{Block, Page, pages};

/// The placeholders for a digest in the documents.
const DIGESTS: [&str; 3] = ["$(cat digest)", "sha256:DIGEST", "sha256:…"];
/// Words that end the arguments of a program on a command line.
const ENDS: [&str; 7] = ["|", "||", "&&", ";", ">", "2>", "<"];

/// A command of gpu-syringe in a document.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) page: String,
    pub(crate) line: usize,
    /// Arguments, without the program.
    pub(crate) arguments: Vec<String>,
    /// The comment after the command.
    pub(crate) comment: String,
}

/// Returns the commands in the code blocks of a page.
pub(crate) fn shown(page: &Page) -> Vec<Shown> {
    let of_block = |block: &Block| {
        let joined = block.text.replace("\\\n", " ");
        let lines: Vec<_> = joined.lines().map(str::to_owned).collect();
        let is_console = block.language == "console";
        let commands = lines
            .into_iter()
            .filter_map(move |line| if is_console { Some(line.strip_prefix("$ ")?.to_owned()) } else { Some(line) });
        commands.filter_map(|line| of_line(page, block.line, &line)).collect::<Vec<_>>()
    };
    let shells = ["", "console", "sh", "bash"];
    page.blocks.iter().filter(|block| shells.contains(&block.language.as_str())).flat_map(of_block).collect()
}

fn of_line(page: &Page, line: usize, text: &str) -> Option<Shown> {
    let (text, comment) = text.split_once(" # ").unwrap_or((text, ""));
    let arguments = arguments_of(text.trim())?;
    Some(Shown { page: page.path.clone(), line, arguments, comment: comment.to_owned() })
}

/// Replaces the placeholders for a digest with a digest.
pub(crate) fn with_digests(text: &str) -> String {
    let digest = format!("sha256:{}", "0".repeat(64));
    DIGESTS.iter().fold(text.to_owned(), |text, placeholder| text.replace(placeholder, &digest))
}

/// Returns the arguments of gpu-syringe on a command line, even if another program starts gpu-syringe.
fn arguments_of(line: &str) -> Option<Vec<String>> {
    let words = shlex::split(&with_digests(line))?;
    let ends = words.iter().position(|word| ENDS.contains(&word.as_str())).unwrap_or(words.len());
    let mut words = &words[..ends];
    let is_assignment = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    while words.first().is_some_and(is_assignment) {
        words = &words[1..];
    }
    let is_ours = |word: &String| word.rsplit('/').next() == Some("gpu-syringe");
    let after_dashes = || words.iter().position(|word| word == "--").map(|at| &words[at + 1..]);
    let rest = match words.first()?.as_str() {
        "cargo" if words.starts_with(&["cargo", "run", "-p", "gpu-syringe"].map(str::to_owned)) => after_dashes()?,
        "claude" => after_dashes()?.strip_prefix(&["gpu-syringe".to_owned()])?,
        "kubectl" if words.get(1).is_some_and(is_ours) => &words[2..],
        "npx" | "uvx" => words.iter().position(is_ours).map(|at| &words[at + 1..])?,
        _ if is_ours(&words[0]) => &words[1..],
        _ => return None,
    };
    Some(rest.to_vec())
}

/// Returns the error with which the program rejects these arguments. Placeholders for a node are first replaced with
/// the name of a node.
fn rejection(arguments: &[String]) -> Option<clap::Error> {
    let words = arguments.iter().map(|word| if ["NODE", "NAME"].contains(&word.as_str()) { "gpu-1" } else { word });
    let argv: Vec<_> = std::iter::once("gpu-syringe").chain(words).collect();
    let error = documented_call(&argv).err()?;
    (!matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)).then_some(error)
}

#[test]
fn every_command_in_a_code_block_is_one_of_the_program() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for command in pages().iter().flat_map(shown) {
        checked += 1;
        if let Some(error) = rejection(&command.arguments) {
            wrong.push(format!("{}:{}: {:?}: {error}", command.page, command.line, command.arguments));
        }
    }
    assert!(checked > 25, "{checked} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A command in a sentence may leave out its arguments.
#[test]
fn every_command_in_a_sentence_is_one_of_the_program() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in pages().iter().filter(|page| page.path != "CHANGELOG.md") {
        for span in page.spans.iter().filter(|span| span.text.contains("gpu-syringe ") && !span.text.contains('…')) {
            let Some(arguments) = arguments_of(&span.text) else { continue };
            checked += 1;
            let error = rejection(&arguments).filter(|error| error.kind() != ErrorKind::MissingRequiredArgument);
            wrong.extend(error.map(|error| format!("{}:{}: {}: {error}", page.path, span.line, span.text)));
        }
    }
    assert!(checked > 10, "{checked} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without the package, cargo does not know which program to run.
#[test]
fn every_cargo_run_names_its_package() {
    for page in pages() {
        let blocks = page.blocks.iter().flat_map(|block| block.text.lines());
        let lines = blocks.chain(page.spans.iter().map(|span| span.text.as_str()));
        for line in lines.filter(|line| line.contains("cargo run")) {
            assert!(line.contains("cargo run -p "), "{}: {line}", page.path);
        }
    }
}

/// Checks the configurations of MCP hosts (`{"command": "gpu-syringe", "args": ["mcp"]}`) in blocks and in sentences.
#[test]
fn every_configuration_of_a_host_starts_the_program() {
    let mut checked = 0;
    for page in pages() {
        let blocks = page.blocks.iter().filter(|block| block.language == "json").map(|block| (block.line, &block.text));
        let spans =
            page.spans.iter().filter(|span| span.text.contains("\"args\":")).map(|span| (span.line, &span.text));
        for (line, text) in blocks.chain(spans) {
            let value: Value =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{}:{line}: {error}", page.path));
            let mut servers = Vec::new();
            find_servers(&value, &mut servers);
            for (command, arguments) in servers {
                checked += 1;
                let line_of_shell = std::iter::once(command).chain(arguments).collect::<Vec<_>>().join(" ");
                let arguments = arguments_of(&line_of_shell).unwrap_or_else(|| panic!("{}:{line}: {text}", page.path));
                assert!(arguments.contains(&"mcp".to_owned()), "{}:{line}: {text}", page.path);
                assert!(rejection(&arguments).is_none(), "{}:{line}: {text}", page.path);
            }
        }
    }
    assert!(checked >= 2, "{checked} configurations");
}

fn find_servers(value: &Value, into: &mut Vec<(String, Vec<String>)>) {
    if let (Some(command), Some(arguments)) = (value["command"].as_str(), value["args"].as_array()) {
        let arguments = arguments.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        into.push((command.to_owned(), arguments));
        return;
    }
    value.as_object().into_iter().flat_map(serde_json::Map::values).for_each(|inner| find_servers(inner, into));
}

#[test]
fn a_command_is_found_however_it_is_started() {
    let words = |line: &str| arguments_of(line).map(|words| words.join(" "));
    for (line, expected) in [
        ("gpu-syringe mcp", Some("mcp")),
        ("KUBECONFIG=x ./gpu-syringe config | less", Some("config")),
        ("cargo run -p gpu-syringe -- --demo mcp", Some("--demo mcp")),
        ("kubectl gpu-syringe sweep && true", Some("sweep")),
        ("npx --yes gpu-syringe mcp", Some("mcp")),
        ("claude mcp add --transport stdio gpu-syringe -- gpu-syringe mcp", Some("mcp")),
        ("cargo run -p node-probe -- all", None),
        ("kubectl -n gpu-syringe get pods", None),
    ] {
        assert_eq!(words(line).as_deref(), expected, "{line}");
    }
    assert!(rejection(&["no-such-command".to_owned()]).is_some());
}

/// Returns the text that a command prints for a person, on both streams.
fn text_for_people(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gpu-syringe"))
        .env_clear()
        .envs([("HOME", home.path()), ("XDG_STATE_HOME", home.path())])
        .env("GPU_SYRINGE_OUTPUT", "table")
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// The output of the command line must not mention tools, because its users work with commands.
#[test]
fn no_tool_is_named_in_the_text_of_the_command_line() {
    let mut texts: Vec<(String, String)> = Vec::new();
    for words in [
        "--demo nodes",
        "--demo health",
        "--demo inventory gpu-2",
        "--demo diagnose gpu-2",
        "--demo describe gpu-2",
        "--demo xid gpu-3",
        "--demo ecc gpu-3",
        "--demo telemetry gpu-1",
        "--demo topology gpu-1",
        "--demo processes gpu-2",
        "--demo pods gpu-2 --resolve-devices",
        "--demo explain gpu-2-trainer-0 -n workloads",
        "--demo diagnose nosuch",
        "--demo explain nosuch",
        "--demo reset-gpu gpu-3 --gpu 5",
        "--demo --mode operator reset-gpu gpu-3 --gpu 5",
        "xid 999",
        "diagnose",
    ] {
        texts.push((words.to_owned(), text_for_people(&words.split(' ').collect::<Vec<_>>())));
    }
    for sub in gpu_syringe::command_line::command().get_subcommands() {
        texts.push((format!("{} --help", sub.get_name()), text_for_people(&[sub.get_name(), "--help"])));
    }
    for folder in ["tables", "explained", "help"] {
        for file in std::fs::read_dir(crate::markdown::root().join("snapshots").join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if folder == "explained" && !name.ends_with(".table.snap") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            // The header of a snapshot contains the name of the test and its expression.
            texts.push((name, text.splitn(3, "---\n").last().unwrap_or_default().to_owned()));
        }
    }
    assert!(texts.len() > 60, "{}", texts.len());
    for tool in gpu_syringe::tools::all(gpu_syringe::settings::Mode::Operator) {
        for (source, text) in &texts {
            assert!(!text.contains(tool.name), "{source} names {}:\n{text}", tool.name);
        }
    }
}

/// The sections and commands of node-probe. A document may contain any of them.
#[test]
fn every_command_of_node_probe_in_a_document_exists() {
    let commands = ["all", "read", "kill", "reset", "hold", "release"];
    let known =
        |word: &str| commands.contains(&word) || SectionName::ALL.iter().any(|section| section.as_str() == word);
    let mut checked = 0;
    for page in pages().iter().filter(|page| page.path != "CHANGELOG.md") {
        let blocks = page.blocks.iter().flat_map(|block| block.text.lines());
        for line in blocks.chain(page.spans.iter().map(|span| span.text.as_str())) {
            let Some(words) = shlex::split(line) else { continue };
            let is_program = |word: &String| ["node-probe", "node-probe-dev"].contains(&word.as_str());
            if !words.first().is_some_and(is_program) {
                continue;
            }
            // An option has one value.
            let mut rest = words[1..].iter().take_while(|word| !ENDS.contains(&word.as_str()));
            let mut command = rest.next();
            while command.is_some_and(|word| word.starts_with("--") && word != "--version" && word != "--help") {
                command = rest.nth(1);
            }
            let Some(command) = command.filter(|word| !word.starts_with('-') && **word != "…") else { continue };
            checked += 1;
            assert!(known(command), "{}: {line}", page.path);
        }
    }
    assert!(checked > 3, "{checked}");
}
