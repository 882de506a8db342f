//! `head`, `text`, `names` and others: read files and folders (procfs, sysfs, `/dev`) with limits on size and time.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use syringe_core::report::Problem;

use crate::bounded;

/// Size limit for files of procfs and sysfs, which are much smaller.
pub(crate) const SMALL: usize = 64 * 1024;

/// Maximum number of entries of a directory. `/proc` of a large node has tens of thousands of entries.
const MAX_ENTRIES: usize = 100_000;

/// Maximum time for reading a directory. Entries after this time are left out, so that the entries that were read
/// arrive before the deadline.
const LIST_TIME: Duration = Duration::from_millis(600);

/// The reason why a FIFO or a socket is not read.
const NOT_A_FILE: &str = "not a regular file and not a device";

/// Opens a file for reading without blocking. A FIFO or a socket in place of a file is a problem of the section.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let at = path.to_owned();
    let file = bounded::in_time(path, move || open_now(&at));
    note_kind(path, file)
}

/// Works like [`open`], but without a deadline, for the helper thread.
pub(crate) fn open_now(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() || kind.is_socket() { Err(io::Error::other(NOT_A_FILE)) } else { Ok(file) }
}

/// Notes a file of the wrong type.
fn note_kind<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|error| {
        if error.kind() == io::ErrorKind::Other && error.to_string() == NOT_A_FILE {
            bounded::note("not_a_file", path, NOT_A_FILE, "");
        }
    })
}

/// An open file with a deadline for each read. After a read that blocks, nothing more is read.
pub(crate) struct BoundedReader {
    file: Option<File>,
    path: PathBuf,
}

impl BoundedReader {
    pub(crate) fn new(file: File, path: &Path) -> Self {
        Self { file: Some(file), path: path.to_owned() }
    }
}

impl Read for BoundedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut file) = self.file.take() else { return Err(io::ErrorKind::TimedOut.into()) };
        let mut data = vec![0; buffer.len()];
        let (file, data, length) = bounded::in_time(&self.path, move || {
            let length = file.read(&mut data)?;
            Ok((file, data, length))
        })?;
        self.file = Some(file);
        buffer.copy_from_slice(&data);
        Ok(length)
    }
}

/// Returns the first `cap` bytes of a file.
pub(crate) fn head(path: &Path, cap: usize) -> io::Result<Vec<u8>> {
    head_of(path, path, cap, None)
}

/// Returns the first `cap` bytes of the file `path`. `name`: the path in problems. `time`: a shorter time limit than usual.
pub(crate) fn head_of(path: &Path, name: &Path, cap: usize, time: Option<Duration>) -> io::Result<Vec<u8>> {
    let at = path.to_owned();
    let read = move || {
        let mut data = Vec::new();
        open_now(&at)?.take(u64::try_from(cap).unwrap_or(u64::MAX)).read_to_end(&mut data)?;
        Ok(data)
    };
    let result = match time {
        Some(time) => bounded::in_time_of(time, name, read),
        None => bounded::in_time(name, read),
    };
    note_kind(name, result)
}

/// Returns a whole file; an error if the file is longer than `cap`.
pub(crate) fn whole(path: &Path, cap: usize) -> io::Result<Vec<u8>> {
    not_longer(head(path, cap.saturating_add(1))?, cap)
}

/// Returns `data`, or an error if `data` is longer than `cap`.
pub(crate) fn not_longer(data: Vec<u8>, cap: usize) -> io::Result<Vec<u8>> {
    if data.len() > cap {
        return Err(io::Error::other(format!("the file is longer than {cap} bytes")));
    }
    Ok(data)
}

/// Returns the metadata of a file, or of the link itself if the path is a link.
pub(crate) fn link_metadata(path: &Path) -> io::Result<Metadata> {
    let at = path.to_owned();
    bounded::in_time(path, move || fs::symlink_metadata(at))
}

/// Returns the metadata of a file, following links.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    let at = path.to_owned();
    bounded::in_time(path, move || fs::metadata(at))
}

/// Returns whether `path` exists. If that is unknown, returns `false` and notes a problem of the section.
pub(crate) fn exists(path: &Path) -> bool {
    metadata(path).is_ok()
}

/// Returns the target of a link.
pub(crate) fn link(path: &Path) -> io::Result<PathBuf> {
    let at = path.to_owned();
    bounded::in_time(path, move || fs::read_link(at))
}

/// Returns the path with all links resolved.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let at = path.to_owned();
    bounded::in_time(path, move || fs::canonicalize(at))
}

/// Returns whether the process with this folder belongs to root or to the user of the probe.
pub(crate) fn is_of_root(process: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    metadata(process).is_ok_and(|process| [0, own].contains(&process.uid()))
}

/// Returns a small file as trimmed text; `None` if the file cannot be read or is empty.
pub(crate) fn text(path: &Path) -> Option<String> {
    trimmed(&head(path, SMALL).ok()?)
}

/// Returns the text without leading and trailing white space; `None` if nothing is left.
pub(crate) fn trimmed(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the number in a small file with one number.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// Returns the number in a small file with one hexadecimal number (`0x10de`).
pub(crate) fn hex(path: &Path) -> Option<u32> {
    let text = text(path)?;
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
}

/// Returns the numbers in the files of a folder with these names, in one job of the helper thread. Other texts are left out.
pub(crate) fn numbers(folder: &Path, names: Vec<&'static str>) -> Vec<(&'static str, u64)> {
    /// Maximum size of a file with one number.
    const CAP: u64 = 64;
    let at = folder.to_owned();
    let number = move |name: &str| -> Option<u64> {
        let mut text = String::new();
        open_now(&at.join(name)).ok()?.take(CAP).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    };
    let read = move || Ok(names.into_iter().filter_map(|name| Some((name, number(name)?))).collect());
    bounded::in_time(folder, read).unwrap_or_default()
}

/// Returns the names in a directory, sorted. If not all names were read, the section gets a problem.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    names_of(folder, folder)
}

/// Like [`names`], for the folder `path`. `name`: the path in problems.
pub(crate) fn names_of(path: &Path, name: &Path) -> io::Result<Vec<String>> {
    Ok(entries_of(path, name)?.into_iter().map(|entry| entry.name).collect())
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) is_folder: bool,
}

/// Returns the entries of a directory, sorted by name.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    entries_of(folder, folder)
}

fn entries_of(path: &Path, name: &Path) -> io::Result<Vec<Entry>> {
    let at = path.to_owned();
    let (mut entries, cut) = bounded::in_time(name, move || {
        let started = Instant::now();
        let mut all = fs::read_dir(at)?;
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            Some(Entry { name: entry.file_name().into_string().ok()?, is_folder })
        };
        let in_time = |(number, _): &(usize, _)| number % 512 != 511 || started.elapsed() < LIST_TIME;
        let some = all.by_ref().take(MAX_ENTRIES).enumerate().take_while(in_time);
        let entries: Vec<Entry> = some.filter_map(|(_, found)| entry(found)).collect();
        Ok((entries, all.next().is_some()))
    })?;
    if cut {
        bounded::note("too_many_entries", name, format!("only {} entries of the folder were read", entries.len()), "");
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Returns whether an error of a read below `/proc/PID` means that the process has exited.
pub(crate) fn has_exited(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// Returns the process IDs in `/proc`, in order.
pub(crate) fn pids(proc: &Path) -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = names(proc)?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Returns `path` as the host sees it, without the root.
pub(crate) fn shown(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
    syringe_core::text::clean(&format!("/{}", below.trim_start_matches('/')), 200)
}

pub(crate) fn problem(code: &str, what: impl Into<String>, why: impl ToString, next_step: &str) -> Problem {
    Problem {
        what: what.into(),
        why: why.to_string(),
        next_step: next_step.to_owned(),
        gpu: None,
        code: code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn a_file_above_its_cap_is_an_error_and_not_truncated() {
        let tree = Tree::new();
        tree.file("big", "123456");
        assert_eq!(head(&tree.path().join("big"), 3).ok().as_deref(), Some(&b"123"[..]));
        assert!(whole(&tree.path().join("big"), 5).is_err());
        assert!(whole(&tree.path().join("big"), 6).is_ok());
    }

    #[test]
    fn a_fifo_in_place_of_a_file_does_not_hang_the_probe() {
        let tree = Tree::new();
        let path = tree.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("a FIFO can be made in a temporary directory");
        assert_eq!(text(&path), None);
        assert_eq!(bounded::take_problems().len(), 1, "a FIFO is a problem and not an empty file");
    }
}
