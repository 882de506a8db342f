//! Requests for the objects of a set-up: read, server-side apply, delete.

use std::time::Duration;

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::time::timeout;

use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::api_status::is_not_found;
use kube_read::failure::kube_reason;

/// Field manager of server-side apply.
const MANAGER: &str = "gpu-syringe";
/// Time for one request.
const TIME: Duration = Duration::from_secs(15);

/// A kind of a set-up.
struct Kind {
    kind: &'static str,
    /// Path of its API group and version.
    api: &'static str,
    plural: &'static str,
}

const KINDS: [Kind; 10] = [
    Kind { kind: "Namespace", api: "/api/v1", plural: "namespaces" },
    Kind { kind: "ResourceQuota", api: "/api/v1", plural: "resourcequotas" },
    Kind { kind: "ConfigMap", api: "/api/v1", plural: "configmaps" },
    Kind { kind: "Role", api: RBAC, plural: "roles" },
    Kind { kind: "RoleBinding", api: RBAC, plural: "rolebindings" },
    Kind { kind: "ClusterRole", api: RBAC, plural: "clusterroles" },
    Kind { kind: "ClusterRoleBinding", api: RBAC, plural: "clusterrolebindings" },
    Kind { kind: "ValidatingAdmissionPolicy", api: ADMISSION, plural: "validatingadmissionpolicies" },
    Kind { kind: "ValidatingAdmissionPolicyBinding", api: ADMISSION, plural: "validatingadmissionpolicybindings" },
    Kind { kind: "Pod", api: "/api/v1", plural: "pods" },
];
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// Which object: kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRef {
    pub(crate) kind: &'static str,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl ObjectRef {
    /// Of a manifest. `None` for a kind that no set-up has.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let kind = KINDS.iter().find(|kind| object["kind"] == kind.kind)?.kind;
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        Some(Self { kind, namespace: text("namespace"), name: text("name")? })
    }

    /// Of a kind of the table.
    pub(crate) fn new(kind: &'static str, namespace: Option<&str>, name: &str) -> Self {
        Self { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    /// API group and plural name, as in RBAC rules.
    pub(super) fn resource(&self) -> (&'static str, &'static str) {
        let kind = self.kind();
        let group = kind.api.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        (group, kind.plural)
    }

    fn kind(&self) -> &'static Kind {
        KINDS.iter().find(|kind| kind.kind == self.kind).unwrap_or(&KINDS[0])
    }

    fn collection(&self) -> String {
        let Kind { api, plural, .. } = self.kind();
        match &self.namespace {
            Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
            None => format!("{api}/{plural}"),
        }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// Whether a request only checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    DryRun,
    Real,
}

impl Mode {
    fn query(self) -> &'static str {
        match self {
            Self::DryRun => "&dryRun=All",
            Self::Real => "",
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// An error of the API server or of the connection.
    Kube(kube::Error),
    /// No answer in time.
    Timeout,
}

impl RequestError {
    /// Message for a person.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Kube(error) => kube_reason(error),
            Self::Timeout => format!("no answer within {TIME:?}"),
        }
    }

    /// HTTP status; `None` for a failed connection.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the object, or the kind, does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if is_not_found(status))
    }

    /// Whether the namespace of the object does not exist.
    pub(super) fn is_without_namespace(&self) -> bool {
        let Self::Kube(kube::Error::Api(status)) = self else { return false };
        is_not_found(status) && status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
    }

    /// As a failure of the command.
    pub(crate) fn failure(&self, what: String, next_step: impl Into<String>) -> Failure {
        Failure::new(what, self.reason(), next_step)
    }
}

/// Sends a request with a JSON body, and parses the answer.
async fn send(connection: &Connection, method: Method, path: &str, body: &Value) -> Result<Value, RequestError> {
    let content = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content).body(bytes);
    let request = request.map_err(|error| RequestError::Kube(kube::Error::HttpError(error)))?;
    match timeout(TIME, connection.client.request::<Value>(request)).await {
        Ok(answer) => answer.map_err(RequestError::Kube),
        Err(_) => Err(RequestError::Timeout),
    }
}

/// Reads an object; `None` if it does not exist.
pub(crate) async fn get(connection: &Connection, object: &ObjectRef) -> Result<Option<Value>, RequestError> {
    let path = format!("{}/{}", object.collection(), object.name);
    match send(connection, Method::GET, &path, &Value::Null).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The objects of this kind in a namespace, at most 500.
pub(super) async fn list(connection: &Connection, of: &ObjectRef) -> Result<Vec<Value>, RequestError> {
    let path = format!("{}?limit=500", of.collection());
    let list = send(connection, Method::GET, &path, &Value::Null).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Applies an object: the fields of the manifest become ours, other fields stay.
pub(super) async fn apply(
    connection: &Connection,
    reference: &ObjectRef,
    object: &Value,
    mode: Mode,
    force: bool,
) -> Result<Value, RequestError> {
    let dry_run = mode.query();
    let path = format!("{}/{}?fieldManager={MANAGER}&force={force}{dry_run}", reference.collection(), reference.name);
    send(connection, Method::PATCH, &path, object).await
}

/// Creates an object of a kind that the table has.
pub(crate) async fn create(
    connection: &Connection,
    reference: &ObjectRef,
    object: &Value,
    mode: Mode,
) -> Result<Value, RequestError> {
    let path = format!("{}?fieldManager={MANAGER}{}", reference.collection(), mode.query());
    send(connection, Method::POST, &path, object).await
}

/// Deletes the object with this UID. One that is gone is no error.
pub(super) async fn delete(
    connection: &Connection,
    reference: &ObjectRef,
    uid: &str,
    mode: Mode,
) -> Result<(), RequestError> {
    let path = format!("{}/{}?propagationPolicy=Background{}", reference.collection(), reference.name, mode.query());
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    match send(connection, Method::DELETE, &path, &options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
