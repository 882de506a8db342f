//! `GROUPS`: the rules about the host of the GPUs: full tables and file systems, missing parts, clock, state of the kernel.

mod levels;
mod parts;

use syringe_core::facts::host_levels::HostLevels;
use syringe_core::report::Extent;

use crate::input::node::Node;
use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[RuleGroup::new(levels::RULES, levels::check), RuleGroup::new(parts::RULES, parts::check)];

/// Returns the levels of the node, if the probe read the files of the node and not those of a container.
fn levels_of<'a>(node: &Node<'a>) -> Option<&'a HostLevels> {
    let is_of_node = node.report.scope.is_none_or(|scope| scope.files == Extent::Node);
    node.host().filter(|_| is_of_node)?.levels.as_ref()
}

/// Returns whether the node is known to be a physical machine. In a virtual machine, the hypervisor chooses CPUs and memory, and can keep
/// the clock.
fn is_physical(node: &Node<'_>) -> bool {
    let mut modes = node.listed().filter_map(|gpu| node.inventory_of(gpu)?.virtualization_mode.as_deref()).peekable();
    modes.peek().is_some() && modes.all(|mode| mode == "none")
}

/// Returns whether the node is known to be a virtual machine.
fn is_virtual(node: &Node<'_>) -> bool {
    let mut modes = node.listed().filter_map(|gpu| node.inventory_of(gpu)?.virtualization_mode.as_deref());
    modes.any(|mode| ["passthrough", "vgpu"].contains(&mode))
}

#[cfg(test)]
mod tests;
