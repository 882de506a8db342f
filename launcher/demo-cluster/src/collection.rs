//! `Collection`: the objects of one kind by namespace and name, with a limited history of changes (`Change`) for
//! watches. `Selection`: the objects that a list or watch requests. `Page`: one page of a list.
//!
//! Objects are in an `Arc`: a list takes references while the store is locked, and serializes the objects afterwards.
//! There are no snapshots: the second page of a list shows the objects that exist when that page is requested.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::kinds::Kind;
use crate::selector::{Fields, Labels};

/// Namespace (empty for cluster-scoped kinds) and name.
pub(crate) type Key = (String, String);

/// Number of changes of each kind that are kept for watches. A watch that starts at an older version gets 410, as after
/// a compaction of etcd.
const HISTORY: usize = 8_192;

/// One change of an object.
#[derive(Clone)]
pub(crate) struct Change<K> {
    /// The resource version of the change.
    pub(crate) version: u64,
    /// The object before the change; `None` for a new object.
    pub(crate) before: Option<Arc<K>>,
    /// The object after the change; `None` for a deleted object, whose `before` has the version of the deletion.
    pub(crate) after: Option<Arc<K>>,
}

/// The objects of one kind.
pub(crate) struct Collection<K> {
    items: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
    history: VecDeque<Change<K>>,
    /// The latest version whose changes are no longer in the history.
    compacted: u64,
}

impl<K> Default for Collection<K> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), index: HashMap::new(), history: VecDeque::new(), compacted: 0 }
    }
}

/// The selection of objects by a list or watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Labels,
    pub(crate) fields: Fields,
}

impl Selection {
    /// Returns whether `object` is selected.
    pub(crate) fn matches<K: Kind>(&self, object: &K) -> bool {
        let metadata = object.metadata();
        let namespace = |wanted: &String| metadata.namespace.as_ref() == Some(wanted);
        self.namespace.as_ref().is_none_or(namespace)
            && self.labels.matches(metadata.labels.as_ref())
            && self.fields.matches(|field| object.field(field))
    }
}

/// One page of a list.
pub(crate) struct Page<K> {
    pub(crate) items: Vec<Arc<K>>,
    /// The last key of this page, if more pages follow.
    pub(crate) next: Option<Key>,
    /// Number of objects that follow; `None` with selectors, as in a real API server.
    pub(crate) remaining: Option<usize>,
}

/// Returns the key of an object.
pub(crate) fn key_of<K: Kind>(object: &K) -> Key {
    let metadata = object.metadata();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl<K: Kind> Collection<K> {
    /// Returns the object with this key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.items.get(key)
    }

    /// Returns all objects in the order of namespace and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.items.values()
    }

    /// Returns the number of objects with this value in the indexed field.
    pub(crate) fn count_indexed(&self, value: &str) -> usize {
        self.index.get(value).map_or(0, BTreeSet::len)
    }

    /// Stores an object, and replaces an existing object with the same key.
    pub(crate) fn put(&mut self, version: u64, object: Arc<K>) {
        let key = key_of(&*object);
        let before = self.items.insert(key.clone(), Arc::clone(&object));
        if let Some(before) = &before {
            self.remove_from_index(&key, before);
        }
        if let Some(field) = K::INDEXED {
            self.index.entry(object.field(field).to_owned()).or_default().insert(key);
        }
        self.record(Change { version, before, after: Some(object) });
    }

    /// Removes an object. `last` is its last state, with the version of the removal.
    pub(crate) fn remove(&mut self, version: u64, key: &Key, last: Arc<K>) {
        if let Some(before) = self.items.remove(key) {
            self.remove_from_index(key, &before);
            self.record(Change { version, before: Some(last), after: None });
        }
    }

    fn remove_from_index(&mut self, key: &Key, object: &K) {
        let Some(field) = K::INDEXED else { return };
        let value = object.field(field);
        if let Some(keys) = self.index.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(value);
            }
        }
    }

    fn record(&mut self, change: Change<K>) {
        if self.history.len() == HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.version;
        }
        self.history.push_back(change);
    }

    /// Removes the history. A watch from an older version gets 410.
    #[cfg(feature = "test-support")]
    pub(crate) fn compact(&mut self, version: u64) {
        self.history.clear();
        self.compacted = version;
    }

    /// Returns the changes after `version`; `None` if some of them are no longer in the history.
    pub(crate) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change<K>>> {
        let start = self.history.partition_point(|change| change.version <= version);
        (version >= self.compacted).then(|| self.history.range(start..))
    }

    /// Returns up to `limit` selected objects after the key `after`.
    pub(crate) fn page(&self, selection: &Selection, after: Option<&Key>, limit: Option<usize>) -> Page<K> {
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut selected = self.candidates(selection, after).filter(|object| selection.matches(&***object));
        let items: Vec<_> = selected.by_ref().take(limit).cloned().collect();
        let more = selected.next().is_some();
        let next = items.last().filter(|_| more).map(|last| key_of(&**last));
        let has_no_selector = selection.labels.is_empty() && selection.fields.is_empty();
        let remaining =
            next.as_ref().filter(|_| has_no_selector).map(|key| self.candidates(selection, Some(key)).count());
        Page { items, next, remaining }
    }

    /// Returns the objects after `after` that can be selected: the objects of the namespace, or the objects in the
    /// index.
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
        let is_in_namespace = move |(key, _): &(&Key, &Arc<K>)| namespace.is_none_or(|namespace| key.0 == *namespace);
        Box::new(self.items.range(range).take_while(is_in_namespace).map(|(_, object)| object))
    }
}
