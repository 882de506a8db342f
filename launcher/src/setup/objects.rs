//! `get`, `names`, `apply`, `delete`: read, list, apply (server-side) and delete the objects (`ObjectRef`) of a set-up.
//! `check_admitted`, `connect`: requests that change nothing and show whether admission allows an object or an exec.
//! `RequestError`: the error of a request.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, TypeMeta};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::api_status::is_not_found;
use kube_read::failure::kube_reason;

/// Field manager of server-side apply.
const MANAGER: &str = "gpu-syringe";
/// Time limit of one request.
const TIME: Duration = Duration::from_secs(15);
/// Maximum number of objects in a list.
const MAX_LIST: u32 = 500;

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRef {
    pub(crate) resource: ApiResource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl ObjectRef {
    /// Returns the reference to the object of a manifest; `None` if the manifest has no kind or name.
    pub(crate) fn from_manifest(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let types = TypeMeta { api_version: text(&object["apiVersion"])?, kind: text(&object["kind"])? };
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).ok()?);
        let metadata = &object["metadata"];
        Some(Self { resource, namespace: text(&metadata["namespace"]), name: text(&metadata["name"])? })
    }

    pub(crate) fn new<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> Self {
        let resource = ApiResource::erase::<K>(&());
        Self { resource, namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    pub(crate) fn is<K: Resource<DynamicType = ()>>(&self) -> bool {
        self.resource == ApiResource::erase::<K>(&())
    }

    fn api(&self, connection: &Connection) -> Api<DynamicObject> {
        let client = connection.client.clone();
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.resource.kind, self.name)
    }
}

/// Whether a request is a dry run or changes the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    DryRun,
    Real,
}

/// Error of a request.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// An error of the API server or of the connection.
    Kube(kube::Error),
    /// There was no response in time.
    Timeout,
}

impl RequestError {
    /// Returns the message for the user.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Kube(error) => kube_reason(error),
            Self::Timeout => format!("no answer within {TIME:?}"),
        }
    }

    /// Returns the HTTP status; `None` if the connection failed.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Returns whether the object or the kind does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if is_not_found(status))
    }

    /// Returns whether the namespace of the object does not exist.
    pub(super) fn is_without_namespace(&self) -> bool {
        let Self::Kube(kube::Error::Api(status)) = self else { return false };
        is_not_found(status) && status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
    }

    /// Returns the error as a failure of the command.
    pub(crate) fn failure(&self, what: String, next_step: impl Into<String>) -> Failure {
        Failure::new(what, self.reason(), next_step)
    }
}

async fn within_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    timeout(TIME, request).await.map_err(|_| RequestError::Timeout)?.map_err(RequestError::Kube)
}

/// Reads an object; `None` if it does not exist.
pub(crate) async fn get(connection: &Connection, object: &ObjectRef) -> Result<Option<DynamicObject>, RequestError> {
    match within_time(object.api(connection).get(&object.name)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the names of the objects of one kind in a namespace.
pub(super) async fn names<K: Resource<DynamicType = ()>>(
    connection: &Connection,
    namespace: &str,
) -> Result<Vec<String>, RequestError> {
    let api = ObjectRef::new::<K>(Some(namespace), "").api(connection);
    let list = within_time(api.list_metadata(&ListParams::default().limit(MAX_LIST))).await?;
    Ok(list.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

/// Applies a manifest. Setup becomes the field manager of the fields in the manifest; other fields of the object are
/// not changed.
pub(super) async fn apply(
    connection: &Connection,
    object: &ObjectRef,
    manifest: &Value,
    mode: Mode,
    force: bool,
) -> Result<DynamicObject, RequestError> {
    let params = PatchParams { dry_run: mode == Mode::DryRun, force, ..PatchParams::apply(MANAGER) };
    within_time(object.api(connection).patch(&object.name, &params, &Patch::Apply(manifest))).await
}

/// Creates an object as a dry run. Returns an error if the API server would reject the object.
pub(crate) async fn check_admitted<K>(api: &Api<K>, object: &K) -> Result<(), RequestError>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let params = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    within_time(api.create(&params, object)).await.map(drop)
}

/// Sends a request to a subresource of a pod as `kubectl exec` and `kubectl attach` do, but on a separate connection
/// and without the upgrade that would start a session. If the pod does not exist, the response shows the decision of
/// admission.
pub(super) async fn connect(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    subresource: &str,
) -> Result<(), RequestError> {
    let path = format!("{}/{pod}/{subresource}", Pod::url_path(&(), Some(namespace)));
    let request = http::Request::post(path).header(http::header::CONNECTION, "close").body(Vec::new());
    let request = request.map_err(|error| RequestError::Kube(kube::Error::HttpError(error)))?;
    within_time(connection.client.request_text(request)).await.map(drop)
}

/// Deletes the object with this UID. An object that no longer exists is not an error.
pub(super) async fn delete(
    connection: &Connection,
    object: &ObjectRef,
    uid: &str,
    mode: Mode,
) -> Result<(), RequestError> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    let params = DeleteParams { dry_run: mode == Mode::DryRun, ..DeleteParams::background() };
    match within_time(object.api(connection).delete(&object.name, &params.preconditions(preconditions))).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
