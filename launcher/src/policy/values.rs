//! `Values`: the values (`IMAGE`, `PULL_SECRETS`) that an administrator sets in the policy gpu-syringe-probe-only.
//! Each value is the expression of a variable: a text or a list of texts in JSON, which is also a literal of CEL.

use std::collections::BTreeMap;

use serde_json::Value;

/// Name of the variable with the image.
pub(crate) const IMAGE: &str = "image";
/// Name of the variable with the pull secrets.
pub(crate) const PULL_SECRETS: &str = "pullSecrets";
/// The variables with one text.
const TEXTS: [&str; 3] = [IMAGE, "runtimeClass", "priorityClass"];
/// The variables with a list of texts.
const LISTS: [&str; 3] = [PULL_SECRETS, "moreLabels", "moreAnnotations"];

/// The values, by variable name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<&'static str, Value>);

impl Default for Values {
    fn default() -> Self {
        let texts = TEXTS.into_iter().map(|name| (name, Value::from("")));
        Self(texts.chain(LISTS.into_iter().map(|name| (name, Value::Array(Vec::new())))).collect())
    }
}

impl Values {
    /// Returns these values with a new value for one variable.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// Returns the values in the spec of a policy. A variable that is absent, or that is not a literal, has no value.
    pub(crate) fn of_policy(spec: &Value) -> Self {
        let variables = spec["variables"].as_array().into_iter().flatten();
        let literal = |one: &Value| Some((one["name"].as_str()?.to_owned(), literal(one["expression"].as_str()?)?));
        let found: BTreeMap<_, _> = variables.filter_map(literal).collect();
        let Self(mut values) = Self::default();
        for (name, value) in &mut values {
            if let Some(found) = found.get(*name).filter(|found| found.is_array() == value.is_array()) {
                *value = found.clone();
            }
        }
        Self(values)
    }

    /// Returns the image, or an empty text if no image is set.
    pub(crate) fn image(&self) -> &str {
        self.0.get(IMAGE).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the names of the pull secrets that a probe pod may have.
    pub(crate) fn pull_secrets(&self) -> Vec<String> {
        let names = self.0.get(PULL_SECRETS).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// Sets each missing value to the value in `other`.
    pub(crate) fn or(mut self, other: &Self) -> Self {
        for (name, value) in &mut self.0 {
            let is_unset = value.as_str().map_or_else(|| value.as_array().is_some_and(Vec::is_empty), str::is_empty);
            if let Some(other) = other.0.get(name).filter(|_| is_unset) {
                *value = other.clone();
            }
        }
        self
    }

    /// Returns the variables with their expressions.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.0.iter().map(|(name, value)| (*name, value.to_string()))
    }
}

/// Returns the text or list of texts of a literal expression; `None` for any other expression.
fn literal(expression: &str) -> Option<Value> {
    let expression = expression.trim();
    // A person may have written the literal with single quotes.
    let is_simple = !expression.contains(['"', '\\']);
    let parsed = if is_simple {
        serde_json::from_str::<Value>(&expression.replace('\'', "\""))
    } else {
        serde_json::from_str(expression)
    };
    parsed.ok().filter(|value| match value {
        Value::String(_) => true,
        Value::Array(all) => all.iter().all(Value::is_string),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_back_from_the_variables() {
        let values = Values::default().with(IMAGE, "r.test/x").with("moreLabels", vec!["a\"b", "c'd", "é\n"]);
        let variables: Vec<_> =
            values.expressions().map(|(name, text)| json!({"name": name, "expression": text})).collect();
        assert_eq!(Values::of_policy(&json!({"variables": variables})), values);
        assert_eq!(Values::default().or(&values), values);
        assert_eq!(values.clone().with(IMAGE, "other").or(&values).image(), "other");
    }

    #[test]
    fn only_literals_are_values() {
        let image = |expression: &str| {
            let variables = json!({"variables": [{"name": "image", "expression": expression}]});
            Values::of_policy(&variables).image().to_owned()
        };
        assert_eq!([image("'r.test/x'"), image(" \"r.test/x\" ")], ["r.test/x", "r.test/x"]);
        for other in ["params.data.image", "'a' + 'b'", "['a']", "3", "'a", "{}", "null"] {
            assert_eq!(image(other), "", "{other}");
        }
        let written = json!({"variables": [{"name": "pullSecrets", "expression": "['a', 'b']"}]});
        assert_eq!(Values::of_policy(&written), Values::default().with("pullSecrets", vec!["a", "b"]));
        assert_eq!(Values::of_policy(&written).pull_secrets(), ["a", "b"]);
    }
}
