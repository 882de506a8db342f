//! `libraries`, `cuda_libraries`, `mapped_libraries`: search for the NVML and CUDA libraries of the driver.
//! `Library`: a library that was found, with the open file or the reason why it must not be loaded.
//!
//! A library runs with the privileges of the probe. Therefore, the library comes from the root of the node, from a
//! driver's root that is owned by the user root, or from the root of the probe's container. Files in the container come
//! from the probe's image or the container runtime, and the same checks apply. The library never comes from the root of
//! another pod. If only the root of a pod is visible ([`Owner::Workload`]), the library of that pod is marked: see
//! [`Library::foreign`].

use std::path::{Path, PathBuf};

use super::{library_folders, version};
use crate::in_root::Root;
use crate::paths::{Owner, Paths};
use crate::trusted_file::{self, Distrust, TrustedFile};
use crate::{bounded, cgroup, files};

/// The start of the real file name of a library, before the version. With `1` added, this text is the SONAME.
#[derive(Clone, Copy)]
struct Prefix(&'static str);

const NVML: Prefix = Prefix("libnvidia-ml.so.");
const CUDA: Prefix = Prefix("libcuda.so.");
/// Maximum number of bytes that are read of the memory map of one process.
const MAX_MAPS_BYTES: usize = 4 << 20;

/// Maximum number of versions of the library in one folder.
const MAX_VERSIONS: usize = 16;

/// Folders of container images and volumes: files of tenants, although root owns them.
const IMAGES: [&str; 7] = [
    "/var/lib/containerd/",
    "/var/lib/docker/",
    "/var/lib/containers/",
    "/var/lib/kubelet/",
    "/var/lib/rancher/",
    "/run/containerd/",
    "/run/containers/",
];

/// A library that was found.
#[derive(Debug)]
pub(crate) struct Library {
    /// The real path of the library, as this process sees it.
    pub(crate) path: PathBuf,
    /// The version in the file name (`libnvidia-ml.so.570.124.06`).
    pub(crate) version: Option<String>,
    /// The open file, or the reason why the file must not be loaded.
    pub(crate) file: Result<TrustedFile, Distrust>,
    /// Whether the library is in the root of a workload: it may then only be loaded without privileges.
    pub(crate) foreign: bool,
}

/// Returns the libraries that exist, best first: libraries of the loaded module's version, then other libraries in the
/// order of the search. Libraries that must not be loaded are last.
pub(crate) fn libraries(paths: &Paths, loaded: Option<&str>) -> Vec<Library> {
    find(NVML, paths, loaded)
}

/// Returns the CUDA libraries that exist, in the order of [`libraries`].
pub(crate) fn cuda_libraries(paths: &Paths, loaded: Option<&str>) -> Vec<Library> {
    find(CUDA, paths, loaded)
}

fn find(prefix: Prefix, paths: &Paths, loaded: Option<&str>) -> Vec<Library> {
    let mut found = Vec::new();
    // The root of the probe. A saved file tree has no such root.
    if paths.proc == Path::new("/proc") && paths.host != Path::new("/") {
        found_in(trusted_file::root_below(Path::new("/"), ""), Path::new("/"), (prefix, loaded), &mut found);
    }
    let foreign = paths.owner == Owner::Workload;
    for below in library_folders::DRIVER_ROOTS {
        if foreign {
            let root = Root::open(&paths.host).ok().and_then(|host| host.below(below));
            root.into_iter().for_each(|root| search(&root, (prefix, loaded), true, &mut found));
        } else {
            found_in(
                trusted_file::root_below(&paths.host, below),
                &paths.host.join(below),
                (prefix, loaded),
                &mut found,
            );
        }
    }
    found.sort_by_key(|library| (library.file.is_err(), library.rank(loaded)));
    found
}

/// A library, and the version of the loaded module.
type Wanted<'a> = (Prefix, Option<&'a str>);

/// Searches one root directory of the node. If users other than root could have created the directory, it is reported
/// with the reason.
fn found_in(root: Result<Root, Distrust>, path: &Path, wanted: Wanted<'_>, found: &mut Vec<Library>) {
    match root {
        Ok(root) => search(&root, wanted, false, found),
        Err(Distrust::Absent(_)) => {}
        Err(distrust) => {
            found.push(Library { path: path.to_owned(), version: None, file: Err(distrust), foreign: false });
        }
    }
}

fn search(root: &Root, (prefix, loaded): Wanted<'_>, foreign: bool, found: &mut Vec<Library>) {
    let Prefix(name) = prefix;
    for folder in library_folders::folders(root, foreign) {
        let exact = loaded.map(|version| format!("{folder}/{name}{version}"));
        let usual = format!("{folder}/{name}1");
        let mut paths: Vec<String> = exact.into_iter().chain([usual]).collect();
        if !paths.iter().any(|path| root.find(path).is_some()) {
            paths = versioned(root, &folder, prefix);
        }
        for path in paths {
            add(root, &path, prefix, foreign, found);
        }
    }
}

/// Returns the versioned files in the folder, for a folder without the usual link.
fn versioned(root: &Root, folder: &str, Prefix(prefix): Prefix) -> Vec<String> {
    let names = root.find(folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
    let is_library = |name: &String| name.strip_prefix(prefix).is_some_and(version::is_version);
    let mut names: Vec<String> = names.into_iter().filter(is_library).collect();
    bounded::cut(&mut names, MAX_VERSIONS, "versions of a library of the driver in one folder");
    names.into_iter().map(|name| format!("{folder}/{name}")).collect()
}

fn add(root: &Root, path: &str, Prefix(prefix): Prefix, foreign: bool, found: &mut Vec<Library>) {
    let file = trusted_file::open_in(root, path, !foreign);
    let real = match &file {
        Ok(file) => Some(file.path.clone()),
        // An existing file that must not be loaded is reported with the reason.
        Err(Distrust::Absent(_)) => None,
        Err(_) => root.find(path).map(|file| file.path),
    };
    let Some(real) = real else { return };
    if found.iter().any(|known| known.path == real) {
        return;
    }
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_prefix(prefix).filter(|version| version::is_version(version)).map(str::to_owned);
    found.push(Library { path: real, version, file, foreign });
}

/// Returns NVML libraries that processes of the node have mapped, in the root of the node. This search comes last, to find a
/// driver that is installed in an unknown folder.
///
/// The path comes from a process, and a process of a pod could provide the path of a file of its own image: the runtime
/// unpacks images into a folder of the node, and root owns these files. Therefore, processes of pods and processes with
/// an unreadable cgroup are skipped.
pub(crate) fn mapped_libraries(paths: &Paths) -> Vec<Library> {
    let mut found = Vec::new();
    if paths.owner == Owner::Workload {
        return found;
    }
    let Ok(host) = Root::open(&paths.host) else { return found };
    for pid in files::pids(&paths.proc).unwrap_or_default() {
        let process = paths.proc.join(pid.to_string());
        // An unprivileged user of the host can mount a file at any path in a user namespace.
        if !files::is_of_root(&process) {
            continue;
        }
        if !files::text(&process.join("cgroup")).is_some_and(|cgroup| cgroup::is_of_no_container(&cgroup)) {
            continue;
        }
        let Ok(maps) = files::head(&process.join("maps"), MAX_MAPS_BYTES) else { continue };
        let maps = String::from_utf8_lossy(&maps);
        let path = mapped_path(&maps).filter(|path| !IMAGES.iter().any(|folder| path.starts_with(folder)));
        if let Some(path) = path {
            add(&host, path, NVML, false, &mut found);
        }
    }
    found
}

/// Returns the path of the NVML library in a `/proc/PID/maps`. A deleted file cannot be opened again.
fn mapped_path(maps: &str) -> Option<&str> {
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let name = path.rsplit('/').next()?;
        (name.starts_with("libnvidia-ml.so") && !name.ends_with(" (deleted)")).then_some(path)
    })
}

impl Library {
    /// Returns the rank of a library: 0 if it has the version of the loaded module, 1 if its version is unknown, 2 if
    /// it has another version and could not be initialized.
    fn rank(&self, loaded: Option<&str>) -> u8 {
        match (self.version.as_deref(), loaded) {
            (Some(version), Some(loaded)) if version == loaded => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
#[path = "nvml_library_tests.rs"]
mod tests;
