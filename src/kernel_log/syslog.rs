//! `parse`: parses a line of a text log, with the prefix that `dmesg`, `journalctl` or a syslog daemon prints.
//!
//! `dmesg` shows the kernel buffer, so its lines are from the kernel. A syslog line contains the name of its writer, and
//! only `kernel:` is trusted. Limits: classic syslog does not protect that name (`logger -t kernel` can use it), so a text
//! log is weaker evidence than the kernel buffer or the journal.

use crate::kernel_log::log_time;
use crate::kernel_log::log_time::WallTime;
use crate::kernel_log::record::{Origin, Record};
use crate::kernel_log::scan::{decimal, split_at_byte};
use crate::kernel_log::{line, line_parser};

/// Facility names of `dmesg -x` and busybox. The index in this list is the number of the facility.
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// Parses one text line. A line without a prefix counts as a kernel line, with `has_prefix` set to `false`.
pub(super) fn parse(line: &str) -> Record<'_> {
    let mut record = Record::bare("");
    let rest = priority(line, &mut record);
    if let Some((program, rest)) = rfc5424(rest, &mut record) {
        let rest = brackets(rest, &mut record);
        // In this line, the driver's name is at the position of the tag. The name is needed to recognize the error.
        record.text = if record.origin == Origin::Unclear { format!("{program}: {rest}").into() } else { rest.into() };
        if record.facility.is_some_and(|facility| facility != 0) {
            record.origin = Origin::Program;
        }
        return record;
    }
    let rest = decoded(rest, &mut record);
    let rest = brackets(rest, &mut record);
    let rest = match calendar(rest) {
        Some((wall, has_tag, rest)) => {
            record.wall = Some(wall);
            record.has_prefix = true;
            if has_tag { tagged(rest, &mut record) } else { rest }
        }
        None => monotonic_tag(rest).unwrap_or(rest),
    };
    let rest = rest.strip_prefix("kernel: ").unwrap_or(rest);
    let rest = if record.uptime_us.is_none() { brackets(rest, &mut record) } else { rest };
    if record.facility.is_some_and(|facility| facility != 0) {
        record.origin = Origin::Program;
    }
    record.text = rest.into();
    record
}

/// Parses `<3>`: facility times eight plus level.
fn priority<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let Some((number, rest)) = line.strip_prefix('<').and_then(decimal) else { return line };
    let (Some(rest), Ok(number)) = (rest.strip_prefix('>'), u8::try_from(number)) else { return line };
    record.facility = Some(number >> 3);
    record.level = Some(number & 7);
    record.has_prefix = true;
    rest
}

/// Parses `1 TIME HOST kernel PROCID MSGID STRUCTURED-DATA TEXT` (RFC 5424) after the priority. Returns program and text.
fn rfc5424<'a>(line: &'a str, record: &mut Record<'a>) -> Option<(&'a str, &'a str)> {
    let log_time::Iso { wall, rest, .. } = log_time::iso(line.strip_prefix("1 ")?)?;
    let mut words = rest.splitn(5, ' ');
    let (host, program, _, _) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let rest = structured_data(words.next()?)?;
    record.wall = Some(wall);
    record.has_prefix = true;
    record.hostname = (host != "-").then(|| host.into());
    if program != "kernel" {
        record.origin = if is_driver(program) { Origin::Unclear } else { Origin::Program };
    }
    Some((program, rest.strip_prefix(' ').unwrap_or(rest).trim_start_matches('\u{feff}')))
}

/// Returns the text after `-` or `[…][…]`. A `]` in a value is escaped.
fn structured_data(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some(rest);
    }
    let (mut depth, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' if !depth => depth = true,
            b']' if depth => depth = false,
            _ if !depth => return text.get(at..),
            _ => {}
        }
    }
    None
}

/// Parses `kern  :err   : ` of `dmesg -x`.
fn decoded<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    if !line.starts_with(|first: char| first.is_ascii_lowercase()) {
        return line;
    }
    let mut parts = line.splitn(3, ':');
    let (Some(facility), Some(level), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return line };
    let place = |names: &[&str], name: &str| names.iter().position(|&known| known == name.trim());
    let (Some(facility), Some(level)) = (place(&FACILITIES, facility), place(&LEVELS, level)) else { return line };
    record.facility = u8::try_from(facility).ok();
    record.level = u8::try_from(level).ok();
    record.has_prefix = true;
    rest.strip_prefix(' ').unwrap_or(rest)
}

/// Parses any number of `[…]` that contain a time, a thread or a CPU.
fn brackets<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let mut rest = line;
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| split_at_byte(rest, b']')) {
        if !bracket(inside, record) {
            break;
        }
        record.has_prefix = true;
        rest = after.trim_start_matches(' ');
    }
    rest
}

fn bracket<'a>(inside: &'a str, record: &mut Record<'a>) -> bool {
    // `dmesg -d` prints `[  171.620236 <    0.000001>]`. The first number is the time.
    let before_delta = || inside.split_once('<').map_or(inside, |(time, _)| time);
    if let Some(uptime) = log_time::uptime(inside).or_else(|| log_time::uptime(before_delta())) {
        record.uptime_us = Some(uptime);
        return true;
    }
    let trimmed = inside.trim_start();
    if let Some(delta) = trimmed.strip_prefix('+').and_then(log_time::uptime) {
        record.delta_us = Some(delta);
        return true;
    }
    if let Some(wall) = log_time::ctime(trimmed) {
        record.wall = Some(wall);
        return true;
    }
    if trimmed.starts_with(|digit: char| digit.is_ascii_digit())
        && let Some(iso) = log_time::iso(trimmed).filter(|iso| iso.rest.is_empty())
    {
        record.wall = Some(iso.wall);
        return true;
    }
    if trimmed.strip_prefix(['T', 'C']).is_some_and(|number| number.starts_with(|digit: char| digit.is_ascii_digit())) {
        record.caller = Some(trimmed.trim_end());
        return true;
    }
    // The brackets are empty: the time was removed from a quoted line, or `dmesg` printed an empty delta.
    trimmed == "..." || before_delta().trim().is_empty()
}

/// Parses a calendar time at the start of the line. Returns the time, whether a host and a tag follow, and the rest.
fn calendar(line: &str) -> Option<(WallTime, bool, &str)> {
    match line.bytes().next()? {
        b'0'..=b'9' => log_time::iso(line)
            .map(|iso| (iso.wall, !iso.comma, iso.rest))
            .or_else(|| log_time::unix(line).map(|(wall, rest)| (wall, true, rest))),
        b'A'..=b'Z' => {
            log_time::syslog(line).or_else(|| log_time::short_full(line)).map(|(wall, rest)| (wall, true, rest))
        }
        _ => None,
    }
}

/// Parses `host kernel: text`, `host kern.err kernel: text`, `kernel: text`. Any other tag is the tag of a program.
///
/// If there is no tag, or a driver frame or an uptime instead of a tag, the line can be from the kernel or a program.
fn tagged<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let mut rest = line;
    for place in 0..3 {
        if let Some(text) = untagged(rest, record) {
            record.origin = Origin::Unclear;
            return text;
        }
        let Some((token, after)) = split_at_byte(rest, b' ') else { break };
        if let Some(tag) = token.strip_suffix(':') {
            if tag == "kernel" {
                return after.trim_start_matches(' ');
            }
            // JSON labels of a log system are not a tag.
            if tag.starts_with('{') || tag.starts_with('"') {
                break;
            }
            // Format of VMware ESXi: `cpu12:2097789)NVRM: …`.
            if let Some((_, "NVRM")) = tag.rsplit_once(')') {
                record.origin = Origin::Unclear;
                return rest.get(tag.len() - "NVRM".len()..).unwrap_or(rest);
            }
            record.origin = if tag.starts_with("kernel[") { Origin::Unclear } else { Origin::Program };
            return if is_driver(tag) { rest } else { after.trim_start_matches(' ') };
        }
        match token.split_once('.') {
            Some((facility, _)) if place > 0 && FACILITIES.contains(&facility) => {
                record.facility = FACILITIES.iter().position(|&known| known == facility).map(|at| at as u8);
            }
            _ if place == 0 => record.hostname = Some(token.into()),
            _ => break,
        }
        rest = after;
    }
    record.origin = Origin::Unclear;
    rest
}

/// Returns whether a tag is the name of a driver. The name is needed to recognize the error.
fn is_driver(tag: &str) -> bool {
    tag.starts_with("NVRM") || tag.starts_with("nvidia-nvswitch")
}

/// Returns the text if there is no tag, but the time since boot, a driver frame, or the name of a container's output
/// stream.
fn untagged<'a>(text: &'a str, record: &mut Record<'a>) -> Option<&'a str> {
    match text.bytes().next()? {
        b'[' => {
            let (inside, _) = text.get(1..)?.split_once(']')?;
            log_time::uptime(inside)?;
            Some(brackets(text, record))
        }
        b's' => {
            let streams = ["stdout F ", "stderr F ", "stdout P ", "stderr P "];
            let rest = streams.iter().find_map(|stream| text.strip_prefix(stream))?;
            Some(brackets(rest, record))
        }
        b'N' => (text.starts_with("NVRM:") || text.starts_with("NVRM ")).then_some(text),
        b'n' | b'p' => {
            let (word, rest) = text.split_once(' ')?;
            // The host name can be `nvidia`.
            let named = word.ends_with(':') || line::leading_address(rest).is_some();
            (named && line_parser::family(text).is_some()).then_some(text)
        }
        _ => None,
    }
}

/// Parses `host kernel: text` after a bracket (`journalctl -o short-monotonic`).
fn monotonic_tag(line: &str) -> Option<&str> {
    let (_, rest) = split_at_byte(line, b' ')?;
    rest.strip_prefix("kernel: ")
}
