//! Helpers that run the shipped `node-probe` and other processes, and copy the fake NVML library and its facts file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use syringe_core::scenarios;
use tempfile::TempDir;

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_node-probe");

/// A process that is killed at the end of the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Creates a folder that all users may enter and write to, like `/tmp`.
pub(crate) fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("ours");
    folder
}

/// Copies the fake NVML library to a folder under its real name, readable for all users.
pub(crate) fn library_in(folder: &Path) -> PathBuf {
    let library = folder.join("libnvidia-ml.so.1");
    fs::copy(fake_nvml::library_path(), &library).expect("the library was built");
    fs::set_permissions(&library, Permissions::from_mode(0o755)).expect("ours");
    library
}

/// Writes a facts file for the fake library.
pub(crate) fn facts_in(folder: &Path) -> PathBuf {
    let facts = folder.join("facts.json");
    fs::write(&facts, scenarios::named("healthy-t4-1").expect("a scenario").json).expect("a file");
    facts
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

pub(crate) fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it starts")
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether `unshare` with these namespaces is permitted. If not, prints that the test is skipped.
pub(crate) fn may_unshare(namespaces: &[&str]) -> bool {
    let tried = Command::new("unshare").args(namespaces).args(["--fork", "true"]).output();
    let permitted = tried.is_ok_and(|tried| tried.status.success());
    if !permitted {
        eprintln!("skipped: unshare {} is not permitted here", namespaces.join(" "));
    }
    permitted
}
