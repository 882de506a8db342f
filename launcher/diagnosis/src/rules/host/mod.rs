//! `GROUPS`: the rules about the host: file systems, limits, pressure, memory and OOM kills (`levels`), CPUs, sockets,
//! services, clock, kernel taint (`parts`).

mod levels;
mod parts;

use syringe_core::facts::host_levels::HostLevels;

use crate::input::node::Node;
use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] =
    &[RuleGroup::new(levels::RULES, levels::check), RuleGroup::new(parts::RULES, parts::check)];

/// Returns the levels of the node, if the probe read the files of the node, not the files of a container.
fn levels_of<'a>(node: &Node<'a>) -> Option<&'a HostLevels> {
    node.host().filter(|_| node.shows_files_of_node())?.levels.as_ref()
}

#[cfg(test)]
mod tests;
