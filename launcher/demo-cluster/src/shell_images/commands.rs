//! `run`: simulates the programs of a shell image (`head`, `cat`, `tar` and others) with the options that scripts use.
//! `write`: writes a file of the container.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::container::Container;
use super::image::Tmp;
use super::input::Input;
use crate::container_files::ContainerFile;

/// The output and exit code of a program.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    pub(super) exit_code: i32,
}

impl Output {
    fn printed(stdout: Vec<u8>) -> Self {
        Self { stdout, ..Self::default() }
    }

    fn failed(exit_code: i32, message: String) -> Self {
        Self { stdout: Vec::new(), stderr: message + "\n", exit_code }
    }
}

/// Runs a command with piped input, or with the standard input of the shell.
pub(super) async fn run(container: &Container, argv: &[String], input: &mut Input, piped: Option<Vec<u8>>) -> Output {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let [program, arguments @ ..] = &argv[..] else { return Output::default() };
    if program.starts_with('/') {
        return execute(container, program, arguments, container.image.glibc).await;
    }
    if !container.image.programs.contains(program) {
        return Output::failed(127, format!("sh: {program}: not found"));
    }
    match (*program, arguments) {
        ("head", ["-c", count]) => {
            let count = count.parse().unwrap_or(0);
            Output::printed(match piped {
                Some(mut bytes) => {
                    bytes.truncate(count);
                    bytes
                }
                None => input.read(count).await,
            })
        }
        ("cat", []) => Output::printed(read(input, piped).await),
        ("tar", ["-xmf", "-", "-C", directory]) => {
            let bytes = read(input, piped).await;
            untar(container, directory, &bytes)
        }
        ("chmod", [_, path]) => match container.files.get(path) {
            Some(file) => {
                container.files.put(path, ContainerFile { executable: true, ..file });
                Output::default()
            }
            None => Output::failed(1, format!("chmod: {path}: No such file or directory")),
        },
        ("sha256sum", [path]) => match container.files.get(path) {
            Some(file) => {
                let digits: String = Sha256::digest(&file.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                Output::printed(format!("{digits}  {path}\n").into_bytes())
            }
            None => Output::failed(1, format!("sha256sum: can't open '{path}': No such file or directory")),
        },
        ("sleep", [seconds]) => {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap_or(0))).await;
            Output::default()
        }
        // The path begins with the root of the container, as procfs of the host shows it (`/proc/PID/root`).
        ("chroot", [root, path, arguments @ ..]) => {
            let process = root.strip_suffix("/root");
            if process.is_none() || process != container.image.host_process {
                let reason = format!("chroot: can't change root directory to '{root}': Permission denied");
                return Output::failed(1, reason);
            }
            let path_in_container = path.strip_prefix("/proc/4711/root").unwrap_or("/nowhere");
            execute(container, path_in_container, arguments, container.image.host_glibc).await
        }
        _ => Output::failed(1, format!("{program}: invalid arguments")),
    }
}

async fn read(input: &mut Input, piped: Option<Vec<u8>>) -> Vec<u8> {
    match piped {
        Some(bytes) => bytes,
        None => input.read(usize::MAX).await,
    }
}

/// Writes a file of the container.
pub(super) fn write(container: &Container, path: &str, bytes: Vec<u8>, executable: bool) -> Result<(), &'static str> {
    if container.image.tmp == Tmp::ReadOnly {
        return Err("Read-only file system");
    }
    container.files.put(path, ContainerFile { bytes: Bytes::from(bytes), executable });
    Ok(())
}

fn untar(container: &Container, directory: &str, bytes: &[u8]) -> Output {
    let unpack = || -> Result<(), String> {
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(|error| error.to_string())? {
            let mut entry = entry.map_err(|_| "short read".to_owned())?;
            let name = entry.path().map_err(|error| error.to_string())?.display().to_string();
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
            let mut contents = Vec::new();
            // Like a real tar, this program writes the bytes that it has read before it reports that the end is
            // missing.
            let is_complete = entry.read_to_end(&mut contents).is_ok();
            write(container, &format!("{directory}/{name}"), contents, executable)
                .map_err(|reason| format!("can't open '{name}': {reason}"))?;
            if !is_complete {
                return Err("short read".into());
            }
        }
        Ok(())
    };
    match unpack() {
        Ok(()) => Output::default(),
        Err(reason) => Output::failed(1, format!("tar: {reason}")),
    }
}

/// Simulates the execution of a file in the container. Each file behaves like `node-probe`.
async fn execute(container: &Container, path: &str, arguments: &[&str], has_loader: bool) -> Output {
    let Some(file) = container.files.get(path).filter(|_| has_loader) else {
        return Output::failed(127, format!("sh: {path}: not found"));
    };
    if !file.executable || container.image.tmp == Tmp::NoExec {
        return Output::failed(126, format!("sh: {path}: Permission denied"));
    }
    let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let facts = container.facts.clone();
    match tokio::task::spawn_blocking(move || facts.run_probe(&arguments)).await {
        Ok(outcome) => Output {
            stdout: outcome.stdout,
            stderr: String::from_utf8_lossy(&outcome.stderr).into_owned(),
            exit_code: outcome.exit_code,
        },
        // A panic of the real program aborts the process, which gives this exit code.
        Err(_) => Output::failed(134, "aborted".into()),
    }
}
