//! `open`, `open_in`: open a file and check that only root can have changed it, so that it may be loaded or run.
//! `TrustedFile`: such a file. `Distrust`: why a file is rejected. `root_below`, `check_folder`: check a folder.
//!
//! Every component of the path, from the root directory to the file, must belong to root (or to the user that the probe runs
//! as) and must not be writable by group or others. Links are resolved inside the root. The walk holds
//! each directory open and checks the open file, so that nothing can be replaced between check and use.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, fstat};

use crate::bounded;
use crate::files::{self, SMALL};
use crate::in_root::Root;

/// Write permission of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An open file that may be loaded or run.
#[derive(Debug)]
pub(crate) struct TrustedFile {
    file: OwnedFd,
    /// The real path of the file below the root.
    pub(crate) path: PathBuf,
}

/// The reason why a file must not be loaded or run.
#[derive(Debug)]
pub(crate) enum Distrust {
    /// The file does not exist, or cannot be opened.
    Absent(io::Error),
    /// A component of the file's path belongs to this user.
    Owner(PathBuf, u32),
    /// A component of the file's path can be changed by users other than root.
    Writable(PathBuf),
    /// The path is not a regular file.
    Kind(PathBuf),
}

impl fmt::Display for Distrust {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(error) => write!(to, "{error}"),
            Self::Owner(path, user) => write!(to, "refused: /{} belongs to user {user}, not to root", path.display()),
            Self::Writable(path) => write!(to, "refused: /{} can be changed by users other than root", path.display()),
            Self::Kind(path) => write!(to, "refused: /{} is not a regular file", path.display()),
        }
    }
}

impl From<rustix::io::Errno> for Distrust {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Absent(error.into())
    }
}

impl TrustedFile {
    /// Returns a path to exactly this open file, for functions that take a path (`dlopen`).
    pub(crate) fn as_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Returns the text of a small file.
    pub(crate) fn text(&self) -> Option<String> {
        let data = files::head_of(&self.as_path(), &self.path, SMALL, None).ok()?;
        Some(String::from_utf8_lossy(&data).into_owned())
    }
}

/// Opens the file at `path`, with `root` as the root directory.
///
/// # Errors
///
/// The error contains the component of the path and the reason.
pub(crate) fn open(root: &Path, path: &str) -> Result<TrustedFile, Distrust> {
    open_in(&Root::open(root).map_err(Distrust::Absent)?, path, true)
}

/// Opens the file at `path` below `root`. `strict` is for files that are loaded or run with privileges. Without `strict`,
/// owners and modes are not checked.
///
/// # Errors
///
/// The error contains the component of the path and the reason.
pub(crate) fn open_in(root: &Root, path: &str, strict: bool) -> Result<TrustedFile, Distrust> {
    let (file, below) = root.walk(path, move |stat, at| if strict { check(stat, at) } else { Ok(()) })?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        bounded::note("not_a_file", &root.path.join(&below), "not a regular file", "");
        return Err(Distrust::Kind(below));
    }
    Ok(TrustedFile { file, path: root.path.join(below) })
}

/// Returns the folder at `path` below `host` as a separate root. The path to the folder is checked like the path
/// to a file, and links in it are resolved inside `host`.
///
/// # Errors
///
/// The error contains the component of the path and the reason.
pub(crate) fn root_below(host: &Path, path: &str) -> Result<Root, Distrust> {
    let host = Root::open(host).map_err(Distrust::Absent)?;
    host.walk(path, check)?;
    host.below(path).ok_or_else(|| Distrust::Absent(io::ErrorKind::NotADirectory.into()))
}

/// Checks the folder at `path` below `root` like the path to a file: libraries are loaded from it.
///
/// # Errors
///
/// The error contains the component of the path and the reason.
pub(crate) fn check_folder(root: &Root, path: &str) -> Result<(), Distrust> {
    root.walk(path, check).map(drop)
}

fn check(stat: &Stat, at: &Path) -> Result<(), Distrust> {
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Distrust::Owner(at.to_owned(), stat.st_uid));
    }
    if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Writable(at.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;
    use crate::testing::Tree;

    const FILE: &str = "usr/lib/x/libnvidia-ml.so.1";

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.file(FILE, "the library");
        tree
    }

    fn why(tree: &Tree, path: &str) -> String {
        open(tree.path(), path).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_file_of_root_in_folders_of_root_is_held_open() {
        let tree = tree();
        tree.link("usr/lib/libnvidia-ml.so.1", "/etc/alternatives/nvml")
            .link("etc/alternatives/nvml", "../../usr/lib/x/libnvidia-ml.so.1");
        let trusted = open(tree.path(), "/usr/lib/libnvidia-ml.so.1").expect("it may be loaded");
        assert_eq!(trusted.path, tree.path().join(FILE));
        fs::remove_file(&trusted.path).expect("ours");
        tree.file(FILE, "another");
        assert_eq!(trusted.text().as_deref(), Some("the library"), "the checked file is read");
    }

    #[test]
    fn no_component_of_the_path_may_be_writable_by_others() {
        for part in ["", "usr", "usr/lib", "usr/lib/x", FILE] {
            for more in [0o020, 0o002, 0o1002] {
                let tree = tree();
                let path = tree.path().join(part);
                let mode = fs::metadata(&path).expect("there").permissions().mode() | more;
                fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
                assert!(why(&tree, FILE).contains(&format!("/{part} can be changed by users other")), "{part}");
            }
        }
    }

    #[test]
    fn each_component_of_the_path_must_belong_to_root() {
        for part in ["", "usr", "usr/lib", "usr/lib/x", FILE] {
            let tree = tree();
            if chown(tree.path().join(part), Some(12_345), None).is_err() {
                assert!(!rustix::process::geteuid().is_root());
                return eprintln!("skipped: only root can give files away");
            }
            assert!(why(&tree, FILE).contains(&format!("/{part} belongs to user 12345")), "{part}");
        }
    }

    #[test]
    fn a_link_is_resolved_inside_the_root_and_no_link_leads_out() {
        let tree = tree();
        tree.link("up", "../../../usr/lib/x/libnvidia-ml.so.1").link("loop", "loop").link("out", "/etc/passwd");
        assert_eq!(open(tree.path(), "up").expect("inside").path, tree.path().join(FILE));
        for path in ["loop", "out", "absent", "usr/lib/x/libnvidia-ml.so.1/more"] {
            assert!(open(tree.path(), path).is_err(), "{path}");
        }
        assert!(why(&tree, "usr/lib").contains("not a regular file"));
        assert!(why(&tree, "/").contains("not a regular file"));
    }

    #[test]
    fn without_strict_any_file_in_the_root_can_be_opened_but_none_outside() {
        let tree = tree();
        fs::set_permissions(tree.path().join("usr"), Permissions::from_mode(0o777)).expect("ours");
        tree.link("out", "/etc/passwd");
        let root = Root::open(tree.path()).expect("there");
        assert!(open(tree.path(), FILE).is_err());
        assert!(open_in(&root, FILE, false).is_ok());
        assert!(open_in(&root, "out", false).is_err());
    }

    #[test]
    fn a_root_is_trusted_only_if_the_path_to_it_is() {
        let tree = Tree::new();
        tree.file("run/nvidia/driver/usr/x", "").file("opt/driver/usr/x", "").link("run/link", "/opt/driver");
        assert!(open_in(&root_below(tree.path(), "run/nvidia/driver").expect("of root"), "usr/x", true).is_ok());
        assert!(open_in(&root_below(tree.path(), "run/link").expect("inside"), "usr/x", true).is_ok());
        assert!(open_in(&root_below(tree.path(), "").expect("the host"), "opt/driver/usr/x", true).is_ok());
        // A link out of the tree leads nowhere.
        let outside = Tree::new();
        outside.file("usr/x", "");
        tree.link("run/out", outside.path().to_str().expect("UTF-8"));
        tree.link("run/up", &format!("../../..{}", outside.path().display()));
        assert!(root_below(tree.path(), "run/out").is_err() && root_below(tree.path(), "run/up").is_err());
        // A user who can write to the parent folder can replace the root.
        fs::set_permissions(tree.path().join("run/nvidia"), Permissions::from_mode(0o777)).expect("ours");
        let why = root_below(tree.path(), "run/nvidia/driver").expect_err("refused").to_string();
        assert!(why.contains("/run/nvidia can be changed by users other"), "{why}");
    }
}
