//! `ContainerFiles`: the files of a simulated container (`ContainerFile`), in memory. `wait_for`: waits until a file
//! exists.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

/// A file in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFile {
    pub bytes: Bytes,
    /// Whether the file is executable.
    pub executable: bool,
}

/// The files of one container. Clones share these files.
#[derive(Clone, Debug, Default)]
pub struct ContainerFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Mutex<BTreeMap<String, ContainerFile>>,
    changed: watch::Sender<()>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { files: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl ContainerFiles {
    pub fn put(&self, path: &str, file: ContainerFile) {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), file);
        self.0.changed.send_replace(());
    }

    /// Returns a file, if it exists.
    pub fn get(&self, path: &str) -> Option<ContainerFile> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Waits until the file exists.
    pub(crate) async fn wait_for(&self, path: &str) {
        let mut changed = self.0.changed.subscribe();
        while self.get(path).is_none() {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
