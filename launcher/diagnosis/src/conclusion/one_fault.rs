//! `join`: joins the findings that are signs of one fault, so that one fault is one finding.

use crate::rule::Draft;
use syringe_core::classification::Severity;

/// Joins the findings with the same [`Fault`](crate::rule::Fault) about the same GPU or about the node. The worst
/// finding remains (the cause, if there are several), and the others become its evidence.
pub(crate) fn join(drafts: &mut Vec<Draft>) {
    let mut joined: Vec<Draft> = Vec::with_capacity(drafts.len());
    for draft in drafts.drain(..) {
        match joined.iter_mut().find(|first| is_same_fault(first, &draft)) {
            Some(first) => *first = one(first.clone(), draft),
            None => joined.push(draft),
        }
    }
    *drafts = joined;
}

fn is_same_fault(left: &Draft, right: &Draft) -> bool {
    let counts = |draft: &Draft| draft.severity > Severity::Info && !draft.is_over;
    let (left_scope, right_scope) = (&left.scope, &right.scope);
    left.rule.fault.is_some()
        && left.rule.fault == right.rule.fault
        && counts(left)
        && counts(right)
        && (left_scope.gpu, &left_scope.pci) == (right_scope.gpu, &right_scope.pci)
}

fn one(left: Draft, right: Draft) -> Draft {
    let rank = |draft: &Draft| (draft.severity, std::cmp::Reverse(draft.rule.depth));
    let (main, other) = if rank(&right) > rank(&left) { (right, left) } else { (left, right) };
    let (since, when) = (main.since.into_iter().chain(other.since).min(), main.when.max(other.when));
    let title = (main.rule.id != other.rule.id).then(|| format!("{}: {}", other.rule.id, other.rule.title));
    Draft { since, when, ..main }.with_all_evidence(title).with_all_evidence(other.evidence)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::{About, Fault, InPlan, Rule};
    use syringe_core::classification::{ActionCode, Class};

    fn rule(id: &'static str, severity: Severity, fault: Option<Fault>, depth: u8) -> Rule {
        let (class, action) = (Class::Hardware, ActionCode::Watch);
        let (about, in_plan) = (About::Gpus, InPlan::None);
        let (title, advice, meaning, reads, reference) = ("A rule", "", "", "", None);
        Rule { id, title, severity, class, action, advice, reference, meaning, reads, about, in_plan, fault, depth }
    }

    fn rules() -> Vec<Rule> {
        let faults = [None, Some(Fault::Heat), Some(Fault::Disk)];
        let severities = [Severity::Info, Severity::Warning, Severity::Critical];
        let of = |fault| severities.map(move |severity| [rule("a", severity, fault, 0), rule("b", severity, fault, 1)]);
        faults.into_iter().flat_map(of).flatten().collect()
    }

    proptest! {
        #[test]
        fn joining_loses_no_evidence_and_no_severity(
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..3), 0..8)
        ) {
            let before: Vec<Draft> = picks
                .iter()
                .enumerate()
                .map(|(at, (pick, gpu))| {
                    let mut draft = Draft::on_node(*pick.get(&rules())).with_evidence(format!("fact {at}"));
                    draft.scope.gpu = Some(*gpu).filter(|gpu| *gpu > 0);
                    draft
                })
                .collect();
            let mut after = before.clone();
            join(&mut after);
            let worst = |drafts: &[Draft]| drafts.iter().map(|draft| draft.severity).max();
            prop_assert_eq!(worst(&before), worst(&after));
            for at in 0..before.len() {
                let fact = format!("fact {at}");
                prop_assert_eq!(after.iter().filter(|draft| draft.evidence.contains(&fact)).count(), 1);
            }
            for (at, draft) in after.iter().enumerate() {
                prop_assert!(!after.iter().skip(at + 1).any(|other| is_same_fault(draft, other)));
            }
        }
    }
}
