//! `LauncherIdentity`: the locked file of a launcher, which shows whether it runs. `EndedSession`: the file of an ended
//! launcher.
//!
//! Each running launcher holds a lock on its own file. The operating system releases the lock when the process exits.
//! The labels of a pod contain the identity of the lock directory (`owner`) and the file (`session`). If the `owner` is
//! ours and the file can be locked, the process that created the pod has exited.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::probe::lifecycle::open_probes::OpenProbe;
use crate::probe::lifecycle::random_name::random_suffix;
use crate::user_dirs::{lock_dir, state_dir};

/// Age after which the lock file of a dead session is deleted.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Age after which a lock file of another machine or of an earlier boot is deleted. The age is high because the process
/// may still be running.
const FORGET_OTHERS_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Maximum size of a list of open probes that is read.
const MAX_LIST_BYTES: u64 = 1 << 20;
/// Length of an owner identity.
const ID_LENGTH: usize = 20;

/// The identity of this process in the labels of its pods.
#[derive(Debug)]
pub struct LauncherIdentity {
    /// Identity of the lock directory on this machine until the next boot.
    pub id: String,
    pub session: String,
    directory: Option<PathBuf>,
    /// The locked file. It contains the probes of this process that have no audit line yet, as a JSON list.
    lock: Option<File>,
    unaudited: Mutex<Vec<OpenProbe>>,
}

/// The file of a session that has ended, with the probes that have no audit line. The file is locked, so that no other
/// launcher stops the same probes.
pub(crate) struct EndedSession {
    file: File,
    pub(crate) unaudited: Vec<OpenProbe>,
}

impl EndedSession {
    pub(crate) fn write(&self, left: &[OpenProbe]) -> io::Result<()> {
        write_list(&self.file, left)?;
        self.file.sync_data()
    }
}

impl LauncherIdentity {
    /// Starts a session. If no directory can be written, the clean-up of a pod depends only on its age.
    pub fn start_session() -> Self {
        Self::start_session_in(state_dir().or_else(lock_dir), &machine())
    }

    pub(crate) fn start_session_in(directory: Option<PathBuf>, machine: &str) -> Self {
        // Without random numbers no pod gets a name, so no pod has these labels.
        let Ok(session) = random_suffix() else { return Self::unlocked("-".into(), "-".into()) };
        let locked = directory.and_then(|directory| {
            let id = identity(&directory, machine)?;
            delete_stale_locks(&directory, &id);
            let lock = create_private(&lock_file(&directory, &id, &session)).ok()?;
            lock.try_lock().ok()?;
            Some((directory, id, lock))
        });
        match locked {
            Some((directory, id, lock)) => {
                Self { id, session, directory: Some(directory), lock: Some(lock), unaudited: Mutex::default() }
            }
            None => Self::unlocked(random_suffix().unwrap_or_else(|_| "-".into()), session),
        }
    }

    fn unlocked(id: String, session: String) -> Self {
        Self { id, session, directory: None, lock: None, unaudited: Mutex::default() }
    }

    /// Changes the list of probes without an audit line in the file of this session, and blocks. The list is kept after
    /// this process exits.
    /// If the list contains an ephemeral container, which no label records, the list is also kept after a power failure.
    pub(crate) fn write_unaudited(&self, change: impl FnOnce(&mut Vec<OpenProbe>)) -> io::Result<()> {
        let mut unaudited = self.unaudited.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut unaudited);
        let Some(file) = &self.lock else { return Ok(()) };
        write_list(file, &unaudited)?;
        if unaudited.iter().any(|open| open.container.is_some()) { file.sync_data() } else { Ok(()) }
    }

    /// Returns the ended sessions of this user and machine that left probes without an audit line. This function blocks.
    pub(crate) fn ended_sessions(&self) -> Vec<EndedSession> {
        let Some(directory) = &self.directory else { return Vec::new() };
        let (ours, own) = (format!("session-{}-", self.id), lock_file(directory, &self.id, &self.session));
        let files = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        let others = files.filter(|file| file.file_name().to_string_lossy().starts_with(&ours) && file.path() != own);
        others.filter_map(|file| ended_session(&file.path())).collect()
    }

    /// Deletes the file of this session, unless probes without an audit line are left. A process without the file counts as
    /// exited, so this is the last step of a process.
    pub(crate) fn end(&self) {
        let is_done = self.unaudited.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if let Some(directory) = self.directory.as_ref().filter(|_| is_done) {
            let _ = fs::remove_file(lock_file(directory, &self.id, &self.session));
        }
    }

    /// Returns whether the process that created a pod with these labels has certainly exited.
    pub fn is_dead(&self, owner: &str, session: &str) -> bool {
        if owner != self.id || session == self.session || !is_plain(session) {
            return false;
        }
        let Some(directory) = &self.directory else { return false };
        match File::open(lock_file(directory, owner, session)) {
            Ok(file) => match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => false,
            },
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Drop for LauncherIdentity {
    fn drop(&mut self) {
        drop(self.lock.take());
        self.end();
    }
}

/// Returns the session of this file; `None` if the session is running or left nothing.
fn ended_session(path: &Path) -> Option<EndedSession> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    if file.metadata().ok()?.len() > MAX_LIST_BYTES {
        return None;
    }
    file.try_lock().ok()?;
    let unaudited: Vec<OpenProbe> = serde_json::from_reader(&file).ok()?;
    (!unaudited.is_empty()).then_some(EndedSession { file, unaudited })
}

/// Overwrites the list in the file, because a new file would not be locked. If the old list was longer, the rest is cut
/// off afterwards.
fn write_list(mut file: &File, list: &[OpenProbe]) -> io::Result<()> {
    let text = if list.is_empty() { Vec::new() } else { serde_json::to_vec(list)? };
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// Creates a file that only this user can read.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Returns a text that identifies this machine and boot, because a home directory or a disk image may be copied or shared.
fn machine() -> String {
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id", "/etc/hostname"];
    let files = files.map(|file| fs::read_to_string(file).unwrap_or_default());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()));
    format!("{}\n{}", files.join("\n"), host.unwrap_or_default())
}

/// Returns a hash of a random word in a file of the directory, the device and inode of that file, and the machine. A
/// label must not contain the name of the user or of the machine.
fn identity(directory: &Path, machine: &str) -> Option<String> {
    let file = directory.join("owner");
    let read = || fs::read_to_string(&file).ok().map(|id| id.trim().to_owned()).filter(|id| is_plain(id));
    let word = read().or_else(|| {
        // Two launchers may start for the first time at the same moment: only the first link is created, and both
        // launchers read that file.
        let mine = directory.join(format!("owner.{}", random_suffix().ok()?));
        create_private(&mine).ok()?.write_all(random_suffix().ok()?.as_bytes()).ok()?;
        let _ = fs::hard_link(&mine, &file).or_else(|_| fs::copy(&mine, &file).map(|_| ()));
        let _ = fs::remove_file(&mine);
        read()
    })?;
    let device_and_inode = device_and_inode(&file)?;
    let hash = Sha256::digest(format!("{word}\n{device_and_inode}\n{machine}"));
    let id: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(id[..ID_LENGTH].to_owned())
}

/// Returns the device and inode numbers of the file. A copy has other numbers. Makes the file private.
#[cfg(unix)]
fn device_and_inode(file: &Path) -> Option<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let metadata = fs::symlink_metadata(file).ok().filter(fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).ok()?;
    }
    Some(format!("{} {}", metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn device_and_inode(file: &Path) -> Option<String> {
    let created = fs::symlink_metadata(file).ok()?.created().ok();
    Some(format!("{created:?}"))
}

/// Deletes the lock files of launchers that were killed long ago. A recent file is kept, because a launcher that is
/// starting may have created the file but not locked it yet. A launcher whose file is deleted still counts as dead.
fn delete_stale_locks(directory: &Path, id: &str) {
    let ours = format!("session-{id}-");
    for file in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let name = file.file_name().to_string_lossy().into_owned();
        if !name.starts_with("session-") {
            continue;
        }
        let Ok(metadata) = file.metadata() else { continue };
        // If two machines share the directory, a lock that the other machine holds may look free. A file that lists
        // probes is kept longer, for the next clean-up on the cluster of these probes.
        let limit = if name.starts_with(&ours) && metadata.len() == 0 { FORGET_AFTER } else { FORGET_OTHERS_AFTER };
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        let dead = || File::open(file.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if age.is_some_and(|age| age > limit) && dead() {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn lock_file(directory: &Path, id: &str, session: &str) -> PathBuf {
    directory.join(format!("session-{id}-{session}.lock"))
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(directory: &Path, machine: &str) -> LauncherIdentity {
        LauncherIdentity::start_session_in(Some(directory.into()), machine)
    }

    #[test]
    fn a_live_session_is_not_dead_and_an_ended_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mine, other) = (claim(directory.path(), "a"), claim(directory.path(), "a"));
        assert_eq!(mine.id, other.id, "one directory on one machine, one identity");
        let session = other.session.clone();
        assert!(!mine.is_dead(&other.id, &session));
        drop(other);
        assert!(mine.is_dead(&mine.id, &session));
    }

    #[test]
    fn sessions_of_other_directories_are_never_dead() {
        let here = tempfile::tempdir().expect("a directory");
        let there = tempfile::tempdir().expect("a directory");
        let (mine, other) = (claim(here.path(), "a"), claim(there.path(), "a"));
        assert!(!mine.is_dead(&other.id, "abcdefgh"));
        assert!(!mine.is_dead(&mine.id, "../../etc/passwd"));
        assert!(!mine.is_dead(&mine.id, &mine.session));
    }

    /// If the identities were equal, two machines with a shared or copied home directory would delete each other's pods.
    #[test]
    fn a_copied_or_shared_home_directory_makes_no_two_machines_one() {
        let (home, copy) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let here = claim(home.path(), "machine a");
        fs::copy(home.path().join("owner"), copy.path().join("owner")).expect("a copy");
        for there in [claim(copy.path(), "machine b"), claim(copy.path(), "machine a"), claim(home.path(), "machine b")]
        {
            assert_ne!(here.id, there.id);
            assert!(!there.is_dead(&here.id, &here.session) && !here.is_dead(&there.id, &there.session));
        }
        assert!(lock_file(home.path(), &here.id, &here.session).exists(), "no other launcher removed the file");
    }

    /// A task of the program may still hold the identity when the program exits.
    #[test]
    fn an_ended_session_leaves_no_file_even_while_it_is_still_held() {
        let directory = tempfile::tempdir().expect("a directory");
        let owner = claim(directory.path(), "a");
        let file = lock_file(directory.path(), &owner.id, &owner.session);
        assert!(file.exists());
        owner.end();
        assert!(!file.exists());
        drop(owner);
        assert!(!file.exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("gpu-syringe");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        fs::create_dir(&directory).expect("made");
        let owner = claim(&directory, "a");
        let files: Vec<PathBuf> =
            fs::read_dir(&directory).expect("files").map(|file| file.expect("one").path()).collect();
        assert!(files.len() == 2 && files.iter().all(|file| mode(file) == 0o600), "{files:?}");
        drop(owner);
    }
}
