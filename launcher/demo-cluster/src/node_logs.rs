//! `serve`: serves a log file of a node (`nodes/proxy`, path `/logs/` of the kubelet): the complete file or only its
//! last bytes.

use http::{HeaderName, Request, Response, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::kubelet_connection;
use crate::request_info::RequestInfo;
use crate::response::{Body, plain_text};

/// Serves a log file of a node.
pub(crate) fn serve<B>(
    state: &ClusterState,
    info: &RequestInfo,
    request: &Request<B>,
) -> Result<Response<Body>, ApiError> {
    let node = info.name.as_deref().unwrap_or_default();
    kubelet_connection::check_reachable(state, node)?;
    let path = request.uri().path();
    let name = path.split_once("/proxy/logs/").map(|(_, name)| name);
    let file = state.host(node).zip(name).and_then(|(host, name)| host.log_files.get(name));
    let Some(file) = file else {
        return Err(ApiError::PlainText { code: 404, text: "404 page not found\n".to_owned() });
    };
    let wanted = request.headers().get(header::RANGE).and_then(|range| suffix_length(range.to_str().ok()?));
    let mut response = match wanted.filter(|_| !file.is_empty()) {
        None => plain_text(200, file.clone()),
        Some(wanted) => {
            let start = file.len().saturating_sub(wanted);
            let mut response = plain_text(206, file.as_bytes()[start..].to_vec());
            set_header(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes {start}-{}/{}", file.len() - 1, file.len()),
            );
            response
        }
    };
    // The modification time is the current time, because log files are assumed to change all the time.
    let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
    set_header(&mut response, header::LAST_MODIFIED, &now.unwrap_or_default());
    Ok(response)
}

fn set_header(response: &mut Response<Body>, name: HeaderName, text: &str) {
    if let Ok(value) = text.parse() {
        response.headers_mut().insert(name, value);
    }
}

/// Returns the count of `bytes=-COUNT`, the only supported range.
fn suffix_length(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=-")?.parse().ok()
}
