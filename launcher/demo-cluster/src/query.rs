//! A request's query string: percent-decoding and typed look-ups. Knows nothing of Kubernetes.

/// The decoded pairs of a query string, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`. A pair without `=` has an empty value.
    pub(super) fn parse(query: &str) -> Self {
        let pair = |part: &str| match part.split_once('=') {
            Some((key, value)) => (decode(key), decode(value)),
            None => (decode(part), String::new()),
        };
        Self(query.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of `key`; an empty one counts as absent, as it does in the real API server.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of `key`, in order: how `command=` repeats.
    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    /// Whether `key` is set to something other than `false` or `0`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "false" | "0"))
    }

    /// The value of `key` as a number; `None` when absent or not one.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

/// Percent-decoding as forms do it: `+` is a space. Malformed escapes stay as they are.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match (escape, bytes[at]) {
            (Some(byte), _) => {
                decoded.push(byte);
                at += 2;
            }
            (None, b'+') => decoded.push(b' '),
            (None, byte) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
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
