//! `Store`: all stored objects of the cluster, with one resource version for all kinds (`Stored`: a kind with a
//! collection).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, Namespace, NamespaceStatus, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::collection::{Collection, Key};
use crate::generated_metadata;
use crate::json_store::JsonObjects;
use crate::kinds::Kind;

/// The objects of the cluster.
#[derive(Default)]
pub(crate) struct Store {
    version: u64,
    identities: u64,
    pub(crate) pods: Collection<Pod>,
    pub(crate) nodes: Collection<Node>,
    pub(crate) events: Collection<Event>,
    pub(crate) namespaces: Collection<Namespace>,
    /// `resource.k8s.io/v1` ResourceClaims as JSON: the client library is built for Kubernetes 1.33, which has no type
    /// for these objects.
    pub(crate) claims: Vec<Value>,
    /// `resource.k8s.io/v1` ResourceSlices as JSON, for the same reason as `claims`.
    pub(crate) slices: Vec<Value>,
    pub(crate) json: JsonObjects,
}

/// A kind for which the store has a collection.
pub(crate) trait Stored: Kind {
    /// Returns the collection of this kind.
    fn collection(store: &Store) -> &Collection<Self>;
    /// Returns the collection of this kind as a mutable reference.
    fn collection_mut(store: &mut Store) -> &mut Collection<Self>;
}

macro_rules! stored {
    ($($kind:ty => $field:ident),*) => {$(
        impl Stored for $kind {
            fn collection(store: &Store) -> &Collection<Self> {
                &store.$field
            }

            fn collection_mut(store: &mut Store) -> &mut Collection<Self> {
                &mut store.$field
            }
        }
    )*};
}
stored!(Pod => pods, Node => nodes, Event => events, Namespace => namespaces);

impl Store {
    /// Returns the resource version of the latest change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns a resource version for the next change.
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Returns a number that was not used before. UIDs and generated names are derived from this number.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.identities += 1;
        self.identities
    }

    /// Stores `object`, and replaces an object with the same namespace and name. Sets the UID and the creation time if
    /// they are absent.
    pub(crate) fn put<K: Stored>(&mut self, mut object: K) -> Arc<K> {
        self.version += 1;
        let identity = self.next_number();
        let metadata = object.metadata_mut();
        metadata.resource_version = Some(self.version.to_string());
        metadata.uid.get_or_insert_with(|| generated_metadata::uid(identity));
        metadata.creation_timestamp.get_or_insert_with(|| Time(generated_metadata::now()));
        let object = Arc::new(object);
        let version = self.version;
        K::collection_mut(self).put(version, Arc::clone(&object));
        object
    }

    /// Changes the object with this key. Returns `None` if the object does not exist.
    pub(crate) fn edit<K: Stored>(&mut self, key: &Key, edit: impl FnOnce(&mut K)) -> Option<Arc<K>> {
        let mut object = K::clone(K::collection(self).get(key)?);
        edit(&mut object);
        Some(self.put(object))
    }

    /// Removes the object with this key, and returns it.
    pub(crate) fn remove<K: Stored>(&mut self, key: &Key) -> Option<Arc<K>> {
        let mut last = K::clone(K::collection(self).get(key)?);
        self.version += 1;
        let version = self.version;
        last.metadata_mut().resource_version = Some(version.to_string());
        let last = Arc::new(last);
        K::collection_mut(self).remove(version, key, Arc::clone(&last));
        Some(last)
    }
    /// Stores an object of a fixture, and creates its namespace if needed.
    pub(crate) fn put_existing<K: Stored>(&mut self, mut object: K) {
        let namespace = object.metadata_mut().namespace.get_or_insert_with(|| "default".to_owned()).clone();
        self.ensure_namespace(&namespace);
        self.put(object);
    }

    /// Creates a namespace if it does not exist.
    pub(crate) fn ensure_namespace(&mut self, name: &str) {
        if self.namespaces.get(&(String::new(), name.to_owned())).is_some() {
            return;
        }
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels = Some(BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]));
        namespace.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        self.put(namespace);
    }

    /// Removes the history of changes, like a compaction of etcd.
    #[cfg(feature = "test-support")]
    pub(crate) fn compact(&mut self) {
        let version = self.version;
        self.pods.compact(version);
        self.nodes.compact(version);
        self.events.compact(version);
        self.namespaces.compact(version);
    }
}
