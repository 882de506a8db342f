//! The body of a request: reading and parsing.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::api_error::ApiError;

/// The largest accepted body, as in a real API server.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Reads a body.
pub(crate) async fn read(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let collected = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// Parses a JSON body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadRequest(format!("unable to parse the body: {error}")))
}
