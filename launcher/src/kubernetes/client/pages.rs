//! Reads lists page by page: each page is processed and dropped before the next request.

use kube::api::{ListParams, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::kubernetes::client::api_error::{request_failed, timed_out};
use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::client::retry;

/// Objects in a page of JSON. Limits the memory for one answer of the API server.
const PAGE: u32 = 100;

/// What to list.
pub(crate) struct Query<'a> {
    /// Text for messages: `Listing nodes`.
    pub(crate) what: &'a str,
    /// `/api/v1/nodes`.
    pub(crate) path: &'a str,
    /// Label selector.
    pub(crate) labels: Option<&'a str>,
    /// Field selector.
    pub(crate) fields: Option<&'a str>,
}

/// A page of a list.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// The token for the next page.
    pub(crate) next: Option<String>,
}

/// Reads one page.
pub(crate) trait ReadPage<T> {
    /// The page; `None` when there was no answer in time.
    fn read(&mut self, params: ListParams) -> impl Future<Output = Option<kube::Result<Page<T>>>> + Send;
}

/// Reads pages in JSON.
pub(crate) struct Json<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) path: &'a str,
}

#[derive(Deserialize)]
struct SentPage<T> {
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

/// Reads every page in JSON and passes each object to `take`, with the state from `fresh`.
pub(crate) async fn fold<T: DeserializeOwned + Send, S>(
    connection: &Connection,
    query: &Query<'_>,
    fresh: impl Fn() -> S,
    take: impl FnMut(&mut S, T),
) -> Result<S, Failure> {
    let pages = Json { connection, path: query.path };
    fold_pages(connection, query, pages, fresh, take).await
}

/// Reads every page and passes each object to `take`, with the state from `fresh`. If the list expires on the API server
/// (410), starts again once with a new state.
pub(crate) async fn fold_pages<T, S>(
    connection: &Connection,
    query: &Query<'_>,
    mut pages: impl ReadPage<T>,
    fresh: impl Fn() -> S,
    mut take: impl FnMut(&mut S, T),
) -> Result<S, Failure> {
    let what = || format!("{} of context {}", query.what, connection.context);
    let mut params = ListParams::default();
    params.label_selector = query.labels.map(str::to_owned);
    params.field_selector = query.fields.map(str::to_owned);
    let mut state = fresh();
    let mut restarted = false;
    loop {
        let page = match pages.read(params.clone()).await.ok_or_else(|| timed_out(connection, what()))? {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 410 && !restarted => {
                restarted = true;
                state = fresh();
                params.continue_token = None;
                continue;
            }
            Err(error) => return Err(request_failed(connection, what(), &error)),
        };
        for item in page.items {
            take(&mut state, item);
        }
        match page.next {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(state),
        }
    }
}

impl<T: DeserializeOwned + Send> ReadPage<T> for Json<'_> {
    async fn read(&mut self, params: ListParams) -> Option<kube::Result<Page<T>>> {
        let params = params.limit(PAGE);
        let page = retry::read(|| async {
            let request = Request::new(self.path).list(&params).map_err(kube::Error::BuildRequest)?;
            self.connection.client.request::<SentPage<T>>(request).await
        });
        let read = |SentPage { metadata, items }| Page {
            items: items.unwrap_or_default(),
            next: metadata.next.filter(|token: &String| !token.is_empty()),
        };
        page.await.map(|page| page.map(read))
    }
}
