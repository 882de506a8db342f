//! `from_node`: the labels of the GPU Operator, its components and node feature discovery on a node, with their age.
//! `has_pci_label`: whether node feature discovery found a PCI device of NVIDIA.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use syringe_core::facts::kubernetes::node::GpuLabels;
use syringe_core::text::clean;

const DEPLOY: &str = "nvidia.com/gpu.deploy.";
const MIG_CONFIG: &str = "nvidia.com/mig.config";
const MIG_STATE: &str = "nvidia.com/mig.config.state";
const UPGRADE_STATE: &str = "nvidia.com/gpu-driver-upgrade-state";
const WORKLOAD: &str = "nvidia.com/gpu.workload.config";
const SHARING: &str = "nvidia.com/gpu.sharing-strategy";
const GKE_DRIVER: &str = "cloud.google.com/gke-gpu-driver-version";
const OS_RELEASE: &str = "feature.node.kubernetes.io/system-os_release.OSTREE_VERSION";
const KERNEL: &str = "feature.node.kubernetes.io/kernel-version.full";
const FEATURES: &str = "feature.node.kubernetes.io/";
/// Maximum number of labels of one kind. The operator has about a dozen components.
const MAX_LABELS: usize = 24;

/// Returns the labels that these programs wrote on the node.
pub fn from_node(node: &Node) -> GpuLabels {
    let labels = node.labels();
    let value = |name: &str| labels.get(name).map(|value| clean(value, 63));
    let deploy: BTreeMap<String, String> = labels
        .iter()
        .filter_map(|(name, value)| Some((clean(name.strip_prefix(DEPLOY)?, 63), clean(value, 63))))
        .take(MAX_LABELS)
        .collect();
    let dated = [MIG_STATE, UPGRADE_STATE].into_iter().map(str::to_owned);
    let paused = deploy.iter().filter(|(_, value)| *value != "true").map(|(name, _)| format!("{DEPLOY}{name}"));
    let dated = dated.chain(paused).filter(|name| labels.contains_key(name));
    GpuLabels {
        mig_config: value(MIG_CONFIG),
        mig_config_state: value(MIG_STATE),
        driver_upgrade_state: value(UPGRADE_STATE),
        workload_config: value(WORKLOAD),
        pci_present: has_pci_label(node),
        feature_discovery: labels.keys().any(|name| name.starts_with(FEATURES)),
        os_release: value(OS_RELEASE),
        kernel: value(KERNEL),
        sharing_strategy: value(SHARING),
        gke_driver_version: value(GKE_DRIVER),
        unchanged_since: dated.filter_map(|name| unchanged_since(node, &name).map(|time| (name, time))).collect(),
        deploy,
    }
}

/// Returns whether node feature discovery found a PCI device of NVIDIA. The label is `pci-10de.present`, or has the
/// device class before or after the vendor.
pub fn has_pci_label(node: &Node) -> bool {
    node.labels().iter().any(|(name, value)| {
        let rest = name.strip_prefix(FEATURES).and_then(|rest| rest.strip_prefix("pci-"));
        value == "true" && rest.is_some_and(|rest| rest.contains("10de") && rest.ends_with(".present"))
    })
}

/// Returns when the writer of the label last changed any field of the node. The label is at least that old.
fn unchanged_since(node: &Node, label: &str) -> Option<Timestamp> {
    let entries = node.metadata.managed_fields.as_deref().unwrap_or_default();
    let time = |entry: &ManagedFieldsEntry| entry.time.as_ref().map(|time| time.0);
    entries.iter().filter(|entry| owns(entry, label)).filter_map(time).max()
}

fn owns(entry: &ManagedFieldsEntry, label: &str) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    fields.and_then(|fields| fields.get("f:metadata")?.get("f:labels")?.get(format!("f:{label}"))).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_label_is_as_old_as_the_last_change_of_its_writer() {
        let of_writer = |manager: &str, time: &str, label: &str| {
            json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": time,
                "fieldsV1": {"f:metadata": {"f:labels": {(format!("f:{label}")): {}}}}})
        };
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "gpu-1",
        "labels": {MIG_STATE: "pending", "nvidia.com/gpu.deploy.device-plugin": "paused-for-mig-change",
            "nvidia.com/gpu.deploy.driver": "true", "feature.node.kubernetes.io/pci-0302_10de.present": "true"},
        "managedFields": [
            of_writer("nvidia-mig-manager", "2026-11-21T01:00:00Z", MIG_STATE),
            of_writer("kubelet", "2026-11-21T02:40:00Z", "kubernetes.io/os"),
        ]}}))
        .expect("a node");
        let labels = from_node(&node);
        assert_eq!(labels.mig_config_state.as_deref(), Some("pending"));
        assert_eq!(labels.unchanged_since.get(MIG_STATE), "2026-11-21T01:00:00Z".parse().ok().as_ref());
        assert_eq!(labels.unchanged_since.len(), 1, "no field manager says since when the plugin is paused");
        assert!(labels.pci_present && labels.feature_discovery);
        assert_eq!(labels.deploy.get("device-plugin").map(String::as_str), Some("paused-for-mig-change"));
    }
}
