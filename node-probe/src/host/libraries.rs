//! The one search for the driver's NVML library: the host section names what it finds, and NVML is opened from it.
//!
//! A library is code that runs with the probe's rights. So it comes from the node's own root, from a driver's root that the
//! node's root owns, or from the root of the probe's own container, where the container runtime may have put it (what is there
//! was put by our image and the runtime: both are the node's, and the same look at owners applies). Never from a pod's root.
//! Where all that can be seen is a pod's root ([`Owner::Workload`]), its library is named as what it is: see [`Library::foreign`].

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{driver_version, library_folders};
use crate::in_root::Root;
use crate::paths::{Owner, Paths};
use crate::trusted::{self, Distrust, Trusted};
use crate::{cgroup, files};

/// The name that the driver's own loader path knows.
const NAME: &str = "libnvidia-ml.so.1";
/// In front of the version in the real file's name.
const PREFIX: &str = "libnvidia-ml.so.";
/// A process's memory map is not read beyond this.
const MAX_MAPS_BYTES: usize = 4 << 20;

/// Folders of container images and volumes: files of tenants, which root owns all the same.
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
    /// Where it really is, as this process sees it.
    pub(crate) path: PathBuf,
    /// From the file's name (`libnvidia-ml.so.570.124.06`).
    pub(crate) version: Option<String>,
    /// The open file, or why it must not be loaded.
    pub(crate) file: Result<Trusted, Distrust>,
    /// Of a workload's root: to be opened without any privilege alone.
    pub(crate) foreign: bool,
}

/// The libraries that exist, best first: those of the loaded module's version, then in the order of the search. Those that may
/// not be loaded come last.
pub(crate) fn libraries(paths: &Paths, loaded: Option<&str>) -> Vec<Library> {
    let mut found = Vec::new();
    // Our own root. A saved file tree has none.
    if paths.proc == Path::new("/proc") && paths.host != Path::new("/") {
        found_in(trusted::root_below(Path::new("/"), ""), Path::new("/"), loaded, &mut found);
    }
    let foreign = paths.owner == Owner::Workload;
    for below in library_folders::DRIVER_ROOTS {
        if foreign {
            let root = Root::open(&paths.host).ok().and_then(|host| host.below(below));
            root.into_iter().for_each(|root| search(&root, loaded, true, &mut found));
        } else {
            found_in(trusted::root_below(&paths.host, below), &paths.host.join(below), loaded, &mut found);
        }
    }
    found.sort_by_key(|library| (library.file.is_err(), library.rank(loaded)));
    found
}

/// Searches a root of the node. One that others could have put there is named with the reason.
fn found_in(root: Result<Root, Distrust>, path: &Path, loaded: Option<&str>, found: &mut Vec<Library>) {
    match root {
        Ok(root) => search(&root, loaded, false, found),
        Err(Distrust::Absent(_)) => {}
        Err(distrust) => {
            found.push(Library { path: path.to_owned(), version: None, file: Err(distrust), foreign: false });
        }
    }
}

fn search(root: &Root, loaded: Option<&str>, foreign: bool, found: &mut Vec<Library>) {
    for folder in library_folders::folders(root, foreign) {
        let exact = loaded.map(|version| format!("{folder}/{PREFIX}{version}"));
        let usual = format!("{folder}/{NAME}");
        let mut paths: Vec<String> = exact.into_iter().chain([usual]).collect();
        if !paths.iter().any(|path| root.find(path).is_some()) {
            paths = versioned(root, &folder);
        }
        for path in paths {
            add(root, &path, foreign, found);
        }
    }
}

/// A folder without the usual link may have the file behind it all the same.
fn versioned(root: &Root, folder: &str) -> Vec<String> {
    let names = root.find(folder).and_then(|folder| folder.names().ok()).unwrap_or_default();
    let is_library = |name: &String| name.strip_prefix(PREFIX).is_some_and(driver_version::is_version);
    names.into_iter().filter(is_library).map(|name| format!("{folder}/{name}")).collect()
}

fn add(root: &Root, path: &str, foreign: bool, found: &mut Vec<Library>) {
    let file = trusted::open_in(root, path, !foreign);
    let real = match &file {
        Ok(file) => Some(file.path.clone()),
        // Named with the reason, if it is there at all.
        Err(Distrust::Absent(_)) => None,
        Err(_) => root.find(path).map(|file| file.path),
    };
    let Some(real) = real else { return };
    if found.iter().any(|known| known.path == real) {
        return;
    }
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_prefix(PREFIX).filter(|version| driver_version::is_version(version)).map(str::to_owned);
    found.push(Library { path: real, version, file, foreign });
}

/// Libraries that processes of the node itself have open, in the node's root. The last resort: it finds a driver that is
/// installed in no known place.
///
/// The path is a process's word. A pod's process could name a file of its own image below the runtime's folder, which root owns
/// on the node; so processes of pods are not asked, nor any whose cgroup cannot be read.
pub(crate) fn mapped_libraries(paths: &Paths) -> Vec<Library> {
    let mut found = Vec::new();
    if paths.owner == Owner::Workload {
        return found;
    }
    let Ok(host) = Root::open(&paths.host) else { return found };
    for pid in files::pids(&paths.proc).unwrap_or_default() {
        let process = paths.proc.join(pid.to_string());
        // An unprivileged user of the host could mount a file of his own at any path, in a user namespace of his own.
        let of_root = |process: fs::Metadata| [0, rustix::process::geteuid().as_raw()].contains(&process.uid());
        if !fs::metadata(&process).is_ok_and(of_root) {
            continue;
        }
        if !files::text(&process.join("cgroup")).is_some_and(|cgroup| cgroup::is_of_no_container(&cgroup)) {
            continue;
        }
        let Ok(maps) = files::head(&process.join("maps"), MAX_MAPS_BYTES) else { continue };
        let maps = String::from_utf8_lossy(&maps);
        let path = mapped_path(&maps).filter(|path| !IMAGES.iter().any(|folder| path.starts_with(folder)));
        if let Some(path) = path {
            add(&host, path, false, &mut found);
        }
    }
    found
}

/// The path of the NVML library in a `/proc/PID/maps`. A deleted file cannot be opened again.
fn mapped_path(maps: &str) -> Option<&str> {
    maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        let name = path.rsplit('/').next()?;
        (name.starts_with("libnvidia-ml.so") && !name.ends_with(" (deleted)")).then_some(path)
    })
}

impl Library {
    /// 0: of the loaded module's version, 1: may be, 2: is not (its initialisation would fail).
    fn rank(&self, loaded: Option<&str>) -> u8 {
        match (self.version.as_deref(), loaded) {
            (Some(version), Some(loaded)) if version == loaded => 0,
            (Some(_), Some(_)) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
#[path = "libraries_tests.rs"]
mod tests;
