//! `rows`, `list`: read the rows of a table in tab-separated text, or the lines of a list.
//! `word`, `parts`, `alternatives`, `unescaped`: parse a field of such a row.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

/// Returns the rows of a table, without its comment lines.
pub fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|row| !row.starts_with('#')).map(|row| row.split('\t').collect())
}

/// Returns the lines of a list, without its comment lines.
pub fn list(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// Returns the enum variant with this name.
pub fn word<T: Deserialize<'static>>(name: &'static str) -> Option<T> {
    T::deserialize(IntoDeserializer::<Error>::into_deserializer(name)).ok()
}

/// Splits `a + b` into its parts.
pub fn parts(words: &'static str) -> Vec<&'static str> {
    words.split(" + ").collect()
}

/// Splits `a + b | c` into its alternatives, each with its parts.
pub fn alternatives(words: &'static str) -> Vec<Vec<&'static str>> {
    words.split(" | ").map(parts).collect()
}

/// Replaces `\s` and `\n` with the characters that they represent.
pub fn unescaped(text: &str) -> String {
    text.replace("\\s", " ").replace("\\n", "\n")
}
