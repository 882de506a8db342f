//! `why_unresolved`: finds out from the node's CDI specifications why the container runtime does not find a device
//! (`Unresolved`).
//!
//! The error message names the device, so this module does not check who uses CDI on the node. The specifications may
//! have changed since the error. A specification that defines the device now is not the reason.

use crate::evidence;
use syringe_core::facts::cdi::{Cdi, CdiSpec};
use syringe_core::text::clean;

/// The reason from the specifications of the node, and the action. `{node}` is the placeholder for the node's name.
pub(crate) struct Unresolved {
    pub(crate) why: String,
    pub(crate) advice: &'static str,
}

/// Maximum number of devices of one specification in a report.
const LISTED: usize = 64;
/// Maximum number of names or files in a text.
const SHOWN: usize = 3;

const GENERATE: &str = "Write the CDI specification of {node} (`nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml`, or restart \
                     the container-toolkit pod of the GPU Operator), and find out why it was not written.";
/// Vendors of CDI kinds whose specification a component of the cluster writes, each with the advice if it is missing.
const WRITERS: [(&str, &str); 2] = [
    (
        "k8s.device-plugin.nvidia.com",
        "Restart the pod of the device plugin on {node}. The device plugin writes the CDI specification of this kind \
         into /var/run/cdi, and this folder is empty after a reboot. The files of the container toolkit have another kind.",
    ),
    (
        "k8s.gpu.nvidia.com",
        "Delete the pod, and its claim if the claim is not from a template: the DRA driver writes the specification of a claim \
         once, and /var/run/cdi is empty after a reboot of {node}.",
    ),
];
const REGENERATE: &str = "Check the file on {node} with `nvidia-ctk cdi list`. If its devices are not in the list, generate the file again \
                       (`nvidia-ctk cdi generate --output=FILE`).";
const OUTDATED: &str = "Generate the specification in the message on {node} again (`nvidia-ctk cdi generate --output=FILE`), or restart the component that \
                        writes it: a GPU was replaced, or the MIG devices were created again. Then recreate the pod.";
const REMOVE_ONE: &str = "Keep one of the two files on {node} and remove the other: a device that two specifications of the same folder \
                          define is not available to any container.";
const USE_REQUESTED_NAMES: &str = "Write the specification on {node} with the requested names (`nvidia-ctk cdi generate \
                          --device-name-strategy=uuid`), or set the device plugin's deviceIDStrategy accordingly.";

/// Returns why no specification defines `device`. Its name is written as in the message: `nvidia.com/gpu=GPU-…`.
pub(crate) fn why_unresolved(cdi: &Cdi, device: &str) -> Option<Unresolved> {
    let (kind, name) = device.split_once('=')?;
    let vendor = kind.split('/').next().unwrap_or_default();
    // The probe does not list the specifications of other vendors.
    if vendor != "nvidia.com" && !vendor.ends_with(".nvidia.com") {
        return None;
    }
    let of_kind: Vec<&CdiSpec> = cdi.specs.iter().filter(|spec| spec.kind == kind).collect();
    let defining: Vec<&CdiSpec> =
        of_kind.iter().copied().filter(|spec| spec.devices.iter().any(|device| device == name)).collect();
    if let Some(last) = defining.last() {
        // If two folders define the device, the later folder applies. If two files of one folder define the device, no
        // file applies.
        let other = defining.iter().rev().skip(1).find(|spec| folder(spec) == folder(last))?;
        let why = format!("both {} and {} define it", path(other), path(last));
        return Some(Unresolved { why, advice: REMOVE_ONE });
    }
    if !cdi.unread.is_empty() {
        let files: Vec<String> = cdi.unread.iter().take(SHOWN).map(|file| clean(file, 160)).collect();
        let why = format!("{} could not be read, or is not a valid specification", files.join(", "));
        return Some(Unresolved { why, advice: REGENERATE });
    }
    let Some(spec) = of_kind.last() else {
        let folders: Vec<String> = cdi.folders.iter().map(|folder| clean(folder, 160)).collect();
        let why = format!("no specification in {} has devices of the kind {}", folders.join(", "), clean(kind, 80));
        let advice = WRITERS.iter().find(|(writer, _)| *writer == vendor).map_or(GENERATE, |(_, advice)| advice);
        return (!folders.is_empty()).then_some(Unresolved { why, advice });
    };
    if of_kind.iter().any(|spec| spec.devices.len() >= LISTED) {
        return None;
    }
    let of_uuid = |name: &str| name.starts_with("GPU-") || name.starts_with("MIG-");
    if of_uuid(name) && spec.devices.iter().any(|device| of_uuid(device)) {
        let others: Vec<String> =
            spec.devices.iter().filter(|device| of_uuid(device)).map(|one| clean(one, 80)).collect();
        let why = format!(
            "{} has other UUIDs, so it is older than the devices: {}",
            path(spec),
            evidence::some(&others, SHOWN)
        );
        return Some(Unresolved { why, advice: OUTDATED });
    }
    let names: Vec<String> = spec.devices.iter().map(|name| clean(name, 80)).collect();
    let why = match names.as_slice() {
        [] => format!("{} has no device", path(spec)),
        names => format!("{} defines devices with other names: {}", path(spec), evidence::some(names, SHOWN)),
    };
    Some(Unresolved { why, advice: USE_REQUESTED_NAMES })
}

fn folder(spec: &CdiSpec) -> &str {
    spec.path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn path(spec: &CdiSpec) -> String {
    clean(&spec.path, 160)
}
