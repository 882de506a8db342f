//! `Root`: opens files below a root directory with untrusted links: that of the host, a driver container or a workload.
//!
//! A symbolic link is resolved inside its root: `/proc/1/root/etc/x -> /usr/y` means `/usr/y` of the host. The path is
//! opened one component after another without following links (`O_PATH`, `O_NOFOLLOW`), which has no effect on the opened
//! file. Only a regular file is then opened for reading, through its descriptor: a link to a device is never opened.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatVfs, fstat, fstatvfs, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::{bounded, files};

/// The kernel's limit on the number of links in one path.
const MAX_LINKS: u32 = 40;

/// Maximum time for reading the types of a folder's entries: a container can create any number of entries.
const KINDS_TIME: Duration = Duration::from_millis(200);

const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// An open directory that is used as `/`.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    handle: Arc<OwnedFd>,
    /// The path of the directory as this process sees it.
    pub(crate) path: PathBuf,
}

/// An open file or folder below a root. Its content has not been read.
#[derive(Debug)]
pub(crate) struct HostFile {
    handle: Arc<OwnedFd>,
    kind: FileType,
    /// The path of the file as this process sees it, for messages only.
    pub(crate) path: PathBuf,
}

impl Root {
    /// Opens a root. The probe chooses `path`, so links in this path are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let at = path.to_owned();
        let open = move || Ok(openat(CWD, at, HANDLE | OFlags::DIRECTORY, Mode::empty())?);
        Ok(Self { handle: Arc::new(bounded::in_time(path, open)?), path: path.to_owned() })
    }

    /// Returns a path to this directory through its descriptor, valid while this value exists.
    pub(crate) fn descriptor_path(&self) -> PathBuf {
        descriptor_path(&self.handle)
    }

    /// Returns the file or folder at `path`; `None` if it does not exist, or cannot be reached.
    pub(crate) fn find(&self, path: &str) -> Option<HostFile> {
        self.find_or_fail(path).ok().flatten()
    }

    /// Returns the file or folder at `path`; `None` if it does not exist.
    pub(crate) fn find_or_fail(&self, path: &str) -> io::Result<Option<HostFile>> {
        let (root, at) = (self.clone(), path.to_owned());
        let found = bounded::in_time(&self.named(path), move || {
            let (handle, below) = root.walk_now(&at, |_, _| Ok::<(), Errno>(()))?;
            let kind = FileType::from_raw_mode(fstat(&handle)?.st_mode);
            Ok(HostFile { handle: Arc::new(handle), kind, path: root.path.join(below) })
        });
        match found {
            Ok(file) => Ok(Some(file)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether `path` exists; `None` if that could not be determined.
    pub(crate) fn exists(&self, path: &str) -> Option<bool> {
        match self.walk(path, |_, _| Ok::<(), Errno>(())) {
            Ok(_) => Some(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Some(false),
            Err(_) => None,
        }
    }

    /// Returns the folder at `path` as a separate root.
    pub(crate) fn below(&self, path: &str) -> Option<Self> {
        let HostFile { handle, .. } = self.find(path).filter(|folder| folder.kind == FileType::Directory)?;
        Some(Self { handle, path: self.path.join(path) })
    }

    /// Opens this directory and then one component of `path` after another, and calls `check` for each of them. Returns
    /// the file and its path below this root.
    pub(crate) fn walk<E: From<Errno> + Send + 'static>(
        &self,
        path: &str,
        check: impl Fn(&Stat, &Path) -> Result<(), E> + Send + 'static,
    ) -> Result<(OwnedFd, PathBuf), E> {
        let (root, at) = (self.clone(), path.to_owned());
        let walked = bounded::in_time(&self.named(path), move || Ok(root.walk_now(&at, check)));
        walked.unwrap_or_else(|_| Err(Errno::TIMEDOUT.into()))
    }

    /// Returns the path for messages.
    fn named(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    fn walk_now<E: From<Errno>>(
        &self,
        path: &str,
        check: impl Fn(&Stat, &Path) -> Result<(), E>,
    ) -> Result<(OwnedFd, PathBuf), E> {
        check(&fstat(&self.handle)?, Path::new(""))?;
        let (mut held, mut reached): (Vec<OwnedFd>, PathBuf) = (Vec::new(), PathBuf::new());
        let mut pending = parts(Path::new(path));
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.components().next() {
                Some(Component::RootDir) => {
                    held.clear();
                    reached.clear();
                }
                Some(Component::ParentDir) => {
                    held.pop();
                    reached.pop();
                }
                Some(Component::Normal(name)) => {
                    let folder = held.last().unwrap_or(&self.handle).as_fd();
                    let next = openat(folder, name, HANDLE | OFlags::NOFOLLOW, Mode::empty())?;
                    // The component was opened without following links, so for a link the result describes the link
                    // itself.
                    let stat = statat(&next, "", AtFlags::EMPTY_PATH)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP.into());
                        }
                        let target = readlinkat(&next, "", Vec::new())?;
                        pending.extend(parts(Path::new(OsStr::from_bytes(target.as_bytes()))));
                    } else {
                        reached.push(name);
                        check(&stat, &reached)?;
                        held.push(next);
                    }
                }
                Some(Component::CurDir | Component::Prefix(_)) | None => {}
            }
        }
        let handle = match held.pop() {
            Some(handle) => handle,
            None => openat(&self.handle, ".", HANDLE | OFlags::DIRECTORY, Mode::empty())?,
        };
        Ok((handle, reached))
    }
}

impl HostFile {
    /// Returns a path to this file through its descriptor, valid while this value exists.
    pub(crate) fn descriptor_path(&self) -> PathBuf {
        descriptor_path(&self.handle)
    }

    /// Opens a regular file and reads it, in one step with a deadline. Any other type of file is a problem of the section.
    pub(crate) fn opened<T: Send + 'static>(
        &self,
        read: impl FnOnce(File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.kind != FileType::RegularFile {
            bounded::note("not_a_file", &self.path, "not a regular file", "");
            return Err(io::Error::other("not a regular file"));
        }
        // The helper thread has its own reference to the file, so that the path through the descriptor stays valid.
        let handle = Arc::clone(&self.handle);
        bounded::in_time(&self.path, move || read(files::open_now(&descriptor_path(&handle))?))
    }

    /// Returns the first `cap` bytes.
    pub(crate) fn head(&self, cap: usize) -> io::Result<Vec<u8>> {
        self.opened(move |file| {
            let mut data = Vec::new();
            file.take(u64::try_from(cap).unwrap_or(u64::MAX)).read_to_end(&mut data)?;
            Ok(data)
        })
    }

    /// Returns the whole file; an error if the file is longer than `cap`.
    pub(crate) fn whole(&self, cap: usize) -> io::Result<Vec<u8>> {
        files::not_longer(self.head(cap.saturating_add(1))?, cap)
    }

    /// Returns a small file as text; `None` if the file cannot be read or is empty.
    pub(crate) fn text(&self) -> Option<String> {
        files::trimmed(&self.head(files::SMALL).ok()?)
    }

    /// Returns the names in a folder, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        files::names_of(&self.descriptor_path(), &self.path)
    }

    /// Returns the sorted names of the folder's entries that have one of these kinds and begin with `prefix`, and the
    /// number of entries that were not checked in time. A link is not followed: it has its own kind.
    pub(crate) fn names_of_kinds(
        &self,
        prefix: &'static str,
        kinds: &'static [FileType],
    ) -> io::Result<(Vec<String>, usize)> {
        let mut names = self.names()?;
        names.retain(|name| name.starts_with(prefix));
        let handle = Arc::clone(&self.handle);
        bounded::in_time(&self.path, move || {
            let end = Instant::now() + KINDS_TIME;
            let mut left = 0;
            names.retain(|name| {
                if left > 0 || Instant::now() > end {
                    left += 1;
                    return false;
                }
                let entry = statat(&handle, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                entry.is_ok_and(|entry| kinds.contains(&FileType::from_raw_mode(entry.st_mode)))
            });
            Ok((names, left))
        })
    }

    /// Returns the device number of a character device.
    pub(crate) fn device_number(&self) -> Option<u64> {
        (self.kind == FileType::CharacterDevice).then(|| fstat(&self.handle).ok().map(|file| file.st_rdev))?
    }

    /// Returns the size of the file in bytes.
    pub(crate) fn size(&self) -> Option<u64> {
        let file = Arc::clone(&self.handle);
        let size = bounded::in_time(&self.path, move || Ok(fstat(&file)?.st_size)).ok()?;
        u64::try_from(size).ok()
    }

    /// Returns the device number of the file's file system, and its space.
    pub(crate) fn space(&self) -> io::Result<(u64, StatVfs)> {
        let file = Arc::clone(&self.handle);
        bounded::in_time(&self.path, move || Ok((fstat(&file)?.st_dev, fstatvfs(&file)?)))
    }

    /// Returns whether the file is of one of these kinds.
    pub(crate) fn is_of(&self, kinds: &[FileType]) -> bool {
        kinds.contains(&self.kind)
    }

    /// Returns the time of the last change.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        let file = Arc::clone(&self.handle);
        bounded::in_time(&self.path, move || fs::metadata(descriptor_path(&file))?.modified()).ok()
    }

    /// Returns the time of the last change, in whole seconds.
    pub(crate) fn changed_at(&self) -> Option<Timestamp> {
        let since = self.modified()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
    }

    /// Returns the last `cap` bytes, and whether the file begins before these bytes.
    pub(crate) fn tail(&self, cap: u64) -> io::Result<(Vec<u8>, bool)> {
        self.opened(move |mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(cap)))?;
            let mut data = Vec::new();
            file.take(cap).read_to_end(&mut data)?;
            Ok((data, length > cap))
        })
    }
}

/// Returns the file or folder at `path` below `root`; `None` if it does not exist.
pub(crate) fn find(root: &Path, path: &str) -> Option<HostFile> {
    Root::open(root).ok()?.find(path)
}

fn descriptor_path(handle: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", handle.as_raw_fd()).into()
}

/// Returns the components of a path in reverse order.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path.components().map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn resolved(root: &Path, path: &str) -> Option<PathBuf> {
        find(root, path).map(|file| file.path)
    }

    #[test]
    fn a_link_of_the_host_is_resolved_inside_the_host() {
        let tree = Tree::new();
        tree.file("usr/lib/os-release", "here").link("etc/os-release", "../usr/lib/os-release");
        tree.link("usr/lib/x.so", "/etc/alternatives/x").link("etc/alternatives/x", "/usr/lib/real/x.so.1");
        tree.file("usr/lib/real/x.so.1", "");
        let root = tree.path();
        assert_eq!(resolved(root, "/etc/os-release"), Some(root.join("usr/lib/os-release")));
        assert_eq!(resolved(root, "usr/lib/x.so"), Some(root.join("usr/lib/real/x.so.1")));
        assert_eq!(resolved(root, "/../../etc/nothing"), None);
    }

    #[test]
    fn a_cycle_of_links_is_an_error() {
        let tree = Tree::new();
        tree.link("a", "b").link("b", "a");
        assert_eq!(resolved(tree.path(), "a"), None);
    }

    #[test]
    fn what_cannot_be_reached_is_not_absent() {
        let tree = Tree::new();
        tree.link("circle", "circle").link("nowhere", "/x/y").file("file", "");
        let root = Root::open(tree.path()).expect("there");
        let exists = ["file", "nowhere", "file/below", "none", "circle"].map(|path| root.exists(path));
        assert_eq!(exists, [Some(true), Some(false), Some(false), Some(false), None]);
    }

    #[test]
    fn only_a_regular_file_of_this_root_is_opened() {
        let tree = Tree::new();
        tree.link("device", "/dev/null").folder("folder").link("passwd", "/etc/passwd");
        let device = rustix::fs::mknodat(CWD, tree.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0);
        device.expect("a FIFO can be made in a temporary directory");
        for path in ["device", "passwd"] {
            assert!(find(tree.path(), path).is_none(), "{path}");
        }
        for path in ["folder", "fifo"] {
            let file = find(tree.path(), path).expect("there");
            assert!(file.opened(Ok).is_err() && file.whole(9).is_err() && file.text().is_none(), "{path}");
        }
    }
}
