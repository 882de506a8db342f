//! `carry`: copies the `Retry-After` header of a response into its `Status`, because kube drops the headers.
//!
//! An API server that limits requests (API Priority and Fairness) responds in plain text, as proxies do.

use bytes::Bytes;
use http::response::Parts;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use kube::core::Status;
use kube::core::response::StatusDetails;
use tower::BoxError;

use crate::client::protobuf_status::status_of;

/// Maximum size of the body of a response with a `Retry-After` header.
const MAX_BODY: usize = 64 << 10;

/// Copies the header. Changes only responses with 429 or 503 whose header is a number of seconds.
pub async fn carry<B>(response: Response<B>) -> Result<Response<Either<B, Full<Bytes>>>, BoxError>
where
    B: http_body_util::BodyExt<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let Some(seconds) = retry_after(&parts) else {
        return Ok(Response::from_parts(parts, Either::Left(body)));
    };
    let bytes = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
    let status = with_retry_after(&bytes, parts.status, seconds);
    let json = serde_json::to_vec(&status)?;
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Either::Right(Full::from(json))))
}

fn retry_after(parts: &Parts) -> Option<u32> {
    let is_busy = matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let header = parts.headers.get(header::RETRY_AFTER).filter(|_| is_busy)?;
    header.to_str().ok()?.trim().parse().ok()
}

/// Returns the `Status` in the body, or a new `Status` with the text of the body.
fn with_retry_after(body: &[u8], code: StatusCode, seconds: u32) -> Status {
    let mut status = status_of(body, code);
    let none = StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    };
    let details = status.details.get_or_insert(none);
    details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn carried(code: u16, retry_after: Option<&str>, body: &str) -> String {
        let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
        if let Some(value) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, value.parse().expect("a value"));
        }
        let bytes = carry(response).await.expect("a response").into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn the_header_becomes_part_of_the_status() {
        for body in ["Too many requests, please try again later.\n", r#"{"kind":"Status","code":429,"message":"x"}"#] {
            let status: Status = serde_json::from_str(&carried(429, Some("7"), body).await).expect("a Status");
            let seconds = status.details.expect("details").retry_after_seconds;
            assert_eq!((status.code, seconds, status.message.is_empty()), (429, 7, false), "{body}");
        }
    }

    #[tokio::test]
    async fn other_answers_stay_as_they_are() {
        for (code, header) in [(200, Some("7")), (404, Some("7")), (429, None), (503, Some("Sun, 06 Nov 1994"))] {
            assert_eq!(carried(code, header, "text").await, "text", "{code} {header:?}");
        }
    }
}
