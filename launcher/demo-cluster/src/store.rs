//! What the cluster holds: objects by namespace and name, one resource version for all, and a bounded history for watches.
//!
//! Objects sit behind `Arc`: a list takes references under the lock and serialises outside of it. There are no
//! snapshots: a second page shows what exists when it is asked for, not what existed at the first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::kinds::Kind;
use super::selector::{Fields, Labels};

/// Namespace (empty for cluster-wide kinds) and name.
pub(super) type Key = (String, String);

/// How many changes of each kind a watch can still ask for. Older ones are answered with 410, as etcd's compaction does.
const HISTORY: usize = 8_192;

/// All kinds, and the resource version of the latest change.
#[derive(Default)]
pub(super) struct Store {
    version: u64,
    identities: u64,
    pub(super) pods: Collection<Pod>,
    pub(super) nodes: Collection<Node>,
    pub(super) events: Collection<Event>,
    pub(super) namespaces: Collection<Namespace>,
    /// `resource.k8s.io/v1` objects as they were given: the client library has no type for them in its oldest version.
    pub(super) claims: Vec<Value>,
    /// See `claims`.
    pub(super) slices: Vec<Value>,
}

/// One change, as a watch tells it.
#[derive(Clone)]
pub(super) struct Change<K> {
    /// The resource version that the change made.
    pub(super) version: u64,
    /// What was there before; `None` for a new object.
    pub(super) before: Option<Arc<K>>,
    /// What is there now; `None` for one that went. Its `before` then carries the version of the removal.
    pub(super) after: Option<Arc<K>>,
}

/// The objects of one kind.
pub(super) struct Collection<K> {
    items: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
    history: VecDeque<Change<K>>,
    forgotten: u64,
}

impl<K> Default for Collection<K> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), index: HashMap::new(), history: VecDeque::new(), forgotten: 0 }
    }
}

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    pub(super) labels: Labels,
    pub(super) fields: Fields,
}

impl Selection {
    /// Whether `object` is asked for.
    pub(super) fn matches<K: Kind>(&self, object: &K) -> bool {
        let metadata = object.metadata();
        let namespace = |wanted: &String| metadata.namespace.as_ref() == Some(wanted);
        self.namespace.as_ref().is_none_or(namespace)
            && self.labels.matches(metadata.labels.as_ref())
            && self.fields.matches(|field| object.field(field))
    }
}

/// One page of a list.
pub(super) struct Page<K> {
    pub(super) items: Vec<Arc<K>>,
    /// The last key of this page, when more follow.
    pub(super) next: Option<Key>,
    /// How many follow; only known without selectors, as in the real API server.
    pub(super) remaining: Option<usize>,
}

impl Store {
    /// The resource version of the latest change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A number that no object had before: what UIDs and generated names are made of.
    pub(super) fn next_identity(&mut self) -> u64 {
        self.identities += 1;
        self.identities
    }

    /// Stores `object` under its namespace and name, in place of what was there.
    /// Fills in UID and creation time where they are absent.
    pub(super) fn put<K: Kind>(&mut self, mut object: K) -> Arc<K> {
        self.version += 1;
        let identity = self.next_identity();
        let metadata = object.metadata_mut();
        metadata.resource_version = Some(self.version.to_string());
        metadata.uid.get_or_insert_with(|| super::identity::uid(identity));
        metadata.creation_timestamp.get_or_insert_with(|| Time(super::identity::now()));
        let object = Arc::new(object);
        let version = self.version;
        K::collection_mut(self).put(version, Arc::clone(&object));
        object
    }

    /// Changes the object under `key` with `edit`, if it is there.
    pub(super) fn edit<K: Kind>(&mut self, key: &Key, edit: impl FnOnce(&mut K)) -> Option<Arc<K>> {
        let mut object = K::clone(K::collection(self).get(key)?);
        edit(&mut object);
        Some(self.put(object))
    }

    /// Removes the object under `key`; returns what was there.
    pub(super) fn remove<K: Kind>(&mut self, key: &Key) -> Option<Arc<K>> {
        let mut last = K::clone(K::collection(self).get(key)?);
        self.version += 1;
        let version = self.version;
        last.metadata_mut().resource_version = Some(version.to_string());
        let last = Arc::new(last);
        K::collection_mut(self).remove(version, key, Arc::clone(&last));
        Some(last)
    }
}

fn key_of<K: Kind>(object: &K) -> Key {
    let metadata = object.metadata();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl<K: Kind> Collection<K> {
    /// The object under `key`.
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.items.get(key)
    }

    /// Every object, in the order of namespace and name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.items.values()
    }

    /// How many objects have this value in the indexed field.
    pub(super) fn count_indexed(&self, value: &str) -> usize {
        self.index.get(value).map_or(0, BTreeSet::len)
    }

    fn put(&mut self, version: u64, object: Arc<K>) {
        let key = key_of(&*object);
        let before = self.items.insert(key.clone(), Arc::clone(&object));
        if let Some(before) = &before {
            self.unindex(&key, before);
        }
        if let Some(field) = K::INDEXED {
            self.index.entry(object.field(field).to_owned()).or_default().insert(key);
        }
        self.remember(Change { version, before, after: Some(object) });
    }

    fn remove(&mut self, version: u64, key: &Key, last: Arc<K>) {
        if let Some(before) = self.items.remove(key) {
            self.unindex(key, &before);
            self.remember(Change { version, before: Some(last), after: None });
        }
    }

    fn unindex(&mut self, key: &Key, object: &K) {
        let Some(field) = K::INDEXED else { return };
        let value = object.field(field);
        if let Some(keys) = self.index.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(value);
            }
        }
    }

    fn remember(&mut self, change: Change<K>) {
        if self.history.len() == HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
        self.history.push_back(change);
    }

    /// Drops the history, as a compaction does: a watch from before now is answered with 410.
    pub(super) fn compact(&mut self, version: u64) {
        self.history.clear();
        self.forgotten = version;
    }

    /// The changes after `version`; `None` when some of them are forgotten.
    pub(super) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change<K>>> {
        let start = self.history.partition_point(|change| change.version <= version);
        (version >= self.forgotten).then(|| self.history.range(start..))
    }

    /// Up to `limit` selected objects after the key `after`.
    pub(super) fn page(&self, selection: &Selection, after: Option<&Key>, limit: Option<usize>) -> Page<K> {
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut found = self.candidates(selection, after).filter(|object| selection.matches(&***object));
        let items: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let more = found.next().is_some();
        let next = items.last().filter(|_| more).map(|last| key_of(&**last));
        let unselected = selection.labels.is_empty() && selection.fields.is_empty();
        let remaining = next.as_ref().filter(|_| unselected).map(|key| self.candidates(selection, Some(key)).count());
        Page { items, next, remaining }
    }

    /// The objects after `after` that may be selected: of the namespace, or those that the index names.
    fn candidates<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&Key>,
    ) -> Box<dyn Iterator<Item = &'a Arc<K>> + 'a> {
        let first = || (selection.namespace.clone().unwrap_or_default(), String::new());
        let start = after.cloned().map_or_else(|| Bound::Included(first()), Bound::Excluded);
        let range = (start, Bound::Unbounded);
        if let Some(value) = K::INDEXED.and_then(|field| selection.fields.required(field)) {
            let keys = self.index.get(value).map(|keys| keys.range(range));
            return Box::new(keys.into_iter().flatten().filter_map(|key| self.items.get(key)));
        }
        let namespace = selection.namespace.as_ref();
        let inside = move |(key, _): &(&Key, &Arc<K>)| namespace.is_none_or(|namespace| key.0 == *namespace);
        Box::new(self.items.range(range).take_while(inside).map(|(_, object)| object))
    }
}
