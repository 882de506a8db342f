//! `CounterFact`, `NeededFact`: facts of the node that contradict a cause from the table of phrases, or that the cause
//! requires. `is_fallback`: recognizes a line about another method after a failure.

use serde::Deserialize;
use syringe_core::facts::kubernetes::node::NvidiaPod;

use crate::evidence;
use crate::input::node::Node;

/// A fact that contradicts the usual cause of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CounterFact {
    /// An earlier line reports that another method failed, and that this method is tried instead.
    Fallback,
    /// The operating system is not from Red Hat, and not derived from a Red Hat system.
    NotRhel,
    /// Secure Boot is off, and the kernel enforces no signatures.
    SecureBootOff,
    /// The loaded kernel module is the open module.
    OpenModule,
    /// The module nouveau is not loaded.
    NoNouveau,
    /// The module vfio-pci is loaded.
    VfioLoaded,
    /// Each GPU in MIG mode has MIG devices.
    MigInstances,
    /// The loaded module and the library have the same version.
    VersionsAgree,
    /// The handler of the pod belongs to NVIDIA's runtime.
    NvidiaHandler,
    /// NVML lists GPUs.
    DriverAnswers,
    /// The modules of the driver are loaded.
    UvmLoaded,
    /// The module nvidia_peermem is loaded.
    PeermemLoaded,
    /// The container runtime resolves CDI devices.
    CdiEnabled,
    /// The MPS control daemon is running.
    MpsRuns,
    /// nvidia-imex is running.
    ImexRuns,
    /// Fabric Manager is running.
    FabricManagerRuns,
}

/// A fact that must be shown. Otherwise the usual cause of a message is only a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NeededFact {
    /// The handler of the pod does not belong to NVIDIA's runtime.
    OtherHandler,
    /// A process uses a GPU.
    GpuProcess,
    /// The modules of the driver are not loaded.
    ModulesNotLoaded,
    /// NVML lists GPUs.
    DriverAnswers,
    /// Secure Boot is on, or the kernel enforces signatures or lockdown.
    Enforcing,
}

impl NeededFact {
    /// Returns whether the facts of this node show the fact.
    pub(super) fn is_shown(self, node: &Node<'_>, pod: &NvidiaPod) -> bool {
        let host = node.host();
        match self {
            Self::OtherHandler => {
                let known = handler(node, pod).filter(|_| {
                    host.and_then(|host| host.container_runtime.as_ref()).is_some_and(|runtime| runtime.complete)
                });
                known.is_some_and(|(_, is_nvidia)| !is_nvidia)
            }
            Self::GpuProcess => node.processes().is_some_and(|processes| !processes.processes.is_empty()),
            Self::ModulesNotLoaded => host.is_some_and(|host| {
                let is_loaded = host.driver.loaded.is_some() || host.modules.iter().any(|module| module == "nvidia");
                !host.pci_gpus.is_empty() && !is_loaded
            }),
            Self::DriverAnswers => node.answering().next().is_some(),
            Self::Enforcing => host.and_then(|host| host.driver_load.as_ref()).is_some_and(|load| {
                let locked = load.lockdown.as_deref().is_some_and(|mode| !mode.is_empty() && mode != "none");
                let selinux = load.selinux.as_deref() == Some("enforcing");
                load.secure_boot == Some(true) || load.signature_enforced == Some(true) || locked || selinux
            }),
        }
    }
}

/// Returns the handler of a pod, and whether it belongs to NVIDIA's runtime.
fn handler(node: &Node<'_>, pod: &NvidiaPod) -> Option<(String, bool)> {
    let runtime = node.host()?.container_runtime.as_ref()?;
    let class = pod.runtime_class.as_deref();
    let classes = node.kubernetes.runtime_classes.as_deref().unwrap_or_default();
    let handler = class.map(|class| {
        let used = classes.iter().find(|used| used.name == class);
        used.and_then(|used| used.handler.as_deref()).unwrap_or(class)
    });
    let name = handler.or(runtime.default_handler.as_deref())?;
    let is_nvidia = runtime.handlers.iter().any(|handler| handler.name == name && handler.is_nvidia());
    Some((name.to_owned(), is_nvidia))
}

/// Words in the names of operating systems that are derived from Red Hat's.
const OF_RHEL: [&str; 7] = ["red hat", "rhel", "centos", "rocky", "alma", "oracle", "coreos"];

impl CounterFact {
    /// Returns a text for the fact, if the fact is true on this node.
    pub(super) fn holds<'l>(
        self,
        node: &Node<'_>,
        pod: &NvidiaPod,
        mut earlier: impl Iterator<Item = &'l str>,
    ) -> Option<String> {
        let host = node.host();
        let has_module = |name: &str| host.is_some_and(|host| host.modules.iter().any(|module| module == name));
        let said = |is: bool, words: &str| is.then(|| words.to_owned());
        match self {
            Self::Fallback => {
                let line = earlier.find(|line| is_fallback(line))?;
                Some(format!(
                    "an earlier line of its log reports that another method failed: \"{}\"",
                    evidence::reason(line)
                ))
            }
            Self::NotRhel => {
                let system = host?.operating_system.as_deref()?;
                let lower = system.to_ascii_lowercase();
                let of_rhel = OF_RHEL.iter().any(|word| lower.contains(word));
                (!of_rhel).then(|| format!("the operating system of the node is {}", evidence::data(system)))
            }
            Self::SecureBootOff => {
                let load = host?.driver_load.as_ref()?;
                let off = load.secure_boot == Some(false) && load.signature_enforced != Some(true);
                said(off, "Secure Boot is off, and the kernel enforces no signatures")
            }
            Self::OpenModule => {
                let open = host?.driver.flavor.as_deref() == Some("open");
                said(open, "the loaded kernel module is the open module")
            }
            Self::NoNouveau => said(host.is_some() && !has_module("nouveau"), "the module nouveau is not loaded now"),
            Self::VfioLoaded => said(has_module("vfio_pci"), "the module vfio-pci is loaded"),
            Self::MigInstances => {
                let mut on = node.mig()?.gpus.iter().filter(|gpu| gpu.mode.is_some_and(|mode| mode.current)).peekable();
                let all = on.peek().is_some() && on.all(|gpu| !gpu.devices.is_empty());
                said(all, "each GPU in MIG mode has MIG devices now")
            }
            Self::VersionsAgree => {
                let driver = &host?.driver;
                let same = driver.loaded.is_some() && driver.loaded == driver.library;
                said(same && node.answering().next().is_some(), "module and library have the same version now")
            }
            Self::NvidiaHandler => {
                let (name, is) = handler(node, pod)?;
                is.then(|| {
                    format!(
                        "the handler {} of its pod is NVIDIA's runtime. With some configurations, this runtime gives \
                         no driver to a container that is not privileged and requests no GPU",
                        evidence::data(&name)
                    )
                })
            }
            Self::DriverAnswers => said(node.answering().next().is_some(), "NVML of the node lists its GPUs"),
            Self::UvmLoaded => {
                said(has_module("nvidia") && has_module("nvidia_uvm"), "nvidia and nvidia_uvm are loaded now")
            }
            Self::PeermemLoaded => said(has_module("nvidia_peermem"), "nvidia_peermem is loaded now"),
            Self::CdiEnabled => {
                let enabled = host?.container_runtime.as_ref()?.cdi_enabled == Some(true);
                said(enabled, "CDI is enabled in the configuration of the container runtime")
            }
            Self::MpsRuns => said(host?.daemons.mps == Some(true), "the MPS control daemon is running now"),
            Self::ImexRuns => said(host?.daemons.imex == Some(true), "nvidia-imex is running now"),
            Self::FabricManagerRuns => {
                said(host?.daemons.fabric_manager == Some(true), "Fabric Manager is running now")
            }
        }
    }
}

/// Returns whether a line reports that a program uses another method after a failure.
pub(super) fn is_fallback(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["fallback", "falling back", "fall back"].iter().any(|words| line.contains(words))
}
