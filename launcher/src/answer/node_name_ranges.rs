//! `NodeNames`: the number of nodes, and their names in a short form (`node-[1,3-5]`). `host_list`: the names for
//! Slurm.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// The number and the names of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeNames {
    /// Number of nodes.
    pub count: usize,
    /// Names, with ranges of numbers as `[first-last]`; truncated with `…` if there are too many.
    pub names: String,
}

impl NodeNames {
    /// Formats `names` in at most `most_bytes` bytes.
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>, most_bytes: usize) -> Self {
        let mut count = 0;
        let mut families: BTreeMap<(&str, usize, &str), Vec<u64>> = BTreeMap::new();
        let mut ranges: Vec<String> = Vec::new();
        for name in names {
            count += 1;
            match split(name) {
                Some((start, digits, end, number)) => {
                    families.entry((start, digits, end)).or_default().push(number);
                }
                None => ranges.push(name.to_owned()),
            }
        }
        ranges.extend(families.into_iter().map(|((start, digits, end), numbers)| family(start, digits, end, numbers)));
        ranges.sort();
        Self { count, names: joined(&ranges, most_bytes) }
    }
}

/// Returns the names as entries of a Slurm host list, in which a range is allowed only at the end of a name.
pub(crate) fn host_list<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut families: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
    let mut ranges = Vec::new();
    for name in names {
        match split(name) {
            Some((start, digits, "", number)) => families.entry((start, digits)).or_default().push(number),
            _ => ranges.push(name.to_owned()),
        }
    }
    ranges.extend(families.into_iter().map(|((start, digits), numbers)| family(start, digits, "", numbers)));
    ranges.sort();
    ranges
}

/// Splits a name: `gpu-007.west` → `gpu-`, 3 digits, `.west`, 7. The number is the last number in the host name without its
/// domain. Numbers of the same length form one range, so that leading zeros are kept.
fn split(name: &str) -> Option<(&str, usize, &str, u64)> {
    let host = name.find('.').unwrap_or(name.len());
    let end = name[..host].rfind(|character: char| character.is_ascii_digit())? + 1;
    let start = name[..end].rfind(|character: char| !character.is_ascii_digit()).map_or(0, |at| at + 1);
    let digits = &name[start..end];
    Some((&name[..start], digits.len(), &name[end..], digits.parse().ok()?))
}

fn family(start: &str, width: usize, end: &str, mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    numbers.dedup();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    if let [(first, last)] = runs[..]
        && first == last
    {
        return format!("{start}{first:0width$}{end}");
    }
    let run = |(first, last): &(u64, u64)| match last - first {
        0 => format!("{first:0width$}"),
        _ => format!("{first:0width$}-{last:0width$}"),
    };
    format!("{start}[{}]{end}", runs.iter().map(run).collect::<Vec<_>>().join(","))
}

fn joined(ranges: &[String], most_bytes: usize) -> String {
    let mut text = ranges.join(" ");
    if text.len() > most_bytes {
        let end = (0..=most_bytes.saturating_sub(4)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = text[..end].rfind([' ', ',']).unwrap_or(end);
        text.truncate(end);
        text.push_str(" …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{NodeNames, host_list};

    fn names(names: &[&str]) -> String {
        NodeNames::of(names.iter().copied(), 60).names
    }

    #[test]
    fn consecutive_numbers_become_ranges() {
        assert_eq!(names(&["gpu-001", "gpu-003", "gpu-002", "gpu-007"]), "gpu-[001-003,007]");
        assert_eq!(names(&["gpu-1", "gpu-2", "b", "gpu-3"]), "b gpu-[1-3]");
        assert_eq!(names(&["ip-10-0-0-7.ec2", "ip-10-0-0-8.ec2"]), "ip-10-0-0-[7-8].ec2");
        assert_eq!(names(&["gpu-7"]), "gpu-7");
        assert_eq!(names(&["gpu-09", "gpu-10"]), "gpu-[09-10]");
    }

    #[test]
    fn a_host_list_has_ranges_at_the_end_of_names_only() {
        let names = ["gpu-010", "gpu-008", "gpu-009", "b2", "gpu-7.west", "gpu-8.west", "spare"];
        assert_eq!(host_list(names).join(","), "b2,gpu-7.west,gpu-8.west,gpu-[008-010],spare");
    }

    #[test]
    fn too_many_names_are_truncated_and_counted() {
        let many: Vec<String> = (0..50).map(|number| format!("node-{}", number * 2 + 100)).collect();
        let shortened = NodeNames::of(many.iter().map(String::as_str), 40);
        assert_eq!(shortened.count, 50);
        assert!(shortened.names.len() <= 40 && shortened.names.ends_with(" …"), "{}", shortened.names);
    }
}
