//! Rules about runtime settings: NVIDIA's handler is not the default or runs another program, CDI is off, the Jetson
//! mode is set.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, PLUGIN_DOC, rules};
use crate::rules::containers::runtime;
use syringe_core::facts::container_runtime::{ContainerRuntime, RuntimeHandler};

rules! {
    about ContainerRuntime;
    NOT_DEFAULT: "runtime-default-not-nvidia" Warning Driver PLUGIN_DOC, "No pod gets NVIDIA's runtime on this node",
        UpdateSoftware "Make NVIDIA's runtime the default runtime on {node} (`nvidia-ctk runtime configure --set-as-default`) and restart the \
            runtime, or set runtimeClassName: nvidia for GPU pods.",
        means "GPU pods have no RuntimeClass, the default handler is not NVIDIA's, and the runtime does not resolve CDI devices: new \
            GPU pods get no devices and no libraries of the driver.",
        reads "host.container_runtime, kubernetes.runtime_classes, kubernetes.gpu_capacity, kubelet.allocations";
    NOT_NVIDIAS: "runtime-handler-runs-other-program" Warning Driver PLUGIN_DOC, "The handler nvidia does not run NVIDIA's runtime",
        UpdateSoftware "Set the program of the handler on {node} to nvidia-container-runtime (`nvidia-ctk runtime configure`), and restart \
            the runtime: the present program gives containers no GPU.",
        means "The handler named nvidia does not run NVIDIA's runtime but another program, which adds no devices to \
            containers.",
        reads "host.container_runtime";
    CDI_OFF: "runtime-cdi-disabled" Warning Driver PLUGIN_DOC, "The container runtime does not resolve CDI devices, but containers need them",
        UpdateSoftware "Enable CDI (enable_cdi) in the configuration of the container runtime of {node}, and restart \
            the runtime: containers that use resource claims do not start without CDI.",
        means "GPUs are allocated by claims (DRA). Claims need CDI in the container runtime, but CDI is off.",
        reads "host.container_runtime, host.cdi, kubernetes.gpu_dra, kubelet.allocations";
    CSV_MODE: "toolkit-mode-for-jetson" Warning Driver PLUGIN_DOC, "NVIDIA's runtime is in the mode for Jetson, on a node with GPUs on PCI",
        UpdateSoftware "Set the mode of NVIDIA's runtime on {node} to auto (`nvidia-ctk config --set nvidia-container-runtime.mode=auto`): \
            the mode csv gives containers no GPU on the PCI bus.",
        means "The mode csv mounts the files that are listed in CSV files on a Jetson. On a node with GPUs on the PCI \
            bus, containers get no GPU in this mode.",
        reads "host.container_runtime, host.pci_gpus";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(runtime) = runtime::of_node(node).filter(|_| node.answering().next().is_some() && !node.is_booting())
    else {
        return Vec::new();
    };
    [not_default(node, runtime), not_nvidias(runtime), cdi_off(node, runtime), csv_mode(node, runtime)]
        .into_iter()
        .flatten()
        .collect()
}

fn not_default(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let default = runtime.handlers.iter().find(|handler| Some(&handler.name) == runtime.default_handler.as_ref())?;
    // Without NVIDIA's handler, containers get the driver in another way.
    let is_installed = runtime.handlers.iter().any(RuntimeHandler::is_nvidia);
    let by_cdi = runtime.name == "cri-o" || runtime.cdi_enabled != Some(false);
    let has_pods = node.kubernetes.gpu_capacity.is_some_and(|count| count > 0)
        && node.kubelet()?.allocations.iter().any(|allocation| allocation.claim.is_none());
    let known = runtime.complete && node.kubernetes.runtime_classes.is_some();
    let is_used = runtime::uses_nvidia(node, runtime);
    (known && is_installed && has_pods && !by_cdi && !is_used).then(|| {
        Draft::on_node(NOT_DEFAULT).with_evidence(format!(
            "the default handler of {} is {}, CDI is off, and no pod has a RuntimeClass of NVIDIA",
            evidence::data(&runtime.name),
            evidence::data(&default.name)
        ))
    })
}

fn not_nvidias(runtime: &ContainerRuntime) -> Option<Draft> {
    let handler = runtime.handlers.iter().find(|handler| handler.name == "nvidia").filter(|_| runtime.complete)?;
    let binary = handler.binary.as_deref().filter(|_| handler.binary_exists != Some(false))?;
    (!binary.contains("nvidia"))
        .then(|| Draft::on_node(NOT_NVIDIAS).with_evidence(format!("handler nvidia runs {}", evidence::path(binary))))
}

fn cdi_off(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let claims =
        node.kubelet().map_or(0, |kubelet| kubelet.allocations.iter().filter(|one| one.claim.is_some()).count());
    let is_used = claims > 0 || node.kubernetes.gpu_dra == Some(true);
    (is_used && runtime.complete && runtime.name != "cri-o" && runtime.cdi_enabled == Some(false)).then(|| {
        let by = if claims > 0 { "claims are allocated to containers" } else { "a DRA driver offers the GPUs" };
        Draft::on_node(CDI_OFF).with_evidence(format!("CDI is off in {}, but {by}", evidence::data(&runtime.name)))
    })
}

fn csv_mode(node: &Node<'_>, runtime: &ContainerRuntime) -> Option<Draft> {
    let toolkit = runtime.toolkit.as_ref().filter(|toolkit| toolkit.mode.as_deref() == Some("csv"))?;
    let on_pci = node.host().is_some_and(|host| !host.pci_gpus.is_empty());
    (on_pci && runtime::uses_nvidia(node, runtime))
        .then(|| Draft::on_node(CSV_MODE).with_evidence(format!("{}: mode = \"csv\"", evidence::path(&toolkit.path))))
}
