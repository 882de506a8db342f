//! `check`: finds GPUs and MIG devices that new pods do not get, because their device in a ResourceSlice has a taint.

use std::collections::BTreeMap;

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::rule::Draft;
use crate::rules::kubernetes::usage::rules::TAINTED;
use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::DraDevice;
use syringe_core::gpu_names::GpuNames;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut by_gpu: BTreeMap<Option<u32>, Vec<&DraDevice>> = BTreeMap::new();
    for device in node.kubernetes.dra_devices.iter().filter(|device| !device.taints.is_empty()) {
        by_gpu.entry(gpu_of(node, device)).or_default().push(device);
    }
    let draft = |(index, devices): (Option<u32>, Vec<&DraDevice>)| {
        let gpu = node.gpus.iter().find(|gpu| index.is_some() && gpu.index == index);
        let draft = gpu.map_or_else(|| Draft::on_node(TAINTED), |gpu| Draft::on_gpu(TAINTED, gpu));
        // Other keys are from administrators and monitors, who can reserve a device on purpose.
        let is_of_driver = devices.iter().any(|device| device.taints.iter().any(|taint| taint.contains("nvidia.com/")));
        let severity = if is_of_driver { Severity::Warning } else { Severity::Info };
        let line = |device: &&DraDevice| {
            let taints: Vec<String> = device.taints.iter().map(|taint| evidence::data(taint)).collect();
            format!("device {} has the taint {}", evidence::data(&device.name), taints.join(", "))
        };
        draft.with_severity(severity).with_all_evidence(devices.iter().map(line))
    };
    by_gpu.into_iter().map(draft).collect()
}

/// Returns the NVML index of the GPU that the device is, or to which it belongs.
fn gpu_of(node: &Node<'_>, device: &DraDevice) -> Option<u32> {
    let name = device.uuid.as_deref().unwrap_or(&device.name);
    let is_of =
        |gpu: &&Gpu| GpuNames::from_report(node.report, gpu.index, gpu.uuid.as_deref()).match_device(name, true);
    node.gpus.iter().find(is_of)?.index
}
