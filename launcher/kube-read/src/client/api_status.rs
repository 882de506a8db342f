//! Classifies the `Status` of a failed request: not found, conflict, or written by a proxy in front of the API server.

use kube::core::Status;

/// Reason that kube sets for an answer whose body is not a `Status`.
pub const NOT_A_STATUS: &str = "Failed to parse error data";

/// Whether the answer is not a `Status`: a proxy, the kubelet or a filter of the API server wrote it.
pub fn is_not_a_status(status: &Status) -> bool {
    status.reason == NOT_A_STATUS
}

/// Whether a proxy answered in place of the API server. Not with 429 and 5xx: filters of the API server use plain text for those.
pub fn is_page_of_proxy(status: &Status) -> bool {
    is_not_a_status(status) && (400..500).contains(&status.code) && status.code != 429
}

/// Whether the API server states that the object does not exist. The 404 page of a proxy does not.
pub fn is_not_found(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

/// Whether the API server states that an object of this name exists.
pub fn is_already_exists(status: &Status) -> bool {
    status.code == 409 && status.reason == "AlreadyExists"
}

/// Whether the API server states a conflict, such as a UID that differs from the one in the precondition.
pub fn is_conflict(status: &Status) -> bool {
    status.code == 409 && status.reason == "Conflict"
}
