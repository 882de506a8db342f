//! `json`, `plain_text`, `json_stream`: create HTTP responses. `Body`, `full`: their body.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

/// A response body, which is complete or a stream (watch).
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn with(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn json(code: u16, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with(code, "application/json", full(bytes)),
        Err(error) => plain_text(500, error.to_string()),
    }
}

pub(crate) fn plain_text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    with(code, "text/plain; charset=utf-8", full(text))
}

/// Returns a stream of JSON objects, one per line.
pub(crate) fn json_stream(body: Body) -> Response<Body> {
    with(200, "application/json", body)
}
