//! `open`, `open_file`, `raw_records` for builds without the feature `demo`, which have no embedded cluster and cannot
//! read archives.

use std::collections::BTreeMap;
pub(crate) use std::convert::Infallible as EmbeddedCluster;
use std::path::PathBuf;

use kube_read::{Contexts, Failure};

use super::RawRecords;
use crate::settings::Settings;

/// The cluster of the settings.
pub(crate) struct Opened {
    pub(crate) settings: Settings,
    pub(crate) contexts: Contexts,
    pub(crate) cluster: Option<EmbeddedCluster>,
    pub(crate) nodes: Vec<String>,
    pub(crate) unread: BTreeMap<String, String>,
}

pub(crate) async fn open_file(_: Settings, path: PathBuf) -> Result<Opened, Failure> {
    let why = "this program was built without the embedded cluster";
    Err(Failure::new(format!("Opening the archive {}", path.display()), why, "Build it with the feature demo."))
}

pub(crate) async fn open(settings: Settings) -> Result<Opened, Failure> {
    let (contexts, nodes, unread) = (settings.contexts(), Vec::new(), BTreeMap::new());
    Ok(Opened { settings, contexts, cluster: None, nodes, unread })
}

pub(crate) fn raw_records(_: &Settings, _: &[String]) -> Result<BTreeMap<String, RawRecords>, Failure> {
    Ok(BTreeMap::new())
}
