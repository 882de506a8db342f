//! Faults of single requests to the API server.

use std::time::Duration;

use super::counted_fault::CountedFault;

/// A fault of the requests that match.
#[derive(Clone, Debug)]
pub struct RequestFault {
    /// The verb (`get`, `list`, `delete`, …); `None`: any.
    pub verb: Option<&'static str>,
    /// The resource as in RBAC rules (`pods`, `pods/exec`); `None`: any.
    pub resource: Option<&'static str>,
    /// The answer.
    pub answer: CountedFault<AnswerFault>,
}

/// The way in which a server, or a proxy in front of it, refuses protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtobufRefusal {
    /// Each request that accepts protobuf is answered with 406.
    NotAcceptable,
    /// Each request is answered in JSON.
    JsonInstead,
}

/// The answer to a request that fails.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFault {
    /// 429 with this `Retry-After`, in seconds.
    TooManyRequests(u32),
    /// This code in plain text without a `Status`, as of a proxy or of a filter in front of the API server.
    PlainText {
        /// The HTTP code.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// 500 with a `Status`.
    InternalError,
    /// 403 of an admission controller: `pods "NAME" is forbidden: ` and this.
    Forbidden(String),
    /// The request is served after this time.
    Slow(Duration),
    /// The connection is closed without an answer.
    Closed,
    /// The request is served, and the connection is closed without an answer.
    ServedAndClosed,
    /// The request is served, and the connection is closed in the middle of the answer.
    CutBody,
    /// The request is served, and the answer is 500.
    Lost,
    /// No answer is sent, and the request is served after this time, also if the client no longer waits: a proxy holds it.
    Late(Duration),
    /// 409 of an admission plugin whose object was changed meanwhile, as a ResourceQuota. Nothing is stored.
    Conflict,
}
