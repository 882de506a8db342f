//! `hash`, `uuid`, `serial`: create fictitious identities. `ago`, `days`, `hours` and others: times relative to
//! `TAKEN_AT`, the time of the report.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// The time of every report: 2026-11-21T02:45:10Z.
pub(crate) const TAKEN_AT: Timestamp = Timestamp::constant(1_795_229_110, 0);

/// Returns a hash of the words in hexadecimal. The hash is the same in every run, and different words have different
/// hashes.
pub(crate) fn hash(words: &[&str]) -> String {
    Sha256::digest(words.join("/")).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns a UUID that consists of the hash of the words.
pub(crate) fn uuid(words: &[&str]) -> String {
    let hash = hash(&[&["uuid"], words].concat());
    format!("{}-{}-4{}-a{}-{}", &hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32])
}

/// Returns the serial number of a board.
pub(crate) fn serial(node: &str, board: u32) -> String {
    let hash = hash(&["serial", node, &board.to_string()]);
    let digits = u64::from_str_radix(&hash[..12], 16).expect("hexadecimal digits").to_string();
    format!("16{:7>11}", &digits[digits.len().saturating_sub(11)..])
}

/// Returns the time that is `age` before the report.
pub(crate) fn ago(age: SignedDuration) -> Timestamp {
    TAKEN_AT - age
}

pub(crate) fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

pub(crate) fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

pub(crate) fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

pub(crate) fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

/// Returns the value of an optional text field.
pub(crate) fn text(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}
