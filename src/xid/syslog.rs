//! The prefixes of text logs: what `dmesg`, `journalctl` and syslog daemons put before the kernel's own words.
//!
//! `dmesg` shows the kernel's buffer: its lines are the kernel's. A syslog line says who wrote it, and only `kernel:`
//! is believed. Limits: classic syslog does not protect that name (`logger -t kernel` writes it as well), so a text log
//! is weaker evidence than the kernel's buffer or the journal.

use super::record::{Origin, Record};
use super::scan::decimal;
use super::stamp::{self, Wall};

/// Facility names as `dmesg -x` and busybox print them; their place is their number.
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// Reads one text line, whatever its prefixes. A line without any is the kernel's word, with `stamped` false.
pub(super) fn parse(line: &str) -> Record<'_> {
    let mut record = Record::bare("");
    let rest = priority(line, &mut record);
    let rest = decoded(rest, &mut record);
    let rest = brackets(rest, &mut record);
    let rest = match calendar(rest) {
        Some((wall, tagged, rest)) => {
            record.wall = Some(wall);
            record.stamped = true;
            if tagged { tag(rest, &mut record) } else { rest }
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

/// `<3>`: facility times eight plus level.
fn priority<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let Some((number, rest)) = line.strip_prefix('<').and_then(decimal) else { return line };
    let (Some(rest), Ok(number)) = (rest.strip_prefix('>'), u8::try_from(number)) else { return line };
    record.facility = Some(number >> 3);
    record.level = Some(number & 7);
    record.stamped = true;
    rest
}

/// `kern  :err   : ` of `dmesg -x`.
fn decoded<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    if !line.starts_with(|first: char| first.is_ascii_lowercase()) {
        return line;
    }
    let mut parts = line.splitn(3, ':');
    let (Some(facility), Some(level), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return line };
    let place = |names: &[&str], name: &str| names.iter().position(|&known| known == name.trim_end());
    let (Some(facility), Some(level)) = (place(&FACILITIES, facility), place(&LEVELS, level)) else { return line };
    record.facility = u8::try_from(facility).ok();
    record.level = u8::try_from(level).ok();
    record.stamped = true;
    rest.strip_prefix(' ').unwrap_or(rest)
}

/// Any number of `[…]` that hold a time, a thread or a CPU.
fn brackets<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let mut rest = line;
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if !bracket(inside, record) {
            break;
        }
        record.stamped = true;
        rest = after.trim_start_matches(' ');
    }
    rest
}

fn bracket<'a>(inside: &'a str, record: &mut Record<'a>) -> bool {
    // `dmesg -d`: `[  171.620236 <    0.000001>]`; its first number is the time.
    let (time, _) = inside.split_once('<').unwrap_or((inside, ""));
    if let Some(uptime) = stamp::uptime(time) {
        record.uptime_us = Some(uptime);
        return true;
    }
    let trimmed = inside.trim_start();
    if let Some(delta) = trimmed.strip_prefix('+').and_then(stamp::uptime) {
        record.delta_us = Some(delta);
        return true;
    }
    if let Some(wall) = stamp::ctime(trimmed) {
        record.wall = Some(wall);
        return true;
    }
    if trimmed.strip_prefix(['T', 'C']).is_some_and(|number| number.starts_with(|digit: char| digit.is_ascii_digit())) {
        record.caller = Some(trimmed.trim_end());
        return true;
    }
    // Where somebody left the time out of a quoted line, or `dmesg` had only a delta of nothing.
    trimmed == "..." || time.trim().is_empty()
}

/// A calendar time at the start of the line; whether a host and a tag follow it; the rest.
fn calendar(line: &str) -> Option<(Wall, bool, &str)> {
    match line.bytes().next()? {
        b'0'..=b'9' => stamp::iso(line)
            .map(|iso| (iso.wall, !iso.comma, iso.rest))
            .or_else(|| stamp::unix(line).map(|(wall, rest)| (wall, true, rest))),
        b'A'..=b'Z' => stamp::syslog(line).or_else(|| stamp::short_full(line)).map(|(wall, rest)| (wall, true, rest)),
        _ => None,
    }
}

/// `host kernel: text`, `host kern.err kernel: text`, `kernel: text`. Whatever else stands there was no kernel.
fn tag<'a>(line: &'a str, record: &mut Record<'a>) -> &'a str {
    let mut rest = line;
    for place in 0..3 {
        let Some((token, after)) = rest.split_once(' ') else { break };
        if let Some(tag) = token.strip_suffix(':') {
            if tag != "kernel" {
                record.origin = Origin::Program;
            }
            return after.trim_start_matches(' ');
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
    record.origin = Origin::Program;
    rest
}

/// `host kernel: text` after a bracket (`journalctl -o short-monotonic`).
fn monotonic_tag(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    rest.strip_prefix("kernel: ")
}
