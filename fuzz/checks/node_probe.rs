//! The body of the fuzz target `cgroup`, and re-exports of the bodies of the other fuzz targets of `node-probe`.
//!
//! The tests of the crate run the bodies on the committed inputs.

use serde::Serialize;

use crate::cgroup;
pub use crate::host::kubelet::fuzzing::{checkpoint, pod_resources};
pub use crate::kernel_log::fuzzing::{journal, kmsg};
pub use crate::nccl::fuzzing::nccl;

#[path = "common.rs"]
pub(crate) mod common;

/// Asserts that the texts of `facts` are clean, and that their total length is not much longer than the input.
pub(crate) fn assert_clean(facts: &impl Serialize, input: usize) {
    let length = common::assert_clean(facts);
    assert!(length <= 4096 + 64 * input, "{length} bytes of facts from {input} bytes");
}

/// Fuzz target `cgroup`. `data` contains two `/proc/PID/cgroup` files, separated by a line `--`: that of a process,
/// then that of the probe.
pub fn cgroup(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (of_process, own) = text.split_once("\n--\n").unwrap_or((&text, "0::/\n"));
    let cgroup::Membership { pod_uid, container_id, qos } = cgroup::parse(of_process, own);
    let is_hex = |text: &str, digits: usize| {
        text.len() - text.matches('-').count() == digits
            && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    };
    assert!(pod_uid.as_deref().is_none_or(|uid| is_hex(uid, 32)), "{pod_uid:?}");
    assert!(container_id.as_deref().is_none_or(|id| id.len() == 64 && is_hex(id, 64)), "{container_id:?}");
    assert!(qos.is_none() || pod_uid.is_some(), "there is a QoS class without a pod");
    // A process in a pod or container must not be treated as a process of the node.
    if pod_uid.is_some() {
        assert!(cgroup::names_pod(of_process), "a process of a pod is not recognized: {of_process:?}");
        assert!(
            !cgroup::may_be_the_kubelets(of_process, own),
            "a process of a pod is treated as the kubelet: {of_process:?}"
        );
        assert!(
            !cgroup::is_init_of_a_node(of_process, own),
            "a process of a pod is treated as the init process: {of_process:?}"
        );
    }
    if pod_uid.is_some() || container_id.is_some() {
        assert!(!cgroup::is_of_no_container(of_process), "a process of a container is not recognized: {of_process:?}");
    }
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    use super::committed_inputs::run;

    #[test]
    fn the_inputs_of_every_corpus_keep_the_properties() {
        run("kmsg", super::kmsg);
        run("journal", super::journal);
        run("checkpoint", super::checkpoint);
        run("pod_resources", super::pod_resources);
        run("cgroup", super::cgroup);
        run("nccl", super::nccl);
    }
}
