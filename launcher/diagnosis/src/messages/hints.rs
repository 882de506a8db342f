//! `without_hints`: removes hints about additional output from a message (`run with NCCL_DEBUG=INFO for details`).
//!
//! A message is not about the variable or option in such a hint.

use std::borrow::Cow;

/// Verbs with which a hint begins.
const VERBS: [&str; 14] = [
    "run", "rerun", "re-run", "running", "try", "set", "setting", "use", "using", "pass", "passing", "enable",
    "compile", "see",
];

/// Words that may precede the verb.
const LEADS: [&str; 8] = ["please", "try", "or", "and", "consider", "debugging", "you can", "to debug"];

/// Words for the purpose of a hint.
const PURPOSES: [&str; 21] = [
    " for details",
    " for more",
    " for further",
    " for additional",
    " for debug",
    " for info",
    " for full",
    " for a full",
    " for the full",
    " for verbose",
    " to see",
    " to show",
    " to print",
    " to view",
    " to debug",
    " to display",
    " to get more",
    " to get details",
    " to enable debug",
    " to enable device-side assertions",
    " to diagnose",
];

/// Parts of the names of variables and options that only change the output.
const OUTPUT: [&str; 6] = ["--verbose", "--debug", "_debug", "_verbose", "_log_level", "_launch_blocking"];

/// Texts that end a clause.
const ENDS: [&str; 9] = ["(", ")", ";", "\n", ". ", ", ", ": ", " - ", "["];

/// Returns the message without its hints.
pub(crate) fn without_hints(message: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut rest = message;
    while !rest.is_empty() {
        let end = ENDS.iter().filter_map(|end| rest.find(end).map(|at| (at, end.len()))).min();
        let (clause, size) = end.map_or((rest.len(), 0), |(at, size)| (at, size));
        let hint = hint_at(&rest[..clause]).unwrap_or(clause);
        kept.push_str(&rest[..hint]);
        kept.push_str(&rest[clause..clause + size]);
        rest = &rest[clause + size..];
    }
    if kept.len() == message.len() { Cow::Borrowed(message) } else { Cow::Owned(kept) }
}

/// Returns the position of the hint in a clause.
fn hint_at(clause: &str) -> Option<usize> {
    let lower = clause.to_ascii_lowercase();
    let is_hint = PURPOSES.iter().chain(&OUTPUT).any(|words| lower.contains(words));
    let mut starts = lower.match_indices(|one: char| one.is_ascii_alphabetic()).map(|(at, _)| at).filter(|at| {
        let (before, after) = lower.split_at(*at);
        let is_verb = VERBS.iter().any(|verb| after.strip_prefix(verb).is_some_and(|rest| rest.starts_with(' ')));
        let lead = before.trim_end();
        let is_begin = lead.is_empty() || (before != lead && LEADS.iter().any(|word| lead.ends_with(word)));
        is_verb && is_begin
    });
    starts.next().filter(|_| is_hint)
}

#[cfg(test)]
mod tests {
    use super::{OUTPUT, PURPOSES, VERBS, without_hints};

    #[test]
    fn each_hint_is_removed_and_its_message_stays() {
        for verb in VERBS {
            for hint in PURPOSES.iter().map(|purpose| format!("{verb} X_Y=1{purpose}")) {
                for message in [format!("it failed ({hint}), code 3"), format!("it failed: {hint}. code 3")] {
                    let kept = without_hints(&message);
                    assert!(
                        !kept.contains("X_Y") && kept.starts_with("it failed") && kept.ends_with("code 3"),
                        "{kept}"
                    );
                }
            }
            for name in OUTPUT {
                assert!(!without_hints(&format!("it failed; {verb} x{name}")).contains(name), "{verb} {name}");
            }
        }
        let message = "For debugging consider passing CUDA_LAUNCH_BLOCKING=1";
        assert_eq!(without_hints(message), "For debugging consider ");
    }

    #[test]
    fn a_variable_or_option_that_is_the_matter_stays() {
        for message in [
            "NCCL_DEBUG=INFO is not valid",
            "cannot use --verbose with --quiet",
            "set CUDA_VISIBLE_DEVICES to a valid value",
            "unknown flag: --debug",
            "",
        ] {
            assert_eq!(without_hints(message), message);
        }
    }
}
