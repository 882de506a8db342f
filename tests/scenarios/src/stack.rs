//! Builders for the container runtime (`Runtime`), CDI specifications and NVIDIA's Kubernetes software on a node.

use syringe_core::facts::cdi::{Cdi, CdiSpec};
use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler, ToolkitConfig};
use syringe_core::facts::nvidia_stack::{Inotify, NvidiaStack, StackProcess, TimestampedFile};

use crate::prelude::*;

/// The main configuration file of containerd.
pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
/// Path of NVIDIA's runtime if the toolkit container of the GPU Operator installs it.
pub(crate) const TOOLKIT: &str = "/usr/local/nvidia/toolkit/nvidia-container-runtime";
/// Path of NVIDIA's runtime if a package installs it.
pub(crate) const HOST: &str = "/usr/bin/nvidia-container-runtime";

pub(crate) fn handler(name: &str, runtime_type: &str, binary: Option<&str>) -> RuntimeHandler {
    RuntimeHandler {
        name: name.to_owned(),
        runtime_type: text(runtime_type),
        binary: binary.map(str::to_owned),
        binary_exists: binary.map(|_| true),
    }
}

/// Returns a containerd handler with this name that runs NVIDIA's runtime.
pub(crate) fn nvidia_named(name: &str, binary: &str) -> RuntimeHandler {
    handler(name, "io.containerd.runc.v2", Some(binary))
}

/// Returns the containerd handler `nvidia`.
pub(crate) fn nvidia(binary: &str) -> RuntimeHandler {
    nvidia_named("nvidia", binary)
}

/// Returns a containerd runtime with these handlers and the default handler `runc`. NVIDIA's runtime is installed in
/// mode `auto`.
pub(crate) fn containerd<const N: usize>(path: &str, version: u32, handlers: [RuntimeHandler; N]) -> Runtime {
    let mut handlers = Vec::from_iter(handlers.into_iter().chain([handler("runc", "io.containerd.runc.v2", None)]));
    handlers.sort_by(|one, other| one.name.cmp(&other.name));
    Runtime(ContainerRuntime {
        name: "containerd".to_owned(),
        config_path: text(path),
        config_version: Some(version),
        complete: true,
        default_handler: text("runc"),
        handlers,
        started_at: Some(ago(days(9))),
        config_changed_at: Some(ago(days(9) + minutes(4))),
        config_changed_path: text(path),
        toolkit: Some(ToolkitConfig {
            path: "/etc/nvidia-container-runtime/config.toml".to_owned(),
            mode: text("auto"),
            default_kind: None,
        }),
        ..ContainerRuntime::default()
    })
}

/// A container runtime with a configuration that can be changed.
pub(crate) struct Runtime(pub(crate) ContainerRuntime);

impl Runtime {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut ContainerRuntime)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn default_handler(self, name: &str) -> Self {
        self.with(|runtime| runtime.default_handler = text(name))
    }

    pub(crate) fn drop_in(self, path: &str) -> Self {
        self.with(|runtime| (runtime.drop_ins, runtime.config_changed_path) = (vec![path.to_owned()], text(path)))
    }

    /// Sets the mode of NVIDIA's runtime.
    pub(crate) fn mode(self, mode: &str) -> Self {
        self.with(|runtime| runtime.toolkit.get_or_insert_default().mode = text(mode))
    }

    /// Sets the kind of the CDI devices that NVIDIA's runtime uses.
    pub(crate) fn kind(self, kind: &str) -> Self {
        self.with(|runtime| runtime.toolkit.get_or_insert_default().default_kind = text(kind))
    }

    /// Removes NVIDIA's runtime.
    pub(crate) fn without_toolkit(self) -> Self {
        self.with(|runtime| runtime.toolkit = None)
    }

    /// Marks the programs of all handlers as missing.
    pub(crate) fn without_binary(self) -> Self {
        self.with(|runtime| {
            let handlers = runtime.handlers.iter_mut().filter(|handler| handler.binary.is_some());
            handlers.for_each(|handler| handler.binary_exists = Some(false));
        })
    }

    /// Sets the last change of the configuration to five hours ago, after the start of the runtime.
    pub(crate) fn changed_since_start(self) -> Self {
        self.with(|runtime| runtime.config_changed_at = Some(ago(hours(5))))
    }

    /// Marks a configuration file as unreadable.
    pub(crate) fn partly_read(self) -> Self {
        self.with(|runtime| runtime.complete = false)
    }
}

/// Returns a specification of the kind `nvidia.com/gpu`. [`Node::cdi`] adds the devices and the version of the driver.
pub(crate) fn spec() -> CdiSpec {
    spec_at("/var/run/cdi/nvidia.yaml", "nvidia.com/gpu")
}

pub(crate) fn spec_at(path: &str, kind: &str) -> CdiSpec {
    CdiSpec { path: path.to_owned(), kind: kind.to_owned(), changed_at: Some(ago(days(11))), ..CdiSpec::default() }
}

/// Changes a specification so that it belongs to an earlier driver.
pub(crate) fn of_earlier_driver(spec: CdiSpec) -> CdiSpec {
    CdiSpec { driver_version: text("550.90.07"), ..spec }
}

/// Returns the traces of a device plugin in a pod: its sockets and its process.
pub(crate) fn plugin_stack<const N: usize>(sockets: [&str; N]) -> NvidiaStack {
    stack(sockets, "nvidia-device-p", Some("nvidia-device-plugin"))
}

/// Returns the traces of NVIDIA's software: device plugin sockets and one process. Without a pod, the software is a service.
pub(crate) fn stack<const N: usize>(sockets: [&str; N], process: &str, pod: Option<&str>) -> NvidiaStack {
    NvidiaStack {
        kubelet_started_at: Some(ago(days(9))),
        plugin_sockets: Some(sockets.into_iter().map(file_of_nine_days).collect()),
        registry_sockets: Some(Vec::new()),
        validations: Vec::new(),
        processes: vec![StackProcess {
            name: process.to_owned(),
            pid: 6120,
            pod_uid: pod.map(|pod| uuid(&["stack", pod])),
            started_at: Some(ago(days(9))),
        }],
        inotify: Some(Inotify {
            max_user_instances: Some(8192),
            max_user_watches: Some(524_288),
            instances_of_root: None,
        }),
    }
}

/// Adds the files that the validator of the GPU Operator writes if it succeeds.
pub(crate) fn validated(stack: NvidiaStack) -> NvidiaStack {
    let names = ["cuda-ready", "driver-ready", "plugin-ready", "toolkit-ready"];
    NvidiaStack { validations: names.map(file_of_nine_days).to_vec(), ..stack }
}

/// Returns the traces of a node without a device plugin, on which root has more inotify instances than one user may
/// have.
pub(crate) fn stack_with_many_watchers() -> NvidiaStack {
    let (max_user_instances, instances_of_root) = (Some(128), Some(130));
    let inotify = Inotify { max_user_instances, max_user_watches: None, instances_of_root };
    NvidiaStack { inotify: Some(inotify), ..stack([], "nvidia-device-p", Some("containerd")) }
}

pub(crate) fn file_of_nine_days(name: &str) -> TimestampedFile {
    TimestampedFile { name: name.to_owned(), at: Some(ago(days(9))) }
}

impl Node {
    pub(crate) fn container_runtime(self, runtime: Runtime) -> Self {
        self.host(|host| host.container_runtime = Some(runtime.0))
    }

    /// Sets the CDI specifications. By default, they contain all GPUs of the node and the version of its driver.
    pub(crate) fn cdi<const N: usize>(self, mut specs: [CdiSpec; N]) -> Self {
        let numbers = (0..self.gpu_count()).map(|index| index.to_string());
        let names: Vec<String> = numbers.chain(self.gpu_uuids()).chain(["all".to_owned()]).collect();
        self.host(|host| {
            for spec in &mut specs {
                if spec.devices.is_empty() {
                    spec.devices.clone_from(&names);
                }
                if spec.driver_version.is_none() {
                    spec.driver_version.clone_from(&host.driver.loaded);
                }
            }
            let folders = ["/etc/cdi", "/var/run/cdi"].map(str::to_owned).to_vec();
            host.cdi = Some(Cdi { folders, specs: specs.to_vec(), ..Cdi::default() });
        })
    }

    pub(crate) fn nvidia_stack(self, stack: NvidiaStack) -> Self {
        self.host(|host| host.nvidia_stack = Some(stack))
    }
}
