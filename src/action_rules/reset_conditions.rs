//! `ResetConditions`: whether the node is cordoned, and whether a reset requires a cordon and a GPU without allocations.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetConditions {
    /// Whether the node is cordoned. An unknown state counts as not cordoned.
    pub cordoned: bool,
    /// Whether the reset is refused if the node is not cordoned or the GPU is allocated to pods.
    pub drain_check: bool,
}

impl Default for ResetConditions {
    fn default() -> Self {
        Self { cordoned: false, drain_check: true }
    }
}
