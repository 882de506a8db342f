//! Responses: JSON bodies, plain text, and refusals in the API server's own words as `Status` objects.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use serde::Serialize;
use thiserror::Error;

/// A response body: whole, or streamed (watch, followed log).
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why a request was not served. The text is what the real API server (or kubelet) says.
#[derive(Clone, Debug, Error)]
pub(super) enum Refusal {
    /// 404 for an object.
    #[error("{resource} \"{name}\" not found")]
    NotFound { resource: &'static str, name: String },
    /// 404 for a path.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// 405.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 409 at a creation.
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists { resource: &'static str, name: String },
    /// 409 for a precondition.
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {why}")]
    Conflict { resource: &'static str, name: String, why: String },
    /// 403 of an admission step: about one object.
    #[error("{resource} \"{name}\" is forbidden: {why}")]
    Forbidden { resource: &'static str, name: String, why: String },
    /// 403 of the authoriser.
    #[error("{} is forbidden: {why}", subject(.resource, .name))]
    Denied { resource: String, name: Option<String>, why: String },
    /// 422.
    #[error("{kind} \"{name}\" is invalid: {}", sentence(.causes))]
    Invalid { kind: &'static str, name: String, causes: Vec<Cause> },
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 415.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// 410: a watch or a page of a list that begins too far back.
    #[error("{0}")]
    Expired(String),
    /// 429 with `Retry-After`.
    #[error("the server has received too many requests and has asked us to try again later")]
    TooManyRequests { retry_after_seconds: u32 },
    /// 500.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// Plain text, without a `Status`: what a kubelet or a proxy on the way answers.
    #[error("{text}")]
    Plain { code: u16, text: String },
}

/// One field that made an object invalid.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueForbidden`, ….
    pub(super) reason: &'static str,
    pub(super) field: String,
    pub(super) message: String,
}

fn sentence(causes: &[Cause]) -> String {
    let each: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if let [one] = &each[..] { one.clone() } else { format!("[{}]", each.join(", ")) }
}

fn subject(resource: &str, name: &Option<String>) -> String {
    name.as_ref().map_or_else(|| resource.to_owned(), |name| format!("{resource} \"{name}\""))
}

impl Refusal {
    /// HTTP code and the `reason` of the `Status`.
    fn code(&self) -> (u16, &'static str) {
        match self {
            Self::NotFound { .. } | Self::NoSuchPath => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::AlreadyExists { .. } => (409, "AlreadyExists"),
            Self::Conflict { .. } => (409, "Conflict"),
            Self::Forbidden { .. } | Self::Denied { .. } => (403, "Forbidden"),
            Self::Invalid { .. } => (422, "Invalid"),
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::Expired(_) => (410, "Expired"),
            Self::TooManyRequests { .. } => (429, "TooManyRequests"),
            Self::Internal(_) => (500, "InternalError"),
            Self::Plain { code, .. } => (*code, ""),
        }
    }

    fn details(&self) -> Option<StatusDetails> {
        let about = |resource: &str, name: &str| StatusDetails {
            kind: Some(resource.to_owned()),
            name: Some(name.to_owned()),
            ..StatusDetails::default()
        };
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. }
            | Self::Forbidden { resource, name, .. } => Some(about(resource, name)),
            Self::Denied { resource, name, .. } => Some(about(resource, name.as_deref().unwrap_or_default())),
            Self::Invalid { kind, name, causes } => {
                let cause = |cause: &Cause| StatusCause {
                    reason: Some(cause.reason.to_owned()),
                    field: Some(cause.field.clone()),
                    message: Some(cause.message.clone()),
                };
                Some(StatusDetails { causes: Some(causes.iter().map(cause).collect()), ..about(kind, name) })
            }
            Self::TooManyRequests { retry_after_seconds } => Some(StatusDetails {
                retry_after_seconds: i32::try_from(*retry_after_seconds).ok(),
                ..StatusDetails::default()
            }),
            Self::Internal(why) => Some(StatusDetails {
                causes: Some(vec![StatusCause { message: Some(why.clone()), ..StatusCause::default() }]),
                ..StatusDetails::default()
            }),
            _ => None,
        }
    }

    /// The `Status` object that says this.
    pub(super) fn status(&self) -> Status {
        let (code, reason) = self.code();
        Status {
            status: Some("Failure".to_owned()),
            code: Some(i32::from(code)),
            reason: Some(reason.to_owned()),
            message: Some(self.to_string()),
            details: self.details(),
            ..Status::default()
        }
    }

    /// The response that says this.
    pub(super) fn response(&self) -> Response<Body> {
        if let Self::Plain { code, text } = self {
            return plain(*code, text.clone());
        }
        let mut response = json(self.code().0, &self.status());
        if let Self::TooManyRequests { retry_after_seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_seconds));
        }
        response
    }
}

/// A whole body.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn with(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub(super) fn json(code: u16, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with(code, "application/json", full(bytes)),
        Err(error) => plain(500, error.to_string()),
    }
}

/// A text response.
pub(super) fn plain(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    with(code, "text/plain; charset=utf-8", full(text))
}

/// A streamed JSON response, one object a line.
pub(super) fn stream(body: Body) -> Response<Body> {
    with(200, "application/json", body)
}
