//! Comparisons that need no rule of their own: a GPU with its peers, a layer with the next one, a value with its possible range, and
//! a fact with the same fact in another section.

mod agreement;
mod layers;
mod order;
mod peers;
mod ranges;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(ranges::RULES, ranges::check),
    RuleGroup::new(agreement::RULES, agreement::check),
    RuleGroup::new(peers::RULES, peers::check).with_unread(peers::unread),
    RuleGroup::new(layers::RULES, layers::check).with_refine(layers::refine).with_unread(layers::unread),
    RuleGroup::new(order::RULES, order::check).with_refine(order::refine),
];
