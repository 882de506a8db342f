//! The programs of an image, each as far as our scripts use it.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Container, Input, Tmp};
use crate::files::File;

/// What a program printed, and how it ended.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    pub(super) exit_code: i32,
}

impl Done {
    fn printed(stdout: Vec<u8>) -> Self {
        Self { stdout, ..Self::default() }
    }

    fn failed(exit_code: i32, said: String) -> Self {
        Self { stdout: Vec::new(), stderr: said + "\n", exit_code }
    }
}

/// Runs one command with what is piped into it, or with the shell's own input.
pub(super) async fn run(container: &Container, words: &[String], input: &mut Input, piped: Option<Vec<u8>>) -> Done {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [program, arguments @ ..] = &words[..] else { return Done::default() };
    if program.starts_with('/') {
        return execute(container, program, arguments, container.image.glibc).await;
    }
    if !container.image.programs.contains(program) {
        return Done::failed(127, format!("sh: {program}: not found"));
    }
    match (*program, arguments) {
        ("head", ["-c", count]) => {
            let count = count.parse().unwrap_or(0);
            Done::printed(match piped {
                Some(mut bytes) => {
                    bytes.truncate(count);
                    bytes
                }
                None => input.read(count).await,
            })
        }
        ("cat", []) => Done::printed(read(input, piped).await),
        ("tar", ["-xmf", "-", "-C", directory]) => {
            let bytes = read(input, piped).await;
            untar(container, directory, &bytes)
        }
        ("chmod", [_, path]) => match container.files.get(path) {
            Some(file) => {
                container.files.put(path, File { executable: true, ..file });
                Done::default()
            }
            None => Done::failed(1, format!("chmod: {path}: No such file or directory")),
        },
        ("sha256sum", [path]) => match container.files.get(path) {
            Some(file) => {
                let digits: String = Sha256::digest(&file.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                Done::printed(format!("{digits}  {path}\n").into_bytes())
            }
            None => Done::failed(1, format!("sha256sum: can't open '{path}': No such file or directory")),
        },
        ("sleep", [seconds]) => {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap_or(0))).await;
            Done::default()
        }
        // The container's root, as the host's procfs shows it.
        ("chroot", [root, path, arguments @ ..]) => {
            let process = root.strip_suffix("/root");
            if process.is_none() || process != container.image.host_process {
                let why = format!("chroot: can't change root directory to '{root}': Permission denied");
                return Done::failed(1, why);
            }
            let inside = path.strip_prefix("/proc/4711/root").unwrap_or("/nowhere");
            execute(container, inside, arguments, container.image.host_glibc).await
        }
        // A pod's process that calls itself kubelet is always there.
        ("grep", ["-slx", "kubelet", "/proc/[0-9]*/comm"]) => {
            let own = container.image.host_process.map(|process| format!("{process}/comm\n")).unwrap_or_default();
            Done::printed(format!("/proc/4000/comm\n{own}").into_bytes())
        }
        ("grep", ["-sL", .., "crio-", "/proc/4000/cgroup"]) => Done { exit_code: 1, ..Done::default() },
        ("grep", ["-sL", .., "crio-", "/proc/4000/cgroup", other]) => Done::printed(format!("{other}\n").into_bytes()),
        _ => Done::failed(1, format!("{program}: invalid arguments")),
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
    container.files.put(path, File { bytes: Bytes::from(bytes), executable });
    Ok(())
}

fn untar(container: &Container, directory: &str, bytes: &[u8]) -> Done {
    let unpack = || -> Result<(), String> {
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(|error| error.to_string())? {
            let mut entry = entry.map_err(|_| "short read".to_owned())?;
            let name = entry.path().map_err(|error| error.to_string())?.display().to_string();
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
            let mut contents = Vec::new();
            // What has arrived is written before the end is missed, as a real tar does.
            let whole = entry.read_to_end(&mut contents).is_ok();
            write(container, &format!("{directory}/{name}"), contents, executable)
                .map_err(|why| format!("can't open '{name}': {why}"))?;
            if !whole {
                return Err("short read".into());
            }
        }
        Ok(())
    };
    match unpack() {
        Ok(()) => Done::default(),
        Err(why) => Done::failed(1, format!("tar: {why}")),
    }
}

/// Runs a file of the container: it is taken to be the probe.
async fn execute(container: &Container, path: &str, arguments: &[&str], loader: bool) -> Done {
    let Some(file) = container.files.get(path).filter(|_| loader) else {
        return Done::failed(127, format!("sh: {path}: not found"));
    };
    if !file.executable || container.image.tmp == Tmp::NoExec {
        return Done::failed(126, format!("sh: {path}: Permission denied"));
    }
    let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let facts = container.facts.clone();
    match tokio::task::spawn_blocking(move || node_probe::run(&arguments, Some(&facts))).await {
        Ok(outcome) => Done {
            stdout: outcome.stdout,
            stderr: String::from_utf8_lossy(&outcome.stderr).into_owned(),
            exit_code: outcome.exit_code,
        },
        // A panic of the probe is what it is in a container, too: an abort.
        Err(_) => Done::failed(134, "aborted".into()),
    }
}
