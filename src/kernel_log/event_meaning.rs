//! `of`: the meaning of one Xid or SXid event, from the row of its code or from a more specific row of its kind.
//! `kinds`: all kinds.
//!
//! The kinds are in `data/xid_kinds.tsv`. The first row whose condition matches is used. For an SXid, the word Fatal or
//! Non-fatal has priority over the row of the code.

use std::sync::LazyLock;

use crate::classification::{ActionCode, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::kernel_log::catalogue;
use crate::kernel_log::catalogue::{Ageing, Fatality, given};
use crate::tsv::{rows, word};

const ROWS: &str = include_str!("data/xid_kinds.tsv");

/// The meaning of an event, without other facts about its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeaning {
    /// Severity of a new event.
    pub severity: Severity,
    pub action: ActionCode,
    pub ageing: Ageing,
    /// The action in words.
    pub advice: &'static str,
}

/// A row of the table of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// First and last code.
    pub codes: (u32, u32),
    /// `detail=value|value`, joined by `&`. `repeated=yes` matches an event of more than one line.
    pub condition: &'static str,
    pub meaning: EventMeaning,
    /// Source of the row.
    pub why: Option<&'static str>,
}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| rows(ROWS).filter_map(kind).collect());

/// Returns every kind, in the order in which the conditions are checked.
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

/// Returns the meaning of an Xid or SXid. `None` for other events, and for codes that are not in the catalogue.
pub fn of(event: &KernelEvent) -> Option<EventMeaning> {
    match event.kind {
        KernelEventKind::Xid => xid(event),
        KernelEventKind::Sxid => sxid(event),
        _ => None,
    }
}

fn xid(event: &KernelEvent) -> Option<EventMeaning> {
    let entry = catalogue::xid(event.code?)?;
    let kind = KINDS.iter().find(|kind| kind.is_of(event));
    Some(kind.map_or(
        EventMeaning { severity: entry.severity, action: entry.action, ageing: entry.ageing, advice: entry.sre_action },
        |kind| kind.meaning,
    ))
}

/// The meaning of SXids that the driver calls fatal, regardless of the code.
const FATAL_SXID: EventMeaning = EventMeaning {
    severity: Severity::Fatal,
    action: ActionCode::DrainAndReset,
    ageing: Ageing::WhenWorkingADay,
    advice: "Drain the node, then reset all its GPUs and NVSwitches together",
};

fn sxid(event: &KernelEvent) -> Option<EventMeaning> {
    let Some(entry) = catalogue::sxid(event.code?) else {
        // For a code that is not in the table, the word Fatal in the line is sufficient.
        return (event.details.get("nv_severity").map(String::as_str) == Some("Fatal")).then_some(FATAL_SXID);
    };
    let row = EventMeaning {
        severity: entry.severity,
        action: entry.action,
        ageing: entry.ageing,
        advice: entry.sre_action(),
    };
    let lost = matches!(entry.fatality, Some(Fatality::Fatal | Fatality::AlwaysFatal));
    let asks_for_something = entry.fatality == Some(Fatality::NonFatal) && entry.severity > Severity::Info;
    Some(match event.details.get("nv_severity").map(String::as_str) {
        Some("Fatal") if lost => row,
        Some("Fatal") => FATAL_SXID,
        Some(_) if !asks_for_something => EventMeaning {
            severity: Severity::Info,
            action: ActionCode::Watch,
            ageing: Ageing::AfterADay,
            advice: "No action for this event alone: watch the rate, and check whether a fatal SXid follows",
        },
        _ => row,
    })
}

impl Kind {
    fn is_of(&self, event: &KernelEvent) -> bool {
        let (first, last) = self.codes;
        event.code.is_some_and(|code| (first..=last).contains(&code))
            && self.condition.split('&').all(|condition| holds(condition, event))
    }
}

fn holds(condition: &str, event: &KernelEvent) -> bool {
    let Some((name, values)) = condition.split_once('=') else { return false };
    let value = match name {
        "repeated" => Some(if event.count > 1 { "yes" } else { "no" }),
        _ => event.details.get(name).map(String::as_str),
    };
    value.is_some_and(|value| values.split('|').any(|one| one == value))
}

fn kind(fields: Vec<&'static str>) -> Option<Kind> {
    let [codes, condition, severity, action, ageing, advice, why] = fields[..] else { return None };
    let (first, last) = codes.split_once('-').unwrap_or((codes, codes));
    let meaning = EventMeaning { severity: word(severity)?, action: word(action)?, ageing: word(ageing)?, advice };
    Some(Kind { codes: (first.parse().ok()?, last.parse().ok()?), condition, meaning, why: given(why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: KernelEventKind, code: u32, details: &[(&str, &str)]) -> KernelEvent {
        let details = details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KernelEvent { kind, code: Some(code), details, count: 1, ..KernelEvent::default() }
    }

    fn of_xid(code: u32, details: &[(&str, &str)]) -> (Severity, ActionCode, Ageing) {
        let found = of(&event(KernelEventKind::Xid, code, details)).expect("a known code");
        (found.severity, found.action, found.ageing)
    }

    #[test]
    fn every_row_of_the_kinds_is_read_and_its_codes_are_known() {
        assert_eq!(kinds().len(), ROWS.lines().filter(|row| !row.starts_with('#')).count());
        assert!(kinds().iter().all(|kind| catalogue::xid(kind.codes.0).is_some() && kind.codes.0 <= kind.codes.1));
    }

    #[test]
    fn harmless_and_conditional_kinds_ask_for_no_reset() {
        for (code, details) in [
            (74, vec![("register_class", "secondary")]),
            (74, vec![("register_class", "report_if_repeated")]),
            (145, vec![("action", "XID_154_EVAL"), ("fatal", "false")]),
            (149, vec![("fatal", "false")]),
            (155, vec![]),
            (157, vec![]),
        ] {
            let (severity, action, _) = of_xid(code, &details);
            assert_eq!((severity, action), (Severity::Warning, ActionCode::Watch), "{code} {details:?}");
        }
        assert_eq!(of_xid(144, &[("action", "IGNORE"), ("fatal", "false")]).0, Severity::Info);
        assert_eq!(of_xid(137, &[]).0, Severity::Info);
        assert_eq!(of_xid(144, &[("action", "RESET_GPU"), ("fatal", "true")]).0, Severity::Fatal);
        assert_eq!(of_xid(74, &[]), (Severity::Fatal, ActionCode::DrainAndReset, Ageing::WhenWorkingADay));
    }

    #[test]
    fn a_kind_that_counts_when_it_repeats_is_graver_the_second_time() {
        let mut twice = event(KernelEventKind::Xid, 74, &[("register_class", "diagnose_if_repeated")]);
        twice.count = 2;
        assert_eq!(of(&twice).map(|judged| judged.severity), Some(Severity::Critical));
    }

    #[test]
    fn the_actions_of_the_catalogue_stand() {
        for (code, action) in [
            (167, ActionCode::DrainAndReboot),
            (173, ActionCode::DrainAndReboot),
            (168, ActionCode::DrainAndReboot),
            (151, ActionCode::DrainAndReboot),
            (78, ActionCode::UpdateSoftware),
            (109, ActionCode::DrainAndReset),
        ] {
            assert_eq!(of_xid(code, &[]).1, action, "{code}");
        }
        let cold = of(&event(KernelEventKind::Xid, 110, &[])).expect("a known code");
        assert!(cold.advice.contains("power-cycle"), "{}", cold.advice);
    }

    #[test]
    fn states_that_wait_for_a_reset_hold() {
        for code in [54, 156, 160, 161, 177, 185] {
            assert_eq!(of_xid(code, &[]).2, Ageing::Never, "{code}");
        }
        for code in [157, 164, 165] {
            assert_eq!(of_xid(code, &[]).2, Ageing::Permanent, "{code}");
        }
    }

    #[test]
    fn the_word_of_an_sxid_line_has_priority_over_its_row() {
        let of = |code, word: &str| {
            let words = [("nv_severity", word)];
            let words = if word.is_empty() { &words[..0] } else { &words[..] };
            of(&event(KernelEventKind::Sxid, code, words)).map(|judged| judged.severity)
        };
        assert_eq!(of(20034, ""), Some(Severity::Fatal));
        assert_eq!(of(20034, "Non-fatal"), Some(Severity::Info));
        assert_eq!(of(10001, "Fatal"), Some(Severity::Fatal));
        assert_eq!(of(10004, "Non-fatal"), Some(Severity::Critical), "overheating is critical, fatal or not");
        assert_eq!(of(11017, ""), Some(Severity::Critical));
        assert_eq!(of(99, ""), None);
        assert_eq!(of(31999, "Fatal"), Some(Severity::Fatal), "the word of the driver decides for an unknown code");
        assert_eq!(of(31999, "Non-fatal"), None);
    }
}
