//! `FORMATS`: 27 log formats of a kernel line (kmsg, dmesg, syslog, journal), each with a function that formats a line.
//!
//! The time in the prefixes is 2025-02-23T16:24:18Z, 171.6 s after boot.

/// A log format: its name, and a function that formats a line. `at` is the position of the line, for sequence numbers.
pub(crate) type Format = (&'static str, fn(at: usize, text: &str) -> String);

fn after(prefix: &str, text: &str) -> String {
    format!("{prefix}{text}")
}

pub(crate) const FORMATS: [Format; 27] = [
    ("kmsg", |at, text| format!("3,{at},171620236,-;{text}")),
    ("kmsg with caller", |at, text| format!("3,{at},171620236,-,caller=T1946;{text}")),
    ("dmesg", |_, text| after("[  171.620236] ", text)),
    ("dmesg -t", |_, text| text.to_owned()),
    ("dmesg -x", |_, text| after("kern  :err   : [  171.620236] ", text)),
    ("dmesg -r", |_, text| after("<3>[  171.620236] ", text)),
    ("dmesg -d", |_, text| after("[  171.620236 <    0.000001>] ", text)),
    ("dmesg -H", |_, text| after("[Feb23 16:24] ", text)),
    ("dmesg -T", |_, text| after("[Sun Feb 23 16:24:18 2025] ", text)),
    ("dmesg --time-format=iso", |_, text| after("2025-02-23T16:24:18,123456+00:00 ", text)),
    ("dmesg with caller", |_, text| after("[  171.620236] [ T1946] ", text)),
    ("dmesg with CRLF", |_, text| format!("[  171.620236] {text}\r")),
    ("dmesg, no time", |_, text| after("[...] ", text)),
    ("syslog", |_, text| after("Feb 23 16:24:18 gpu-1 kernel: ", text)),
    ("syslog with uptime", |_, text| after("Feb 23 16:24:18 gpu-1 kernel: [  171.620236] ", text)),
    ("syslog with uptime and caller", |_, text| after("Feb 23 16:24:18 gpu-1 kernel: [  171.620236][ T1946] ", text)),
    ("syslog with facility", |_, text| after("Feb 23 16:24:18 gpu-1 kern.err kernel: ", text)),
    ("rsyslog", |_, text| after("2025-02-23T16:24:18.123456+00:00 gpu-1 kernel: ", text)),
    ("RFC 5424", |_, text| after("<3>1 2025-02-23T16:24:18.123456Z gpu-1 kernel - - - ", text)),
    ("RFC 5424 with data", |_, text| {
        after(
            "<3>1 2025-02-23T16:24:18.123456+01:00 gpu-1 kernel 0 ID47 [a@32473 b=\"x\\]y\"][c] [  171.620236] ",
            text,
        )
    }),
    ("RFC 5424 without priority", |_, text| after("1 2025-02-23T16:24:18Z gpu-1 kernel - - - ", text)),
    ("journal", |_, text| after("Feb 23 16:24:18.123456 gpu-1 kernel: ", text)),
    ("journal -o short-iso", |_, text| after("2025-02-23T16:24:18+0000 gpu-1 kernel: ", text)),
    ("journal -o short-full", |_, text| after("Sun 2025-02-23 16:24:18 UTC gpu-1 kernel: ", text)),
    ("journal -o short-monotonic", |_, text| after("[  171.620236] gpu-1 kernel: ", text)),
    ("journal -o short-unix", |_, text| after("1740327858.123456 gpu-1 kernel: ", text)),
    ("journal -o json", |_, text| {
        serde_json::json!({"__REALTIME_TIMESTAMP": "1740327858123456", "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0",
            "MESSAGE": text})
        .to_string()
    }),
];
