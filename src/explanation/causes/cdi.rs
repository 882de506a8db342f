//! Why the container runtime does not find a CDI device: compares the requested name with the specifications on the node.
//!
//! The runtime was asked for the device, so it does not matter here who uses CDI on the node. The files are those of now: a
//! specification that has the device by now explains nothing.

use crate::facts::cdi::{Cdi, CdiSpec};
use crate::text::clean;

/// What the node's specifications say, and what to do; `{node}` is the node.
pub(super) struct Unresolved {
    pub(super) why: String,
    pub(super) advice: &'static str,
}

/// The probe lists no more devices of one specification.
const LISTED: usize = 64;
/// Names and files shown of one list.
const SHOWN: usize = 3;

const WRITE: &str = "Write the CDI specification of {node} (`nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml`, or restart \
                     the container-toolkit pod of the GPU Operator), and see why it was not written.";
const REWRITE: &str = "Check the file on {node} with `nvidia-ctk cdi list`; if its devices are not in the list, write it anew \
                       (`nvidia-ctk cdi generate --output=FILE`).";
const ONE_OF_TWO: &str = "Keep one of the two files on {node} and remove the other: a device that two specifications of the same folder \
                          name is resolved for nobody.";
const SAME_NAMES: &str = "Write the specification on {node} with the names that are asked for (`nvidia-ctk cdi generate \
                          --device-name-strategy=uuid`), or set the device plugin's deviceIDStrategy to fit.";

/// `device` as the message names it: `nvidia.com/gpu=GPU-…`.
pub(super) fn why_unresolved(cdi: &Cdi, device: &str) -> Option<Unresolved> {
    let (kind, name) = device.split_once('=')?;
    let vendor = kind.split('/').next().unwrap_or_default();
    // The probe lists no specification of another vendor.
    if vendor != "nvidia.com" && !vendor.ends_with(".nvidia.com") {
        return None;
    }
    let of_kind: Vec<&CdiSpec> = cdi.specs.iter().filter(|spec| spec.kind == kind).collect();
    let having: Vec<&CdiSpec> =
        of_kind.iter().copied().filter(|spec| spec.devices.iter().any(|device| device == name)).collect();
    if let Some(winning) = having.last() {
        // The later folder is used; of two in one folder none is used.
        let other = having.iter().rev().skip(1).find(|spec| folder(spec) == folder(winning))?;
        let why = format!("both {} and {} have it", path(other), path(winning));
        return Some(Unresolved { why, advice: ONE_OF_TWO });
    }
    if !cdi.unread.is_empty() {
        let files: Vec<String> = cdi.unread.iter().take(SHOWN).map(|file| clean(file, 160)).collect();
        let why = format!("{} could not be read, or is no specification that is understood", files.join(", "));
        return Some(Unresolved { why, advice: REWRITE });
    }
    let Some(spec) = of_kind.last() else {
        let folders: Vec<String> = cdi.folders.iter().map(|folder| clean(folder, 160)).collect();
        let why = format!("no specification in {} has devices of the kind {}", folders.join(", "), clean(kind, 80));
        return (!folders.is_empty()).then_some(Unresolved { why, advice: WRITE });
    };
    if of_kind.iter().any(|spec| spec.devices.len() >= LISTED) {
        return None;
    }
    let names: Vec<String> = spec.devices.iter().take(SHOWN).map(|name| clean(name, 80)).collect();
    let more =
        if spec.devices.len() > SHOWN { format!(" and {} more", spec.devices.len() - SHOWN) } else { String::new() };
    let why = match names.as_slice() {
        [] => format!("{} has no device", path(spec)),
        _ => format!("{} has other names: {}{more}", path(spec), names.join(", ")),
    };
    Some(Unresolved { why, advice: SAME_NAMES })
}

fn folder(spec: &CdiSpec) -> &str {
    spec.path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn path(spec: &CdiSpec) -> String {
    clean(&spec.path, 160)
}
