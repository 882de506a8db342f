//! `read`: reads the body of a request before the request is served. `parse`: parses a body as JSON.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::api_error::ApiError;

/// Maximum size of a body, the same as in a real API server.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Reads the whole body of a request.
pub(crate) async fn read(request: Request<Incoming>) -> Result<Request<Bytes>, ApiError> {
    let (parts, body) = request.into_parts();
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let bytes = collected.map(|body| body.to_bytes()).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    Ok(Request::from_parts(parts, bytes))
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadRequest(format!("unable to parse the body: {error}")))
}
