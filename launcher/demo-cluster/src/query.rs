//! `Query`: the query parameters of a request.

/// The decoded parameters, in the order of the request.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`. A parameter without `=` has an empty value.
    pub(crate) fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Returns the first value of `key`. An empty value counts as missing, as in a real API server.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns all values of `key` in the order of the request. For example, `command` is repeated.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// Returns whether `key` is set to something other than `false` or `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "false" | "0"))
    }

    /// Returns the value of `key` as a number; `None` if the value is absent or not a number.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_keeps_its_order_and_escapes_are_decoded() {
        let query = Query::parse("command=node-probe&command=a%20b%2Bc+d&stdout=true&tty=false&container=&x=%zz");
        assert_eq!(query.all("command"), ["node-probe", "a b+c d"]);
        assert!(query.flag("stdout") && !query.flag("tty") && !query.flag("absent"));
        assert_eq!(query.get("container"), None);
        assert_eq!(query.get("x"), Some("%zz"));
    }
}
