//! The types `Place`, `Fault` and `Rule`: faults of requests to the API server, and rules that select these requests.

use std::time::Duration;

use super::random::Random;

/// The kind of object that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A list of pods.
    Pods,
    /// One pod.
    Pod,
    /// An exec.
    Exec,
    /// The log of a pod.
    Log,
    /// The ephemeral containers of a pod.
    Containers,
    /// Nodes, one or a list.
    Nodes,
    /// Everything else.
    Other,
}

impl Place {
    /// Returns the kind of object for a request path.
    pub(crate) fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts[..] {
            ["api", "v1", "namespaces", _, "pods"] | ["api", "v1", "pods"] => Self::Pods,
            ["api", "v1", "namespaces", _, "pods", _] => Self::Pod,
            ["api", "v1", "namespaces", _, "pods", _, "exec"] => Self::Exec,
            ["api", "v1", "namespaces", _, "pods", _, "log"] => Self::Log,
            ["api", "v1", "namespaces", _, "pods", _, "ephemeralcontainers"] => Self::Containers,
            ["api", "v1", "nodes", ..] => Self::Nodes,
            _ => Self::Other,
        }
    }
}

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The response is plain text, as from a filter in front of the API server, with `Retry-After` in seconds.
    Busy(u16, u32),
    /// The response is a `Status` with this code and reason.
    Status(u16, &'static str),
    /// The response is an HTML page, as from a proxy.
    Page(u16),
    /// The connection is closed before the request is passed on.
    Closed,
    /// The request is served, but the connection is closed without a response.
    Lost,
    /// The connection is closed after this many bytes of the response or, for an exec, of the pod's data.
    Cut(usize),
    /// Nothing more is sent after this many bytes of the response; the connection stays open.
    Stalled(usize),
    /// The request is passed on after this time.
    Late(Duration),
    /// The response is passed on after this time.
    Slow(Duration),
    /// The request is not passed on, and there is no response.
    Blackhole,
}

/// A fault, and the requests to which the fault applies.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Method, such as `DELETE`; `None`: any method.
    pub(crate) method: Option<&'static str>,
    /// Kind of object; `None`: any kind.
    pub(crate) place: Option<Place>,
    /// Number of matching requests that pass before the first request with the fault.
    pub(crate) skip: u32,
    /// Number of further requests with the fault.
    pub(crate) left: u32,
    /// The fault.
    pub(crate) fault: Fault,
}

impl Rule {
    /// Returns the fault of a request, if it has one, and counts this request.
    pub(crate) fn take(&mut self, method: &str, place: Place) -> Option<Fault> {
        if self.method.is_some_and(|wanted| wanted != method) || self.place.is_some_and(|wanted| wanted != place) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(self.fault)
    }

    /// Returns a random rule. `patient`: faults may also take many seconds.
    pub(crate) fn random(random: &mut Random, patient: bool) -> Self {
        let (method, place) = random.of(&[
            (Some("POST"), Some(Place::Pods)),
            (Some("POST"), Some(Place::Pods)),
            (Some("DELETE"), Some(Place::Pod)),
            (Some("DELETE"), Some(Place::Pod)),
            (None, Some(Place::Exec)),
            (None, Some(Place::Exec)),
            (None, Some(Place::Log)),
            (None, Some(Place::Containers)),
            (Some("GET"), Some(Place::Pod)),
            (Some("GET"), Some(Place::Pods)),
            (Some("GET"), Some(Place::Nodes)),
            (None, Some(Place::Other)),
            (None, None),
        ]);
        let fault = Fault::random(random, patient);
        let left = match random.below(10) {
            0 if patient => u32::MAX,
            1..=3 => 2 + random.below(3) as u32,
            _ => 1,
        };
        let skip = if random.percent(30) { random.below(3) as u32 } else { 0 };
        Self { method, place, skip, left, fault }
    }
}

impl Fault {
    fn random(random: &mut Random, patient: bool) -> Self {
        let bytes = [0, 1, 70, 1_000, 5_000, 40_000][random.below(6)];
        let longest = Duration::from_millis(if patient { 12_000 } else { 400 });
        match random.below(if patient { 24 } else { 21 }) {
            0..=2 => Self::Busy(429, 1),
            3 => Self::Busy(503, 1),
            4 => Self::Status(500, "InternalError"),
            5 => Self::Status(410, "Expired"),
            6 => Self::Status(409, "Conflict"),
            7 => Self::Page(404),
            8 => Self::Page(403),
            9 => Self::Page(502),
            10 => Self::Page(504),
            11..=12 => Self::Closed,
            13..=14 => Self::Lost,
            15..=17 => Self::Cut(bytes),
            18..=19 => Self::Slow(random.time(longest)),
            20 => Self::Late(random.time(longest)),
            21 => Self::Stalled(bytes),
            22 => Self::Late(longest + random.time(longest)),
            _ => Self::Blackhole,
        }
    }
}
