//! Lists, page by page: each page is read, handed on and dropped before the next is asked for.

use std::time::Duration;

use kube::api::{ListParams, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::Connection;
use super::node::{READ_TIME, timed_out, unanswered};
use crate::error::Failure;

/// Objects of a page: bounds the memory for one answer of the API server.
const PAGE: u32 = 100;
/// Time for a page after the first: by then the API server is known to answer.
const NEXT_PAGE_TIME: Duration = Duration::from_secs(15);
/// How often a page is asked for again when the API server is busy.
const MOST_TRIES: u32 = 4;
/// Longest wait that a `Retry-After` can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3);

/// What to list.
pub(crate) struct Query<'a> {
    /// In words, for messages: `Listing nodes`.
    pub(crate) what: &'a str,
    /// `/api/v1/nodes`.
    pub(crate) path: &'a str,
    /// Label selector.
    pub(crate) labels: Option<&'a str>,
    /// Field selector.
    pub(crate) fields: Option<&'a str>,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    // An empty list of a Go program can be null.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

/// Reads every page and hands each object to `take`, with what `fresh` made. A list that outlives the API server's history
/// (410) begins anew, once, with a fresh one.
pub(crate) async fn fold<T: DeserializeOwned, S>(
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
    let mut restarted = false;
    loop {
        let time = if params.continue_token.is_some() { NEXT_PAGE_TIME } else { READ_TIME };
        let page = timeout(time, page::<T>(connection, query.path, &params));
        let page = match page.await.map_err(|_| timed_out(connection, what()))? {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 410 && !restarted => {
                restarted = true;
                state = fresh();
                params.continue_token = None;
                continue;
            }
            Err(error) => return Err(unanswered(connection, what(), &error)),
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

async fn page<T: DeserializeOwned>(
    connection: &Connection,
    path: &str,
    params: &ListParams,
) -> Result<Page<T>, kube::Error> {
    let mut tries = 1;
    loop {
        let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
        match connection.client.request::<Page<T>>(request).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 429 | 503) && tries < MOST_TRIES => {
                tries += 1;
                let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                sleep(Duration::from_secs(asked.into()).clamp(Duration::from_millis(200), LONGEST_RETRY_AFTER)).await;
            }
            other => return other,
        }
    }
}
