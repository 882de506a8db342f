//! `RequestFault`: a fault of single requests to the API server. `AnswerFault`: the response to such a request.
//! `ProtobufRefusal`: the way in which protobuf is rejected.

use std::time::Duration;

use super::counted_fault::CountedFault;

/// A fault of the requests with this verb and resource.
#[derive(Clone, Debug)]
pub struct RequestFault {
    /// The verb (`get`, `list`, `delete`, …); `None` for any verb.
    pub verb: Option<&'static str>,
    /// The resource as in RBAC rules (`pods`, `pods/exec`); `None` for any resource.
    pub resource: Option<&'static str>,
    /// The response.
    pub answer: CountedFault<AnswerFault>,
}

/// The way in which a server, or a proxy in front of the server, rejects protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtobufRefusal {
    /// Each request that accepts protobuf gets 406.
    NotAcceptable,
    /// Each response is in JSON.
    JsonInstead,
}

/// The response to a request that fails.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFault {
    /// The request gets 429 with this `Retry-After`, in seconds.
    TooManyRequests(u32),
    /// The request gets this code in plain text without a `Status`, as from a proxy or a filter in front of the API
    /// server.
    PlainText {
        /// The HTTP code.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// The request gets 500 with a `Status`.
    InternalError,
    /// The request gets 403 from an admission controller: `pods "NAME" is forbidden: ` and this text.
    Forbidden(String),
    /// The request is served after this time.
    Slow(Duration),
    /// The connection is closed without a response.
    Closed,
    /// The request is served, but the connection is closed without a response.
    ServedAndClosed,
    /// The request is served, but the connection is closed in the middle of the response.
    CutBody,
    /// The request is served, but the response is 500.
    Lost,
    /// A proxy delays the request: the request is served after this time, even if the client is no longer waiting. No
    /// response is sent.
    Late(Duration),
    /// The request gets 409 from an admission plugin whose object, such as a ResourceQuota, was changed in the
    /// meantime. Nothing is stored.
    Conflict,
}
