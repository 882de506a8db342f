//! Tests that run the scripts of --via inject in real shells (sh, dash, bash, busybox): uploads, cut uploads, missing
//! programs, arguments, loaders. A shell that is not installed is skipped with a message.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::upload::{DIRECTORY, METHODS, UploadError, UploadMethod, UploadResult, upload_result};
use super::{Archive, RUN, RUN_WITH_HOST_LOADER};
use crate::probe::exec::websocket::{ExecEnd, ExecOutput};

/// Maximum run time of a script.
const TIME: Duration = Duration::from_secs(20);
/// Programs that a base image has.
const PROGRAMS: [&str; 6] = ["head", "tar", "chmod", "sha256sum", "chroot", "sleep"];

/// A shell and the programs of its image.
struct Shell {
    name: &'static str,
    argv: Vec<PathBuf>,
    /// Directory that contains the `/tmp` and `/usr/bin` of the image.
    root: tempfile::TempDir,
}

impl Shell {
    /// Returns all installed shells, with all programs except `lacking`.
    fn all(lacking: &str) -> Vec<Self> {
        ["sh", "dash", "bash", "busybox"].into_iter().filter_map(|name| Self::new(name, lacking)).collect()
    }

    fn new(name: &'static str, lacking: &str) -> Option<Self> {
        let Ok(program) = which::which(name) else {
            eprintln!("SKIPPED: {name} is not installed");
            return None;
        };
        let root = tempfile::tempdir().expect("a directory");
        for folder in ["bin", "files"] {
            fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        for tool in PROGRAMS.into_iter().filter(|tool| *tool != lacking) {
            let target = if name == "busybox" { program.clone() } else { which::which(tool).ok()? };
            symlink(target, root.path().join("bin").join(tool)).expect("a link");
        }
        let argv = if name == "busybox" { vec![program, "sh".into()] } else { vec![program] };
        Some(Self { name, argv, root })
    }

    /// Returns the directory that replaces `/tmp` of the image.
    fn files(&self) -> PathBuf {
        self.root.path().join("files")
    }

    /// Returns a script that calls a program that the image lacks. In busybox the programs are part of the shell, so
    /// the script calls a program name that does not exist.
    fn without(&self, program: &str, script: String) -> String {
        if self.name == "busybox" { script.replace(&format!("{program} "), &format!("no-{program} ")) } else { script }
    }

    /// Starts a script with the words of `before` in front of the command.
    fn start(&self, before: &[&str], script: &str, arguments: &[&str]) -> Child {
        let script = script.replace(DIRECTORY, self.files().to_str().expect("a name"));
        let mut words = before.iter().map(PathBuf::from).chain(self.argv.iter().cloned());
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(["-c", &script, "node-probe"]).args(arguments);
        command.env_clear().env("PATH", self.root.path().join("bin"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the shell starts")
    }

    /// Runs a script and writes its input in two parts. With `keep_open`, standard input is not closed.
    fn run(&self, script: &str, input: &[u8], keep_open: bool) -> Ran {
        let mut child = self.start(&[], script, &[]);
        let mut stdin = child.stdin.take().expect("a pipe");
        let closed = Arc::new(AtomicBool::new(false));
        let stdout = collect(child.stdout.take().expect("a pipe"), closed.clone());
        let stderr = collect(child.stderr.take().expect("a pipe"), Arc::default());
        let (first, second) = input.split_at(input.len() / 2);
        // If the program is missing, nothing reads the input.
        let _ = stdin.write_all(first).and_then(|()| stdin.flush());
        thread::sleep(Duration::from_millis(150));
        let closed_early = closed.load(Ordering::SeqCst);
        let _ = stdin.write_all(second).and_then(|()| stdin.flush());
        let stdin = keep_open.then_some(stdin);
        let code = wait(&mut child, self.name, script);
        drop(stdin);
        let output = ExecOutput {
            stdout: stdout.join().expect("read"),
            stderr: String::from_utf8_lossy(&stderr.join().expect("read")).into_owned(),
            ended: ExecEnd::Exit(code),
            half_close: true,
        };
        Ran { output, closed_early }
    }
}

/// The result of a script.
struct Ran {
    output: ExecOutput,
    /// Whether the script closed its standard output before it received all of its input.
    closed_early: bool,
}

fn collect(mut from: impl Read + Send + 'static, closed: Arc<AtomicBool>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        closed.store(true, Ordering::SeqCst);
        all
    })
}

fn wait(child: &mut Child, shell: &str, script: &str) -> i32 {
    let end = Instant::now() + TIME;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{shell} did not end within {TIME:?}: {script}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn archive(program: &[u8]) -> Archive {
    Archive::pack(program).expect("an archive")
}

/// Returns bytes that are not text.
fn program(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

fn judged(method: UploadMethod, ran: &Ran, sha256: &str) -> String {
    match upload_result(method, &ran.output, sha256) {
        Ok(UploadResult::Whole) => "whole".into(),
        Ok(UploadResult::Lacking(program)) => format!("lacks {program}"),
        Ok(UploadResult::Broken(why)) | Err(UploadError { why, .. }) => why,
    }
}

/// Returns whether the upload method works even if standard input stays open: with version 4 of the protocol, a client
/// cannot close it.
fn is_bounded(method: UploadMethod) -> bool {
    method != UploadMethod::Tar
}

#[test]
fn every_shell_writes_the_whole_program_and_keeps_its_output_open_until_then() {
    for (shell, length) in Shell::all("").iter().flat_map(|shell| [1, 512, 400_000].map(|length| (shell, length))) {
        let (bytes, file) = (program(length), shell.files().join("node-probe"));
        let archive = archive(&bytes);
        for method in METHODS {
            let _ = fs::remove_file(&file);
            let input = method.input(&archive).expect("an input");
            let ran = shell.run(&method.script(input.len()), &input, is_bounded(method));
            let name = shell.name;
            assert_eq!(judged(method, &ran, &archive.sha256), "whole", "{name} {method:?} {length}: {:?}", ran.output);
            assert!(!ran.closed_early, "{name} {method:?}: containerd truncates the input of such a command");
            assert!(fs::read(&file).is_ok_and(|written| written == bytes), "{name} {method:?} {length}");
            let mode = fs::metadata(&file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o700, 0o700, "{name} {method:?}: not executable");
        }
    }
}

/// Shows why each script ends with a command that prints: otherwise the shell replaces itself with the previous command.
#[test]
fn a_script_that_only_writes_a_file_closes_its_output_early() {
    let early = Shell::all("")
        .iter()
        .filter(|shell| shell.run("exec head -c 9 > /tmp/f", b"too early", true).closed_early)
        .count();
    assert_eq!(early, Shell::all("").len());
}

#[test]
fn an_upload_that_was_cut_is_not_whole() {
    let archive = archive(&program(300_000));
    for shell in Shell::all("") {
        for method in METHODS {
            let script = method.script(method.input(&archive).expect("an input").len());
            let input = method.input(&archive).expect("an input");
            let ran = shell.run(&script, &input[..input.len() / 3], false);
            let judged = judged(method, &ran, &archive.sha256);
            assert!(judged.contains("SHA-256") || judged.contains("no hash"), "{} {method:?}: {judged}", shell.name);
        }
    }
}

#[test]
fn every_shell_names_the_program_that_an_image_lacks() {
    let archive = archive(&program(5_000));
    for method in METHODS {
        for lacking in method.programs() {
            for shell in Shell::all(lacking) {
                let input = method.input(&archive).expect("an input");
                let ran = shell.run(&shell.without(lacking, method.script(input.len())), &input, is_bounded(method));
                let judged = judged(method, &ran, &archive.sha256);
                assert_eq!(judged, format!("lacks {lacking}"), "{} {method:?}: {}", shell.name, ran.output.stderr);
            }
        }
        for shell in Shell::all("sha256sum") {
            let input = method.input(&archive).expect("an input");
            let ran = shell.run(&shell.without("sha256sum", method.script(input.len())), &input, is_bounded(method));
            let judged = judged(method, &ran, &archive.sha256);
            assert!(judged.contains("no sha256sum"), "{} {method:?}: {judged}: {}", shell.name, ran.output.stderr);
        }
    }
}

/// Returns the exit code and the output of a script that runs the probe.
fn run_probe(shell: &Shell, before: &[&str], script: &str, arguments: &[&str]) -> (i32, String) {
    let mut child = shell.start(before, script, arguments);
    let stdout = collect(child.stdout.take().expect("a pipe"), Arc::default());
    let code = wait(&mut child, shell.name, script);
    (code, String::from_utf8_lossy(&stdout.join().expect("read")).into_owned())
}

fn install(folder: &Path, bytes: &[u8], mode: u32) {
    let file = folder.join("node-probe");
    fs::write(&file, bytes).expect("a file");
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("ours");
}

/// A probe that prints its arguments, one per line, and exits with code 7.
const PRINTS: &[u8] = b"#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done\nexit 7\n";
/// Arguments that a shell must not interpret.
const ARGUMENTS: [&str; 6] = ["inventory", "--since", "a b", "$(id)`id`", "'\"\\;*?", "-c"];

#[test]
fn no_shell_interprets_the_arguments_of_the_probe() {
    for shell in Shell::all("") {
        install(&shell.files(), PRINTS, 0o700);
        let expected = (7, ARGUMENTS.join("\n") + "\n");
        assert_eq!(run_probe(&shell, &[], RUN, &ARGUMENTS), expected, "{}", shell.name);
    }
}

/// Runs the command that follows as root in new namespaces, in which the root of process 1 may be entered.
const NAMESPACES: [&str; 6] = ["/usr/bin/unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];

#[test]
fn every_shell_runs_the_probe_with_the_loader_of_process_1() {
    let [unshare, options @ ..] = NAMESPACES;
    if !Command::new(unshare)
        .args(options)
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|ended| ended.success())
    {
        eprintln!("SKIPPED: this machine does not let users create namespaces");
        return;
    }
    for shell in Shell::all("") {
        install(&shell.files(), PRINTS, 0o700);
        let expected = (7, ARGUMENTS.join("\n") + "\n");
        let name = shell.name;
        assert_eq!(run_probe(&shell, &NAMESPACES, RUN_WITH_HOST_LOADER, &ARGUMENTS), expected, "{name}");
        fs::remove_file(shell.files().join("node-probe")).expect("a file");
        assert_eq!(run_probe(&shell, &NAMESPACES, RUN_WITH_HOST_LOADER, &[]).0, super::NOT_FOUND, "{name}");
    }
}

#[test]
fn every_shell_tells_a_missing_loader_from_a_file_that_may_not_run() {
    const LOADER: &[u8] = b"/lib64/ld-linux-x86-64.so.2";
    for shell in Shell::all("") {
        install(&shell.files(), PRINTS, 0o600);
        assert_eq!(run_probe(&shell, &[], RUN, &[]).0, super::NOT_EXECUTABLE, "{}", shell.name);
        fs::remove_file(shell.files().join("node-probe")).expect("a file");
        assert_eq!(run_probe(&shell, &[], RUN, &[]).0, super::NOT_FOUND, "{}", shell.name);
        let mut elf = fs::read(std::env::current_exe().expect("this program")).expect("a file");
        let Some(at) = elf.windows(LOADER.len()).position(|part| part == LOADER) else {
            eprintln!("SKIPPED: this program has another loader");
            continue;
        };
        elf[at + 1] = b'X';
        install(&shell.files(), &elf, 0o700);
        assert_eq!(run_probe(&shell, &[], RUN, &[]).0, super::NOT_FOUND, "{}", shell.name);
    }
}
