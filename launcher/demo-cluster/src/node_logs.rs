//! `nodes/proxy`, as far as a kubelet's `/logs/` goes: files of `/var/log`, whole or their last bytes.

use http::{HeaderName, Request, Response, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::answer::{Body, Refusal, plain};
use super::route::Target;
use super::shared::Shared;
use super::{exec, kubelet};

/// Serves a log file of a node.
pub(super) fn serve<B>(shared: &Shared, target: &Target, request: &Request<B>) -> Result<Response<Body>, Refusal> {
    let node = target.name.as_deref().unwrap_or_default();
    if !kubelet::reachable(shared, node) {
        return Err(exec::unreachable(shared, node));
    }
    let path = request.uri().path();
    let name = path.split_once("/proxy/logs/").map(|(_, name)| name);
    let file = shared.host(node).zip(name).and_then(|(host, name)| host.log_files.get(name));
    let Some(file) = file else {
        return Err(Refusal::Plain { code: 404, text: "404 page not found\n".to_owned() });
    };
    let wanted = request.headers().get(header::RANGE).and_then(|range| suffix(range.to_str().ok()?));
    let mut response = match wanted.filter(|_| !file.is_empty()) {
        None => plain(200, file.clone()),
        Some(wanted) => {
            let start = file.len().saturating_sub(wanted);
            let mut response = plain(206, file.as_bytes()[start..].to_vec());
            put(&mut response, header::CONTENT_RANGE, &format!("bytes {start}-{}/{}", file.len() - 1, file.len()));
            response
        }
    };
    // They are taken to be written all the time.
    let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
    put(&mut response, header::LAST_MODIFIED, &now.unwrap_or_default());
    Ok(response)
}

fn put(response: &mut Response<Body>, name: HeaderName, text: &str) {
    if let Ok(value) = text.parse() {
        response.headers_mut().insert(name, value);
    }
}

/// The count of `bytes=-COUNT`, the only range that is understood.
fn suffix(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=-")?.parse().ok()
}
