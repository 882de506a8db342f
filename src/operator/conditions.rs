//! What the caller of a reset knows and the node does not.

/// What the caller knows and the node does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Whether Kubernetes gives the node no new pods. What is not known is not cordoned.
    pub cordoned: bool,
    /// Whether a node that is not cordoned, and pods that the GPU is allocated to, are in the way.
    pub drain_check: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { cordoned: false, drain_check: true }
    }
}
