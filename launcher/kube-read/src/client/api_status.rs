//! Functions that classify the `Status` of a failed request: not found, conflict, or written by a proxy.

use kube::core::Status;

/// Reason that kube sets for a response whose body is not a `Status`.
pub const NOT_A_STATUS: &str = "Failed to parse error data";

/// Whether the response is not a `Status`. A proxy, the kubelet or a filter of the API server sends such a response.
pub fn is_not_a_status(status: &Status) -> bool {
    status.reason == NOT_A_STATUS
}

/// Whether a proxy responded in place of the API server. False for 429 and 5xx, because filters of the API server also
/// send plain text with these codes.
pub fn is_page_of_proxy(status: &Status) -> bool {
    is_not_a_status(status) && (400..500).contains(&status.code) && status.code != 429
}

/// Whether the API server reports that the object does not exist. False for the 404 page of a proxy.
pub fn is_not_found(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

/// Whether the API server reports that an object with this name already exists.
pub fn is_already_exists(status: &Status) -> bool {
    status.code == 409 && status.reason == "AlreadyExists"
}

/// Whether the API server reports a conflict, such as a UID that differs from the one in the precondition.
pub fn is_conflict(status: &Status) -> bool {
    status.code == 409 && status.reason == "Conflict"
}
