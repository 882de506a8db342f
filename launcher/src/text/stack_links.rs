//! The way of a node's GPUs from the PCI bus to the scheduler, in one line.

use syringe_core::diagnosis::{LinkState, StackLink};

use crate::variant_name::variant_name;

/// Every link with its state, where one is broken: there is nothing to see in a way that works.
pub(crate) fn stack_line(links: &[StackLink]) -> Option<String> {
    let word = |link: &StackLink| format!("{} {}", variant_name(link.link), variant_name(link.state));
    let words: Vec<_> = links.iter().map(word).collect();
    let broken = links.iter().any(|link| link.state == LinkState::Broken);
    broken.then(|| format!("Stack: {}\n", words.join(", ")))
}
