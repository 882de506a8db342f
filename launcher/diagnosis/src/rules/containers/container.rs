//! Rules about containers that cannot open their GPUs: missing or outdated device files, or a denial by the device
//! cgroup. `about`: creates a finding about a container.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, Rule, TOOLKIT_DOC, rules};
use syringe_core::facts::container::{Access, ContainerAccess, ContainerDevice};

rules! {
    about Workload;
    DENIED: "container-device-denied" Critical Driver TOOLKIT_DOC, "A container lost access to its GPUs",
        RestartPod "Restart the pod to restore access. The GPUs are healthy. A systemd reload removes the access \
            again, unless the container toolkit on {node} uses CDI, or /dev/char has links to the NVIDIA devices \
            (nvidia-ctk system create-dev-char-symlinks).",
        means "The device cgroup of a container does not allow access to the GPU devices of the container, for example \
            after a reload of systemd. New CUDA calls in the container fail.",
        reads "host.container";
    NONE: "container-without-devices" Critical Driver TOOLKIT_DOC,
        "A container that requests GPUs has no GPU device files",
        UpdateSoftware "Check on {node} that containers run with the NVIDIA runtime or CDI (runtimeClassName, \
            configuration of the runtime), then restart the pod.",
        means "NVIDIA_VISIBLE_DEVICES of a container requests GPUs, but the container has no GPU device file: it was \
            started without NVIDIA's runtime.",
        reads "host.container";
    STALE_AFTER: "container-device-stale" Critical Driver TOOLKIT_DOC,
        "A container has device files from an earlier driver load",
        RestartPod "Restart the pod on {node}. The device numbers changed when the driver was loaded, and the \
            container still has the old numbers.",
        means "The device files in a container have other numbers than the device files of the node. The container cannot open \
            the GPU.",
        reads "host.container";
}

/// Maximum number of devices in one line of evidence.
const NAMED: usize = 4;

/// Values of `NVIDIA_VISIBLE_DEVICES` that request no GPU.
const NO_GPU: [&str; 3] = ["", "none", "void"];

/// Returns findings about devices that the container should be able to open, but cannot.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let Some(container) = node.host().and_then(|host| host.container.as_ref()) else { return Vec::new() };
    let wanted = container.visible_devices.as_deref().filter(|value| !NO_GPU.contains(value));
    if let (Some(wanted), true) = (wanted, container.devices.is_empty()) {
        let wanted =
            format!("NVIDIA_VISIBLE_DEVICES={}, but the container has no /dev/nvidia*", evidence::data(wanted));
        return vec![about(NONE, container).with_evidence(wanted)];
    }
    let denied = |device: &&ContainerDevice| device.access == Access::Denied && !device.stale;
    let mut drafts = Vec::new();
    if let Some(named) = named(container.devices.iter().filter(denied)) {
        let denied = format!("its device cgroup denies access to {named} in the container's /dev");
        drafts.push(
            about(DENIED, container)
                .with_evidence(denied)
                .with_evidence("programs in the container get the NVML error \"Unknown Error\""),
        );
    }
    if let Some(named) = named(container.devices.iter().filter(|device| device.stale)) {
        drafts.push(
            about(STALE_AFTER, container)
                .with_evidence(format!("{named}: differs from the device with this name on the node")),
        );
    }
    drafts
}

/// Returns the finding about a container, with its id and its pod.
pub(super) fn about(rule: Rule, container: &ContainerAccess) -> Draft {
    let id = container.container_id.get(..12).unwrap_or(&container.container_id);
    let mut draft = Draft::on_node(rule).with_evidence(format!("container {}", evidence::data(id)));
    draft.scope.pod_uid = container.pod_uid.as_deref().map(evidence::data);
    draft
}

/// Formats device names: `/dev/nvidia0, /dev/nvidiactl and 3 more`. Returns `None` if there is no device.
fn named<'a>(devices: impl Iterator<Item = &'a ContainerDevice>) -> Option<String> {
    let names: Vec<String> = devices.map(|device| format!("/dev/{}", evidence::data(&device.name))).collect();
    (!names.is_empty()).then(|| evidence::some(&names, NAMED))
}
