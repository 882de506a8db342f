//! Given, used, free: what pods asked for, what the kubelet gave them, what they use, and what Kubernetes may give out.
//!
//! Each rule joins at least two of these, and is silent where one of them was not read as a whole:
//!
//! ```text
//!   requests (API) ── bookings (kubelet) ── processes (NVML, cgroups) ── capacity and allocatable (API)
//!          └ without_gpu ┘      └──── strangers ────┘
//!                        stale_books, shared_memory            withheld
//! ```
//!
//! The kubelet books devices before it starts a container, and the probe reads bookings and processes on the same node within
//! milliseconds. So a container that has run for a minute is in the bookings; a second look would say the same.

mod books;
mod licence;
mod rules;
mod shared_memory;
mod stale_books;
mod strangers;
mod withheld;
mod without_gpu;

use super::draft::Draft;
use super::node::Node;
use super::rules::Rule;
use books::Books;

/// The rules of this family.
pub(super) const RULES: &[Rule] = rules::RULES;

/// Findings about the use of GPUs.
pub(super) fn judge(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = licence::judge(node);
    drafts.extend(shared_memory::judge(node));
    if let Some(books) = Books::of(node) {
        drafts.extend(strangers::judge(node, &books));
        drafts.extend(without_gpu::judge(node, &books));
    }
    drafts
}

/// After all families: puts the more specific findings in the place of what they explain.
pub(super) fn apply(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    withheld::apply(node, drafts);
    stale_books::apply(node, drafts);
}
