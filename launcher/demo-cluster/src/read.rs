//! `get` and `list` for every stored kind.

use std::sync::Arc;

use http::Response;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::{Serialize, Serializer};

use super::answer::{Body, Refusal, json};
use super::kinds::Kind;
use super::query::Query;
use super::route::Target;
use super::selector::{Fields, Labels};
use super::shared::Shared;
use super::store::{Key, Selection};

/// What the parameters of a list, watch or collection deletion ask for.
pub(super) fn selection<K: Kind>(target: &Target, query: &Query) -> Result<Selection, Refusal> {
    let labels = Labels::parse(query.get("labelSelector").unwrap_or_default()).map_err(Refusal::BadRequest)?;
    let fields =
        Fields::parse(query.get("fieldSelector").unwrap_or_default(), K::FIELDS).map_err(Refusal::BadRequest)?;
    Ok(Selection { namespace: target.namespace.clone(), labels, fields })
}

/// The key of the object that a request names.
pub(super) fn key(target: &Target) -> Key {
    (target.namespace.clone().unwrap_or_default(), target.name.clone().unwrap_or_default())
}

/// The object that a request names.
pub(super) fn find<K: Kind>(shared: &Shared, target: &Target) -> Result<Arc<K>, Refusal> {
    let key = key(target);
    shared.get(&key).ok_or(Refusal::NotFound { resource: K::PLURAL, name: key.1 })
}

/// `get`.
pub(super) fn get<K: Kind>(shared: &Shared, target: &Target) -> Result<Response<Body>, Refusal> {
    Ok(json(200, &*find::<K>(shared, target)?))
}

/// A list's body. Borrows its items: k8s-openapi's own list would need copies of them.
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

/// `list`, by pages if the client asks for them.
pub(super) fn list<K: Kind>(shared: &Shared, target: &Target, query: &Query) -> Result<Response<Body>, Refusal> {
    let selection = selection::<K>(target, query)?;
    let after = query.get("continue").map(|token| position(shared, token)).transpose()?;
    let limit = query.number("limit").and_then(|limit| usize::try_from(limit).ok());
    let (page, version) =
        shared.store(|store| (K::collection(store).page(&selection, after.as_ref(), limit), store.version()));
    let metadata = ListMeta {
        resource_version: Some(version.to_string()),
        continue_: page.next.as_ref().map(|(namespace, name)| format!("{version}:{namespace}/{name}")),
        remaining_item_count: page.remaining.and_then(|count| i64::try_from(count).ok()),
        ..ListMeta::default()
    };
    Ok(listing(metadata, page.items))
}

/// A list of these objects.
pub(super) fn listing<K: Kind>(metadata: ListMeta, items: Vec<Arc<K>>) -> Response<Body> {
    json(200, &List { kind: format!("{}List", K::KIND), api_version: K::API_VERSION, metadata, items })
}

/// Where a `continue` token goes on. Clients must not look inside of it; here it is `version:namespace/name`.
fn position(shared: &Shared, token: &str) -> Result<Key, Refusal> {
    if shared.faults(|faults| std::mem::take(&mut faults.api.expire_continue_once)) {
        return Err(Refusal::Expired(
            "The provided continue parameter is too old to display a consistent list result.".to_owned(),
        ));
    }
    let key = token.split_once(':').and_then(|(_, key)| key.split_once('/'));
    key.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| Refusal::BadRequest("continue key is not valid".to_owned()))
}
