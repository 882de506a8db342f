//! Conditions of a reset that only the launcher can check: cordon and allocations.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetConditions {
    /// Whether the node is cordoned. If it is not known, it counts as not cordoned.
    pub cordoned: bool,
    /// Whether the reset is refused if the node is not cordoned or pods are allocated the GPU.
    pub drain_check: bool,
}

impl Default for ResetConditions {
    fn default() -> Self {
        Self { cordoned: false, drain_check: true }
    }
}
