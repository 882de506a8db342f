//! `status_of`: decodes the `Status` of a failed request. If the request asked for protobuf, the `Status` is protobuf.

use http::StatusCode;
use kube::core::Status;
use kube::core::response::StatusDetails;
use prost::Message;
use syringe_core::text::clean;

use crate::client::api_status::NOT_A_STATUS;
use crate::client::protobuf_list::MAGIC;

/// Maximum length of the text that is quoted from a response that is not a `Status`.
const MAX_TEXT: usize = 300;

/// `runtime.Unknown`, the envelope of an object.
#[derive(Clone, PartialEq, Eq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "2")]
    content: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SentStatus {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(message, optional, tag = "5")]
    details: Option<SentDetails>,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SentDetails {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(int32, tag = "5")]
    retry_after_seconds: i32,
    #[prost(string, tag = "6")]
    uid: String,
}

/// Decodes the `Status` in the body of a failed request, in JSON or protobuf. For any other body, returns a `Status`
/// with the text of the body and the reason [`NOT_A_STATUS`].
pub fn status_of(body: &[u8], code: StatusCode) -> Status {
    let sent = serde_json::from_slice(body).ok().or_else(|| in_protobuf(body));
    sent.unwrap_or_else(|| {
        let text = clean(&String::from_utf8_lossy(body), MAX_TEXT);
        Status::failure(text.trim(), NOT_A_STATUS).with_code(code.as_u16())
    })
}

fn in_protobuf(body: &[u8]) -> Option<Status> {
    let envelope = Envelope::decode(body.strip_prefix(MAGIC)?).ok()?;
    let SentStatus { message, reason, details, code } = SentStatus::decode(envelope.content.as_slice()).ok()?;
    let mut status = Status::failure(&message, &reason).with_code(u16::try_from(code).ok()?);
    status.details = details.map(|details| StatusDetails {
        name: details.name,
        group: details.group,
        kind: details.kind,
        uid: details.uid,
        causes: Vec::new(),
        retry_after_seconds: u32::try_from(details.retry_after_seconds).unwrap_or(0),
    });
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Response of a real API server (1.36) to `GET /api/v1/namespaces/a/pods/b` with `Accept:
    /// application/vnd.kubernetes.protobuf`.
    const NOT_FOUND: &[u8] =
        b"k8s\0\n\x0c\n\x02v1\x12\x06Status\x12C\n\x06\n\0\x12\0\x1a\0\x12\x07Failure\x1a\x12pods \"b\" not found\
        \"\x08NotFound*\x0f\n\x01b\x12\0\x1a\x04pods(\x002\x000\x94\x03\x1a\0\"\0";

    #[test]
    fn a_status_is_read_in_protobuf_and_json_and_a_page_is_foreign() {
        let status = status_of(NOT_FOUND, StatusCode::NOT_FOUND);
        let read = (status.message.as_str(), status.reason.as_str(), status.code);
        assert_eq!(read, ("pods \"b\" not found", "NotFound", 404));
        assert_eq!(status.details.expect("details").kind, "pods");
        let json = status_of(br#"{"kind":"Status","reason":"Forbidden","code":403}"#, StatusCode::FORBIDDEN);
        assert_eq!((json.reason.as_str(), json.code), ("Forbidden", 403));
        let page = status_of(b"<html>no</html>", StatusCode::BAD_GATEWAY);
        assert_eq!((page.reason.as_str(), page.code), (NOT_A_STATUS, 502));
        assert_eq!(status_of(&NOT_FOUND[..40], StatusCode::NOT_FOUND).reason, NOT_A_STATUS);
    }
}
