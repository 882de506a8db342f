//! `Runtime`: a container runtime. `of_kubelet`, `of_configuration`, `of_toolkit`: the runtime according to each
//! source. `mismatch`: whether kubelet and toolkit use different runtimes. `resolves_cdi`: whether containers get the
//! driver by CDI.

use crate::evidence;
use crate::input::node::Node;
use crate::input::stack::pods;
use syringe_core::facts::host::Host;
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};

/// A container runtime. The containerd of k3s, RKE2, k0s and MicroK8s counts as containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Containerd,
    CriO,
    Docker,
}

/// Returns whether containers get the driver by CDI: the container runtime resolves CDI devices, and the node has a
/// specification.
pub(crate) fn resolves_cdi(host: &Host) -> bool {
    let is_enabled = host.container_runtime.as_ref().is_some_and(|runtime| runtime.cdi_enabled == Some(true));
    is_enabled && host.cdi.as_ref().is_some_and(|cdi| !cdi.specs.is_empty())
}

/// Words in names, sockets and paths of runtimes. Docker includes its own containerd, so Docker is listed before
/// containerd.
const WORDS: [(&str, Runtime); 4] = [
    ("cri-o", Runtime::CriO),
    ("crio", Runtime::CriO),
    ("docker", Runtime::Docker),
    ("containerd", Runtime::Containerd),
];

impl Runtime {
    /// Returns the runtime to which a name, version, socket, setting or configuration path belongs.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        WORDS.iter().find(|(word, _)| text.contains(word)).map(|(_, runtime)| *runtime)
    }

    /// Returns the name for messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "CRI-O",
            Self::Docker => "Docker",
        }
    }

    /// Returns the value for the toolkit's setting `RUNTIME`.
    const fn setting(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "crio",
            Self::Docker => "docker",
        }
    }
}

/// A runtime, and the source of its name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) runtime: Runtime,
    /// The fact for the evidence: `the kubelet uses CRI-O (cri-o://1.31.4)`.
    pub(crate) by: String,
}

/// Returns the runtime that the kubelet uses, according to the API.
pub(crate) fn of_kubelet(node: &Node<'_>) -> Option<Named> {
    let version = node.kubernetes.runtime_version.as_deref()?;
    let runtime = Runtime::of(version.split("://").next()?)?;
    Some(Named { runtime, by: format!("the kubelet uses {} ({})", runtime.name(), evidence::data(version)) })
}

/// Returns the runtime whose configuration the probe read.
pub(crate) fn of_configuration(node: &Node<'_>) -> Option<Named> {
    let read = node.host()?.container_runtime.as_ref()?;
    let runtime = Runtime::of(&read.name)?;
    let path = read.config_path.as_deref().map(|path| format!(" ({})", evidence::path(path))).unwrap_or_default();
    Some(Named { runtime, by: format!("the configuration that was read is of {}{path}", runtime.name()) })
}

/// Returns the runtime that a pod of the container toolkit configures. A runtime name takes precedence over sockets and
/// files.
pub(crate) fn of_toolkit(pod: &NvidiaPod) -> Option<Named> {
    let settings = || pod.containers.iter().flat_map(|container| &container.runtime_settings);
    let named = settings().find(|(name, _)| *name == "RUNTIME").and_then(|one| Some((one, Runtime::of(one.1)?)));
    let by_name = || settings().find_map(|one| Some((one, Runtime::of(one.0)?)));
    let ((name, value), runtime) = named.or_else(by_name)?;
    let setting = format!("{}={}", evidence::data(name), evidence::data(value));
    let by = format!("the container toolkit of pod {} is set up for {} ({setting})", pods::name(pod), runtime.name());
    Some(Named { runtime, by })
}

/// A container toolkit that configures a runtime that the kubelet does not use.
pub(crate) struct Mismatch {
    /// Both facts.
    pub(crate) line: String,
    pub(crate) advice: String,
}

/// Returns the mismatch if the kubelet and the container toolkit use different runtimes.
pub(crate) fn mismatch(node: &Node<'_>) -> Option<Mismatch> {
    let used = of_kubelet(node)?;
    let configured = pods::of(node, Component::ContainerToolkit).find_map(of_toolkit)?;
    (used.runtime != configured.runtime).then(|| Mismatch {
        line: format!("{}, but {}", used.by, configured.by),
        advice: format!(
            "Set up the container toolkit of {{node}} for {}: RUNTIME={}, with the socket and the configuration of that runtime (GPU \
             Operator: toolkit.env). An old operator uses operator.defaultRuntime. Update an operator that does not \
             recognize the runtime.",
            used.runtime.name(),
            used.runtime.setting()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::Runtime;

    #[test]
    fn a_runtime_is_recognized_by_name_version_socket_and_path() {
        for (text, runtime) in [
            ("cri-o", Some(Runtime::CriO)),
            ("crio", Some(Runtime::CriO)),
            ("/var/run/crio/crio.sock", Some(Runtime::CriO)),
            ("containerd", Some(Runtime::Containerd)),
            ("CONTAINERD_SOCKET", Some(Runtime::Containerd)),
            ("/run/k3s/containerd/containerd.sock", Some(Runtime::Containerd)),
            ("/var/snap/microk8s/current/args/containerd-template.toml", Some(Runtime::Containerd)),
            ("docker", Some(Runtime::Docker)),
            ("/var/run/docker/containerd/containerd.sock", Some(Runtime::Docker)),
            ("kata", None),
        ] {
            assert_eq!(Runtime::of(text), runtime, "{text}");
        }
    }
}
