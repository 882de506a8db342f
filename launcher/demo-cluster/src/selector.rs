//! `Labels`, `Fields`: parse label and field selectors, and match objects.
//!
//! Label selectors: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`, `a>1`, `a<1`. Field selectors:
//! `a=b`, `a==b`, `a!=b`.

use std::collections::BTreeMap;

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// A label whose value is a number above this one.
    Above(String, i64),
    /// A label whose value is a number below this one.
    Below(String, i64),
}

/// A parsed `labelSelector`: all requirements must be met. An empty selector selects every object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Labels(Vec<Requirement>);

/// A parsed `fieldSelector` with entries `(field, value, equal)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields(Vec<(String, String, bool)>);

impl Labels {
    /// Parses a selector. The error is the message of the 400 response.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        split(text).into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether every object is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an object with these labels is selected. `notin` and `!=` also select objects without the label.
    pub(crate) fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| labels.and_then(|labels| labels.get(key));
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Absent(key) => value(key).is_none(),
            Requirement::Above(key, bound) => number(value(key)).is_some_and(|number| number > *bound),
            Requirement::Below(key, bound) => number(value(key)).is_some_and(|number| number < *bound),
        })
    }
}

fn number(value: Option<&String>) -> Option<i64> {
    value?.parse().ok()
}

impl Fields {
    /// Parses a selector that may use only the fields in `known`. The error is the message of the 400 response.
    pub(crate) fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut fields = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (field, value, equal) =
                comparison(part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            if !known.contains(&field) {
                return Err(format!("field label not supported: {field}"));
            }
            fields.push((field.to_owned(), value.to_owned(), equal));
        }
        Ok(Self(fields))
    }

    /// Returns whether every object is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an object is selected. `read` returns the fields of the object.
    pub(crate) fn matches<'a>(&self, read: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|(field, value, equal)| (read(field) == value) == *equal)
    }

    /// Returns the value that `field` must have, if the selector requires a value.
    pub(crate) fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, _, equal)| *equal && name == field).map(|(_, value, _)| value.as_str())
    }
}

/// Parses `a!=b`, `a==b` or `a=b`.
fn comparison(part: &str) -> Option<(&str, &str, bool)> {
    let (key, value, equal) = if let Some((key, value)) = part.split_once("!=") {
        (key, value, false)
    } else if let Some((key, value)) = part.split_once("==") {
        (key, value, true)
    } else {
        let (key, value) = part.split_once('=')?;
        (key, value, true)
    };
    Some((key.trim(), value.trim(), equal))
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some((key, value, equal)) = comparison(part) {
        let values = vec![value.to_owned()];
        let key = key.to_owned();
        return Ok(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
    }
    if let Some((head, set)) = part.split_once('(') {
        let values = set.trim_end().trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => Ok(Requirement::In(key.to_owned(), values)),
            [key, "notin"] => Ok(Requirement::NotIn(key.to_owned(), values)),
            _ => Err(format!("unable to parse requirement: found '{part}', expected: in, notin")),
        };
    }
    for (mark, compare) in [('>', Requirement::Above as fn(String, i64) -> Requirement), ('<', Requirement::Below)] {
        if let Some((key, bound)) = part.split_once(mark) {
            let bound = bound.trim().parse();
            let bound = bound.map_err(|_| format!("unable to parse requirement: '{part}' compares with no number"))?;
            return Ok(compare(key.trim().to_owned(), bound));
        }
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key.trim().to_owned())),
        None if part.contains(char::is_whitespace) => Err(format!("unable to parse requirement: found '{part}'")),
        None => Ok(Requirement::Exists(part.to_owned())),
    }
}

/// Splits the text at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str) -> bool {
        let labels = [("app", "probe"), ("gpu", "h100"), ("memory", "81559")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Labels::parse(selector).expect("a valid selector").matches(Some(&labels))
    }

    #[test]
    fn every_form_of_a_label_requirement_is_parsed() {
        for yes in [
            "",
            "app=probe",
            "app==probe,gpu",
            "gpu in (a100, h100)",
            "x notin (y)",
            "!x",
            "x!=y",
            "app,!x",
            "memory>40000",
            "memory<90000,gpu",
        ] {
            assert!(selects(yes), "{yes}");
        }
        for no in [
            "app=x",
            "app!=probe",
            "gpu in (a100)",
            "gpu notin (h100,x)",
            "!app",
            "x",
            "app=probe,x",
            "memory>81559",
            "memory<1",
            "x>1",
            "gpu>1",
        ] {
            assert!(!selects(no), "{no}");
        }
        assert!(Labels::parse("app between (a,b)").is_err() && Labels::parse("memory>big").is_err());
    }

    #[test]
    fn a_field_that_the_kind_does_not_have_is_refused() {
        let known = ["metadata.name", "status.phase"];
        assert!(Fields::parse("spec.image=x", &known).is_err());
        let fields = Fields::parse("status.phase!=Running,metadata.name=a", &known).expect("a valid selector");
        assert_eq!(fields.required("metadata.name"), Some("a"));
        assert_eq!(fields.required("status.phase"), None);
        assert!(fields.matches(|field| if field == "metadata.name" { "a" } else { "Failed" }));
        assert!(!fields.matches(|field| if field == "metadata.name" { "a" } else { "Running" }));
    }
}
