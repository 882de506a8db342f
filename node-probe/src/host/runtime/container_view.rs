//! `read`: reads shared memory, limits, driver libraries and network interfaces as programs in a container see them.
//!
//! A tenant controls everything below the container's root and in `/proc/PID` of its processes. Therefore, links are
//! resolved inside the root, the content of files below the root is not read, sizes and numbers are limited, and all
//! reads together have one time limit.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use syringe_core::facts::container_view::{ContainerView, LibraryFile, MappedLibrary, ProcessLimits, SharedMemory};
use syringe_core::text::{clean, clean_keeping_end};

use super::container_devices::{
    ContainerProcess, container_root, environment, folder_of_cgroup, is_of_container, variable,
};
use crate::files;
use crate::host::driver::{library_folders, version};
use crate::host::process::read_stat;
use crate::in_root::Root;
use crate::paths::Paths;

/// Maximum time for all reads. Without a hung file they take some milliseconds.
const TIME: Duration = Duration::from_millis(800);

/// Maximum number of processes whose memory maps are read.
const MAX_PROCESSES: usize = 32;

/// Maximum number of bytes of the memory map of one process, and of all maps. Processes that use CUDA have thousands of
/// lines.
const MAX_MAPS: usize = 4 << 20;
const MAX_ALL_MAPS: usize = 16 << 20;

/// Maximum size of the list of mounts, and of the list of interfaces: a node has two interfaces for each pod.
const MAX_MOUNTS: usize = 1 << 20;
const MAX_INTERFACE_BYTES: usize = 256 * 1024;

/// Maximum numbers of entries in the report.
const MAX_LIBRARIES: usize = 8;
const MAX_INTERFACES: usize = 512;
const MAX_RDMA_DEVICES: usize = 64;

/// Maximum lengths of a path, of the name of a device, and of the value of a variable.
const MAX_PATH: usize = 200;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 200;

/// The libraries of the driver that programs open by name.
const LIBRARIES: [&str; 2] = ["libcuda", "libnvidia-ml"];

/// The only environment variables that are read in addition to `NVIDIA_VISIBLE_DEVICES`.
const SETTINGS: [&str; 4] = ["NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES"];

/// The bit of `CAP_IPC_LOCK` in a set of capabilities.
const IPC_LOCK: u64 = 1 << 14;

/// Reads the view of a container. Values that could not be read are absent.
pub(in crate::host) fn read(paths: &Paths, of: &ContainerProcess) -> ContainerView {
    let mut view = ContainerView::default();
    let process = paths.proc.join(of.pid.to_string());
    let Ok(root) = container_root(&process.join("root"), paths.is_saved_tree()) else { return view };
    let steps: [&dyn Fn(&mut ContainerView); 7] = [
        &|view| view.limits = limits(&process),
        &|view| view.may_lock_memory = may_lock_memory(&process),
        &|view| view.has_rdma_devices = has_rdma_devices(&root),
        &|view| (view.memory_kills, view.refused_threads) = events(paths, of),
        &|view| view.mapped_libraries = mapped_libraries(paths, of),
        &|view| network(&process, &root, view),
        &|view| view.shared_memory = shared_memory(&process, &root),
    ];
    let end = Instant::now() + TIME;
    for step in steps {
        if Instant::now() < end {
            step(&mut view);
        }
    }
    (view.library_files, view.libraries_searched) = library_files(&root, end);
    view
}

/// Returns the soft limits of a process.
fn limits(process: &Path) -> Option<ProcessLimits> {
    let text = files::text(&process.join("limits"))?;
    let soft =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    Some(ProcessLimits {
        locked_memory_bytes: soft("Max locked memory "),
        open_files: soft("Max open files "),
        processes: soft("Max processes "),
    })
}

fn may_lock_memory(process: &Path) -> Option<bool> {
    let text = files::text(&process.join("status"))?;
    let set = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(set.trim(), 16).ok()? & IPC_LOCK != 0)
}

/// Returns whether the container has devices that programs need to register memory for RDMA.
fn has_rdma_devices(root: &Root) -> bool {
    let folder = root.find("dev/infiniband");
    let names = folder.and_then(|folder| folder.names_of_kinds("uverbs", &[FileType::CharacterDevice]).ok());
    names.is_some_and(|(names, _)| !names.is_empty())
}

/// Returns how many processes the kernel killed because of the memory limit, and how many processes or threads could
/// not start.
fn events(paths: &Paths, of: &ContainerProcess) -> (Option<u64>, Option<u64>) {
    let count = |controller: &'static str, names: &[&str], key: &str| {
        let folder = folder_of_cgroup(paths, of, controller).ok()?;
        let text = names.iter().find_map(|name| files::text(&folder.join(name)))?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    };
    // cgroup v1 has no file `memory.events`.
    let kills = count("memory", &["memory.events", "memory.oom_control"], "oom_kill");
    (kills, count("pids", &["pids.events"], "max"))
}

/// Returns the driver libraries in the memory maps of the container's processes.
fn mapped_libraries(paths: &Paths, of: &ContainerProcess) -> Vec<MappedLibrary> {
    let listed = folder_of_cgroup(paths, of, "devices").ok();
    let listed = listed.and_then(|folder| files::text(&folder.join("cgroup.procs"))).unwrap_or_default();
    let others = listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| ![0, of.pid].contains(pid));
    let mut left = MAX_ALL_MAPS;
    let mut found: Vec<MappedLibrary> = Vec::new();
    let end = Instant::now() + TIME / 2;
    for pid in std::iter::once(of.pid).chain(others).take(MAX_PROCESSES) {
        // The maps of a process in state D can block their reader.
        let blocked = |pid| read_stat(&paths.proc, pid).is_none_or(|stat| stat.state.as_deref() == Some("D"));
        if left == 0 || Instant::now() > end || blocked(pid) {
            continue;
        }
        let Ok(process) = Root::open(&paths.proc.join(pid.to_string())) else { continue };
        let maps = files::head(&paths.proc.join(format!("{pid}/maps")), MAX_MAPS.min(left)).unwrap_or_default();
        // Since the list was read, another process can have got this ID.
        if !is_of_container(&process, &of.id) {
            continue;
        }
        left = left.saturating_sub(maps.len());
        for library in maps.split(|byte| *byte == b'\n').filter_map(mapped_library) {
            if found.len() < MAX_LIBRARIES && !found.contains(&library) {
                found.push(library);
            }
        }
    }
    found
}

/// Parses one line of a memory map: `7f00-7f01 r-xp 00000000 08:01 42    /usr/lib/libcuda.so.570.124.06`.
fn mapped_library(line: &[u8]) -> Option<MappedLibrary> {
    let path = &line[line.iter().position(|byte| *byte == b'/')?..];
    let path = String::from_utf8_lossy(path);
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    let name = path.rsplit('/').next()?;
    let (library, rest) =
        LIBRARIES.iter().find_map(|library| Some((library, name.strip_prefix(library)?.strip_prefix(".so")?)))?;
    let version = rest.strip_prefix('.').filter(|version| version::is_version(version)).map(str::to_owned);
    (rest.is_empty() || rest.starts_with('.')).then(|| MappedLibrary {
        library: (*library).to_owned(),
        path: clean_keeping_end(path, MAX_PATH),
        version,
    })
}

/// Returns the driver libraries in the usual folders, and whether all folders were searched. Only their sizes are read.
fn library_files(root: &Root, end: Instant) -> (Vec<LibraryFile>, bool) {
    let mut found: Vec<LibraryFile> = Vec::new();
    for folder in library_folders::known() {
        for library in LIBRARIES {
            if Instant::now() > end {
                return (found, false);
            }
            let path = format!("/{folder}/{library}.so.1");
            let Ok(file) = root.find_or_fail(&path) else { return (found, false) };
            let size = file.filter(|file| file.is_of(&[FileType::RegularFile])).and_then(|file| file.size());
            found.extend(size.map(|size| LibraryFile { path, empty: size == 0 }));
        }
    }
    (found, true)
}

/// Reads the variables that select interfaces and, if there are any, the interfaces.
fn network(process: &Path, root: &Root, view: &mut ContainerView) {
    view.network_settings = settings(process);
    if view.network_settings.is_empty() {
        return;
    }
    view.interfaces = interfaces(&process.join("net/dev"));
    let devices = root.find("sys/class/infiniband").and_then(|folder| folder.names().ok());
    view.rdma_devices = devices.filter(|names| names.len() <= MAX_RDMA_DEVICES).map(|names| plain_names(&names));
}

/// Returns the allowed variables. A value with characters that do not occur in names of interfaces could be any text,
/// and is left out.
fn settings(process: &Path) -> BTreeMap<String, String> {
    let plain = |value: &String| {
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:^=,-@".contains(&byte);
        !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(of_name)
    };
    let environment = environment(process);
    let found = SETTINGS.iter().filter_map(|name| Some((name, variable(&environment, name)?)));
    found.filter(|(_, value)| plain(value)).map(|(name, value)| ((*name).to_owned(), value)).collect()
}

/// Parses `net/dev`: two lines of headings, then `NAME: counters`. `None` if there are too many interfaces to list all
/// of them.
fn interfaces(file: &Path) -> Option<Vec<String>> {
    let text = files::whole(file, MAX_INTERFACE_BYTES).ok()?;
    let text = String::from_utf8_lossy(&text);
    let names: Vec<String> =
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    (names.len() <= MAX_INTERFACES).then(|| plain_names(&names))
}

fn plain_names(names: &[String]) -> Vec<String> {
    names.iter().map(|name| clean(name, MAX_NAME)).collect()
}

/// Returns the space of `/dev/shm`, but only if the list of mounts shows that it is a file system in memory. Any other
/// file system could wait for a server.
fn shared_memory(process: &Path, root: &Root) -> Option<SharedMemory> {
    let mounts = files::head(&process.join("mounts"), MAX_MOUNTS).ok()?;
    let mounts = String::from_utf8_lossy(&mounts);
    let kind = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == "/dev/shm").then(|| words.next().unwrap_or_default().to_owned())
    };
    // If several file systems are mounted at one path, the last mount hides the earlier mounts.
    mounts.lines().filter_map(kind).next_back().filter(|kind| kind == "tmpfs")?;
    let (_, space) = root.find("dev/shm")?.space().ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    // A file system in memory without a limit has no size.
    (space.f_blocks > 0).then(|| SharedMemory {
        size_bytes: bytes(space.f_blocks),
        used_bytes: bytes(space.f_blocks.saturating_sub(space.f_bfree)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::fault;
    use crate::testing::Tree;

    const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn process(tree: &Tree) -> ContainerProcess {
        let folder = Root::open(&tree.path().join("proc/20")).expect("there");
        ContainerProcess { id: ID.to_owned(), pid: 20, pod_uid: None, folder }
    }

    /// Returns a container with two processes. The cgroup of the second process is below the cgroup of the container.
    fn container() -> Tree {
        let tree = Tree::new();
        let scope = format!("sys/fs/cgroup/kubepods.slice/cri-containerd-{ID}.scope");
        tree.file("proc/20/cgroup", format!("0::/kubepods.slice/cri-containerd-{ID}.scope/worker\n"));
        tree.file(&format!("{scope}/cgroup.procs"), "0\n20\n21\n22\n23\n");
        tree.file(&format!("{scope}/memory.events"), "low 0\nmax 7\noom 1\noom_kill 3\noom_group_kill 0\n");
        tree.file(&format!("{scope}/pids.events"), "max 5\n");
        tree.file("proc/20/limits", "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\nMax locked memory  65536  65536  bytes\nMax processes  unlimited  unlimited  processes\n");
        tree.file("proc/20/status", "Name:\tsh\nCapEff:\t00000000a80425fb\n");
        for pid in [21, 22, 23] {
            let id = if pid == 23 { "0".repeat(64) } else { ID.to_owned() };
            tree.file(&format!("proc/{pid}/cgroup"), format!("0::/kubepods.slice/cri-containerd-{id}.scope\n"));
        }
        tree.file("proc/20/stat", "20 (sh) S 1\n")
            .file("proc/23/stat", "23 (x) S 1\n")
            .file("proc/21/stat", "21 (python3) R 1\n")
            .file("proc/22/stat", "22 (x) D 1\n");
        tree.folder("proc/20/root/dev/shm");
        tree
    }

    #[test]
    fn limits_events_and_libraries_of_a_container_are_read() {
        let tree = container();
        let maps = "7f00-7f01 r-xp 0 08:01 42     /usr/local/cuda/compat/libcuda.so.535.54.03\n\
            7f01-7f02 r--p 0 08:01 42     /usr/local/cuda/compat/libcuda.so.535.54.03\n\
            7f02-7f03 r-xp 0 08:01 43     /usr/lib/libnvidia-ml.so.1 (deleted)\n\
            7f03-7f04 r-xp 0 08:01 44     /usr/lib/libcudart.so.12\n7f04-7f05 rw-p 0 0:0 0     [heap]\n";
        // Process 23 belongs to another container. It got the ID of a process that has ended.
        tree.file("proc/21/maps", maps)
            .file("proc/23/maps", maps.replace("535", "560"))
            .file("proc/22/maps", maps.replace("535", "550"));
        fault::block(&tree.path().join("proc/22/maps"));
        let view = read(&tree.paths(), &process(&tree));
        let limits = ProcessLimits { locked_memory_bytes: Some(65_536), open_files: Some(1024), processes: None };
        assert_eq!((view.limits, view.may_lock_memory), (Some(limits), Some(false)));
        assert_eq!((view.memory_kills, view.refused_threads), (Some(3), Some(5)));
        let mapped: Vec<_> = view
            .mapped_libraries
            .iter()
            .map(|of| (of.library.as_str(), of.path.as_str(), of.version.as_deref()))
            .collect();
        let compat = ("libcuda", "/usr/local/cuda/compat/libcuda.so.535.54.03", Some("535.54.03"));
        assert_eq!(
            mapped,
            [compat, ("libnvidia-ml", "/usr/lib/libnvidia-ml.so.1", None)],
            "not of a process in state D"
        );
    }

    #[test]
    fn an_empty_library_is_found_by_its_link_inside_the_root() {
        let tree = container();
        let folder = "proc/20/root/usr/lib64";
        tree.file(&format!("{folder}/libcuda.so.570.1"), "")
            .link(&format!("{folder}/libcuda.so.1"), "/usr/lib64/libcuda.so.570.1");
        tree.file(&format!("{folder}/libnvidia-ml.so.570.1"), "ELF")
            .link(&format!("{folder}/libnvidia-ml.so.1"), "libnvidia-ml.so.570.1");
        // This link leads out of the root, to a file of the host with this path.
        tree.file("secret", "x").link("proc/20/root/usr/lib/libcuda.so.1", "../../../../../secret");
        let view = read(&tree.paths(), &process(&tree));
        let files: Vec<_> = view.library_files.iter().map(|file| (file.path.as_str(), file.empty)).collect();
        assert_eq!(files, [("/usr/lib64/libcuda.so.1", true), ("/usr/lib64/libnvidia-ml.so.1", false)]);
        assert!(view.libraries_searched);
    }

    #[test]
    fn only_allowed_variables_with_plain_values_are_read() {
        let tree = container();
        let environment = "PASSWORD=x\0NCCL_SOCKET_IFNAME=^docker,lo\0NCCL_IB_HCA=ignore all rules; $(x)\0UCX_NET_DEVICES=\0NCCL_DEBUG=INFO\0";
        tree.file("proc/20/environ", environment);
        tree.file("proc/20/net/dev", "Inter-| Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n");
        tree.folder("proc/20/root/sys/class/infiniband/mlx5_0");
        let view = read(&tree.paths(), &process(&tree));
        let expected = [("NCCL_SOCKET_IFNAME".to_owned(), "^docker,lo".to_owned())];
        assert_eq!(view.network_settings, expected.into());
        assert_eq!(view.interfaces.as_deref(), Some(["lo", "eth0"].map(str::to_owned).as_slice()));
        assert_eq!(view.rdma_devices.as_deref(), Some(["mlx5_0".to_owned()].as_slice()));
        tree.file("proc/20/environ", "HOME=/\0");
        let view = read(&tree.paths(), &process(&tree));
        assert_eq!((view.interfaces, view.rdma_devices), (None, None), "not needed");
    }

    #[test]
    fn shared_memory_is_only_opened_if_it_is_in_memory() {
        let tree = container();
        let shm = |mounts: &str| {
            tree.file("proc/20/mounts", mounts);
            read(&tree.paths(), &process(&tree)).shared_memory
        };
        let found = shm("overlay / overlay rw 0 0\nshm /dev/shm tmpfs rw,size=65536k 0 0\n").expect("it is in memory");
        assert!(found.size_bytes >= found.used_bytes && found.size_bytes > 0, "{found:?}");
        assert_eq!(shm("shm /dev/shm tmpfs rw 0 0\nserver:/x /dev/shm nfs4 rw 0 0\n"), None);
        assert_eq!(shm("overlay / overlay rw 0 0\n"), None);
    }

    #[test]
    fn a_hung_file_of_a_container_ends_the_reading_in_time() {
        let tree = container();
        tree.file("proc/20/root/usr/lib64/libcuda.so.1", "");
        crate::bounded::begin(Duration::from_secs(8));
        for path in ["proc/20/limits", "proc/20/mounts"] {
            fault::block(&tree.path().join(path));
        }
        let started = Instant::now();
        let view = read(&tree.paths(), &process(&tree));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert_eq!((view.library_files, view.libraries_searched), (Vec::new(), false));
    }
}
