//! Functions that find container settings by which a program gets no GPU or no driver. `why_without_driver`: why
//! NVIDIA's runtime may not have added the driver. `hiding_variable`, `limiting_variable`: a variable that hides GPUs.
//! `doubt`: the same for NVIDIA's components.
//!
//! NVIDIA's runtime adds GPUs and driver if one of its handlers starts the container, and if the container asks for
//! GPUs in an accepted way. It can ask by a request. It can also ask by the variable `NVIDIA_VISIBLE_DEVICES` if it is
//! privileged, or if the configuration accepts the variable from any container.

use crate::explanation::causes::Case;
use crate::input::runtimes;
use syringe_core::facts::container_runtime::ContainerRuntime;
use syringe_core::facts::kubernetes::pod::ContainerSpec;
use syringe_core::report::Section;
use syringe_core::text::clean;

/// Phrases, in lower case, of messages about a missing driver or GPU.
const LACKS_DRIVER: [&str; 8] = [
    "nvml",
    "libnvidia",
    "libcuda",
    "nvidia-smi",
    "no cuda-capable device",
    "error_library_not_found",
    "no nvidia gpu",
    "no cuda gpus",
];

/// Folder of the volume mounts through which a container can ask for GPUs.
const BY_MOUNTS: &str = "/var/run/nvidia-container-devices";

/// Variable through which a container asks NVIDIA's runtime for GPUs.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// Maximum length of a name.
const MAX_NAME: usize = 63;
/// Maximum length of a path.
const MAX_PATH: usize = 200;

/// Beginnings of the names of variables that configure CUDA, NVIDIA's runtime, the libraries of a job and their ranks.
/// Other variables can be secret.
const SETTINGS: [&str; 16] = [
    "CUDA_",
    "GLOO_",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "LD_LIBRARY_PATH",
    "LOCAL_RANK",
    "MASTER_",
    "MUJOCO_GL",
    "NCCL_",
    "NVIDIA_",
    "NVSHMEM_",
    "PYOPENGL_PLATFORM",
    "RANK",
    "TRITON_",
    "UCX_",
    "WORLD_SIZE",
];

/// Returns the settings in the specification of the failed container that a text names, with their values.
pub(super) fn settings_named_in(case: &Case<'_>, text: &str) -> Vec<String> {
    let spec = case.failed().and_then(|end| case.pod.specs.iter().find(|spec| spec.name == end.container));
    let named: Vec<&str> = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_').collect();
    // If a value of these variables hides a GPU, `hiding_variable` reports it. Other values are right.
    let is_judged = |name: &str| [VISIBLE, CUDA_VISIBLE, CAPABILITIES].contains(&name);
    let is_setting =
        |name: &str| !is_judged(name) && SETTINGS.iter().any(|start| name.starts_with(start)) && named.contains(&name);
    let environment = spec.map(|spec| spec.environment.as_slice()).unwrap_or_default();
    let mut settings: Vec<&(String, String)> = Vec::new();
    for variable in environment.iter().filter(|(name, _)| is_setting(name)) {
        // The last value of a variable applies.
        settings.retain(|(name, _)| *name != variable.0);
        settings.push(variable);
    }
    settings.into_iter().map(|(name, value)| format!("{name}=\"{}\"", clean(value, MAX_PATH))).collect()
}

/// Returns why the failed container may have no driver, if its message is about a missing driver and the driver of the
/// node works.
pub(super) fn why_without_driver(case: &Case<'_>, message: &str) -> Option<String> {
    let message = message.to_ascii_lowercase();
    let lacks = LACKS_DRIVER.iter().any(|words| message.contains(words));
    // These errors come from a library of the driver, so the container has the driver.
    let is_refused = ["unknown error", "insufficient permissions"].iter().any(|words| message.contains(words));
    if !lacks || is_refused || !case.driver_works() {
        return None;
    }
    let container = case.failed()?.container;
    let spec = case.pod.specs.iter().find(|spec| spec.name == container)?;
    // If a container mounts the driver itself, the runtime adds nothing.
    if has_driver_mounted(spec) {
        return Some(library_elsewhere(case, spec).unwrap_or_else(|| {
            format!(
                "Container {} mounts the driver itself: check that the driver is where the container looks for it.",
                spec.name
            )
        }));
    }
    other_handler(case).or_else(|| not_accepted(spec, case.node))
}

/// Variable with which a program limits the GPUs of CUDA.
const CUDA_VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Variable that selects the driver libraries that NVIDIA's runtime adds.
const CAPABILITIES: &str = "NVIDIA_DRIVER_CAPABILITIES";

/// Returns the variable of the failed container that hides the GPUs or the driver from its program, with its value:
/// `CUDA_VISIBLE_DEVICES="-1"`. Only the values of these three variables are shown, because others can be secrets.
pub(super) fn hiding_variable(case: &Case<'_>, message: &str) -> Option<String> {
    if case.pod.is_gpu_stack {
        return None;
    }
    let container = case.failed()?.container;
    let spec = case.pod.specs.iter().find(|spec| spec.name == container)?;
    // The variables of the runtime have no effect on a container that mounts the driver or gets its GPU from a claim.
    let by_runtime = !has_driver_mounted(spec) && !case.on_node.allocations.iter().any(|held| held.claim.is_some());
    let message = message.to_ascii_lowercase();
    let of_utilities = ["nvml", "nvidia-ml", "nvidia-smi"].iter().any(|words| message.contains(words));
    let of_pictures = capability_of_library(&message);
    let needed = of_pictures.unwrap_or(if of_utilities { "utility" } else { "compute" });
    let hides = |(name, value): &&(String, String)| {
        let parts: Vec<&str> = value.split(',').map(str::trim).collect();
        match name.as_str() {
            _ if value.contains("$(") => false,
            // A missing library for video or graphics is caused only by the capabilities.
            VISIBLE | CUDA_VISIBLE if of_pictures.is_some() => false,
            VISIBLE => by_runtime && matches!(value.as_str(), "" | "void" | "none"),
            CAPABILITIES => by_runtime && !value.is_empty() && !parts.contains(&needed) && !parts.contains(&"all"),
            // CUDA ignores the first unknown name in the list and all names after it. NVML ignores the variable.
            CUDA_VISIBLE => {
                let first = parts.first().copied().unwrap_or_default();
                !of_utilities && (!names_gpu(first) || names_absent_gpu(case, spec, first))
            }
            _ => false,
        }
    };
    // If a variable is set several times, the last value applies.
    let last = |variable: &str| spec.environment.iter().rev().find(|(name, _)| name == variable).filter(hides);
    let (name, value) = [VISIBLE, CUDA_VISIBLE, CAPABILITIES].into_iter().find_map(last)?;
    Some(format!("{name}=\"{}\"", clean(value, MAX_NAME)))
}

/// Returns the variable with which the failed container lets CUDA use fewer GPUs than the pod requests.
pub(super) fn limiting_variable(case: &Case<'_>) -> Option<String> {
    let container = case.failed()?.container;
    let spec = case.pod.specs.iter().find(|spec| spec.name == container)?;
    let (name, value) = spec.environment.iter().rev().find(|(name, _)| name == CUDA_VISIBLE)?;
    let listed = value.split(',').filter(|part| names_gpu(part.trim())).count() as u64;
    (!value.contains("$(") && listed < case.pod.gpus_requested)
        .then(|| format!("{name}=\"{}\"", clean(value, MAX_NAME)))
}

/// Returns whether CUDA can use a text as the name of a GPU: an index or a UUID.
fn names_gpu(text: &str) -> bool {
    text.parse::<u32>().is_ok() || ["GPU-", "MIG-"].iter().any(|start| text.starts_with(start))
}

/// Returns whether the container has no GPU with this name: an index beyond its number of GPUs, or the UUID of a GPU
/// that is not on the node. The GPUs of a container are numbered from 0, whatever their numbers on the node are.
fn names_absent_gpu(case: &Case<'_>, spec: &ContainerSpec, name: &str) -> bool {
    let requested = case.pod.gpus_requested;
    if let Ok(index) = name.parse::<u64>() {
        // A privileged container has the device files of all GPUs.
        return spec.requests_gpus && !spec.privileged && requested > 0 && index >= requested;
    }
    let inventory = case.report.and_then(|report| Section::data_of(&report.sections.inventory));
    let uuids: Option<Vec<&str>> = inventory
        .map(|all| all.gpus.iter().map(|gpu| gpu.uuid.as_deref()).collect::<Option<Vec<_>>>())
        .unwrap_or_default();
    // CUDA also accepts the beginning of a UUID as the name of a GPU.
    let is_absent = |uuids: Vec<&str>| !uuids.is_empty() && !uuids.iter().any(|uuid| uuid.starts_with(name));
    name.starts_with("GPU-") && uuids.is_some_and(is_absent)
}

/// Driver libraries for video and graphics, each with the capability for which NVIDIA's runtime adds it.
const LIBRARIES: [(&str, &str); 7] = [
    ("libnvidia-encode", "video"),
    ("libnvcuvid", "video"),
    ("libnvidia-opticalflow", "video"),
    ("libnvoptix", "graphics"),
    ("libglx_nvidia", "graphics"),
    ("libegl_nvidia", "graphics"),
    ("libnvidia-glcore", "graphics"),
];

/// Returns the capability of the video or graphics library that a message names.
pub(super) fn capability_of_library(message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    LIBRARIES.iter().find(|(library, _)| message.contains(library)).map(|(_, capability)| *capability)
}

/// Returns the container of the pod that requests the GPU, if the failed container does not request it and does not get
/// a GPU in another way.
pub(super) fn requested_by_other<'c>(case: &'c Case<'_>) -> Option<&'c str> {
    let failed = case.failed()?.container;
    let (own, others): (Vec<_>, Vec<_>) = case.pod.specs.iter().partition(|spec| spec.name == failed);
    let gets_none = |spec: &ContainerSpec| {
        let in_own_way = spec.privileged || asks_by_variable(spec) || has_driver_mounted(spec);
        !spec.requests_gpus && !in_own_way && !spec.mounts.iter().any(|(path, _)| path.starts_with(BY_MOUNTS))
    };
    let is_without = !case.pod.is_gpu_stack && own.first().is_some_and(|spec| gets_none(spec));
    others.into_iter().find(|spec| is_without && spec.requests_gpus).map(|spec| spec.name.as_str())
}

/// Phrases, in lower case, of any library that finds no GPU or no driver.
const FINDS_NO_GPU: [&str; 25] = [
    "libcuda.so",
    "cuda.is_available() is false",
    "cuda is not available",
    "cuda not available",
    "no cuda gpus",
    "no cuda-capable",
    "no cuda device",
    "could not find cuda",
    "cannot find cuda",
    "no nvidia gpu",
    "no nvidia driver",
    "no gpu",
    "gpu not found",
    "gpu is not available",
    "gpu will not be used",
    "requires a gpu",
    "no visible gpu",
    "no devices were found",
    "no supported gpu",
    "no accelerator",
    "0 gpus",
    "cuda_error_no_device",
    "cudaerrornodevice",
    "failed to initialize nvml",
    "cuinit",
];

/// Returns whether a message reports that a program finds no GPU or no driver.
pub(super) fn finds_no_gpu(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    FINDS_NO_GPU.iter().any(|words| message.contains(words))
}

/// Phrases, in lower case, of components of NVIDIA's software that find no devices.
const FINDS_NOTHING: [&str; 4] = ["no labels", "no devices", "no gpus", "no gpu found"];

/// Returns whether the facts show that the failed container does not get the driver.
pub(super) fn is_shown(case: &Case<'_>) -> bool {
    let failed = case.failed().map(|end| end.container);
    let mut own = case.pod.specs.iter().filter(|spec| failed == Some(spec.name.as_str()));
    case.driver_works() && !own.any(has_driver_mounted) && other_handler(case).is_some()
}

/// Returns why a running component of NVIDIA's software may not see a GPU, if its message is about a missing GPU.
pub(super) fn doubt(case: &Case<'_>, message: &str) -> Option<String> {
    let message = message.to_ascii_lowercase();
    let lacks = LACKS_DRIVER.iter().chain(&FINDS_NOTHING).any(|words| message.contains(words));
    other_handler(case).filter(|_| lacks && case.driver_works())
}

/// Returns whether a container asks for GPUs through the variable of NVIDIA's runtime.
pub(super) fn asks_by_variable(spec: &ContainerSpec) -> bool {
    spec.environment.iter().any(|(name, value)| name == VISIBLE && !matches!(value.as_str(), "" | "void" | "none"))
}

/// Returns whether a container mounts the root of the driver, or the root of the host, which contains the driver.
pub(super) fn has_driver_mounted(spec: &ContainerSpec) -> bool {
    let of_driver = |(path, volume): &(String, String)| {
        let mounts_root = volume.starts_with("hostPath / ") || volume == "hostPath /";
        mounts_root
            || [path, volume].into_iter().any(|text| text.contains("nvidia/driver") || text.contains("libnvidia"))
    };
    spec.mounts.iter().any(of_driver)
}

/// Returns a text if a container searches the driver's libraries in a folder that does not contain them on the node.
fn library_elsewhere(case: &Case<'_>, spec: &ContainerSpec) -> Option<String> {
    let host = Section::data_of(&case.report?.sections.host)?;
    let (folder, _) = host.driver.library_path.as_deref()?.rsplit_once('/')?;
    let (_, looked) = spec.environment.iter().find(|(name, _)| name == "LD_LIBRARY_PATH")?;
    let folders: Vec<&str> = looked.split(':').filter(|one| !one.is_empty()).collect();
    let is_mounted = |one: &&str| spec.mounts.iter().any(|(path, _)| one.starts_with(path.trim_end_matches('/')));
    let has_it = folders.iter().any(|one| folder.ends_with(one.trim_end_matches('/')));
    (folders.iter().any(is_mounted) && !has_it).then(|| {
        let system = host
            .operating_system
            .as_deref()
            .map(|system| format!(" ({})", clean(system, MAX_NAME)))
            .unwrap_or_default();
        format!(
            "Container {} looks for the libraries of the driver in {} (LD_LIBRARY_PATH), but on {}{system} these \
             libraries are in {}. Correct the library path or driver root of the container for this operating system.",
            spec.name,
            clean(&folders.join(":"), MAX_PATH),
            case.node,
            clean(folder, MAX_PATH)
        )
    })
}

fn runtime<'c>(case: &'c Case<'_>) -> Option<&'c ContainerRuntime> {
    let host = Section::data_of(&case.report?.sections.host)?;
    host.container_runtime.as_ref().filter(|runtime| runtime.complete)
}

/// Returns a text if the pod's handler is not a handler of NVIDIA's runtime.
pub(super) fn other_handler(case: &Case<'_>) -> Option<String> {
    let runtime = runtime(case)?;
    // With CDI, the runtime adds the driver for any handler.
    if case.report.and_then(|report| Section::data_of(&report.sections.host)).is_some_and(runtimes::resolves_cdi) {
        return None;
    }
    let has_own = runtime.handlers.iter().any(|handler| handler.is_nvidia());
    let is_nvidia = |name: &str| {
        runtime.handlers.iter().find(|handler| handler.name == name).is_some_and(|handler| handler.is_nvidia())
    };
    let class = case.pod.runtime_class.as_deref();
    match (class, &runtime.default_handler) {
        (Some(class), _) => {
            let handler = case.pod.runtime_handler.as_deref().unwrap_or(class);
            (!is_nvidia(handler)).then(|| {
                format!(
                    "Its RuntimeClass {} has the handler {}, which is not NVIDIA's runtime: it adds no driver and no GPU to the container.",
                    clean(class, MAX_NAME),
                    clean(handler, MAX_NAME)
                )
            })
        }
        (None, Some(_)) if !has_own && runtime.complete => Some(format!(
            "The container runtime of {} has no handler of NVIDIA: a container gets the driver and a GPU only by a request (nvidia.com/gpu in its \
             limits), or by mounts of its own.",
            case.node
        )),
        (None, Some(handler)) if !is_nvidia(handler) => Some(format!(
            "The pod has no runtimeClassName, and the default handler of {} is {}, which is not NVIDIA's runtime: it adds no driver and no \
             GPU to a container. Set runtimeClassName to the class of NVIDIA's handler, or make that handler the default.",
            case.node,
            clean(handler, MAX_NAME)
        )),
        _ => None,
    }
}

/// Returns a text if the container asks for GPUs in a way that NVIDIA's runtime may not accept.
fn not_accepted(spec: &ContainerSpec, node: &str) -> Option<String> {
    let by_mounts = spec.mounts.iter().any(|(path, _)| path.starts_with(BY_MOUNTS));
    if spec.requests_gpus || spec.privileged || by_mounts {
        return None;
    }
    let visible = spec.environment.iter().any(|(name, _)| name == VISIBLE);
    let asks = if visible {
        "asks for GPUs by the variable NVIDIA_VISIBLE_DEVICES"
    } else {
        "requests no GPU (at most its image asks for GPUs by the variable NVIDIA_VISIBLE_DEVICES)"
    };
    let dropped = if spec.dropped.is_empty() {
        String::new()
    } else {
        format!(" and drops the capabilities {}", spec.dropped.join(", "))
    };
    Some(format!(
        "Container {} {asks}, and it is not privileged{dropped}. NVIDIA's runtime on {node} gives the driver to such \
         a container only if the configuration of the runtime accepts the variable from containers without privileges \
         (accept-nvidia-visible-devices-envvar-when-unprivileged; Bottlerocket and others do not accept it). Make the \
         container privileged (securityContext.privileged), or let it ask by volume mounts below {BY_MOUNTS}.",
        spec.name
    ))
}
