//! `AuditLog`: appends to, rotates and reads the file of the audit log.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::line::{AuditEvent, AuditLine};
use crate::settings::Settings;
use crate::user_dirs::state_dir;

/// Name of the file.
const FILE: &str = "audit.jsonl";
/// Name of the file for the demo, so that its nodes never look like nodes of a cluster.
#[cfg(feature = "demo")]
const DEMO_FILE: &str = "audit-demo.jsonl";
/// Size at which the file is rotated, after about ten thousand lines.
const MAX_BYTES: u64 = 5 << 20;
/// Number of rotated files that are kept.
const KEPT: u32 = 5;
/// Maximum time that a line waits for other launchers that are writing.
const LOCK_TIME: Duration = Duration::from_secs(3);
/// Pause between two attempts to lock the file.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The audit log file.
#[derive(Clone, Debug)]
pub struct AuditLog {
    file: Option<PathBuf>,
    /// Whether nothing is written, because the cluster is an archive. Probes of an archive read no node and change
    /// nothing.
    is_read_only: bool,
}

impl AuditLog {
    /// Returns the log of these settings, in the state directory of the user. Without this directory, nothing is written and
    /// no action is done. The demo has its own file. With an archive, nothing is written.
    pub fn in_state_dir(settings: &Settings) -> Self {
        #[cfg(feature = "demo")]
        let name = if settings.is_demo() { DEMO_FILE } else { FILE };
        #[cfg(not(feature = "demo"))]
        let name = FILE;
        Self { file: state_dir().map(|directory| directory.join(name)), is_read_only: settings.refuses_actions() }
    }

    /// Returns the log in this directory.
    pub fn at(directory: &Path) -> Self {
        Self { file: Some(directory.join(FILE)), is_read_only: false }
    }

    /// Returns the path of the file, or `None` without a state directory.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Appends a line with [`Self::write`] on a thread that may block, because a disk can be slow.
    ///
    /// # Errors
    /// The errors of [`Self::write`].
    pub async fn append(&self, line: AuditLine) -> io::Result<()> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.write(&line)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// Appends a line. If this fails, the line goes to the log of the program instead.
    pub(crate) async fn append_or_warn(&self, line: AuditLine) {
        if let Err(error) = self.append(line.clone()).await {
            self.warn_unwritten(&error, &line);
        }
    }

    /// Logs one warning that a line could not be written, with the reason. The line of an action also goes to the log
    /// of the program.
    pub(crate) fn warn_unwritten(&self, error: &io::Error, line: &AuditLine) {
        static TOLD: std::sync::Once = std::sync::Once::new();
        // If there is no folder, the search for the folder has already logged the reason.
        if let Some(file) = self.path().map(Path::display) {
            TOLD.call_once(|| tracing::warn!("no audit log: {file}: {error} (XDG_STATE_HOME sets another folder)"));
        }
        if line.event != AuditEvent::Probe {
            let line = serde_json::to_string(line).unwrap_or_default();
            tracing::warn!(%line, "not in the audit log");
        }
    }

    /// Appends a line and syncs it to the disk. This function blocks.
    ///
    /// # Errors
    /// If there is no state directory, or writing fails.
    pub fn write(&self, line: &AuditLine) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        let path =
            self.file.as_deref().ok_or_else(|| io::Error::other("there is no state directory (set XDG_STATE_HOME)"))?;
        let mut text = serde_json::to_vec(&AuditLine { time: Some(Timestamp::now()), ..line.clone() })?;
        text.push(b'\n');
        // The lock is held until the line is written. Otherwise, two launchers could rotate at the same time and drop a
        // file that is almost empty, or a line could go to a file that another launcher has just renamed.
        let _lock = lock(path);
        let mut file = open_to_append(path)?;
        if file.metadata()?.len() >= MAX_BYTES {
            rotate(path);
            drop(file);
            file = open_to_append(path)?;
        }
        // The whole line is one write, so that lines of two launchers are not mixed.
        file.write_all(&text)?;
        file.sync_data()
    }

    /// Reads the newest `most` lines, oldest first. Skips lines that do not parse.
    ///
    /// # Errors
    /// If the file exists and cannot be read.
    pub fn read(&self, most: usize) -> io::Result<Vec<AuditLine>> {
        let Some(path) = self.file.as_deref() else { return Ok(Vec::new()) };
        let mut lines: Vec<AuditLine> = Vec::new();
        for path in (0..=KEPT).map(|number| rotated_file(path, number)) {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let texts = BufReader::new(file).lines().collect::<io::Result<Vec<_>>>()?;
            let mut older: Vec<AuditLine> = texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
            older.append(&mut lines);
            lines = older;
            if lines.len() >= most {
                break;
            }
        }
        Ok(lines.split_off(lines.len().saturating_sub(most)))
    }
}

/// Locks a separate file for writing. Returns `None` after [`LOCK_TIME`], because writing the
/// line is more important than the order of the files.
fn lock(path: &Path) -> Option<File> {
    let lock = open_to_append(&path.with_extension("lock")).ok()?;
    let end = Instant::now() + LOCK_TIME;
    loop {
        match lock.try_lock() {
            Ok(()) => return Some(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // Makes the file private again if its mode was changed.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(file)
}

/// Returns the path `audit.jsonl.N`. The current file is number 0.
fn rotated_file(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { path.with_extension(format!("jsonl.{number}")) }
}

/// Renames every file to the next number, and deletes the oldest. A file that cannot be renamed continues to grow.
fn rotate(path: &Path) {
    for number in (0..KEPT).rev() {
        let _ = fs::rename(rotated_file(path, number), rotated_file(path, number + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(node: &str) -> AuditLine {
        AuditLine { node: node.into(), tool: "get_gpu_inventory".into(), ..AuditLine::default() }
    }

    #[test]
    fn lines_come_back_newest_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::at(folder.path());
        assert_eq!(audit.read(10).expect("no file is no lines"), []);
        for number in 0..5 {
            audit.write(&line(&format!("gpu-{number}"))).expect("the file can be written");
        }
        let nodes: Vec<String> = audit.read(2).expect("readable").into_iter().map(|line| line.node).collect();
        assert_eq!(nodes, ["gpu-3", "gpu-4"]);
        assert!(audit.read(10).expect("readable")[0].time.is_some());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::at(folder.path());
        let mode = || fs::metadata(folder.path().join(FILE)).expect("there").permissions().mode() & 0o777;
        audit.write(&line("gpu-1")).expect("the file can be written");
        assert_eq!(mode(), 0o600);
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o644)).expect("ours");
        audit.write(&line("gpu-1")).expect("the file can be written");
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn a_long_file_is_rotated_and_still_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::at(folder.path());
        audit.write(&line("old")).expect("the file can be written");
        let filler = vec![b'\n'; usize::try_from(MAX_BYTES).expect("fits")];
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE)).expect("there");
        file.write_all(&filler).expect("the file can be written");
        audit.write(&line("new")).expect("the file can be written");
        assert!(folder.path().join("audit.jsonl.1").exists());
        assert!(fs::metadata(folder.path().join(FILE)).expect("there").len() < 1000);
        let nodes: Vec<String> = audit.read(10).expect("readable").into_iter().map(|line| line.node).collect();
        assert_eq!(nodes, ["old", "new"]);
    }

    #[test]
    fn without_a_state_directory_writing_is_an_error() {
        assert!(AuditLog { file: None, is_read_only: false }.write(&line("gpu-1")).is_err());
        let folder = tempfile::tempdir().expect("a folder");
        assert!(AuditLog::at(&folder.path().join("absent")).write(&line("gpu-1")).is_err());
    }
}
