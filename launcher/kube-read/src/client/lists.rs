//! `fold`: reads a list (nodes, pods) in protobuf, object by object. If protobuf is rejected, reads JSON pages.
//! `Freshness`: how new the list must be.
//!
//! Protobuf takes at most half the time of JSON, on the server and on the client.
//!
//! A list is one request, and each object is processed while the response arrives. Pages take longer, and not every API
//! server supports a streaming list (WatchList). See `docs/performance.md`.

use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use prost::Message;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::Failure;
use crate::client::api_error::{request_failed, silent};
use crate::client::connection::Connection;
use crate::client::pagination;
use crate::client::pagination::Query;
use crate::client::protobuf_list::{ListError, ListReader};
use crate::client::protobuf_status::status_of;
use crate::client::retry;

/// Content type of protobuf.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Accepted content types. A server without protobuf responds in JSON.
const ACCEPT: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf, application/json;q=0.9");
/// Maximum time without data. An API server before 1.33 builds the whole list in memory before it sends the first byte.
const SILENCE: Duration = Duration::from_secs(10);
/// Maximum size of the body of a failed request.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// The required freshness of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the cache of the API server, which can be some milliseconds old. Controllers and kubelets also read from
    /// this cache.
    Cached,
    /// At least as new as the request. For this, an API server before 1.31 reads every object of the kind from etcd.
    Exact,
}

/// The response of a server to a request for protobuf.
enum ListAnswer<S> {
    Complete(S),
    /// The server sent another content type, status 406 or 410, or only one page of the list.
    Refused,
    /// The server sent no data for a long time.
    Silence,
}

/// Reads a list and passes each object to `take`, with the state from `fresh`. If the response is cut off, starts again
/// with a new state.
pub async fn fold<T, S>(
    connection: &Connection,
    query: &Query<'_>,
    freshness: Freshness,
    fresh: impl Fn() -> S,
    take: impl Fn(&mut S, T),
) -> Result<S, Failure>
where
    T: Message + Default + DeserializeOwned + Send,
{
    let what = || format!("{} of context {}", query.what, connection.context);
    let path = path(query, freshness);
    let read = || retry::read_while_bytes_come(|| list(connection, &path, fresh(), &take));
    let answer = match read().await {
        // A network change may have dropped the connection. The next attempt gets a new connection.
        Some(Ok(ListAnswer::Silence)) => read().await,
        answer => answer,
    };
    match answer {
        Some(Ok(ListAnswer::Complete(state))) => Ok(state),
        Some(Ok(ListAnswer::Refused)) => pagination::fold(connection, query, fresh, take).await,
        Some(Err(error)) => Err(request_failed(connection, what(), &error)),
        Some(Ok(ListAnswer::Silence)) | None => Err(silent(connection, what(), SILENCE)),
    }
}

fn path(query: &Query<'_>, freshness: Freshness) -> String {
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    let given = [("labelSelector", query.labels), ("fieldSelector", query.fields)];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| {
        parameters.append_pair(name, value);
    });
    if freshness == Freshness::Cached {
        parameters.append_pair("resourceVersion", "0");
    }
    format!("{}?{}", query.path, parameters.finish())
}

async fn list<T: Message + Default, S>(
    connection: &Connection,
    path: &str,
    mut state: S,
    take: &impl Fn(&mut S, T),
) -> kube::Result<ListAnswer<S>> {
    let request = Request::get(path).header(header::ACCEPT, ACCEPT).body(Body::empty());
    let sending = connection.client.send(request.map_err(kube::Error::HttpError)?);
    let Ok(response) = timeout(SILENCE, sending).await else { return Ok(ListAnswer::Silence) };
    let response = response?;
    match response.status() {
        StatusCode::NOT_ACCEPTABLE => return Ok(ListAnswer::Refused),
        // The cache of the API server or of a proxy is too old. Pages are read from etcd.
        StatusCode::GONE => return Ok(ListAnswer::Refused),
        status if !status.is_success() => return Err(failed(response).await),
        _ if !is_protobuf(&response) => return Ok(ListAnswer::Refused),
        _ => {}
    }
    let mut reader = ListReader::default();
    let mut body = response.into_body();
    loop {
        let Ok(frame) = timeout(SILENCE, body.frame()).await else { return Ok(ListAnswer::Silence) };
        let Some(frame) = frame.transpose()? else { break };
        if let Some(bytes) = frame.data_ref() {
            reader.read(bytes, &mut |item| take(&mut state, item)).map_err(invalid)?;
        }
    }
    match reader.finish().map_err(invalid)? {
        None => Ok(ListAnswer::Complete(state)),
        // The request did not ask for pages, so a token for the next page is unexpected.
        Some(_) => Ok(ListAnswer::Refused),
    }
}

fn is_protobuf(response: &Response<Body>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|name| name.split(';').next().unwrap_or_default().trim() == PROTOBUF)
}

async fn failed(response: Response<Body>) -> kube::Error {
    let code = response.status();
    let body = timeout(SILENCE, Limited::new(response.into_body(), MAX_STATUS_BYTES).collect()).await;
    let bytes = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    kube::Error::Api(status_of(&bytes, code).boxed())
}

fn invalid(error: ListError) -> kube::Error {
    kube::Error::Service(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use demo_cluster::{
        AnswerFault, Cluster, CountedFault, Denial, Fixture, NodeFixture, ProtobufRefusal, RequestFault, workload_pod,
    };
    use syringe_core::report::Report;

    use super::*;
    use crate::Contexts;
    use crate::objects::api_objects::pod_requests::PodRequests;

    fn fixture() -> Fixture {
        let node = NodeFixture::new("gpu-1", Report::default());
        let pods = (0..250).map(|number| workload_pod("ml", &format!("train-{number}"), "gpu-1", 2));
        Fixture { pods: pods.collect(), ..Fixture::of([node]) }
    }

    async fn start(fixture: Fixture) -> (Cluster, Connection) {
        let cluster = Cluster::start(fixture).await.expect("a free port");
        let connection = Contexts::in_memory(cluster.kubeconfig(), None).connect(None).await.expect("a connection");
        (cluster, connection)
    }

    /// Returns how often each pod was read, by name.
    async fn pods(connection: &Connection) -> Result<BTreeMap<String, u32>, Failure> {
        let query =
            Query { what: "Listing the pods", path: "/api/v1/pods", labels: None, fields: Some("spec.nodeName=gpu-1") };
        let count = |counts: &mut BTreeMap<String, u32>, pod: PodRequests| {
            *counts.entry(pod.metadata.name).or_default() += pod.spec.containers.len() as u32;
        };
        fold(connection, &query, Freshness::Cached, BTreeMap::new, count).await
    }

    fn lists(cluster: &Cluster) -> Vec<String> {
        cluster.requests().into_iter().filter(|request| request.starts_with("GET /api/v1/pods?")).collect()
    }

    #[tokio::test]
    async fn a_list_is_one_request_from_the_cache_in_protobuf() {
        let (cluster, connection) = start(fixture()).await;
        let pods = pods(&connection).await.expect("a list");
        assert!(pods.len() == 250 && pods.values().all(|count| *count == 1), "{pods:?}");
        assert_eq!(lists(&cluster), ["GET /api/v1/pods?fieldSelector=spec.nodeName%3Dgpu-1&resourceVersion=0"]);
    }

    #[tokio::test]
    async fn a_server_or_proxy_that_refuses_protobuf_is_read_in_json() {
        let (cluster, connection) = start(fixture()).await;
        let expected = pods(&connection).await.expect("a list");
        for refusal in [ProtobufRefusal::NotAcceptable, ProtobufRefusal::JsonInstead] {
            cluster.faults(|faults| faults.api.protobuf_refusal = Some(refusal));
            let before = lists(&cluster).len();
            assert_eq!(pods(&connection).await.expect("a list"), expected, "{refusal:?}");
            let pages = lists(&cluster).split_off(before);
            assert_eq!(pages.iter().filter(|request| request.contains("limit=100")).count(), 3, "{pages:?}");
        }
    }

    #[tokio::test]
    async fn a_list_that_is_cut_or_refused_for_a_moment_is_read_again() {
        let (cluster, connection) = start(fixture()).await;
        let expected = pods(&connection).await.expect("a list");
        let answers =
            [AnswerFault::Closed, AnswerFault::CutBody, AnswerFault::TooManyRequests(1), AnswerFault::InternalError];
        for answer in answers {
            let fault =
                RequestFault { verb: Some("list"), resource: Some("pods"), answer: CountedFault::once(answer.clone()) };
            cluster.faults(|faults| faults.api.requests = vec![fault]);
            let before = lists(&cluster).len();
            assert_eq!(pods(&connection).await.expect("a list"), expected, "{answer:?}");
            assert_eq!(lists(&cluster).len(), before + 2, "{answer:?}");
        }
    }

    /// Every page of a large list can expire, even in the next attempt.
    #[tokio::test]
    async fn a_list_that_expires_is_started_again_a_few_times() {
        let (cluster, connection) = start(fixture()).await;
        let expected = pods(&connection).await.expect("a list");
        for expiries in 1..=4 {
            cluster.faults(|faults| {
                faults.api.protobuf_refusal = Some(ProtobufRefusal::NotAcceptable);
                faults.api.expired_continues = expiries;
            });
            let before = lists(&cluster).len();
            let read = pods(&connection).await;
            let first_pages = lists(&cluster).split_off(before);
            let first_pages =
                first_pages.iter().filter(|one| one.contains("limit") && !one.contains("continue")).count();
            match read {
                Ok(read) if expiries < 4 => assert_eq!((read, first_pages), (expected.clone(), expiries as usize + 1)),
                Err(failure) if expiries == 4 => {
                    assert!(failure.why.contains("expired 4 times") && failure.why.contains("410"), "{failure}");
                    assert!(failure.next_step.contains("Try again"), "{failure}");
                }
                read => panic!("{expiries}: {read:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_forbidden_list_says_what_the_server_says() {
        let (_cluster, connection) = start(fixture().denying(Denial::of("list", "pods"))).await;
        let failure = pods(&connection).await.expect_err("a refusal");
        assert!(failure.why.contains("forbidden") && failure.next_step.contains("setup --apply --user"), "{failure:?}");
    }
}
