//! `folders`, `known`: list the folders in which the libraries of the driver can be, on different kinds of nodes.
//! `DRIVER_ROOTS`: the roots in which a driver may be installed.

use std::sync::LazyLock;

use syringe_core::tsv::list;

use crate::bounded;
use crate::in_root::Root;
use crate::trusted_file;

/// Roots in which a driver may be installed, below the root of the host. The driver container of the GPU Operator is first:
/// if that root exists, its driver is the loaded driver.
pub(crate) const DRIVER_ROOTS: [&str; 2] = ["run/nvidia/driver", ""];

/// Library folders below a root. `{arch}` is the architecture of this machine (`x86_64`, `aarch64`).
static FOLDERS: LazyLock<Vec<&str>> = LazyLock::new(|| list(include_str!("data/library_folders.tsv")).collect());

/// Maximum number of folder lists, and maximum number of folders. A distribution has about ten of each. The root may
/// belong to a workload.
const MAX_LISTS: usize = 64;
const MAX_FOLDERS: usize = 128;

/// Returns the folders below `root` that may contain the driver's libraries: the known folders, then the folders of
/// `ld.so.conf` if only root can change that file. `foreign`: the root belongs to a workload.
pub(in crate::host) fn folders(root: &Root, foreign: bool) -> Vec<String> {
    let mut folders = Vec::new();
    for folder in FOLDERS.iter() {
        let folder = folder.replace("{arch}", std::env::consts::ARCH);
        match folder.strip_suffix("/*") {
            Some(parent) => folders.extend(children(root, parent)),
            None => folders.push(folder),
        }
    }
    let mut listed = vec!["etc/ld.so.conf".to_owned()];
    listed.extend(children(root, "etc/ld.so.conf.d"));
    bounded::cut(&mut listed, MAX_LISTS, "lists of library folders (/etc/ld.so.conf.d)");
    for file in listed {
        let opened = trusted_file::open_in(root, &file, !foreign);
        let Some(text) = opened.ok().and_then(|file| file.text()) else { continue };
        for folder in text.lines().filter_map(|line| line.trim().strip_prefix('/')) {
            // One more folder than the maximum is kept, so that `bounded::cut` notes that folders were left out.
            if folders.len() <= MAX_FOLDERS && !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_owned());
            }
        }
    }
    bounded::cut(&mut folders, MAX_FOLDERS, "library folders");
    folders
}

/// Returns the known folders. No file is read.
pub(in crate::host) fn known() -> impl Iterator<Item = String> {
    let fixed = FOLDERS.iter().filter(|folder| !folder.ends_with("/*"));
    fixed.map(|folder| folder.replace("{arch}", std::env::consts::ARCH))
}

/// Returns the entries of a folder below `root`, relative to `root`, in order.
fn children(root: &Root, folder: &str) -> Vec<String> {
    let names = root.find(folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
    names.into_iter().map(|name| format!("{folder}/{name}")).collect()
}
