//! `ServerClock`: the time of the API server, from the `Date` header of its responses.
//! The clock of this machine may be wrong, and ages of objects are computed from times that the API server wrote.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use http::header::DATE;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The newest `Date` of the API server, and the time at which it was received.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<(Timestamp, Instant)>>);

impl ServerClock {
    /// Reads the `Date` of a successful response. An error page may be from a proxy, with the time of the proxy.
    pub fn observe(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
        }
    }

    /// Returns the time of the API server, or `None` before its first response with a `Date`.
    pub fn now(&self) -> Option<Timestamp> {
        let (date, received) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(received.elapsed()).ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_newest_date() {
        let clock = ServerClock::default();
        let observe =
            |date: &'static str| clock.observe(&HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]));
        assert_eq!(clock.now(), None);
        observe("not a date");
        assert_eq!(clock.now(), None);
        observe("Sun, 06 Nov 1994 08:49:37 GMT");
        let date: Timestamp = "1994-11-06T08:49:37Z".parse().expect("a time");
        assert!((0..5).contains(&clock.now().expect("a time").duration_since(date).as_secs()));
    }
}
