//! What the container beside which the probe ran can open: GPUs that are lost to one container, and to nobody else.

use super::draft::Draft;
use super::node::Node;
use super::quote;
use super::rules::{TOOLKIT_DOC, rules};
use crate::facts::container::{Access, ContainerAccess, ContainerDevice};

rules! {
    DENIED: "container-device-denied" Critical Driver TOOLKIT_DOC, "A container may no longer open its GPUs",
        RestartPod "Restart the pod: it gets its devices back, the GPUs are fine. systemd takes them away again when it \
            reloads, unless the container toolkit on {node} uses CDI, or /dev/char has links to the NVIDIA devices \
            (nvidia-ctk system create-dev-char-symlinks).";
    NONE: "container-without-devices" Critical Driver TOOLKIT_DOC, "A container that was to get GPUs has no device of them",
        UpdateSoftware "Check on {node} that containers run with NVIDIA's runtime or CDI (runtimeClassName, the runtime's \
            configuration), then restart the pod.";
    STALE_AFTER: "container-device-stale" Critical Driver TOOLKIT_DOC, "A container has device files of an earlier driver load",
        RestartPod "Restart the pod on {node}: the driver numbered its devices anew when it was loaded, and the container \
            still has the old numbers.";
}

/// Devices named in one line of evidence.
const NAMED: usize = 4;

/// Values of `NVIDIA_VISIBLE_DEVICES` that ask for no GPU.
const NO_GPU: [&str; 3] = ["", "none", "void"];

/// What the container cannot open and should.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let Some(container) = node.host().and_then(|host| host.container.as_ref()) else { return Vec::new() };
    let wanted = container.visible_devices.as_deref().filter(|value| !NO_GPU.contains(value));
    if let (Some(wanted), true) = (wanted, container.devices.is_empty()) {
        let wanted = format!("NVIDIA_VISIBLE_DEVICES={}, and no /dev/nvidia* in it", quote::data(wanted));
        return vec![about(NONE, container).with_evidence(wanted)];
    }
    let denied = |device: &&ContainerDevice| device.access == Access::Denied && !device.stale;
    let mut drafts = Vec::new();
    if let Some(named) = named(container.devices.iter().filter(denied)) {
        let denied = format!("its device cgroup denies {named}, which it has in /dev");
        drafts.push(
            about(DENIED, container).with_evidence(denied).with_evidence("programs in it see: NVML \"Unknown Error\""),
        );
    }
    if let Some(named) = named(container.devices.iter().filter(|device| device.stale)) {
        drafts.push(
            about(STALE_AFTER, container)
                .with_evidence(format!("{named}: not the device that the node has by this name")),
        );
    }
    drafts
}

fn about(rule: super::Rule, container: &ContainerAccess) -> Draft {
    let id = container.container_id.get(..12).unwrap_or(&container.container_id);
    let mut draft = Draft::on_node(rule).with_evidence(format!("container {}", quote::data(id)));
    draft.scope.pod_uid = container.pod_uid.as_deref().map(quote::data);
    draft
}

/// `/dev/nvidia0, /dev/nvidiactl and 3 more`; `None` for no device.
fn named<'a>(devices: impl Iterator<Item = &'a ContainerDevice>) -> Option<String> {
    let names: Vec<String> = devices.map(|device| format!("/dev/{}", quote::data(&device.name))).collect();
    let shown = names.get(..NAMED.min(names.len()))?.join(", ");
    match names.len() {
        0 => None,
        count if count > NAMED => Some(format!("{shown} and {} more", count - NAMED)),
        _ => Some(shown),
    }
}
