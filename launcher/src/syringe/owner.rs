//! Whose pod it is, and whether that process still lives: how a pod that a killed launcher left is told from one at work.
//!
//! Each launcher holds a lock on a file of its own while it runs; the operating system lets go of it when the process
//! ends, however it ends. Pods carry the file's directory identity (`owner`) and its name (`session`). A launcher that
//! finds a pod of its own `owner` whose lock can be taken knows that the pod's maker is dead.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::syringe::pod::random_suffix;

/// Age from which the lock of a dead session is removed.
const FORGET_AFTER: std::time::Duration = std::time::Duration::from_secs(3600);

/// This process, as pods name it.
#[derive(Debug)]
pub struct Owner {
    /// Identity of the directory that holds the locks: one per user and machine.
    pub id: String,
    /// This process.
    pub session: String,
    directory: Option<PathBuf>,
    /// Held, never read: dropping it lets go of the lock.
    lock: Option<File>,
}

impl Owner {
    /// Takes a session. Where no directory can be written, pods are swept by their age alone.
    pub fn claim() -> Self {
        Self::claim_in(state_directory())
    }

    fn claim_in(directory: Option<PathBuf>) -> Self {
        let session = random_suffix();
        let claimed = directory.and_then(|directory| {
            forget_dead(&directory);
            let id = identity(&directory)?;
            let lock = File::create(lock_file(&directory, &session)).ok()?;
            lock.try_lock().ok()?;
            Some((directory, id, lock))
        });
        match claimed {
            Some((directory, id, lock)) => Self { id, session, directory: Some(directory), lock: Some(lock) },
            None => Self { id: random_suffix(), session, directory: None, lock: None },
        }
    }

    /// Whether the process that made a pod of `owner` and `session` is known to have ended.
    pub fn is_dead(&self, owner: &str, session: &str) -> bool {
        if owner != self.id || session == self.session || !is_plain(session) {
            return false;
        }
        let Some(directory) = &self.directory else { return false };
        match File::open(lock_file(directory, session)) {
            Ok(file) => match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => false,
            },
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.lock.take());
        if let Some(directory) = &self.directory {
            let _ = fs::remove_file(lock_file(directory, &self.session));
        }
    }
}

/// `$XDG_STATE_HOME/gpu-syringe`, or what the platform has in its place.
pub(crate) fn state_directory() -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_STATE_HOME")
        .or_else(|| given("LOCALAPPDATA"))
        .or_else(|| given("HOME").map(|home| home.join(".local").join("state")))?;
    let directory = base.join("gpu-syringe");
    fs::create_dir_all(&directory).ok()?;
    Some(directory)
}

/// A random word kept in the directory: a label must not carry the user's or the machine's name.
fn identity(directory: &Path) -> Option<String> {
    let file = directory.join("owner");
    let read = || fs::read_to_string(&file).ok().map(|id| id.trim().to_owned()).filter(|id| is_plain(id));
    if let Some(id) = read() {
        return Some(id);
    }
    // Two first starts at once: whoever links its file first wins, both read the winner's.
    let mine = directory.join(format!("owner.{}", random_suffix()));
    fs::write(&mine, random_suffix()).ok()?;
    let _ = fs::hard_link(&mine, &file).or_else(|_| fs::copy(&mine, &file).map(|_| ()));
    let _ = fs::remove_file(&mine);
    read()
}

/// Removes the locks of launchers that were killed long ago. A young one stays: `is_dead` needs no file to know a dead
/// session, but a launcher that is just starting has made its file and not locked it yet.
fn forget_dead(directory: &Path) {
    let files = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("session-")) {
        let age = file.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        let dead = || File::open(file.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if age.is_some_and(|age| age > FORGET_AFTER) && dead() {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn lock_file(directory: &Path, session: &str) -> PathBuf {
    directory.join(format!("session-{session}.lock"))
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn a_live_session_is_not_dead_and_an_ended_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let mine = Owner::claim_in(Some(directory.path().into()));
        let other = Owner::claim_in(Some(directory.path().into()));
        assert_eq!(mine.id, other.id, "one directory, one identity");
        let session = other.session.clone();
        assert!(!mine.is_dead(&other.id, &session));
        drop(other);
        assert!(mine.is_dead(&mine.id, &session));
    }

    #[test]
    fn sessions_of_other_machines_are_never_judged() {
        let here = tempfile::tempdir().expect("a directory");
        let there = tempfile::tempdir().expect("a directory");
        let mine = Owner::claim_in(Some(here.path().into()));
        let other = Owner::claim_in(Some(there.path().into()));
        assert!(!mine.is_dead(&other.id, "abcdefgh"));
        assert!(!mine.is_dead(&mine.id, "../../etc/passwd"));
        assert!(!mine.is_dead(&mine.id, &mine.session));
    }
}
