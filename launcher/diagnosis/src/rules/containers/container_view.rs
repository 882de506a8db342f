//! Rules about the environment in a container: driver libraries, shared memory, limits, killed processes, network
//! interface settings.

use super::container::about;
use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, NCCL_DOC, TOOLKIT_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::container::ContainerAccess;
use syringe_core::facts::container_view::{ContainerView, LibraryFile, MappedLibrary, ProcessLimits};

rules! {
    about Workload;
    LIBRARY: "container-driver-library-does-not-fit" Critical Application COMPAT_DOC,
        "A program in a container uses a driver library that does not match the driver",
        UpdateSoftware "Remove the library in the evidence from the library path of the image (LD_LIBRARY_PATH, ld.so.conf, packages of cuda-compat or of the \
            driver). {node} provides the libraries of its driver. If the image does not contain the library, restart \
                the pod: the driver was updated while the pod was running.",
        means "A process in the container has mapped a libcuda or libnvidia-ml with another version than the driver of the node, or the stub of libcuda. \
            CUDA fails with error 803 if its library is older than the driver. It fails with error 804 if its library \
            is newer and the GPU has no forward compatibility, and with error 34 if its library is the stub. NVML \
            needs exactly the version of the driver. A newer libcuda of cuda-compat is normal on data center GPUs.",
        reads "host.container.view.mapped_libraries, host.driver.loaded";
    EMPTY: "container-driver-library-empty" Critical Driver TOOLKIT_DOC, "The driver libraries in a container are empty files",
        RestartPod "Restart the pod on {node}. If the files are empty again, check the driver root and the CDI specification of {node}, and the log of the \
            container toolkit.",
        means "libcuda.so.1 or libnvidia-ml.so.1 in the container has no content, and there is no other copy: the mount of the node's file failed, and the empty mount point remained.",
        reads "host.container.view.library_files";
    MISSING: "container-driver-library-missing" Info Driver TOOLKIT_DOC, "A container with GPUs has no driver libraries in the usual folders",
        Watch "If programs in the container do not find libcuda.so.1 or libnvidia-ml.so.1, check on {node} that the container is started with NVIDIA's \
            runtime or CDI. Libraries in another folder are normal with LD_LIBRARY_PATH.",
        means "The container has device files of GPUs, but the usual folders contain neither libcuda.so.1 nor libnvidia-ml.so.1. No process in the container uses one of these libraries.",
        reads "host.container.view.library_files";
    SHM_FULL: "container-shared-memory-full" Warning Application NCCL_DOC, "/dev/shm of a container is almost full",
        FixLimits "Mount an emptyDir with medium Memory and a larger sizeLimit at /dev/shm of the pod. Files of programs that crashed stay until the pod is \
            deleted.",
        means "The shared memory of the container is almost used up. NCCL, the workers of PyTorch's DataLoader and Ray fail when they cannot get more: \
            \"unhandled system error\", \"Error while creating shared memory segment\", a bus error.",
        reads "host.container.view.shared_memory";
    SHM_SMALL: "container-shared-memory-small" Info Application NCCL_DOC, "A container with several GPUs has only 64 MiB of /dev/shm",
        FixLimits "If programs of the pod fail with errors of shared memory, mount an emptyDir with medium Memory at /dev/shm.",
        means "The container has the default size of shared memory. That is too little for many programs with several GPUs, for example if NCCL copies \
            through shared memory.",
        reads "host.container.view.shared_memory";
    LOCKED: "container-locked-memory-low" Warning Application NCCL_DOC, "A container with RDMA devices may lock too little memory",
        FixLimits "Add the capability IPC_LOCK to the container, or raise LimitMEMLOCK of the container runtime of {node} and restart the pod.",
        means "Programs lock the memory that they register for RDMA. The container has RDMA devices, but a low limit of locked memory and no CAP_IPC_LOCK, \
            so that ibv_reg_mr or ibv_create_cq fail.",
        reads "host.container.view.limits";
    LOW: "container-limit-low" Warning Application None, "A limit of a container is far below the usual limits",
        FixLimits "Raise the limit in the evidence (ulimit in the command of the image, or the limits of the container runtime of {node}).",
        means "The first process of the container may open fewer files, or start fewer processes, than any system allows by default.",
        reads "host.container.view.limits";
    KILLED: "container-out-of-memory" Warning Application None, "The kernel killed processes of a container because of its memory limit",
        FixLimits "Raise the memory limit of the pod, or reduce its memory use (fewer workers, smaller caches). \
            /dev/shm and files in memory also count.",
        means "A process of the container was killed because the container reached its memory limit. The container \
            continues to run: for example, a worker of a DataLoader has ended, and the program waits for it.",
        reads "host.container.view.memory_kills";
    REFUSED: "container-process-limit-reached" Warning Application None, "A container reached its limit of processes and threads",
        FixLimits "Raise the limit (podPidsLimit of the kubelet of {node}), or let the program start fewer threads (OMP_NUM_THREADS, workers).",
        means "A process or thread could not start, because the cgroup of the container allows no more.",
        reads "host.container.view.refused_threads";
    INTERFACES: "container-network-setting-without-match" Warning Application NCCL_DOC, "A setting of a container selects network interfaces that do not exist",
        FixApplication "Correct the variable in the evidence, or remove it: NCCL, Gloo and UCX find interfaces themselves.",
        means "An environment variable such as NCCL_SOCKET_IFNAME selects network interfaces or RDMA devices by name, and the container has none with such a \
            name. NCCL and Gloo then fail at the start of a job, or do not use RDMA.",
        reads "host.container.view.network_settings";
}

const COMPAT_DOC: Option<&str> = Some("https://docs.nvidia.com/deploy/cuda-compatibility/");

const MIB: u64 = 1 << 20;

/// Default size of `/dev/shm` of a container.
const DEFAULT_SHM: u64 = 64 * MIB;

/// Shared memory is almost full if its free space is below this size and below a tenth of its total size.
const LITTLE_SHM: u64 = 1024 * MIB;

/// Minimum limit of locked memory for RDMA. It is enough for a few buffers of each connection.
const LOCKED_MEMORY: u64 = 1024 * MIB;

/// Minimum limit of open files and of processes. It is the lowest default of any distribution.
const USUAL_LIMIT: u64 = 1024;

/// Maximum number of names in one line of evidence.
const NAMED: usize = 6;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(container) = node.host().and_then(|host| host.container.as_ref()) else { return Vec::new() };
    let Some(view) = &container.view else { return Vec::new() };
    let gpus = container.devices.iter().filter(|device| is_gpu(&device.name)).count();
    let mut drafts: Vec<Draft> = mapped(node, container, view).into_iter().collect();
    drafts.extend(files(container, view, gpus));
    drafts.extend(shared_memory(container, view, gpus));
    drafts.extend(limits(container, view));
    drafts.extend(events(container, view));
    drafts.extend(interfaces(container, view, gpus));
    drafts
}

/// Returns whether a device file belongs to a GPU: `nvidia0`.
fn is_gpu(name: &str) -> bool {
    name.strip_prefix("nvidia")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the numbers of a driver version. Other numbers (`libcuda.so.1.1` on Jetson) are not driver versions.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let numbers: Vec<u32> = version.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.first().is_some_and(|branch| *branch >= 100).then_some(numbers)
}

/// Checks the libraries that processes have mapped.
fn mapped(node: &Node<'_>, container: &ContainerAccess, view: &ContainerView) -> Option<Draft> {
    let driver = &node.host()?.driver;
    let loaded = driver.loaded.as_deref().and_then(numbers)?;
    // If the library of the node has another version than the loaded driver, another rule reports this.
    let is_of_node = |version: &str| driver.library.as_deref() == Some(version);
    let without_compat = node.listed().any(|gpu| gpu.name.as_deref().is_some_and(|name| name.contains("GeForce")));
    let fault = |library: &MappedLibrary| {
        let is_cuda = library.library == "libcuda";
        let Some(version) = &library.version else {
            let is_stub = is_cuda && library.path.contains("/stubs/");
            return is_stub.then_some((Severity::Critical, "the stub for linking, with which CUDA fails (error 34)"));
        };
        let mapped = numbers(version).filter(|mapped| *mapped != loaded && !is_of_node(version))?;
        match (is_cuda, mapped < loaded) {
            (true, true) => Some((Severity::Critical, "older than the driver, so that CUDA fails with error 803")),
            (true, false) if without_compat => {
                Some((Severity::Warning, "newer than the driver, which GeForce GPUs do not support (error 804)"))
            }
            (true, false) => None,
            (false, _) => Some((Severity::Warning, "NVML needs the version of the driver")),
        }
    };
    let faults: Vec<(Severity, String)> = view
        .mapped_libraries
        .iter()
        .filter_map(|library| {
            let (severity, why) = fault(library)?;
            Some((severity, format!("a process has mapped {}: {why}", evidence::path(&library.path))))
        })
        .collect();
    let severity = faults.iter().map(|(severity, _)| *severity).max()?;
    let loaded = driver.loaded.as_deref().map(|version| format!("the loaded driver is {}", evidence::data(version)));
    let draft = about(LIBRARY, container).with_severity(severity);
    Some(draft.with_all_evidence(faults.into_iter().map(|(_, line)| line)).with_all_evidence(loaded))
}

/// Checks the driver libraries in the file system of the container.
fn files(container: &ContainerAccess, view: &ContainerView, gpus: usize) -> Option<Draft> {
    if gpus == 0 {
        return None;
    }
    let is_mapped = |library: &str| view.mapped_libraries.iter().any(|mapped| mapped.library == library);
    let of = |library: &'static str| {
        let is_it =
            move |path: &str| path.rsplit('/').next().and_then(|name| name.strip_suffix(".so.1")) == Some(library);
        view.library_files.iter().filter(move |file| is_it(&file.path))
    };
    // Images that were built with NVIDIA's runtime also contain empty library files, in addition to the mounted ones.
    let is_empty = |library: &&'static str| !is_mapped(library) && of(library).all(|file| file.empty);
    let empty = ["libcuda", "libnvidia-ml"].into_iter().filter(is_empty).flat_map(of);
    let empty: Vec<&LibraryFile> = empty.collect();
    if !empty.is_empty() {
        let paths: Vec<String> = empty.iter().map(|file| evidence::path(&file.path)).collect();
        let line = format!("{} in the container: 0 bytes", evidence::some(&paths, NAMED));
        // An empty libnvidia-ml alone is normal: the image contains the empty file, and without the capability
        // `utility` the runtime mounts no library over it.
        let is_cuda = empty.iter().any(|file| file.path.contains("libcuda"));
        let severity = if is_cuda { Severity::Critical } else { Severity::Info };
        return Some(about(EMPTY, container).with_severity(severity).with_evidence(line));
    }
    let has_none = view.library_files.is_empty() && view.mapped_libraries.is_empty();
    let none = view.libraries_searched && has_none && container.visible_devices.is_some();
    none.then(|| about(MISSING, container).with_evidence(format!("the container has {}", evidence::count(gpus, "GPU"))))
}

/// Checks the size and the use of `/dev/shm`.
fn shared_memory(container: &ContainerAccess, view: &ContainerView, gpus: usize) -> Option<Draft> {
    let shm = view.shared_memory.as_ref().filter(|shm| shm.size_bytes > 0)?;
    let free = shm.size_bytes.saturating_sub(shm.used_bytes);
    let line = format!("{} of {} are used", evidence::bytes(shm.used_bytes), evidence::bytes(shm.size_bytes));
    if free < LITTLE_SHM && free <= shm.size_bytes / 10 {
        return Some(about(SHM_FULL, container).with_evidence(line));
    }
    let small = gpus > 1 && shm.size_bytes <= DEFAULT_SHM;
    let several = format!("the container has {}", evidence::count(gpus, "GPU"));
    small.then(|| about(SHM_SMALL, container).with_evidence(line).with_evidence(several))
}

fn limits(container: &ContainerAccess, view: &ContainerView) -> Vec<Draft> {
    let Some(ProcessLimits { locked_memory_bytes, open_files, processes }) = &view.limits else { return Vec::new() };
    let mut drafts = Vec::new();
    let may_lock = view.may_lock_memory != Some(false) || !view.has_rdma_devices;
    if let Some(bytes) = locked_memory_bytes.filter(|bytes| !may_lock && *bytes < LOCKED_MEMORY) {
        let line = format!("limit of locked memory: {} KiB, without CAP_IPC_LOCK", bytes / 1024);
        drafts.push(about(LOCKED, container).with_evidence(line));
    }
    let low = [("open files", open_files), ("processes", processes)];
    let low = low.into_iter().filter_map(|(name, limit)| {
        let limit = limit.filter(|limit| *limit < USUAL_LIMIT)?;
        Some(format!("limit of {name}: {limit}"))
    });
    let low: Vec<String> = low.collect();
    drafts.extend((!low.is_empty()).then(|| about(LOW, container).with_all_evidence(low)));
    drafts
}

fn events(container: &ContainerAccess, view: &ContainerView) -> Vec<Draft> {
    let events = [
        (KILLED, view.memory_kills, "killed a process"),
        (REFUSED, view.refused_threads, "refused to start a process or thread"),
    ];
    let found = events.into_iter().filter_map(|(rule, count, what)| {
        let count = count.filter(|count| *count > 0)?;
        let line = format!("since the start of the container, the kernel {what} {}", evidence::times(count));
        Some(about(rule, container).with_evidence(line))
    });
    found.collect()
}

/// Checks the variables that select network interfaces. With one GPU, the program may not use these interfaces.
fn interfaces(container: &ContainerAccess, view: &ContainerView, gpus: usize) -> Option<Draft> {
    let lines: Vec<String> = view
        .network_settings
        .iter()
        .filter_map(|(name, value)| {
            let there = without_match(view, name, value)?;
            let there = if there.is_empty() { "none".to_owned() } else { evidence::names(there, NAMED) };
            Some(format!("{}={}, but the container has: {there}", evidence::data(name), evidence::data(value)))
        })
        .collect();
    let severity = if gpus > 1 { Severity::Warning } else { Severity::Info };
    let draft = || about(INTERFACES, container).with_severity(severity).with_all_evidence(lines.clone());
    match severity {
        _ if lines.is_empty() => None,
        Severity::Info => Some(draft().with_action(
            ActionCode::Watch,
            "If a job of several processes fails at its start, correct the variable in the evidence, or remove it.",
        )),
        _ => Some(draft()),
    }
}

/// Returns the available names if a setting selects none of them. `None` if it selects a name, or if this is not known.
fn without_match<'v>(view: &'v ContainerView, setting: &str, value: &str) -> Option<Vec<&'v String>> {
    let (interfaces, devices) = (view.interfaces.as_ref(), view.rdma_devices.as_ref());
    let there: Vec<&String> = match setting {
        "NCCL_SOCKET_IFNAME" | "GLOO_SOCKET_IFNAME" => interfaces?.iter().collect(),
        "NCCL_IB_HCA" => devices?.iter().collect(),
        // If the folder of RDMA devices does not exist, there are no RDMA devices.
        "UCX_NET_DEVICES" => interfaces?.iter().chain(devices.into_iter().flatten()).collect(),
        _ => return None,
    };
    let is_selected = match setting {
        "GLOO_SOCKET_IFNAME" => value.split(',').all(|name| there.iter().any(|one| *one == name)),
        "UCX_NET_DEVICES" if value == "all" => true,
        "UCX_NET_DEVICES" => selects(value, &there, true),
        _ => selects(value, &there, false),
    };
    (!is_selected).then_some(there)
}

/// Returns whether a list selects a name: `eth,ib` by prefixes (`exact`: whole names), `=eth0` by whole names, `^lo`
/// all other names. The number of a port may follow: `mlx5_0:1`.
fn selects(list: &str, names: &[&String], exact: bool) -> bool {
    let (excludes, list) = list.strip_prefix('^').map_or((false, list), |list| (true, list));
    let (exact, list) = list.strip_prefix('=').map_or((exact, list), |list| (true, list));
    let words: Vec<&str> =
        list.split(',').filter_map(|word| word.split(':').next()).filter(|word| !word.is_empty()).collect();
    let is_listed = |name: &str| words.iter().any(|word| if exact { name == *word } else { name.starts_with(word) });
    // An empty list selects all names.
    words.is_empty() || names.iter().any(|name| is_listed(name) != excludes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_interfaces_are_read_as_nccl_gloo_and_ucx_read_them() {
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let view = ContainerView {
            interfaces: names(&["lo", "eth0", "net1"]),
            rdma_devices: names(&["mlx5_0", "mlx5_1"]),
            ..ContainerView::default()
        };
        for (setting, value, selects) in [
            ("NCCL_SOCKET_IFNAME", "eth", true),
            ("NCCL_SOCKET_IFNAME", "ens,net", true),
            ("NCCL_SOCKET_IFNAME", "=eth", false),
            ("NCCL_SOCKET_IFNAME", "=ens3,eth0", true),
            ("NCCL_SOCKET_IFNAME", "bond0", false),
            ("NCCL_SOCKET_IFNAME", "^docker,lo", true),
            ("NCCL_SOCKET_IFNAME", "^lo,eth,net", false),
            ("NCCL_SOCKET_IFNAME", "^=eth", true),
            ("NCCL_SOCKET_IFNAME", ",", true),
            ("NCCL_IB_HCA", "mlx5", true),
            ("NCCL_IB_HCA", "=mlx5_1:1,mlx5_9", true),
            ("NCCL_IB_HCA", "=mlx5_9:1", false),
            ("NCCL_IB_HCA", "^mlx5_0", true),
            ("GLOO_SOCKET_IFNAME", "eth0", true),
            ("GLOO_SOCKET_IFNAME", "eth", false),
            ("GLOO_SOCKET_IFNAME", "eth0,ens3", false),
            ("UCX_NET_DEVICES", "all", true),
            ("UCX_NET_DEVICES", "mlx5_0:1", true),
            ("UCX_NET_DEVICES", "eth0", true),
            ("UCX_NET_DEVICES", "mlx5:1", false),
            ("NCCL_DEBUG", "x", true),
        ] {
            assert_eq!(without_match(&view, setting, value).is_none(), selects, "{setting}={value}");
        }
        let unread = ContainerView::default();
        assert_eq!(without_match(&unread, "NCCL_IB_HCA", "mlx5"), None, "not known");
    }

    #[test]
    fn only_versions_of_the_driver_are_compared() {
        assert!(numbers("535.54.03") < numbers("570.124.06") && numbers("570.86.10") < numbers("570.124.06"));
        assert_eq!([numbers("1.1"), numbers("x"), numbers("")], [None, None, None]);
    }
}
