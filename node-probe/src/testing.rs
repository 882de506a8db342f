//! `Tree`: a file tree in a temporary directory, for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

/// A tree that is deleted when the value is dropped.
pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Returns an empty tree in memory, for tests with thousands of files. If that is not possible, same as [`Tree::new`].
    pub(crate) fn in_memory() -> Self {
        tempfile::tempdir_in("/dev/shm").map_or_else(|_| Self::new(), Self)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(path);
        self.make(path.parent().expect("a file has a folder"));
        fs::write(&path, content).expect("the file can be written");
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o644));
        self
    }

    /// Creates folders that only their owner can change, independent of the umask.
    fn make(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("the folder can be made");
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(self.path())) {
            let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
        }
    }

    /// Creates a symbolic link, dangling or not.
    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.path().join(path);
        self.make(path.parent().expect("a link has a folder"));
        std::os::unix::fs::symlink(target, path).expect("the link can be made");
        self
    }

    pub(crate) fn folder(&self, path: &str) -> &Self {
        self.make(&self.path().join(path));
        self
    }

    /// Creates a PCI function at `below` (a path under `sys/devices` that ends with the address), with its link in
    /// sysfs.
    pub(crate) fn pci(&self, below: &str, vendor: &str, device: &str, class: &str) -> &Self {
        let address = below.rsplit('/').next().expect("a path has a last part");
        let folder = format!("sys/devices/{below}");
        self.file(&format!("{folder}/vendor"), format!("{vendor}\n"));
        self.file(&format!("{folder}/device"), format!("{device}\n"));
        self.file(&format!("{folder}/class"), format!("{class}\n"));
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/{below}"))
    }

    /// Adds a file to a PCI function.
    pub(crate) fn pci_file(&self, address: &str, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path().join("sys/bus/pci/devices").join(address).join(name), content)
            .expect("the function exists");
        self
    }
}
