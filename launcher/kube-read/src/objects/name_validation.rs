//! `check_node_name`, `check_pod_name`, `check_namespace`, `is_subdomain`: validate names for request paths.
//! `container_id_without_scheme`: a container ID without its runtime.

use syringe_core::text::clean;

use crate::Failure;

/// Maximum length of the name of a node or a pod (a DNS subdomain).
pub const MAX_LENGTH: usize = 253;
/// Maximum length of the name of a namespace (a DNS label).
const MAX_LABEL: usize = 63;
/// Rule for the name of a node.
pub const NODE_NAME: &str = "a node name contains only lower-case letters, digits, '-' and '.', at most 253 characters";

/// Returns whether `name` is a valid name of a node or a pod.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_LENGTH && name.split('.').all(|part| is_label(part, MAX_LENGTH))
}

fn is_label(name: &str, longest: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= longest
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Rejects an invalid name of a node.
pub fn check_node_name(name: &str) -> Result<(), Failure> {
    if is_subdomain(name) {
        return Ok(());
    }
    Err(Failure { next_step: "Run list_gpu_nodes to see node names.".to_owned(), ..refusal("node", name, NODE_NAME) })
}

/// Rejects an invalid name of a pod.
pub fn check_pod_name(name: &str) -> Result<(), Failure> {
    if is_subdomain(name) {
        return Ok(());
    }
    Err(refusal(
        "pod",
        name,
        "a pod name contains only lower-case letters, digits, '-' and '.', at most 253 characters",
    ))
}

/// Rejects an invalid name of a namespace.
pub fn check_namespace(name: &str) -> Result<(), Failure> {
    if is_label(name, MAX_LABEL) {
        return Ok(());
    }
    Err(refusal(
        "namespace",
        name,
        "a namespace name contains only lower-case letters, digits and '-', at most 63 characters",
    ))
}

/// Removes the runtime from a container ID: `containerd://abc` becomes `abc`, as in the names of cgroups.
pub fn container_id_without_scheme(container_id: &str) -> &str {
    container_id.rsplit('/').next().unwrap_or_default()
}

fn refusal(what: &str, name: &str, why: &str) -> Failure {
    Failure::usage(format!("Looking for {what} '{}'", clean(name, 80)), why, "Fix the name. No request was sent.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_allows_becomes_part_of_a_path() {
        for good in ["a", "gpu-1", "ip-10-0-0-1.eu-central-1.compute.internal", "7"] {
            assert!(is_subdomain(good) && check_pod_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(254);
        for bad in ["", ".", "..", "-a", "a-", "a/b", "a?b", "A", "a..b", "a%2fb", "a b", &long] {
            assert!(check_pod_name(bad).is_err() && check_namespace(bad).is_err(), "{bad}");
        }
        assert!(
            check_namespace("a.b").is_err()
                && check_namespace(&"a".repeat(64)).is_err()
                && check_namespace("gpu-tools").is_ok()
        );
    }
}
