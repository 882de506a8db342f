//! `LabelSelector`: a label selector as text, checked before it is sent. `parse` returns its requirements
//! (`Requirement`).

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use kube::core::Expression;
use serde::{Deserialize, Serialize};

use crate::objects::name_validation::is_subdomain;

/// Maximum length of the name in a label key, and of a label value.
const MAX_NAME: usize = 63;

/// A label selector that the API server accepts, as in `kubectl -l`: `pool=gpu,zone in (a, b),!spot`. The empty text
/// selects every object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelSelector(String);

impl FromStr for LabelSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.trim().is_empty() {
            parse(text)?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for LabelSelector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LabelSelector> for String {
    fn from(selector: LabelSelector) -> Self {
        selector.0
    }
}

impl Deref for LabelSelector {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq)]
pub enum Requirement {
    /// A requirement that this program can evaluate.
    Expression(Expression),
    /// A comparison of numbers, which only the API server evaluates: `key>1`.
    Comparison(String),
}

/// Parses a selector with the rules of Kubernetes.
///
/// # Errors
/// The error contains the part of the selector that is not valid.
pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    parts(text).map(|part| requirement(part.trim())).collect()
}

/// Splits at commas outside of parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let wrong = || {
        format!(
            "'{text}' is not a requirement; use NAME, !NAME, NAME=VALUE, NAME!=VALUE, NAME in (A, B) or NAME notin (A, B)"
        )
    };
    let words = tokens(text);
    let expression = match words.as_slice() {
        [name] => Expression::Exists(key(name)?),
        ["!", name] => Expression::DoesNotExist(key(name)?),
        [name, "=" | "==", given @ ..] if given.len() < 2 => Expression::Equal(key(name)?, one_value(given)?),
        [name, "!=", given @ ..] if given.len() < 2 => Expression::NotEqual(key(name)?, one_value(given)?),
        [name, operator @ ("in" | "notin"), "(", given @ .., ")"] if !given.is_empty() => {
            let key = key(name)?;
            let lists = given.split(|word| *word == ",");
            let values = lists.map(|list| if list.len() < 2 { one_value(list) } else { Err(wrong()) });
            let values = values.collect::<Result<_, _>>()?;
            if *operator == "in" { Expression::In(key, values) } else { Expression::NotIn(key, values) }
        }
        [name, ">" | "<", number] => {
            key(name)?;
            number.parse::<i64>().map_err(|_| format!("'{number}' is not a number"))?;
            return Ok(Requirement::Comparison(text.to_owned()));
        }
        _ => return Err(wrong()),
    };
    Ok(Requirement::Expression(expression))
}

/// Splits a requirement into its words and operators.
fn tokens(text: &str) -> Vec<&str> {
    let is_operator = |character: char| "=!(),<>".contains(character);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            _ if rest.starts_with("==") || rest.starts_with("!=") => 2,
            _ if is_operator(first) => 1,
            _ => rest.find(|next: char| is_operator(next) || next.is_whitespace()).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// Checks a label key: `[prefix/]name`.
fn key(text: &str) -> Result<String, String> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_key = prefix.is_none_or(is_subdomain) && !name.is_empty() && is_name(name);
    if is_key { Ok(text.to_owned()) } else { Err(format!("'{text}' is not a label key")) }
}

/// Returns the value, or the empty value if there is no word.
fn one_value(words: &[&str]) -> Result<String, String> {
    let text = words.first().copied().unwrap_or_default();
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("'{text}' is not a label value")) }
}

/// Returns whether the text is empty, or has the form of a label value.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME && text.bytes().all(is_plain) && is_edge(bytes.first()) && is_edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_of_kubectl_is_accepted() {
        for text in [
            "",
            " ",
            "a",
            "!a",
            "! a",
            "a=b",
            "a==b",
            "a = b",
            "a!=b",
            "a=",
            "a==",
            "a!=",
            "a in (b)",
            "a in(b,c)",
            "a  notin ( b , c )",
            "a in (b,)",
            "in in (in)",
            "gpus>4",
            "gpus < 8",
            "nvidia.com/gpu.present=true,kubernetes.io/hostname in (gpu-1, gpu-2),!spot",
        ] {
            assert_eq!(text.parse::<LabelSelector>().map(String::from), Ok(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_wrong_part_of_a_selector_is_named() {
        let long = "a".repeat(64);
        for (text, wrong) in [
            ("a=b,c in (", "'c in ('"),
            ("!!x", "'!!x'"),
            ("a=b,,c", "''"),
            ("a=b,", "''"),
            ("a b", "'a b'"),
            ("a in ()", "'a in ()'"),
            ("a in (b c)", "'a in (b c)'"),
            ("a in b", "'a in b'"),
            ("=b", "'=b'"),
            ("a=b=c", "'a=b=c'"),
            ("a===b", "'a===b'"),
            ("a>b", "'b' is not a number"),
            ("-a=b", "'-a' is not a label key"),
            ("a/b/c", "'a/b/c' is not a label key"),
            ("a=-b", "'-b' is not a label value"),
            ("a=b/c", "'b/c' is not a label value"),
            ("a=\u{e4}", "is not a label value"),
            (&format!("a={long}"), "is not a label value"),
            (")", "')'"),
        ] {
            let why = text.parse::<LabelSelector>().expect_err(text);
            assert!(why.contains(wrong), "{text}: {why}");
        }
    }
}
