//! `Since`: the start of a time window as a user types it: a duration (`24h`, `30m`, `7d`) or a time (RFC 3339).

use std::str::FromStr;

use jiff::{Span, SpanRelativeTo, Timestamp};
use serde::{Deserialize, Serialize};

/// The start of a window, absolute or relative to the current time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Since {
    text: String,
    start: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Ago(jiff::SignedDuration),
    At(Timestamp),
}

/// Maximum duration. Kernel buffers and journals are shorter in practice. The limit prevents an overflow in calculations.
const MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(10 * 366 * 24);

impl Since {
    /// Returns the start time, relative to `now`.
    pub fn resolve(&self, now: Timestamp) -> Timestamp {
        match self.start {
            Start::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
            Start::At(moment) => moment,
        }
    }
}

impl Since {
    /// Returns the value as one command-line argument: as typed if it begins with a digit and contains only letters, digits
    /// and `:.+-`, otherwise in seconds or as an RFC 3339 time. deploy/admission-policy.yaml allows only this form.
    pub fn word(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":.+-".contains(&byte);
        let text = &self.text;
        if text.len() <= 40 && text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(plain) {
            return text.clone();
        }
        match self.start {
            Start::Ago(duration) => format!("{}s", duration.as_secs().max(1)),
            Start::At(moment) => moment.to_string(),
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = crate::text::clean(text, 40);
        let wrong = || format!("'{shown}' is not a duration such as 24h, 30m or 7d, and not an RFC 3339 time");
        let start = match text.parse::<Timestamp>() {
            Ok(moment) => Start::At(moment),
            Err(_) => {
                let span: Span = text.parse().map_err(|_| wrong())?;
                let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
                if duration.is_negative() || duration.is_zero() || duration > MAX {
                    return Err(format!("'{shown}' must be greater than zero and at most 10 years"));
                }
                Start::Ago(duration)
            }
        };
        Ok(Self { text: text.to_owned(), start })
    }
}

impl TryFrom<String> for Since {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Since> for String {
    fn from(since: Since) -> Self {
        since.text
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Since {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Since".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 40 })
    }
}

#[cfg(test)]
mod tests {
    use super::Since;

    #[test]
    fn durations_count_back_from_now_and_moments_stand() {
        let now = "2026-11-21T02:45:10Z".parse().expect("a time");
        for (text, expected) in [
            ("24h", "2026-11-20T02:45:10Z"),
            ("30m", "2026-11-21T02:15:10Z"),
            ("7d", "2026-11-14T02:45:10Z"),
            ("1h30m", "2026-11-21T01:15:10Z"),
            ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ] {
            let since: Since = text.parse().expect(text);
            assert_eq!(since.resolve(now).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn the_argument_form_has_the_same_value_and_no_spaces() {
        let now = "2026-11-21T02:45:10Z".parse().expect("a time");
        let texts = ["24h", "7d", "1 day", "2 hours, 30 minutes", "P1D", "PT90S", "1h30m", "2026-11-01T00:00:00Z"];
        for text in texts.into_iter().chain(["2026-11-01 00:00:00+01:00", "2026-11-01T00:00:00+01:00"]) {
            let since: Since = text.parse().expect(text);
            let word = since.word();
            let again: Since = word.parse().expect(&word);
            assert_eq!(again.resolve(now), since.resolve(now), "{text}: {word}");
            assert!(word.starts_with(|first: char| first.is_ascii_digit()) && !word.contains([' ', ',']), "{word}");
        }
        assert_eq!("24h".parse::<Since>().expect("a window").word(), "24h");
    }

    #[test]
    fn an_invalid_window_is_rejected_with_examples() {
        for text in ["", "yesterday", "-3h", "0s", "99999999h", "24", "; rm -rf /"] {
            let refusal = text.parse::<Since>().expect_err(text);
            assert!(refusal.contains("24h") || refusal.contains("10 years"), "{refusal}");
        }
    }
}
