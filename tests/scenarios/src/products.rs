//! `h100`, `a100`, `l40s`, `t4`, `gb200`: healthy nodes of GPU products, which scenarios use as a starting point.

use crate::load::{Load, serving, training};
use crate::node::Node;

/// Returns an HGX board with `count` H100 GPUs. Each GPU runs a training job.
pub(crate) fn h100(count: u32) -> Node {
    Node::like("healthy-h100-8", "gpu-h100-9", count, &TWO_SOCKETS).working(training)
}

/// Returns an HGX board with `count` A100 GPUs. Each GPU serves a model.
pub(crate) fn a100(count: u32) -> Node {
    Node::like("ecc-remap-pending", "gpu-a100-9", count, &TWO_SOCKETS).working(serving).uptime(UPTIME)
}

/// Returns a node with `count` PCIe cards without NVLink. Each GPU serves a model.
pub(crate) fn l40s(count: u32) -> Node {
    Node::like("l40s-4-idle", "gpu-l40s-9", count, &TWO_SOCKETS)
        .system("Ubuntu 22.04.5 LTS", "5.15.0-131-generic")
        .driver("570.124.06", "12.8")
        .working(|index| Load { mhz: Some(2490), watts: 251 + index, ..serving(index) })
        .uptime(UPTIME)
}

/// Returns a virtual machine with one T4.
pub(crate) fn t4() -> Node {
    let load = Load { gpu: 43, memory: 21, used: 0.41, watts: 52, degrees: 61, mhz: Some(1455), ..Load::default() };
    Node::like("healthy-t4-1", "gpu-t4-9", 1, &["0-3"])
        .system("Ubuntu 22.04.5 LTS", "6.1.141-155.222.amzn2023.x86_64")
        .working(|_| load.clone())
        .uptime(UPTIME)
}

/// Returns an idle part of a compute tray of a GB200 NVL72 rack.
pub(crate) fn gb200(count: u32) -> Node {
    Node::like("gb200-4", "gb200-a07-t09", count, &["0-71", "72-143"]).idle().uptime(UPTIME)
}

/// The uptime of most nodes: twelve days.
pub(crate) const UPTIME: u64 = 1_036_815;

/// The CPUs of most nodes.
const TWO_SOCKETS: [&str; 2] = ["0-55,112-167", "56-111,168-223"];
