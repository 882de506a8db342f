//! The container runtime and CDI as they are on the node.

use crate::case::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
