//! `ApiError`: the reason why a request fails, with the `Status` object and the message of a real API server.
//! `Cause`: an invalid field in such a `Status`.

use http::{HeaderValue, Response, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use thiserror::Error;

use crate::response::{Body, json, plain_text};

/// The reason why a request fails, with the text of a real API server or kubelet.
#[derive(Clone, Debug, Error)]
pub(crate) enum ApiError {
    /// 401: the request has no valid token.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403: the request came through a web page or another host name.
    #[error("forbidden: {0}")]
    AccessDenied(&'static str),
    /// 404: the object does not exist.
    #[error("{resource} \"{name}\" not found")]
    NotFound { resource: &'static str, name: String },
    /// 404: the path does not exist.
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    /// 405: the method is not allowed.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 409: an object with this name already exists.
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists { resource: &'static str, name: String },
    /// 409: a precondition is not met.
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {reason}")]
    Conflict { resource: &'static str, name: String, reason: String },
    /// 409: a server-side apply has a conflict with another field manager.
    #[error("Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: {field}")]
    ApplyConflict { field: String },
    /// 403 from an admission controller.
    #[error("{resource} \"{name}\" is forbidden: {reason}")]
    AdmissionDenied { resource: &'static str, name: String, reason: String },
    /// 403 from the authorizer.
    #[error("{} is forbidden: {reason}", subject(.resource, .name))]
    AuthorizationDenied { resource: String, name: Option<String>, reason: String },
    /// 422: the object is invalid.
    #[error("{kind} \"{name}\" is invalid: {}", join_causes(.causes))]
    Invalid { kind: &'static str, name: String, causes: Vec<Cause> },
    /// 400: the request is invalid.
    #[error("{0}")]
    BadRequest(String),
    /// 406: the client accepts none of the available formats.
    #[error("406: Not Acceptable\n\nAvailable representations: application/json, application/vnd.kubernetes.protobuf")]
    NotAcceptable,
    /// 415: the format of the body is not supported.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// 410: a watch or a page of a list starts at a version that is no longer known.
    #[error("{0}")]
    Expired(String),
    /// 429 with `Retry-After`: the client sends too many requests.
    #[cfg_attr(not(feature = "test-support"), expect(dead_code, reason = "only a fault causes it"))]
    #[error("the server has received too many requests and has asked us to try again later")]
    TooManyRequests { retry_after_seconds: u32 },
    /// 500: an internal error.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// Plain text without a `Status`, as a kubelet or a proxy sends it.
    #[error("{text}")]
    PlainText { code: u16, text: String },
}

/// A field that makes an object invalid.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The reason, such as `FieldValueInvalid`, `FieldValueRequired` or `FieldValueForbidden`.
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

fn join_causes(causes: &[Cause]) -> String {
    let each: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if let [one] = &each[..] { one.clone() } else { format!("[{}]", each.join(", ")) }
}

fn subject(resource: &str, name: &Option<String>) -> String {
    name.as_ref().map_or_else(|| resource.to_owned(), |name| format!("{resource} \"{name}\""))
}

impl ApiError {
    /// Returns the HTTP code and the `reason` of the `Status`.
    fn code(&self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (401, "Unauthorized"),
            Self::AccessDenied(_) => (403, "Forbidden"),
            Self::NotFound { .. } | Self::NoSuchPath => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::AlreadyExists { .. } => (409, "AlreadyExists"),
            Self::Conflict { .. } | Self::ApplyConflict { .. } => (409, "Conflict"),
            Self::AdmissionDenied { .. } | Self::AuthorizationDenied { .. } => (403, "Forbidden"),
            Self::Invalid { .. } => (422, "Invalid"),
            Self::BadRequest(_) => (400, "BadRequest"),
            Self::NotAcceptable => (406, "NotAcceptable"),
            Self::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
            Self::Expired(_) => (410, "Expired"),
            Self::TooManyRequests { .. } => (429, "TooManyRequests"),
            Self::Internal(_) => (500, "InternalError"),
            Self::PlainText { code, .. } => (*code, ""),
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
            | Self::AdmissionDenied { resource, name, .. } => Some(about(resource, name)),
            Self::AuthorizationDenied { resource, name, .. } => {
                Some(about(resource, name.as_deref().unwrap_or_default()))
            }
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
            Self::Internal(reason) => Some(StatusDetails {
                causes: Some(vec![StatusCause { message: Some(reason.clone()), ..StatusCause::default() }]),
                ..StatusDetails::default()
            }),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> Status {
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

    pub(crate) fn response(&self) -> Response<Body> {
        if let Self::PlainText { code, text } = self {
            return plain_text(*code, text.clone());
        }
        let mut response = json(self.code().0, &self.status());
        if let Self::TooManyRequests { retry_after_seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_seconds));
        }
        response
    }
}
