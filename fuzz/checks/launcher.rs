//! The body of the fuzz target `tool_arguments`: properties of tool calls with any arguments. Re-exports `archive`.
//!
//! The tests of the crate run the bodies on the committed inputs.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use http::{Request, Response};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};
use syringe_core::text::is_hidden;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditLog;
use crate::call::CallContext;
use crate::consent::{Consent, NoPrompt};
use crate::probe::Prober;
pub use crate::probe::archive;
use crate::settings::{Mode, Settings};
use crate::tools;
use kube_read::Failure;
use kube_read::{Connection, Contexts};

use self::common::in_time;

/// Maximum length of the text of a failure.
const MAX_FAILURE: usize = 4_000;
/// Permitted query parameters of read requests.
const PARAMETERS: [&str; 10] = [
    "limit",
    "continue",
    "fieldSelector",
    "labelSelector",
    "resourceVersion",
    "resourceVersionMatch",
    "query",
    "sinceTime",
    "tailLines",
    "",
];

#[path = "common.rs"]
#[allow(dead_code, reason = "the fuzz target of the launcher does not print facts")]
mod common;

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// Fuzz target `tool_arguments`. The first byte is the number of a tool, and the rest is its arguments as JSON. For any
/// arguments, the tool must only read data that tools need, or request the creation of the probe pod.
pub fn tool_arguments(data: &[u8]) {
    let Some((number, arguments)) = data.split_first() else { return };
    let Ok(arguments) = serde_json::from_slice::<Value>(arguments) else { return };
    let tools = tools::all(Mode::Operator);
    let tool = &tools[usize::from(*number) % tools.len()];
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    // Creating the client starts a task, which needs a runtime. The simulated API server responds at once, so the calls
    // do not wait.
    let answer = in_time(|| RUNTIME.block_on(async { tool.call(context(requests.clone()), arguments).await }));
    for request in requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        assert_reads(request);
    }
    if let Err(failure) = answer {
        assert_clear(&failure);
    }
}

/// Returns the context of a call for a cluster that has one GPU node and rejects all other requests.
fn context(requests: Arc<Mutex<Vec<String>>>) -> CallContext {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = format!("{} {}", request.method(), request.uri());
        let (code, answer) = answer(&asked);
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let response = Response::builder().status(code).header("content-type", "application/json");
        std::future::ready(response.body(Full::new(bytes::Bytes::from(answer.to_string()))))
    });
    let client = kube::Client::new(service, "default");
    let (context, server, clock) = ("fuzz".into(), "http://fuzz".into(), Arc::default());
    let connection = Connection { context, server, user: None, client, clock };
    let settings = Arc::new(Settings::from_args(["--mode", "operator", "--allow-nodes", "*"]).expect("settings"));
    let prober = Prober::new(settings.clone(), CancellationToken::new()).with_audit(AuditLog::at(FOLDER.path()));
    let consent = Consent::new(Arc::new(NoPrompt), Arc::default());
    CallContext::new(settings, Arc::new(Contexts::of_connection(connection)), prober, consent)
}

/// Returns the response to a request such as `GET http://…`.
fn answer(request: &str) -> (u16, Value) {
    let path = request.split_once("/api/v1/").map_or("", |(_, path)| path.split('?').next().unwrap_or_default());
    let node = json!({
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": "gpu-1", "labels": {"kubernetes.io/arch": "amd64"}},
        "status": {"capacity": {"nvidia.com/gpu": "8"}, "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    match path.split('/').collect::<Vec<_>>()[..] {
        ["nodes"] => (200, json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [node]})),
        ["nodes", _] => (200, node),
        ["pods"] | ["namespaces", _, "pods"] if request.starts_with("GET") => {
            (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}))
        }
        _ => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
                "message": "no", "code": 403,
            });
            (403, status)
        }
    }
}

/// Asserts that a request reads data that tools need, or creates the probe pod in the launcher's namespace.
fn assert_reads(request: &str) {
    let (method, url) = request.split_once(' ').expect("a method");
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = path.trim_start_matches("http://fuzz");
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && part.len() <= 253
            && *part != "."
            && *part != ".."
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
    };
    assert!(parts.iter().all(plain), "{request}");
    let place = match parts[..] {
        ["api", "v1", "nodes" | "pods" | "events"] | ["api", "v1", "nodes", _] => "read",
        ["api", "v1", "nodes", _, "proxy", "logs", ..] => "read",
        ["api", "v1", "namespaces", _, "pods" | "events"] if method == "GET" => "read",
        ["api", "v1", "namespaces", _, "pods" | "persistentvolumeclaims", _] => "read",
        ["api", "v1", "namespaces", _] | ["api", "v1", "namespaces", _, "pods", _, "log"] => "read",
        ["apis", "resource.k8s.io" | "node.k8s.io" | "apps" | "nvidia.com" | "admissionregistration.k8s.io", ..] => {
            "read"
        }
        ["api" | "apis" | "version" | "openid"] | ["api", "v1"] | ["apis", _, _] => "read",
        ["api", "v1", "namespaces", "gpu-syringe", "pods"] => "create",
        _ => "other",
    };
    let allowed = matches!((method, place), ("GET", "read") | ("POST", "create"));
    assert!(allowed, "{request}");
    let known = |pair: &str| PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    assert!(query.split('&').all(known), "{request}");
}

/// Asserts that a failure contains what failed, the reason and the next step, in clean and short text.
fn assert_clear(failure: &Failure) {
    let text = failure.to_string();
    assert!(!failure.what.is_empty() && !failure.why.is_empty() && !failure.next_step.is_empty(), "{text}");
    let hidden = text.chars().find(|character| !matches!(character, ' ' | '\n') && is_hidden(*character));
    assert!(hidden.is_none() && text.chars().count() <= MAX_FAILURE, "{text:?}");
}

#[cfg(test)]
#[path = "../committed_inputs.rs"]
mod committed_inputs;

#[cfg(test)]
mod tests {
    use super::committed_inputs::run;

    #[test]
    fn archives_of_the_corpus_keep_the_properties() {
        run("archive", super::archive);
    }

    #[test]
    fn arguments_of_the_corpus_keep_the_properties() {
        run("tool_arguments", super::tool_arguments);
    }
}
