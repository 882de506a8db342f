//! Lists nodes and pods in protobuf, which a server writes and a client reads in half the time of JSON or less. Where a server or
//! a proxy refuses protobuf, the list is read in JSON.
//!
//! Objects are decoded while their page arrives. A page is handed on when it is complete, so that a page that was cut is
//! read again and nothing counts twice.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::api::{ListParams, Request};
use kube::client::Body;
use prost::Message;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::error::Failure;
use crate::kubernetes::client::connection::Connection;
use crate::kubernetes::client::pages::{Json, Page, Query, ReadPage, fold_pages};
use crate::kubernetes::client::protobuf_list::ListReader;
use crate::kubernetes::client::protobuf_status::status_of;
use crate::kubernetes::client::retry;

/// Objects in a page. Larger pages are not faster on a real API server, and a page is kept until it is complete.
const PAGE: u32 = 2_000;
/// The content type of protobuf.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What is accepted. A server without protobuf answers in JSON.
const ACCEPT: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf, application/json;q=0.9");
/// Maximum size of the body of a failed request.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// Reads every page and passes each object to `take`, with the state from `fresh`.
pub(crate) async fn fold<T, S>(
    connection: &Connection,
    query: &Query<'_>,
    fresh: impl Fn() -> S,
    take: impl FnMut(&mut S, T),
) -> Result<S, Failure>
where
    T: Message + Default + DeserializeOwned,
{
    let pages = Protobuf { json: Json { connection, path: query.path }, is_refused: false };
    fold_pages(connection, query, pages, fresh, take).await
}

/// Reads pages in protobuf; after the first answer that is not, in JSON.
struct Protobuf<'a> {
    json: Json<'a>,
    is_refused: bool,
}

/// What a server answers to a request for protobuf.
enum Answer<T> {
    Page(Page<T>),
    /// Another content type, or 406.
    Refused,
    /// No byte for a long time.
    Silence,
}

impl<T: Message + Default + DeserializeOwned> ReadPage<T> for Protobuf<'_> {
    async fn read(&mut self, params: ListParams) -> Option<kube::Result<Page<T>>> {
        if !self.is_refused {
            let Json { connection, path } = self.json;
            let with_limit = params.clone().limit(PAGE);
            match retry::read_while_bytes_come(|| page(connection, path, &with_limit)).await? {
                Ok(Answer::Page(page)) => return Some(Ok(page)),
                Ok(Answer::Silence) => return None,
                Err(error) => return Some(Err(error)),
                Ok(Answer::Refused) => self.is_refused = true,
            }
        }
        self.json.read(params).await
    }
}

async fn page<T: Message + Default>(
    connection: &Connection,
    path: &str,
    params: &ListParams,
) -> kube::Result<Answer<T>> {
    let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
    let mut request = request.map(Body::from);
    request.headers_mut().insert(header::ACCEPT, ACCEPT);
    let Ok(response) = timeout(retry::TRY_TIME, connection.client.send(request)).await else {
        return Ok(Answer::Silence);
    };
    let response = response?;
    match response.status() {
        StatusCode::NOT_ACCEPTABLE => return Ok(Answer::Refused),
        status if !status.is_success() => return Err(failed(response).await),
        _ if !is_protobuf(&response) => return Ok(Answer::Refused),
        _ => {}
    }
    let (mut reader, mut items) = (ListReader::default(), Vec::new());
    let mut body = response.into_body();
    loop {
        let Ok(frame) = timeout(retry::TRY_TIME, body.frame()).await else { return Ok(Answer::Silence) };
        let Some(frame) = frame.transpose()? else { break };
        if let Some(bytes) = frame.data_ref() {
            reader.read(bytes, &mut |item| items.push(item)).map_err(invalid)?;
        }
    }
    let next = reader.finish().map_err(invalid)?;
    Ok(Answer::Page(Page { items, next }))
}

fn is_protobuf(response: &Response<Body>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|name| name.split(';').next().unwrap_or_default().trim() == PROTOBUF)
}

async fn failed(response: Response<Body>) -> kube::Error {
    let code = response.status();
    let body = timeout(retry::TRY_TIME, Limited::new(response.into_body(), MAX_STATUS_BYTES).collect()).await;
    let bytes = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    kube::Error::Api(status_of(&bytes, code).boxed())
}

fn invalid(error: crate::kubernetes::client::protobuf_list::ListError) -> kube::Error {
    kube::Error::Service(Box::new(error))
}
