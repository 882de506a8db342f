//! Log lines with other text around them: colors, indents, quotes, file and node names, dates in other languages.
//!
//! Only lines in no known format are handled here. The text around a line is removed step by step, until a known format
//! or a driver frame remains. That format still decides who wrote the line: a tag other than `kernel` is that of a
//! program. Limits: a line with a month in an unknown language has no time.

use crate::kernel_log::date_words::date;
use crate::kernel_log::line_parser;
use crate::kernel_log::record::{Origin, Record};
use crate::kernel_log::syslog;

/// Maximum number of wrappers. `> 10.5.0.2: kern.log:123:` has four.
const MAX_WRAPPERS: usize = 6;

/// Parses one text line with any prefixes. A line without prefixes counts as one of the kernel, with `has_prefix`
/// false.
pub(super) fn parse(line: &str) -> Record<'_> {
    let record = syslog::unwrapped(line);
    let coloured = record.text.starts_with('\u{1b}');
    if !coloured && (record.has_prefix || line_parser::family(&record.text).is_some()) {
        return record;
    }
    unwrapped_line(line).unwrap_or(record)
}

/// Parses a line that is in no known format. `None`: it contains no known format either.
fn unwrapped_line(line: &str) -> Option<Record<'_>> {
    if line.contains('\u{1b}') {
        let plain = without_colours(line);
        let record = parse(&plain);
        return is_known(&record).then(|| owned(record));
    }
    let mut rest = line;
    for step in 0..MAX_WRAPPERS {
        if let Some(record) = dated(rest) {
            return Some(record);
        }
        let (inner, only_blanks) = unwrap(rest)?;
        let record = syslog::unwrapped(inner);
        // An indented line without a time continues the previous line, and keeps its indent.
        if record.has_prefix || (!(only_blanks && step == 0) && line_parser::family(&record.text).is_some()) {
            return Some(record);
        }
        rest = inner;
    }
    None
}

fn is_known(record: &Record<'_>) -> bool {
    record.has_prefix || line_parser::family(&record.text).is_some()
}

fn owned(record: Record<'_>) -> Record<'static> {
    Record {
        text: record.text.into_owned().into(),
        hostname: record.hostname.map(|name| name.into_owned().into()),
        boot_id: record.boot_id.map(|id| id.into_owned().into()),
        flags: None,
        caller: None,
        origin: record.origin,
        facility: record.facility,
        level: record.level,
        seq: record.seq,
        uptime_us: record.uptime_us,
        delta_us: record.delta_us,
        wall: record.wall,
        has_prefix: record.has_prefix,
    }
}

/// Without terminal control sequences (`ESC [ … letter`).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = match after.strip_prefix('[') {
            Some(sequence) => {
                let end = sequence.find(|end: char| !(end.is_ascii_digit() || matches!(end, ';' | '?' | ':')));
                end.and_then(|at| sequence.get(at..)).map(|from| from.get(1..).unwrap_or("")).unwrap_or("")
            }
            None => after,
        };
    }
    plain.push_str(rest);
    plain
}

/// Returns the text inside of the outermost wrapper, and whether the wrapper was only blanks.
fn unwrap(line: &str) -> Option<(&str, bool)> {
    let trimmed = line.trim_start_matches([' ', '\t']);
    if trimmed.len() < line.len() {
        return Some((trimmed, true));
    }
    if let Some(rest) = line.strip_prefix(['>', '|', '`', '\u{feff}']) {
        return Some((rest, false));
    }
    if let Some((inside, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return is_name(inside).then(|| (rest.trim_start_matches([':', ' ']), false));
    }
    // `fd00::1: kern: …`: a name can contain colons, but a time has digits after a colon.
    let (word, after) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if let Some(name) = word.strip_suffix(':')
        && is_name(name)
    {
        return Some((after, false));
    }
    if is_name(word)
        && let Some(rest) = after.trim_start().strip_prefix("| ")
    {
        return Some((rest, false));
    }
    // `kern.log:Feb 23 …`, and `kern.log-Feb 23 …` around a match.
    let at = word.find(':').or_else(|| word.rfind('-').filter(|_| word.contains(['.', '/'])))?;
    let (name, rest) = (line.get(..at)?, line.get(at + 1..)?);
    is_name(name).then_some((rest, false))
}

/// Returns whether the text is a host, a file, an address or a line number. A tag with a process id in brackets is none
/// of them.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/@:".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(plain)
}

/// `févr. 23 16:24:18 gpu-1 kernel: …`, `2025-02-23 16:24:18 …`: a date in words of any language, then host and tag.
fn dated(line: &str) -> Option<Record<'_>> {
    let (wall, rest) = date(line)?;
    let mut record = Record { wall, has_prefix: true, ..Record::bare("") };
    let rest = syslog::tagged(rest, &mut record);
    record.text = syslog::brackets(rest, &mut record).into();
    if record.facility.is_some_and(|facility| facility != 0) {
        record.origin = Origin::Program;
    }
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-02-23T16:24:18Z.
    const WALL: i64 = 1_740_327_858_000_000;

    fn at(line: &str) -> Option<i64> {
        let record = unwrapped_line(line).unwrap_or_else(|| panic!("no record: {line}"));
        assert_eq!((&*record.text, record.origin), ("NVRM: x", Origin::Kernel), "{line}");
        record.wall.and_then(|wall| wall.microseconds(Some(WALL)))
    }

    #[test]
    fn dates_of_other_languages_are_dates() {
        for date in [
            "févr. 23",
            "23 févr.",
            "Feb. 23",
            "фев 23",
            "2月 23",
            "2월 23",
            "şub 23",
            "lut 23",
            "helmi 23",
            "fev 23",
            "2025-02-23",
            "Feb 23 2025",
        ] {
            assert_eq!(at(&format!("{date} 16:24:18 gpu-1 kernel: NVRM: x")), Some(WALL), "{date}");
        }
        assert_eq!(at("жов 23 16:24:18 gpu-1 kernel: NVRM: x"), None, "a language that is not listed has no time");
    }

    #[test]
    fn a_program_stays_a_program_whatever_is_around_it() {
        for line in [
            "févr. 23 16:24:18 gpu-1 evil[1]: NVRM: x",
            "kern.log:Feb 23 16:24:18 gpu-1 evil: NVRM: x",
            "> 10.5.0.2: user: warning: [2025-02-23T16:24:18Z]: NVRM: x",
            "\u{1b}[32mFeb 23 16:24:18 gpu-1 evil[1]:\u{1b}[0m NVRM: x",
        ] {
            assert_eq!(unwrapped_line(line).map(|record| record.origin), Some(Origin::Program), "{line}");
        }
        assert!(unwrapped_line("evil[12]: NVRM: x").is_none(), "a process id is no node");
    }

    #[test]
    fn an_indented_line_without_a_time_keeps_its_indent() {
        assert!(unwrapped_line("      NVRM: (PCI ID: 10de:26b5) installed in this system has").is_none());
        assert!(
            unwrapped_line("    [  171.620236] NVRM: x").is_some_and(|record| record.uptime_us == Some(171_620_236))
        );
    }
}
