//! `fold`: reads a list (`Query`) page by page. Each page is processed and dropped before the next request.

use kube::api::{ListParams, Request};
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::client::api_error::{request_failed, timed_out};
use crate::client::connection::Connection;
use crate::client::retry;

/// Maximum number of times that a list is read again from the start because it expired on the API server.
const MAX_RESTARTS: u32 = 3;
/// Number of objects in a page. This limits the memory for one response of the API server.
const PAGE: u32 = 100;
pub struct Query<'a> {
    /// Description for messages, such as `Listing nodes`.
    pub what: &'a str,
    /// Path of the request, such as `/api/v1/nodes`.
    pub path: &'a str,
    pub labels: Option<&'a str>,
    pub fields: Option<&'a str>,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    // A Go program can send null for an empty list.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

/// Reads every page and passes each object to `take`, with the state from `fresh`. If the list expires on the API
/// server (410), starts again with a new state, a limited number of times.
pub async fn fold<T: DeserializeOwned, S>(
    connection: &Connection,
    query: &Query<'_>,
    fresh: impl Fn() -> S,
    mut take: impl FnMut(&mut S, T),
) -> Result<S, Failure> {
    let what = || format!("{} of context {}", query.what, connection.context);
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = query.labels.map(str::to_owned);
    params.field_selector = query.fields.map(str::to_owned);
    let mut state = fresh();
    let mut restarts = 0;
    loop {
        let page = retry::read(|| page::<T>(connection, query.path, &params)).await;
        let page = match page.ok_or_else(|| timed_out(connection, what()))? {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 410 => {
                if restarts == MAX_RESTARTS {
                    return Err(expired(connection, what(), &status));
                }
                restarts += 1;
                state = fresh();
                params.continue_token = None;
                continue;
            }
            Err(error) => return Err(request_failed(connection, what(), &error)),
        };
        for item in page.items.unwrap_or_default() {
            take(&mut state, item);
        }
        match page.metadata.next.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(state),
        }
    }
}

/// Creates the failure for a list that expired. The API server keeps old versions of its objects for only a few
/// minutes.
fn expired(connection: &Connection, what: String, status: &Status) -> Failure {
    let why = format!(
        "{}: the list expired {} times before its last page was read: {} (HTTP 410)",
        connection.server,
        MAX_RESTARTS + 1,
        status.message
    );
    let next = "Try again on a faster connection, or ask about one node: its lists are short.";
    Failure::new(what, why, next)
}

async fn page<T: DeserializeOwned>(
    connection: &Connection,
    path: &str,
    params: &ListParams,
) -> Result<Page<T>, kube::Error> {
    let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
    connection.client.request(request).await
}
