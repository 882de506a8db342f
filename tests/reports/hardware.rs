//! Hardware, firmware, processes.

use crate::case::Case;
use crate::cluster::scenario;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(52, scenario("gsp-timeout")).finding("gsp-failed", &["Xid 119"]).beside(&["process-stuck"]),
        Case::of_node(53, scenario("ecc-remap-pending"))
            .finding("row-remap-pending", &["Xid 63"])
            .beside(&["ecc-contained"]),
        Case::of_node(54, scenario("init-failed")).finding("gpu-init-failed", &["RmInitAdapter"]),
        Case::of_node(55, scenario("pcie-width")).finding("pcie-width-degraded", &[]),
        Case::of_node(56, scenario("kubernetes-condition")).finding("kubernetes-gpu-condition", &[]),
        Case::of_node(57, scenario("process-without-pod")).finding("process-outside-kubernetes", &[]),
    ]
}
