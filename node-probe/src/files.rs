//! Reads of procfs, sysfs and `/dev` with a size limit, and `in_time` for reads that can block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use syringe_core::report::Problem;

/// Limit for files of procfs and sysfs, which are much smaller.
pub(crate) const SMALL: usize = 64 * 1024;

/// Maximum number of entries of a directory. `/proc` of a large node has some ten thousand.
const MAX_ENTRIES: usize = 100_000;

/// Opens a file for reading without blocking, even if it is a FIFO or a device.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// The first `cap` bytes of a file.
pub(crate) fn head(path: &Path, cap: usize) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    open(path)?.take(u64::try_from(cap).unwrap_or(u64::MAX)).read_to_end(&mut data)?;
    Ok(data)
}

/// The result of `read`, or `None` if it takes longer than `time`.
pub(crate) fn in_time<T: Send + 'static>(time: Duration, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(read()));
    receiver.recv_timeout(time).ok()
}

/// A whole file; an error if it is longer than `cap`.
pub(crate) fn whole(path: &Path, cap: usize) -> io::Result<Vec<u8>> {
    let data = head(path, cap.saturating_add(1))?;
    if data.len() > cap {
        return Err(io::Error::other(format!("the file is longer than {cap} bytes")));
    }
    Ok(data)
}

/// A small file as trimmed text; `None` if it cannot be read or is empty.
pub(crate) fn text(path: &Path) -> Option<String> {
    let data = head(path, SMALL).ok()?;
    let text = String::from_utf8_lossy(&data);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A small file with one number.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// A small file with one hexadecimal number (`0x10de`).
pub(crate) fn hex(path: &Path) -> Option<u32> {
    let text = text(path)?;
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).ok()
}

/// The names in a directory, sorted.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder)?
        .take(MAX_ENTRIES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The process ids in `/proc`, in order.
pub(crate) fn pids(proc: &Path) -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = names(proc)?.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// `path` as the host sees it, without the root.
pub(crate) fn shown(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
    syringe_core::text::clean(&format!("/{}", below.trim_start_matches('/')), 200)
}

/// Creates a problem.
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
    fn a_slow_read_is_given_up_in_time() {
        assert_eq!(in_time(Duration::from_secs(5), || 7), Some(7));
        assert_eq!(in_time(Duration::from_millis(10), || thread::sleep(Duration::from_secs(5))), None);
    }

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
    }
}
