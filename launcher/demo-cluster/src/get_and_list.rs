//! `get`, `list`: serve these verbs for every stored kind. `selection`, `key`, `find`: the objects that a request
//! names. `list_response`: a list as a response.

use std::sync::Arc;

use http::Response;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::{Serialize, Serializer};

use crate::api_error::ApiError;
use crate::cluster_state::ClusterState;
use crate::collection::{Key, Selection};
use crate::kinds::Kind;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::response::{Body, json};
use crate::selector::{Fields, Labels};
use crate::store::Stored;

/// Returns the selection of a list, watch or collection deletion.
pub(crate) fn selection<K: Stored>(info: &RequestInfo, query: &Query) -> Result<Selection, ApiError> {
    let labels = Labels::parse(query.get("labelSelector").unwrap_or_default()).map_err(ApiError::BadRequest)?;
    let fields =
        Fields::parse(query.get("fieldSelector").unwrap_or_default(), K::FIELDS).map_err(ApiError::BadRequest)?;
    Ok(Selection { namespace: info.namespace.clone(), labels, fields })
}

/// Returns the key of the object of a request.
pub(crate) fn key(info: &RequestInfo) -> Key {
    (info.namespace.clone().unwrap_or_default(), info.name.clone().unwrap_or_default())
}

/// Returns the object of a request.
pub(crate) fn find<K: Stored>(state: &ClusterState, info: &RequestInfo) -> Result<Arc<K>, ApiError> {
    let key = key(info);
    state.get(&key).ok_or(ApiError::NotFound { resource: K::PLURAL, name: key.1 })
}

/// Serves `get`.
pub(crate) fn get<K: Stored>(state: &ClusterState, info: &RequestInfo) -> Result<Response<Body>, ApiError> {
    Ok(json(200, &*find::<K>(state, info)?))
}

/// The body of a list. `k8s_openapi::List` would need a copy of each item.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<K: Kind> {
    kind: String,
    api_version: &'static str,
    metadata: ListMeta,
    #[serde(serialize_with = "each")]
    items: Vec<Arc<K>>,
}

fn each<K: Kind, S: Serializer>(items: &[Arc<K>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(|item| &**item))
}

/// Serves `list`, in pages if the client requests pages.
pub(crate) fn list<K: Stored>(
    state: &ClusterState,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let selection = selection::<K>(info, query)?;
    let after = query.get("continue").map(|token| continue_key(state, token)).transpose()?;
    let limit = query.number("limit").and_then(|limit| usize::try_from(limit).ok());
    let (page, version) =
        state.store(|store| (K::collection(store).page(&selection, after.as_ref(), limit), store.version()));
    let metadata = ListMeta {
        resource_version: Some(version.to_string()),
        continue_: page.next.as_ref().map(|(namespace, name)| format!("{version}:{namespace}/{name}")),
        remaining_item_count: page.remaining.and_then(|count| i64::try_from(count).ok()),
        ..ListMeta::default()
    };
    Ok(list_response(metadata, page.items))
}

/// Returns a list response with these objects.
pub(crate) fn list_response<K: Stored>(metadata: ListMeta, items: Vec<Arc<K>>) -> Response<Body> {
    json(200, &List { kind: format!("{}List", K::KIND), api_version: K::API_VERSION, metadata, items })
}

/// Returns the key after which a list continues. A `continue` token is `version:namespace/name`. Clients must not parse
/// the token.
fn continue_key(state: &ClusterState, token: &str) -> Result<Key, ApiError> {
    if state.injector.take_continue_expiry() {
        return Err(ApiError::Expired(
            "The provided continue parameter is too old to display a consistent list result.".to_owned(),
        ));
    }
    let key = token.split_once(':').and_then(|(_, key)| key.split_once('/'));
    key.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| ApiError::BadRequest("continue key is not valid".to_owned()))
}
