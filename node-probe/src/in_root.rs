//! `Root`: opens files below a root directory with untrusted links: the host, a driver container or a workload.
//! `HostFile`: an open file or folder, with functions that read it.
//!
//! A symbolic link is resolved inside its root: `/proc/1/root/etc/x -> /usr/y` means `/usr/y` of the host. The path is
//! opened one component after another without following links (`O_PATH`, `O_NOFOLLOW`), which has no effect on the opened
//! file. Only a regular file is then opened for reading, through its descriptor: a link to a device is never opened.
//!
//! A request to a FUSE server that does not respond cannot be interrupted, not even by the end of the probe. In the
//! root of a container ([`Root::of_container`]), only mounts of local file systems are entered, because a tenant can
//! run that server.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatVfs, Statx, StatxFlags, fstat, fstatvfs, makedev, openat,
    readlinkat, statat, statx,
};
use rustix::io::Errno;

use crate::{bounded, files};

/// The kernel's limit on the number of links in one path.
const MAX_LINKS: u32 = 40;

/// Maximum number of components of a path with its links, and maximum depth of folders: each component needs
/// system calls and a descriptor. A container can create links of 4 KiB and folders of any depth; paths of driver files
/// have fewer than 10 components.
const MAX_PARTS: u32 = 256;
const MAX_DEPTH: usize = 64;

/// Types of local file systems. A read on any other type could wait for a server.
pub(crate) const LOCAL: [&str; 15] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "vfat", "overlay", "tmpfs", "ramfs", "squashfs",
    "erofs", "cramfs",
];
/// Types of local file systems whose files belong to the kernel.
const OF_THE_KERNEL: [&str; 2] = ["devtmpfs", "sysfs"];

/// The reason why a file of a container is not opened.
const NOT_LOCAL: &str = "not read: the file is not on a local file system";

/// Maximum size of the list of mounts of a container.
const MAX_MOUNTS: usize = 1 << 20;

/// Maximum time for reading the types of a folder's entries: a container can create any number of entries.
const KINDS_TIME: Duration = Duration::from_millis(200);

const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// An open directory that is used as `/`.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    handle: Arc<OwnedFd>,
    /// The path of the directory as this process sees it.
    pub(crate) path: PathBuf,
    /// IDs of the mounts that may be entered; `None` if all may.
    mounts: Option<Arc<BTreeSet<u64>>>,
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
        Ok(Self { handle: Arc::new(bounded::in_time(path, open)?), path: path.to_owned(), mounts: None })
    }

    /// Opens the root of a container: `root` of a process. Only mounts of local file systems are entered.
    ///
    /// # Errors
    ///
    /// Fails if the mounts cannot be read, or if the root itself is on another file system.
    pub(crate) fn of_container(path: &Path) -> io::Result<Self> {
        let mounts = files::whole(&path.with_file_name("mountinfo"), MAX_MOUNTS)?;
        let mounts: BTreeSet<u64> = String::from_utf8_lossy(&mounts).lines().filter_map(local_mount).collect();
        let root = Self { mounts: Some(Arc::new(mounts)), ..Self::open(path)? };
        root.enter(&root.handle).map_err(|_| io::Error::new(ErrorKind::CrossesDevices, NOT_LOCAL))?;
        Ok(root)
    }

    /// Returns an error if an opened file is on a mount that may not be entered. The ID of the mount comes from the
    /// kernel, so no request is sent to the file system.
    fn enter(&self, opened: &OwnedFd) -> rustix::io::Result<()> {
        let Some(mounts) = &self.mounts else { return Ok(()) };
        let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", opened.as_raw_fd()));
        let id = |text: &str| text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        if text.ok().and_then(|text| id(&text)).is_some_and(|id| mounts.contains(&id)) {
            Ok(())
        } else {
            Err(Errno::XDEV)
        }
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
            Err(error) => {
                if error.kind() == ErrorKind::CrossesDevices {
                    bounded::note("container", &self.named(path), NOT_LOCAL, "");
                }
                Err(error)
            }
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
        Some(Self { handle, path: self.path.join(path), mounts: self.mounts.clone() })
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
        let (mut links, mut walked) = (0, 0);
        while let Some(part) = pending.pop() {
            walked += 1;
            if walked > MAX_PARTS || held.len() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
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
                    self.enter(&next)?;
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
                let entry = entry(&handle, name);
                entry.is_ok_and(|entry| kinds.contains(&FileType::from_raw_mode(entry.stx_mode.into())))
            });
            Ok((names, left))
        })
    }

    /// Returns the device number of a character device in this folder.
    pub(crate) fn device_number_of(&self, name: &str) -> Option<u64> {
        let (handle, name) = (Arc::clone(&self.handle), name.to_owned());
        let entry = bounded::in_time(&self.path, move || Ok(entry(&handle, &name)?)).ok()?;
        (FileType::from_raw_mode(entry.stx_mode.into()) == FileType::CharacterDevice)
            .then(|| makedev(entry.stx_rdev_major, entry.stx_rdev_minor))
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

    /// Returns whether the file has one of these types.
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

/// Returns the properties of an entry of a folder, without following a link. Any file system can be mounted on the
/// entry, so no request is sent to its server.
fn entry(folder: &OwnedFd, name: &str) -> rustix::io::Result<Statx> {
    statx(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)
}

/// Returns the ID of a mount of a local file system. Format:
/// `ID PARENT MAJOR:MINOR ROOT PATH OPTIONS FIELDS… - TYPE SOURCE OPTIONS`.
fn local_mount(line: &str) -> Option<u64> {
    let (mount, file_system) = line.split_once(" - ")?;
    let kind = file_system.split(' ').next()?;
    (LOCAL.contains(&kind) || OF_THE_KERNEL.contains(&kind)).then(|| mount.split(' ').next()?.parse().ok())?
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

/// Returns the mount of a path in the format of a container's list of mounts.
#[cfg(test)]
pub(crate) fn mount_line(path: &Path, kind: &str) -> String {
    let file = openat(CWD, path, HANDLE, Mode::empty()).expect("there");
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).expect("kernel text");
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")).expect("an ID").trim().to_owned();
    format!("{id} 1 0:9 / / rw,relatime shared:1 - {kind} x rw\n")
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

    /// Root in a container can create links of 4 KiB that lead to further links, and folders of any depth.
    #[test]
    fn long_and_deep_links_end_the_search() {
        let tree = Tree::new();
        let depth = |levels: usize| vec!["b"; levels].join("/");
        tree.folder("a").folder("real").folder(&depth(100)).link("deep", &depth(100)).link("flat", &depth(MAX_DEPTH));
        for link in 1..30 {
            let next = if link == 29 { "real".to_owned() } else { format!("l{}", link + 1) };
            tree.link(&format!("l{link}"), &format!("{}{next}", "a/../".repeat(700)));
        }
        let root = Root::open(tree.path()).expect("there");
        let started = Instant::now();
        for path in ["l1", "l29", "deep"] {
            assert_eq!(root.exists(path), None, "{path}");
        }
        assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
        assert_eq!(root.exists("flat"), Some(true));
    }

    #[test]
    fn a_mount_of_a_container_that_a_server_provides_is_not_entered() {
        let tree = Tree::new();
        tree.file("20/root/usr/lib/x", "").link("30/root", "/");
        let container = tree.path().join("20/root");
        let list = |process: &str, mounts: &str| tree.file(&format!("{process}/mountinfo"), mounts).path();
        for kind in ["overlay", "ext4", "btrfs", "tmpfs"] {
            list("20", &mount_line(&container, kind));
            assert!(Root::of_container(&container).expect("it is local").find("usr/lib/x").is_some(), "{kind}");
        }
        for kind in ["fuse.gcsfuse", "nfs4", "virtiofs"] {
            list("20", &mount_line(&container, kind));
            assert!(Root::of_container(&container).is_err(), "{kind}");
        }
        list("20", "");
        assert!(Root::of_container(&container).is_err(), "the mount is unknown");
        // Below this root, /proc is a separate mount.
        let local = mount_line(Path::new("/"), "overlay");
        for (kind, found) in [("fuse", false), ("sysfs", true)] {
            list("30", &format!("{local}{}", mount_line(Path::new("/proc"), kind)));
            bounded::take_problems();
            let root = Root::of_container(&tree.path().join("30/root")).expect("it is local");
            assert!(root.find("etc").is_some());
            assert_eq!((root.find("proc").is_some(), root.find("etc/../proc/sys").is_some()), (found, found), "{kind}");
            assert_eq!(bounded::take_problems().len(), if found { 0 } else { 2 }, "{kind}");
        }
    }

    /// A container: an overlay of folders on two file systems, a bind mount, and FUSE mounts whose server never
    /// responds.
    const CONTAINER: &str = r#"
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, at, kind, flags=0, options=""):
    if libc.mount(source.encode(), at.encode(), kind.encode(), flags, options.encode()):
        raise OSError(ctypes.get_errno(), at)
def fuse(at):
    server = os.open("/dev/fuse", os.O_RDWR)
    mount("fuse", at, "fuse", 0, f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other")
disk, top = sys.argv[1] + "/disk", sys.argv[1] + "/memory"
os.mkdir(top)
mount("memory", top, "tmpfs")
for folder in ["lower/usr", "lower/dev/nvidia9", "lower/data", "lower/driver", "upper", "work", "root"]:
    os.makedirs(f"{top}/{folder}")
open(f"{top}/lower/usr/in-memory", "w").close()
os.symlink("/data/x", f"{top}/lower/usr/libcuda.so.1")
mount("overlay", f"{top}/root", "overlay", 0, f"lowerdir={top}/lower:{disk},upperdir={top}/upper,workdir={top}/work")
mount(f"{disk}/usr", f"{top}/root/driver", "", 4096)
fuse(f"{top}/root/data")
fuse(f"{top}/root/dev/nvidia9")
os.chroot(f"{top}/root")
os.chdir("/")
print("ready", flush=True)
time.sleep(60)
"#;

    #[test]
    fn a_server_of_a_container_that_never_answers_is_not_asked() {
        let tree = Tree::new();
        tree.file("disk/usr/on-disk", "");
        let mut container = std::process::Command::new("unshare");
        container.args(["--mount", "--propagation", "private", "python3", "-c", CONTAINER]).arg(tree.path());
        container.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let Ok(mut container) = container.spawn() else { return eprintln!("skipped: needs unshare") };
        let mut ready = [0; 5];
        if container.stdout.take().is_none_or(|mut out| out.read_exact(&mut ready).is_err()) {
            let _ = container.wait();
            return eprintln!("skipped: needs root, python3, overlayfs and FUSE");
        }
        bounded::begin(Duration::from_secs(8));
        bounded::take_problems();
        let process = PathBuf::from(format!("/proc/{}/root", container.id()));
        let started = Instant::now();
        let seen = Root::of_container(&process).map(|root| {
            let paths = ["usr/in-memory", "usr/on-disk", "driver/on-disk", "usr/libcuda.so.1", "data", "data/x"];
            let devices =
                root.find("dev").and_then(|dev| dev.names_of_kinds("nvidia", &[FileType::CharacterDevice]).ok());
            (paths.map(|path| root.find(path).is_some()), devices)
        });
        let elapsed = started.elapsed();
        let _ = container.kill();
        let _ = container.wait();
        let (seen, devices) = seen.expect("the root is local");
        assert_eq!(seen, [true, true, true, false, false, false]);
        assert_eq!((devices, bounded::take_problems().len()), (Some((Vec::new(), 0)), 3));
        assert!(elapsed < Duration::from_millis(900), "{elapsed:?}");
    }

    #[test]
    fn the_number_of_a_device_is_that_of_the_kernel() {
        use std::os::unix::fs::MetadataExt;
        let dev = find(Path::new("/dev"), "").expect("there");
        let of = |name: &str| fs::metadata(Path::new("/dev").join(name)).expect("there").rdev();
        assert_eq!(
            ["null", "zero"].map(|name| dev.device_number_of(name)),
            ["null", "zero"].map(|name| Some(of(name)))
        );
        assert_eq!([".", "nothing"].map(|name| dev.device_number_of(name)), [None, None]);
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
