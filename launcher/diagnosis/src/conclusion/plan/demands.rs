//! `demands`: finds the resets, reboots and power cycles (`Demand`) that the text of an action demands without a
//! condition. `asks_for_inspection`: whether the text asks for a check of cables or seating.

/// An action of a repair that interrupts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    Reset,
    Reboot,
    PowerCycle,
}

const VERBS: [(&str, Demand); 3] =
    [("reset", Demand::Reset), ("reboot", Demand::Reboot), ("power-cycle", Demand::PowerCycle)];

/// Words that make the following verb a noun or a participle, or negate it.
const BEFORE_NOUNS: [&str; 20] = [
    "a", "after", "an", "are", "before", "by", "each", "every", "included", "is", "last", "next", "no", "not", "or",
    "plain", "separate", "the", "warm", "was",
];

/// Returns the demands of a text. A sentence with a condition contains no demand. If there are alternatives, only the
/// first alternative counts.
pub(crate) fn demands(text: &str) -> impl Iterator<Item = Demand> {
    let text = without_brackets(text).to_lowercase();
    let clauses: Vec<&str> = text.split(['.', ';']).filter(|clause| !is_conditional(clause)).collect();
    let found = clauses.into_iter().flat_map(|clause| {
        let words: Vec<&str> = clause.split([' ', ',', ':', '\n']).filter(|word| !word.is_empty()).collect();
        let found = words.iter().enumerate().filter_map(|(at, word)| {
            let before = at.checked_sub(1).and_then(|at| words.get(at));
            let is_noun = before.is_some_and(|before| BEFORE_NOUNS.contains(before));
            let (_, demand) = VERBS.iter().find(|(verb, _)| verb == word)?;
            (!is_noun).then_some(*demand)
        });
        found.collect::<Vec<_>>()
    });
    found.collect::<Vec<_>>().into_iter()
}

/// Returns whether a text asks for a check of cables or seating without a condition.
pub(crate) fn asks_for_inspection(text: &str) -> bool {
    let text = without_brackets(text).to_lowercase();
    let mut clauses = text.split(['.', ';']).filter(|clause| !is_conditional(clause));
    clauses.any(|clause| clause.contains("check") && ["cables", "seating"].iter().any(|part| clause.contains(part)))
}

fn is_conditional(clause: &str) -> bool {
    let clause = clause.trim_start();
    clause.starts_with("if ") || clause.contains(" if ") || clause.contains("unless ")
}

/// Returns the text without the parts in brackets.
fn without_brackets(text: &str) -> String {
    let mut depth = 0_usize;
    let kept = text.chars().filter(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::{Demand, demands};

    #[test]
    fn only_an_unconditional_verb_is_a_demand() {
        use Demand::{PowerCycle, Reboot, Reset};
        for (text, expected) in [
            ("Drain {node} and power-cycle it (off and on, not a plain reboot).", &[PowerCycle][..]),
            ("Drain the node and reboot it (power-cycle it if that does not help); have it inspected", &[Reboot]),
            ("Drain its workloads and reset it; reboot the node if that fails", &[Reset]),
            ("If the link is slow again, reboot {node}. Reset {gpu} at the next drain.", &[Reset]),
            ("A reset or reboot at the same time can disrupt this repair.", &[]),
            ("Reset all GPUs and NVSwitches of {node} together, or reboot {node}.", &[Reset]),
            ("{node} was not rebooted since then. No reset is needed.", &[]),
        ] {
            assert_eq!(demands(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
