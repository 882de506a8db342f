//! Functions that classify the `Status` of a failed request: `is_not_found`, `is_already_exists`, `is_conflict` (from
//! the API server), `is_page_of_proxy`, `is_web_page` (from another server). `foreign_response`: describes a response
//! that is not a `Status`.

use kube::core::Status;
use syringe_core::text::clean;

/// Reason that kube sets for a response whose body is not a `Status`.
pub const NOT_A_STATUS: &str = "Failed to parse error data";

/// Returns whether the response is not a `Status`. A proxy, the kubelet or a filter of the API server sends such a
/// response.
pub fn is_not_a_status(status: &Status) -> bool {
    status.reason == NOT_A_STATUS
}

/// Returns whether a proxy responded in place of the API server. False for 429 and 5xx, because filters of the API
/// server also send plain text with these codes.
pub fn is_page_of_proxy(status: &Status) -> bool {
    is_not_a_status(status) && (400..500).contains(&status.code) && status.code != 429
}

/// Returns whether the response is a web page. The API server never sends a web page, regardless of the HTTP status.
pub fn is_web_page(status: &Status) -> bool {
    let start = status.message.trim_start().get(..9).unwrap_or_default().to_ascii_lowercase();
    is_not_a_status(status)
        && (start.starts_with("<html") || start.starts_with("<!doctype") || start.starts_with("<head"))
}

/// Maximum length of a text that is not a `Status`.
const MAX_TEXT: usize = 200;

/// Describes a response that is not a `Status`: the title of a web page, or else the beginning of the text.
pub fn foreign_response(status: &Status) -> String {
    let Status { message, code, .. } = status;
    if !is_web_page(status) {
        return format!("{} (HTTP {code})", clean(message.trim(), MAX_TEXT));
    }
    let lower = message.to_ascii_lowercase();
    let start = lower.find("<title>").map(|at| at + "<title>".len());
    let title = start.and_then(|start| Some(&message[start..start + lower[start..].find("</title>")?]));
    let title =
        title.map(|title| format!(" with the title \"{}\"", clean(title.trim(), MAX_TEXT / 2).replace('"', "'")));
    format!("a web page{} (HTTP {code})", title.unwrap_or_default())
}

/// Returns whether the API server reports that the object does not exist. False for the 404 page of a proxy.
pub fn is_not_found(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

/// Returns whether the API server reports that an object with this name already exists.
pub fn is_already_exists(status: &Status) -> bool {
    status.code == 409 && status.reason == "AlreadyExists"
}

/// Returns whether the API server reports a conflict, such as a UID that differs from the one in the precondition.
pub fn is_conflict(status: &Status) -> bool {
    status.code == 409 && status.reason == "Conflict"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: u16, message: &str) -> Status {
        Status { code, message: message.to_owned(), reason: NOT_A_STATUS.to_owned(), ..Status::default() }
    }

    #[test]
    fn a_web_page_is_told_in_one_line() {
        let style = "<style>body { color: red }</style>".repeat(100);
        for (code, start, words) in [
            (
                502,
                "<html><head><TITLE> Bad \"Gateway\" </TITLE>",
                "a web page with the title \"Bad 'Gateway'\" (HTTP 502)",
            ),
            (403, "\n<!DOCTYPE html><html>", "a web page (HTTP 403)"),
            (503, "<HTML><title>", "a web page (HTTP 503)"),
            (504, "<html><title>\u{130}</title>", "a web page with the title \"\u{130}\" (HTTP 504)"),
        ] {
            let page = response(code, &format!("{start}{style}"));
            assert!(is_web_page(&page), "{start}");
            assert_eq!(foreign_response(&page), words);
        }
        let text = response(503, &"no upstream ".repeat(100));
        assert!(!is_web_page(&text) && foreign_response(&text).ends_with(" (HTTP 503)"));
        assert!(!is_web_page(&Status { reason: "Forbidden".to_owned(), ..response(403, "<html>") }));
    }
}
