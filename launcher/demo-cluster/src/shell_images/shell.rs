//! `Shell`: simulates `sh -c`: runs statements with pipes, a redirection, and a few variables.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::commands::{self, Output};
use super::container::Container;
use super::input::Input;

/// The process ID of the shell.
const PID: &str = "4711";

/// A run of `sh -c`.
pub(super) struct Shell {
    container: Container,
    statements: Vec<Statement>,
    arguments: Vec<String>,
}

/// A statement of the form `a | b > file`.
struct Statement {
    commands: Vec<Vec<String>>,
    to: Option<String>,
}

impl Shell {
    pub(super) fn new(container: Container, script: &str, arguments: Vec<String>) -> Self {
        let statements =
            script.split(';').map(str::trim).filter(|text| !text.is_empty()).map(Statement::parse).collect();
        Self { container, statements, arguments }
    }

    pub(super) async fn run(self, mut input: Input, stdout: mpsc::Sender<Bytes>, stderr: mpsc::Sender<Bytes>) -> i32 {
        let Self { container, statements, arguments } = self;
        // A shell replaces itself with its only command. If that command writes to a file, standard output is closed.
        if statements.len() == 1 && statements[0].to.is_some() && statements[0].commands.len() == 1 {
            input.limit();
        }
        let mut code = 0;
        for statement in &statements {
            let mut piped: Option<Vec<u8>> = None;
            let mut output = Vec::new();
            for command in &statement.commands {
                let argv = expand(command, &arguments, code);
                if argv.first().is_some_and(|word| word == "exit") {
                    return argv.get(1).and_then(|word| word.parse().ok()).unwrap_or(code);
                }
                let output_of_command = commands::run(&container, &argv, &mut input, piped.take()).await;
                let Output { stdout, stderr: errors, exit_code } = output_of_command;
                if !errors.is_empty() {
                    let _ = stderr.send(errors.into()).await;
                }
                output.clone_from(&stdout);
                piped = Some(stdout);
                code = exit_code;
            }
            match &statement.to {
                Some(path) => {
                    if let Err(reason) = commands::write(&container, path, output, false) {
                        let _ = stderr.send(format!("sh: can't create {path}: {reason}\n").into()).await;
                        code = 1;
                    }
                }
                None => {
                    for piece in output.chunks(32 * 1024) {
                        let _ = stdout.send(Bytes::copy_from_slice(piece)).await;
                    }
                }
            }
        }
        code
    }
}

impl Statement {
    fn parse(text: &str) -> Self {
        let (text, to) = match text.split_once('>') {
            Some((before, after)) => (before, Some(after.trim().to_owned())),
            None => (text, None),
        };
        let split = |command: &str| command.split_whitespace().map(str::to_owned).collect();
        Self { commands: text.split('|').map(split).collect(), to }
    }
}

/// Expands `"$@"`, `$$` and `$?`, and removes `exec`, which has no effect in the simulated shell.
fn expand(argv: &[String], arguments: &[String], code: i32) -> Vec<String> {
    let argv = argv.iter().filter(|word| *word != "exec");
    let one = |word: &String| match word.as_str() {
        "\"$@\"" => arguments.to_vec(),
        word => vec![word.replace("$$", PID).replace("$?", &code.to_string())],
    };
    argv.flat_map(one).collect()
}
