//! Rules that compare the MIG mode and layout of a GPU with the label, with equal GPUs, and with the kubelet's devices.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::{Draft, MIG_DOC, OPERATOR_DOC, rules};
use syringe_core::classification::Severity;
use syringe_core::gpu_names::without_share;

rules! {
    WHOLE: "mig-gpu-offered-whole" Warning Driver MIG_DOC, "A GPU in MIG mode is advertised as a whole GPU",
        UpdateSoftware "Set the MIG strategy of the device plugin on {node} to single or mixed, and restart the \
            plugin: a pod that gets {gpu} as a whole can use only one MIG device. To offer {gpu} as a whole, disable \
            MIG.",
        means "The kubelet offers the whole GPU, but the GPU is divided into MIG devices: a CUDA program can use only \
            one MIG device.",
        reads "kubelet.registered, mig.mode, mig.devices", about Unavailable;
    UNLIKE_LABEL: "mig-layout-differs" Warning Driver OPERATOR_DOC, "The MIG layout of the GPU differs from the label",
        UpdateSoftware "Drain the GPU pods from {node} and let the MIG manager apply the layout again: kubectl label node {node} \
            nvidia.com/mig.config=LAYOUT --overwrite.",
        means "The label nvidia.com/mig.config specifies one layout for all GPUs and has the state success, but this \
            GPU has another mode or other MIG devices than equal GPUs: a part of the GPU is not offered to pods.",
        reads "kubernetes.labels, mig.mode, mig.devices", about Unavailable;
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let whole = node.answering().filter_map(|gpu| offered_whole(node, gpu));
    whole.chain(unlike_label(node)).collect()
}

/// Returns whether MIG is enabled. `None` if the mode was not read or a change is pending.
fn is_mig(node: &Node<'_>, gpu: &Gpu) -> Option<bool> {
    let mode = node.mig_mode(gpu)?;
    (mode.current == mode.pending).then_some(mode.current)
}

fn offered_whole(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let uuid = gpu.uuid.as_deref().filter(|_| is_mig(node, gpu) == Some(true))?;
    let registered = &node.kubelet()?.registered;
    let is_it = |device: &String| without_share(device) == uuid;
    let of = registered.iter().find(|of| of.resource.starts_with("nvidia.com/") && of.devices.iter().any(is_it))?;
    let devices = node.mig_of(gpu).map(|mig| mig.devices.len()).filter(|count| *count > 0)?;
    let line = format!("registered as {}, MIG mode on, {devices} MIG devices", evidence::data(&of.resource));
    Some(Draft::on_gpu(WHOLE, gpu).with_evidence(line))
}

/// Returns the profiles of the MIG devices of a GPU, with their numbers: `2 × 3g.40gb`.
fn layout(node: &Node<'_>, gpu: &Gpu) -> Option<String> {
    let mig = node.mig_of(gpu)?;
    let failed = node.report.sections.mig.iter().flat_map(|section| &section.problems);
    if failed.into_iter().any(|problem| problem.gpu.is_none() || problem.gpu == gpu.index) {
        return None;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for device in &mig.devices {
        *counts.entry(device.profile.as_deref()?).or_default() += 1;
    }
    let words: Vec<String> =
        counts.iter().map(|(profile, count)| format!("{count} × {}", evidence::data(profile))).collect();
    Some(if words.is_empty() { "no MIG device".to_owned() } else { words.join(", ") })
}

/// Returns the profile in the name of a layout: `2g.20gb` for `all-2g.20gb`. Other names contain no profile.
fn profile_of(layout: &str) -> Option<String> {
    let profile = layout.strip_prefix("all-")?;
    let (slices, memory) = profile.split_once("g.")?;
    let memory = memory.split(['.', '+']).next()?.strip_suffix("gb")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(slices) && is_number(memory)).then(|| format!("{slices}g.{memory}gb"))
}

/// Returns whether a GPU has a MIG device with this profile, or its devices are not known.
fn has_profile<'g>(node: &Node<'_>, mut gpus: impl Iterator<Item = &'g Gpu>, profile: &str) -> bool {
    let is_it = |name: &Option<String>| name.as_deref().is_none_or(|name| name.starts_with(profile));
    gpus.any(|gpu| node.mig_of(gpu).is_none_or(|mig| mig.devices.iter().any(|device| is_it(&device.profile))))
}

/// Compares the GPUs with the label `nvidia.com/mig.config` if the label specifies one layout for all GPUs (`all-…`).
/// Other layouts can differ between GPUs, so they are not compared.
fn unlike_label(node: &Node<'_>) -> Vec<Draft> {
    let labels = &node.kubernetes.labels;
    let applied = labels.mig_config_state.as_deref() == Some("success");
    let Some(name) = labels.mig_config.as_deref().filter(|name| applied && name.starts_with("all-")) else {
        return Vec::new();
    };
    let on = name != "all-disabled";
    let label = format!("label nvidia.com/mig.config={}, state success", evidence::data(name));
    let mut drafts = Vec::new();
    let mut by_model: BTreeMap<Option<&str>, Vec<(&Gpu, String)>> = BTreeMap::new();
    for gpu in node.answering() {
        match is_mig(node, gpu) {
            Some(mode) if mode != on => {
                let line = format!("MIG mode {}", if mode { "on" } else { "off" });
                drafts.push(Draft::on_gpu(UNLIKE_LABEL, gpu).with_evidence(line).with_evidence(label.clone()));
            }
            Some(true) => {
                by_model.entry(gpu.name.as_deref()).or_default().extend(layout(node, gpu).map(|layout| (gpu, layout)));
            }
            _ => {}
        }
    }
    for model in by_model.into_values() {
        let count = |layout: &String| model.iter().filter(|(_, other)| other == layout).count();
        // If no layout has a majority, the layouts probably changed after the label was set.
        let Some((_, usual)) = model.iter().find(|(_, layout)| count(layout) * 2 > model.len()) else {
            return Vec::new();
        };
        // Somebody changed the layout that the label specifies.
        if let Some(profile) =
            profile_of(name).filter(|profile| !has_profile(node, model.iter().map(|(gpu, _)| *gpu), profile))
        {
            let line = format!("the GPUs have {usual}, and no GPU has a MIG device {profile}");
            drafts.push(
                Draft::on_node(UNLIKE_LABEL)
                    .with_severity(Severity::Info)
                    .with_evidence(line)
                    .with_evidence(label.clone()),
            );
        }
        for (gpu, layout) in model.iter().filter(|(_, layout)| layout != usual) {
            let line = format!("this GPU has {layout}, equal GPUs have {usual}");
            drafts.push(Draft::on_gpu(UNLIKE_LABEL, gpu).with_evidence(line).with_evidence(label.clone()));
        }
    }
    drafts
}
