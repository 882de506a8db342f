//! `Accepted`: the formats in an `Accept` header. `negotiate`: converts a response to protobuf if the client prefers
//! it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::protobuf;
use crate::response::{Body, full};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The formats that a client accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) protobuf: bool,
    json: bool,
    /// Whether protobuf has the higher weight.
    prefers_protobuf: bool,
}

impl Accepted {
    /// Reads the `Accept` header. Without this header, JSON is accepted.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(header) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Self { json: true, ..Self::default() };
        };
        let (mut json, mut protobuf) = (None::<f32>, None::<f32>);
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let weight = parameters.iter().find_map(|one| one.strip_prefix("q="));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            // Tables are not supported. If only the metadata of an object is requested, the whole object is sent in
            // JSON.
            let transformed = parameters.iter().find_map(|one| one.strip_prefix("as="));
            if weight <= 0.0 || transformed.is_some_and(|kind| !kind.starts_with("PartialObjectMetadata")) {
                continue;
            }
            match name {
                PROTOBUF if transformed.is_none() => protobuf = Some(weight),
                "application/json" | "application/*" | "*/*" => json = Some(weight),
                _ => {}
            }
        }
        let prefers_protobuf = protobuf.is_some_and(|weight| json.is_none_or(|json| weight > json));
        Self { protobuf: protobuf.is_some(), json: json.is_some(), prefers_protobuf }
    }

    /// Returns the formats without protobuf, for a server that does not support protobuf.
    #[cfg(feature = "test-support")]
    pub(crate) fn without_protobuf(self) -> Self {
        Self { protobuf: false, json: self.json, prefers_protobuf: false }
    }
}

/// Returns the response in the format that the client prefers, or 406 if the client accepts no format that this object
/// supports. Responses that are not JSON objects are not changed.
pub(crate) async fn negotiate(response: Response<Body>, accepted: Accepted) -> Response<Body> {
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if !is_json || (accepted.json && !accepted.prefers_protobuf) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let in_protobuf = accepted.protobuf.then(|| serde_json::from_slice::<Value>(&bytes).ok()).flatten();
    match in_protobuf.as_ref().and_then(protobuf::encode) {
        Some(encoded) => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
            Response::from_parts(parts, full(Bytes::from(encoded)))
        }
        None if accepted.json => Response::from_parts(parts, full(bytes)),
        None => ApiError::NotAcceptable.response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_format_with_the_highest_weight_is_used() {
        let of = |value: &'static str| {
            Accepted::of(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])).prefers_protobuf
        };
        assert!(of("application/vnd.kubernetes.protobuf, application/json;q=0.9"));
        assert!(of("application/vnd.kubernetes.protobuf"));
        assert!(!of("application/vnd.kubernetes.protobuf;q=0.5, application/json"));
        assert!(
            !of("application/vnd.kubernetes.protobuf;as=Table, */*") && !of("application/json") && !of("text/html")
        );
        assert!(Accepted::of(&HeaderMap::new()).json);
        let metadata = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        assert!(Accepted::of(&HeaderMap::from_iter([(header::ACCEPT, metadata)])).json);
    }
}
