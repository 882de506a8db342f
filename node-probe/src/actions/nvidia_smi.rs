//! `DriverRoot`: finds the `nvidia-smi` of the host's driver, and runs it for a GPU reset.
//! `replace_process`: replaces the child process with `nvidia-smi`.
//!
//! There is no alternative: NVML has no public reset function, and a write to the PCI `reset` file while a driver is bound
//! makes the GPU unusable.
//!
//! ```text
//!   DriverRoot::find ─▶ run(job) ─▶ a child of ours ─▶ chroot R, exec nvidia-smi
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use syringe_core::facts::action::{CompletedStep, Obstacle};
use syringe_core::text::clean;

use crate::child;
use crate::child_task::{ChildTask, NvidiaSmi, SmiCommand};
use crate::paths::{Owner, Paths};
use crate::{host, trusted_file};

/// Paths of nvidia-smi below a root directory, each with the library folder that it needs in LD_LIBRARY_PATH.
const PROGRAMS: [(&str, Option<&str>); 6] = [
    ("usr/bin/nvidia-smi", None),
    ("usr/local/bin/nvidia-smi", None),
    ("usr/local/nvidia/bin/nvidia-smi", Some("/usr/local/nvidia/lib64")),
    // GKE: Container-Optimized OS.
    ("home/kubernetes/bin/nvidia/bin/nvidia-smi", Some("/home/kubernetes/bin/nvidia/lib64")),
    ("opt/bin/nvidia-smi", None),
    // NixOS.
    ("run/current-system/sw/bin/nvidia-smi", None),
];
/// Pause between two checks of a child.
const PAUSE: Duration = Duration::from_millis(50);
/// Maximum number of bytes that are kept of the output of a command.
const MAX_SAID: usize = 600;
/// Maximum time for reading the rest of the output after the program has exited: a grandchild may keep the pipe open.
const OUTPUT_TIME: Duration = Duration::from_secs(1);

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The command exited with this exit code.
    Code(i32),
    /// The command was still running when the time limit was reached.
    Running,
    /// The command could not be started.
    NotStarted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DriverRoot {
    /// The root of the host, and the path of the driver's root below it.
    host: PathBuf,
    below: String,
    /// The path of the driver's root in the file system of this process.
    root: PathBuf,
    /// The path of nvidia-smi below the driver's root.
    program: PathBuf,
    library_path: Option<&'static str>,
    /// Whether the root directory must be changed. Not needed in a saved file tree, or if the directory is already the root.
    change_root: bool,
}

impl DriverRoot {
    /// Finds an nvidia-smi that only root can have installed. `saved_tree`: whether the paths are below a directory that
    /// contains a saved file tree.
    pub(super) fn find(paths: &Paths, saved_tree: bool) -> Result<Self, Obstacle> {
        let roots = if paths.owner == Owner::Node { &host::DRIVER_ROOTS[..] } else { &[] };
        for below in roots {
            let root = paths.host.join(below);
            let Ok(opened) = trusted_file::root_below(&paths.host, below) else { continue };
            let found = PROGRAMS.iter().find_map(|(program, library_path)| {
                let file = trusted_file::open_in(&opened, program, true).ok()?.path;
                library_path.map_or(Ok(()), |folder| trusted_file::check_folder(&opened, folder)).ok()?;
                Some((Path::new("/").join(file.strip_prefix(&root).ok()?), *library_path))
            });
            if let Some((program, library_path)) = found {
                let change_root = !saved_tree && root != Path::new("/");
                return Ok(Self {
                    host: paths.host.clone(),
                    below: (*below).to_owned(),
                    root,
                    program,
                    library_path,
                    change_root,
                });
            }
        }
        Err(Obstacle::new(
            "no_nvidia_smi",
            format!("no nvidia-smi that only root can change was found below {}", paths.host.display()),
            "Reset the GPU on the node itself, where its driver is installed, or reboot the node.",
        ))
    }

    /// Returns the path of the program as this process sees it.
    fn file(&self) -> PathBuf {
        self.root.join(self.program.strip_prefix("/").unwrap_or(&self.program))
    }

    /// Runs one command. A command that takes longer than `time` is not interrupted, because an interrupted reset is
    /// worse than a slow reset. The command continues as long as the container of the probe exists.
    ///
    /// The program also holds `lock` open, so that no other process gets the lock while the program runs.
    pub(super) fn run(&self, job: SmiCommand, gpu: &str, time: Duration, lock: &File) -> (CompletedStep, End) {
        let started = Instant::now();
        let command = format!("nvidia-smi {}", job.arguments(gpu).join(" "));
        let (exit_code, said, end) = match self.start(job, gpu, lock) {
            Ok(child) => match outcome(child, time) {
                (Some(code), said) => (Some(code), said, End::Code(code)),
                (None, said) => (None, said, End::Running),
            },
            Err(error) => (None, format!("could not be started: {error}"), End::NotStarted),
        };
        let duration_ms = crate::document::millis(started.elapsed());
        (CompletedStep { command, exit_code, message: clean(&said, MAX_SAID), duration_ms }, end)
    }

    fn start(&self, job: SmiCommand, gpu: &str, lock: &File) -> io::Result<Child> {
        let mut command = if self.change_root {
            child::command(&ChildTask::NvidiaSmi(NvidiaSmi {
                host: self.host.clone(),
                below: self.below.clone(),
                program: self.program.clone(),
                library_path: self.library_path.map(str::to_owned),
                gpu: gpu.to_owned(),
                job,
            }))?
        } else {
            let mut command = Command::new(self.file());
            command.args(job.arguments(gpu)).stdin(Stdio::null());
            set_environment(&mut command, self.library_path);
            command
        };
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Only this child process inherits the lock.
        let inherit = |flags| rustix::io::fcntl_setfd(lock, flags);
        inherit(rustix::io::FdFlags::empty())?;
        let child = command.spawn();
        inherit(rustix::io::FdFlags::CLOEXEC)?;
        child
    }
}

/// Sets a minimal environment, independent of the environment of the probe.
fn set_environment(command: &mut Command, library_path: Option<&str>) {
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(folder) = library_path {
        command.env("LD_LIBRARY_PATH", folder);
    }
}

/// Returns the exit code and output of a child process; no exit code if the child did not exit in time.
fn outcome(mut child: Child, time: Duration) -> (Option<i32>, String) {
    let end = Instant::now() + time;
    let (sender, pieces) = channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
    for mut output in outputs.into_iter().flatten() {
        let sender = sender.clone();
        // Read the whole output, so that a full pipe does not block the program. Only the beginning is kept.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let _ = sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
    }
    drop(sender);
    let code = loop {
        match child.try_wait() {
            // The program was killed by a signal and has no exit code: 128, as in a shell.
            Ok(Some(status)) => break Some(status.code().unwrap_or(128)),
            Ok(None) if Instant::now() < end => thread::sleep(PAUSE),
            Ok(None) | Err(_) => break None,
        }
    };
    let mut said = String::new();
    let output_end = Instant::now() + if code.is_some() { OUTPUT_TIME } else { Duration::ZERO };
    while let Ok(piece) = pieces.recv_timeout(output_end.saturating_duration_since(Instant::now())) {
        if said.len() < MAX_SAID * 4 {
            said.push_str(&piece);
        }
    }
    (code, said)
}

/// Replaces this process with nvidia-smi below its root directory. Returns only if that fails, with the error.
pub(crate) fn replace_process(tool: &NvidiaSmi) -> std::io::Error {
    let NvidiaSmi { host, below, program, library_path, gpu, job } = tool;
    // Check again, because the folder may have been replaced since the first check.
    let root = match trusted_file::root_below(host, below) {
        Ok(root) => root,
        Err(distrust) => return io::Error::other(distrust.to_string()),
    };
    if let Some(Err(distrust)) = library_path.as_deref().map(|folder| trusted_file::check_folder(&root, folder)) {
        return io::Error::other(distrust.to_string());
    }
    let nothing = match child::enter(&root.descriptor_path()) {
        Ok(nothing) => nothing,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.args(job.arguments(gpu)).stdin(nothing);
    set_environment(&mut command, library_path.as_deref());
    command.exec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn the_driver_container_comes_before_the_host() {
        let tree = Tree::new();
        tree.file("usr/bin/nvidia-smi", "").file("run/nvidia/driver/usr/bin/nvidia-smi", "");
        let found = DriverRoot::find(&tree.paths(), false).expect("found");
        assert_eq!((found.root, found.change_root), (tree.path().join("run/nvidia/driver"), true));
    }

    #[test]
    fn a_link_is_followed_inside_the_root_and_gke_gets_its_libraries() {
        let tree = Tree::new();
        tree.link("home/kubernetes/bin/nvidia/bin/nvidia-smi", "/opt/x/smi").file("opt/x/smi", "");
        assert!(DriverRoot::find(&tree.paths(), true).is_err(), "the libraries are missing");
        tree.folder("home/kubernetes/bin/nvidia/lib64");
        let found = DriverRoot::find(&tree.paths(), true).expect("found");
        assert_eq!((found.program.to_str(), found.change_root), (Some("/opt/x/smi"), false));
        assert_eq!(found.library_path, Some("/home/kubernetes/bin/nvidia/lib64"));
        assert_eq!(found.file(), tree.path().join("opt/x/smi"));
    }

    #[test]
    fn a_program_that_others_can_change_or_that_is_a_workloads_is_not_found() {
        let tree = Tree::new();
        tree.file("usr/bin/nvidia-smi", "");
        let workload = Paths { owner: Owner::Workload, ..tree.paths() };
        assert_eq!(DriverRoot::find(&workload, false).expect_err("refused").code, "no_nvidia_smi");
        let folder = tree.path().join("usr/bin");
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o775)).expect("ours");
        assert_eq!(DriverRoot::find(&tree.paths(), false).expect_err("refused").code, "no_nvidia_smi");
    }

    #[test]
    fn a_folder_of_libraries_that_others_can_change_is_not_used() {
        let tree = Tree::new();
        tree.file("usr/local/nvidia/bin/nvidia-smi", "").folder("usr/local/nvidia/lib64");
        assert!(DriverRoot::find(&tree.paths(), true).is_ok());
        let folder = tree.path().join("usr/local/nvidia/lib64");
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
        assert_eq!(DriverRoot::find(&tree.paths(), true).expect_err("refused").code, "no_nvidia_smi");
    }

    #[test]
    fn without_nvidia_smi_there_is_a_reason() {
        assert_eq!(DriverRoot::find(&Tree::new().paths(), true).expect_err("nothing").code, "no_nvidia_smi");
    }
}
