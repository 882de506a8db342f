//! `check`, `refine`: run the rules that compare requested, allocated, used and advertised GPUs.
//!
//! Each rule compares at least two of the following, and reports nothing if one of them was not read completely:
//!
//! ```text
//!   requests (API) ── allocations (kubelet) ── processes (NVML, cgroups) ── capacity and allocatable (API)
//!          └ without_gpu ┘      └──── unallocated_use ────┘
//!                        stale_allocations, shared_gpu_memory            marked_unhealthy
//! ```
//!
//! The kubelet allocates devices before it starts a container, and the probe reads allocations and processes on the
//! same node within milliseconds. If a container has run for a minute, its devices are in the allocations, and a second
//! reading would have the same result.

mod allocated_twice;
mod allocations;
mod doubtful;
mod license;
mod marked_unhealthy;
mod rules;
mod shared_gpu_memory;
mod stale_allocations;
mod tainted_devices;
mod terminating;
mod unallocated_use;
mod without_gpu;

use crate::input::node::Node;
use crate::input::pods_match::matching_fails;
use crate::rule::Draft;
use allocations::Allocations;
pub(super) use rules::RULES;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = license::check(node);
    drafts.extend(shared_gpu_memory::check(node));
    drafts.extend(doubtful::check(node));
    drafts.extend(allocated_twice::check(node));
    drafts.extend(terminating::check(node));
    drafts.extend(tainted_devices::check(node));
    let all = Allocations::of(node).filter(|_| matching_fails(node).is_none());
    if let Some(all) = all {
        drafts.extend(unallocated_use::check(node, &all));
        drafts.extend(without_gpu::check(node, &all));
    }
    drafts
}

/// Replaces findings with more specific ones that explain them.
pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    marked_unhealthy::refine(node, drafts);
    if matching_fails(node).is_none() {
        stale_allocations::refine(node, drafts);
    }
}
