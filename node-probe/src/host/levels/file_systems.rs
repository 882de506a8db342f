//! `read`: reads the space of the local file systems that a node needs, through the host's root.
//!
//! Network file systems are never accessed.

use std::path::{Path, PathBuf};

use syringe_core::facts::host_levels::FileSystem;
use syringe_core::text::clean;

use crate::files;
use crate::in_root::{LOCAL, Root};
use crate::paths::Paths;

/// The checked paths. In each line, the first path that exists is checked.
const CHECKED: [&[&str]; 5] = [
    &["/"],
    &["/var/lib/kubelet", "/var/lib/k0s/kubelet", "/var/snap/microk8s/common/var/lib/kubelet"],
    &[
        "/var/lib/rancher/k3s/agent/containerd",
        "/var/lib/rancher/rke2/agent/containerd",
        "/var/lib/k0s/containerd",
        "/var/snap/microk8s/common/var/lib/containerd",
        "/var/lib/containerd",
        "/var/lib/containers/storage",
    ],
    &["/var/log"],
    &["/tmp"],
];

/// Maximum size of the list of mounts that is read. The mounts of the node are before the mounts of its pods.
const MAX_MOUNTS: usize = 1024 * 1024;

pub(super) fn read(paths: &Paths) -> Vec<FileSystem> {
    let Ok(host) = Root::open(&paths.host) else { return Vec::new() };
    let mounts = files::head(&mounts_of(paths), MAX_MOUNTS).unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(mount).collect();
    let mut found: Vec<(u64, FileSystem)> = Vec::new();
    for path in CHECKED
        .iter()
        .filter_map(|paths| paths.iter().find(|path| is_local(&mounts, path) && host.find(path).is_some()))
    {
        let Some(file) = host.find(path) else { continue };
        // A link can lead to another mount.
        let resolved = files::shown(&paths.host, &file.path);
        let Some(mount) = mount_of(&mounts, &resolved).filter(|mount| LOCAL.contains(&mount.kind)) else { continue };
        let Ok((device, space)) = file.space() else { continue };
        let reserved = space.f_bfree.saturating_sub(space.f_bavail);
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        let has_inodes = space.f_files > 0;
        let one = FileSystem {
            paths: vec![(*path).to_owned()],
            kind: clean(mount.kind, 16),
            read_only: mount.read_only,
            total_bytes: bytes(space.f_blocks.saturating_sub(reserved)),
            available_bytes: bytes(space.f_bavail),
            inodes: has_inodes.then_some(space.f_files),
            inodes_free: has_inodes.then_some(space.f_ffree),
        };
        // Subvolumes of btrfs have their own device numbers.
        let is_same = |of: u64, known: &FileSystem| {
            let space = |of: &FileSystem| (of.kind.clone(), of.total_bytes, of.available_bytes);
            known.read_only == one.read_only && (of == device || space(known) == space(&one))
        };
        match found.iter_mut().find(|(of, known)| is_same(*of, known)) {
            Some((_, known)) => known.paths.extend(one.paths),
            None => found.push((device, one)),
        }
    }
    found.into_iter().map(|(_, file_system)| file_system).collect()
}

/// Returns the list of mounts of the process whose root is the host's root.
fn mounts_of(paths: &Paths) -> PathBuf {
    if paths.host.starts_with(&paths.proc) && paths.host.ends_with("root") {
        return paths.host.with_file_name("mounts");
    }
    paths.proc.join("self/mounts")
}

/// One line of a list of mounts.
#[derive(Debug)]
struct Mount<'a> {
    at: &'a Path,
    kind: &'a str,
    /// Whether the mount or the file system is read-only: the kernel shows both as `ro`.
    read_only: bool,
}

/// Parses `DEVICE PATH TYPE OPTIONS 0 0`. A path with spaces contains escapes. The checked paths have no spaces.
fn mount(line: &str) -> Option<Mount<'_>> {
    let mut words = line.split(' ').skip(1);
    let (at, kind, options) = (Path::new(words.next()?), words.next()?, words.next()?);
    Some(Mount { at, kind, read_only: options.split(',').next() == Some("ro") })
}

/// Returns the mount of a path: the mount with the longest matching path. If several mounts have the same path,
/// the last mount hides the earlier mounts.
fn mount_of<'m, 'a>(mounts: &'m [Mount<'a>], path: &str) -> Option<&'m Mount<'a>> {
    let above = mounts.iter().filter(|mount| Path::new(path).starts_with(mount.at));
    above.max_by_key(|mount| mount.at.components().count())
}

/// Returns whether a path can be opened without a request to a server.
fn is_local(mounts: &[Mount<'_>], path: &str) -> bool {
    mount_of(mounts, path).is_some_and(|mount| LOCAL.contains(&mount.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::fault;
    use crate::testing::Tree;

    #[test]
    fn paths_on_one_file_system_are_one_entry() {
        let tree = Tree::new();
        tree.file("proc/self/mounts", "/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0\nproc /proc proc rw 0 0\n");
        tree.folder("var/lib/containerd").folder("var/log").folder("tmp").folder("data/kubelet");
        tree.link("var/lib/kubelet", "/data/kubelet");
        let found = read(&tree.paths());
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(one.paths, ["/", "/var/lib/kubelet", "/var/lib/containerd", "/var/log", "/tmp"]);
        assert_eq!((one.kind.as_str(), one.read_only), ("ext4", false));
        assert!(one.total_bytes >= one.available_bytes && one.total_bytes > 0, "{one:?}");
    }

    #[test]
    fn a_network_file_system_is_not_opened_and_a_link_to_it_is_not_asked() {
        let tree = Tree::new();
        tree.file(
            "proc/self/mounts",
            "overlay / overlay ro 0 0\nserver:/log /var/log nfs4 rw 0 0\nserver:/t /mnt/t ceph rw 0 0\n",
        );
        tree.folder("var/log").folder("mnt/t").link("tmp", "/mnt/t");
        fault::block(&tree.path().join("var/log"));
        let found = read(&tree.paths());
        assert_eq!(found.iter().flat_map(|one| &one.paths).collect::<Vec<_>>(), ["/"]);
        assert!(found[0].read_only);
    }

    #[test]
    fn the_mount_that_hides_the_others_counts() {
        let text = "a / ext4 rw 0 0\nb /var xfs rw 0 0\nc /var/log ext4 ro,x 0 0\nd /var/log tmpfs rw 0 0\nshort\ne /va ext4 rw 0 0\n";
        let mounts: Vec<Mount<'_>> = text.lines().filter_map(mount).collect();
        let kind = |path| mount_of(&mounts, path).map(|mount| (mount.kind, mount.read_only));
        assert_eq!(kind("/var/log/pods"), Some(("tmpfs", false)));
        assert_eq!(kind("/var/lib"), Some(("xfs", false)));
        assert_eq!(kind("/home"), Some(("ext4", false)));
    }
}
