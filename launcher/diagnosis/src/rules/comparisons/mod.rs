//! `GROUPS`: the rules that compare a fact with other GPUs, boards, layers, sections, times, Kubernetes data, its MIG
//! layout, or its valid range.

mod agreement;
mod boards;
mod kubernetes;
mod layers;
mod mig_layout;
mod order;
mod peers;
mod ranges;
mod references;

use crate::rule::RuleGroup;

pub(crate) const GROUPS: &[RuleGroup] = &[
    RuleGroup::new(ranges::RULES, ranges::check),
    RuleGroup::new(agreement::RULES, agreement::check),
    RuleGroup::new(&[], references::check),
    RuleGroup::new(kubernetes::RULES, kubernetes::check).with_unread(kubernetes::unread),
    RuleGroup::new(peers::RULES, peers::check).with_refine(peers::fold).with_unread(peers::unread),
    RuleGroup::new(boards::RULES, boards::check).with_refine(|node, drafts| boards::refine(node, drafts)),
    RuleGroup::new(layers::RULES, layers::check).with_refine(layers::refine).with_unread(layers::unread),
    RuleGroup::new(mig_layout::RULES, mig_layout::check),
    RuleGroup::new(order::RULES, order::check).with_refine(order::refine),
];
