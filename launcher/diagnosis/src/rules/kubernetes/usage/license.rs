//! `check`: finds vGPUs without a license, or with an unknown license state.
//!
//! A guest requests its license some minutes after its start, so nodes that booted recently are skipped.

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::{LICENSE_UNKNOWN, UNLICENSED};
use syringe_core::facts::inventory::VgpuLicense;

/// NVIDIA restricts an unlicensed vGPU from about 20 minutes after the start. Requesting a license takes a minute or
/// two.
const YOUNG_SECONDS: u64 = 600;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let old = node.host().and_then(|host| host.uptime_seconds).is_some_and(|uptime| uptime >= YOUNG_SECONDS);
    if !old {
        return Vec::new();
    }
    node.answering().filter_map(|gpu| of_gpu(node, gpu)).collect()
}

fn of_gpu(node: &Node<'_>, gpu: &Gpu) -> Option<Draft> {
    let entry = node.inventory_of(gpu)?;
    if entry.virtualization_mode.as_deref() != Some("vgpu") {
        return None;
    }
    let mode = "virtualization mode vgpu";
    let Some(VgpuLicense { features }) = &entry.vgpu_license else {
        return Some(
            Draft::on_gpu(LICENSE_UNKNOWN, gpu).with_evidence(mode).with_evidence("NVML gives no license state"),
        );
    };
    let in_use = || features.iter().filter(|feature| feature.enabled);
    if in_use().next().is_none() || features.iter().any(|feature| feature.licensed) {
        return None;
    }
    let licenses = in_use().map(|feature| {
        let product = feature.product.as_deref().map(evidence::data).unwrap_or_else(|| feature.name.clone());
        let info = feature.info.as_deref().map(|info| format!(" ({})", evidence::data(info))).unwrap_or_default();
        format!("{product}: not licensed{info}")
    });
    Some(Draft::on_gpu(UNLICENSED, gpu).with_evidence(mode).with_all_evidence(licenses))
}
