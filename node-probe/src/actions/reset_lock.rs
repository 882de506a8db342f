//! `Lock`: a lock file that lets only one reset run on a node at a time.
//! `reset_is_running`: whether a reset holds the lock.
//!
//! The lock file is in the node's `/run`, and only root can open it. A container could lock a file that it can open, such as
//! nvidia-smi, forever. The lock belongs to the open file: it is released when this process and every nvidia-smi that
//! inherited it have exited. Only the process that holds the lock deletes the file.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use syringe_core::facts::action::Obstacle;
use syringe_core::nvml_codes;
use syringe_core::report::Problem;

/// Path of the lock file below the node's root.
const FILE: &str = "run/gpu-syringe-reset.lock";
/// Number of attempts to lock the file, in case another reset releases the lock and deletes the file in between.
const TRIES: u32 = 5;
const NEXT: &str = "Wait until the running reset has finished, then try again.";

/// The lock, held until this value is released.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of the node with this root directory.
    pub(super) fn take(host: &Path) -> Result<Self, Obstacle> {
        let path = host.join(FILE);
        let unknown = |error: &io::Error| {
            let why = format!("cannot determine whether another reset is running: {}: {error}", path.display());
            Obstacle::new("lock", why, NEXT)
        };
        for _ in 0..TRIES {
            let file = open(&path).map_err(|error| unknown(&error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Obstacle::new("reset_running", "another reset is running on this node", NEXT));
                }
                Err(TryLockError::Error(error)) => return Err(unknown(&error)),
            }
            // The previous owner may have deleted the file in between. In that case the lock is on a deleted file.
            if is_at(&file, &path) {
                return Ok(Self { file, path });
            }
        }
        Err(Obstacle::new("reset_running", "other resets are running on this node", NEXT))
    }

    /// Releases the lock. If nvidia-smi is still running, nvidia-smi keeps the lock, and the file stays.
    pub(super) fn give_back(self, still_running: bool) {
        if !still_running && is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns a problem if a reset is running. In this case NVML must not be read: NVML would open the GPUs, and the reset
/// would fail.
pub(crate) fn reset_is_running(host: &Path) -> Option<Problem> {
    let file = checked(OpenOptions::new().read(true), &host.join(FILE)).ok()?;
    let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_held.then(|| Problem {
        what: "nvml".into(),
        why: "a GPU reset is running on this node, so NVML was not opened".into(),
        next_step: NEXT.into(),
        code: nvml_codes::NOT_REACHED.into(),
        ..Problem::default()
    })
}

fn open(path: &Path) -> io::Result<File> {
    let file = checked(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600), path)?;
    // The mode is set explicitly, so that it does not depend on the umask.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Opens the file if only root can open it.
fn checked(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(io::Error::other("users other than root can open or replace the file"));
    }
    Ok(file)
}

fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |ours: std::fs::Metadata, named: std::fs::Metadata| (ours.dev(), ours.ino()) == (named.dev(), named.ino());
    file.metadata().ok().zip(std::fs::symlink_metadata(path).ok()).is_some_and(|(ours, named)| same(ours, named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn code(tree: &Tree) -> String {
        Lock::take(tree.path()).expect_err("refused").code
    }

    #[test]
    fn one_process_holds_the_lock_and_no_file_stays() {
        let tree = Tree::new();
        tree.folder("run");
        let lock = Lock::take(tree.path()).expect("nobody has it");
        let mode = std::fs::metadata(tree.path().join(FILE)).expect("there").mode();
        assert_eq!((code(&tree).as_str(), mode & 0o777), ("reset_running", 0o600));
        assert!(reset_is_running(tree.path()).is_some());
        lock.give_back(false);
        assert!(!tree.path().join(FILE).exists());
        assert_eq!(reset_is_running(tree.path()), None);
        assert!(!tree.path().join(FILE).exists(), "a reader creates no file");
        Lock::take(tree.path()).expect("it was given back").give_back(true);
        assert!(tree.path().join(FILE).exists(), "a running nvidia-smi keeps the file");
    }

    #[test]
    fn a_file_that_others_can_open_is_not_a_lock() {
        let tree = Tree::new();
        tree.file(FILE, "");
        assert_eq!(code(&tree), "lock", "others can open the file");
        std::fs::remove_file(tree.path().join(FILE)).expect("ours");
        tree.link(FILE, "/etc/hostname");
        assert_eq!(code(&tree), "lock", "a link");
        assert_eq!(code(&Tree::new()), "lock", "no /run");
    }

    #[test]
    fn a_lock_on_nvidia_smi_blocks_nobody() {
        let tree = Tree::new();
        tree.folder("run").file("usr/bin/nvidia-smi", "");
        let tenants = File::open(tree.path().join("usr/bin/nvidia-smi")).expect("anybody can");
        tenants.lock().expect("and keep it");
        assert!(Lock::take(tree.path()).is_ok());
    }
}
