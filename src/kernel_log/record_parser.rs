//! `parse_line`: parses one line of a kernel log, in any format. `parse_kmsg`: parses one record of `/dev/kmsg`.

use crate::kernel_log::record::{Origin, Record};
use crate::kernel_log::{journal, scan, syslog};

/// Parses one line in any format.
pub fn parse_line(line: &str) -> Option<Record<'_>> {
    let line = line.trim_end_matches(['\n', '\r', '\0']);
    match line.bytes().next()? {
        b'{' if line.starts_with("{\"") || line.starts_with("{ ") => journal::parse(line),
        b'0'..=b'9' => parse_kmsg(line).or_else(|| Some(syslog::parse(line))),
        _ => Some(syslog::parse(line)),
    }
}

/// Parses one `/dev/kmsg` record: `prio,seq,usec,flags[,more];TEXT`, without its ` KEY=value` lines.
///
/// Returns `None` if the record does not have this form.
pub fn parse_kmsg(record: &str) -> Option<Record<'_>> {
    let (priority, rest) = scan::decimal(record)?;
    let (seq, rest) = scan::decimal(rest.strip_prefix(',')?)?;
    let (uptime, rest) = scan::decimal(rest.strip_prefix(',')?)?;
    let (flags, text) = rest.strip_prefix(',')?.split_once(';')?;
    let text = memchr::memchr(b'\n', text.as_bytes()).and_then(|end| text.get(..end)).unwrap_or(text);
    let mut fields = flags.split(',');
    let flags = fields.next()?;
    let facility = u8::try_from(priority >> 3).unwrap_or(u8::MAX);
    Some(Record {
        origin: if facility == 0 { Origin::Kernel } else { Origin::Program },
        facility: Some(facility),
        level: u8::try_from(priority & 7).ok(),
        seq: Some(seq),
        uptime_us: Some(uptime),
        flags: Some(flags),
        caller: fields.find_map(|field| field.strip_prefix("caller=")),
        has_prefix: true,
        ..Record::bare(text)
    })
}

#[cfg(test)]
#[path = "record_parser_tests.rs"]
mod tests;
