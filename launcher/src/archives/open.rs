//! `open`: opens (`Opened`) the cluster of the kubeconfig, or the embedded cluster with the archive of `--from` or
//! `--demo`. `open_file`: opens an archive in place of the cluster. `raw_records`: returns the kernel logs and files of
//! its nodes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use archive::{Archive, SavedNode};
pub(crate) use demo_cluster::Cluster as EmbeddedCluster;
use demo_cluster::{DEMO, Fixture};
use kube_read::{Contexts, Failure};

use super::RawRecords;
use crate::settings::{ArchiveNote, ProbeMethod, Settings};

/// The cluster of the settings. The embedded cluster runs until this value is dropped.
pub(crate) struct Opened {
    pub(crate) settings: Settings,
    pub(crate) contexts: Contexts,
    /// The embedded cluster, if the cluster is an archive.
    pub(crate) cluster: Option<EmbeddedCluster>,
    /// The nodes of the archive that were read.
    pub(crate) nodes: Vec<String>,
    /// The nodes of the archive that were not read, with the reason.
    pub(crate) unread: BTreeMap<String, String>,
}

/// Opens an archive in place of the cluster of the settings.
///
/// # Errors
/// See [`open`].
pub(crate) async fn open_file(settings: Settings, path: PathBuf) -> Result<Opened, Failure> {
    open(Settings { demo: false, from: Some(path), ..settings }).await
}

/// Opens the cluster of the settings.
///
/// # Errors
/// If the archive cannot be used, or no port is free.
pub(crate) async fn open(settings: Settings) -> Result<Opened, Failure> {
    let (what, archive) = match &settings.from {
        Some(path) => {
            let what = format!("Opening the archive {}", path.display());
            let next = "Use a file that gpu-syringe save or node-probe all wrote (docs/archive.md). For the kernel log in an nvidia-bug-report: \
                zcat nvidia-bug-report.log.gz | gpu-syringe xid -";
            let file = File::open(path).map_err(|error| Failure::new(&*what, error, "Check the path after --from."))?;
            let archive = Archive::read(BufReader::new(file), false);
            (what.clone(), archive.map_err(|error| Failure::new(what, error, next))?)
        }
        None if settings.demo => {
            let archive = Archive::read(DEMO, false);
            let defect = "This is a defect of gpu-syringe: please report it.";
            ("Starting the demo".to_owned(), archive.map_err(|error| Failure::new("Starting the demo", error, defect))?)
        }
        None => {
            let (contexts, nodes, unread) = (settings.contexts(), Vec::new(), BTreeMap::new());
            return Ok(Opened { settings, contexts, cluster: None, nodes, unread });
        }
    };
    let manifest = &archive.manifest;
    let note = ArchiveNote {
        taken_at: manifest.taken_at,
        version: manifest.version.clone(),
        note: manifest.note.clone(),
        redacted: manifest.redacted,
        is_demo: settings.demo && settings.from.is_none(),
    };
    let unread = manifest.nodes.iter().filter(|entry| entry.folder.is_none()).map(|entry| {
        let why = entry.unread.clone().unwrap_or_else(|| "the node was not saved".to_owned());
        (entry.name.clone(), why)
    });
    let unread = unread.collect();
    let settings = for_archive(settings, note);
    let nodes = archive.nodes.keys().cloned().collect();
    let fixture = Fixture::of_archive(archive)
        .map_err(|why| Failure::new(&*what, why, "Save the nodes again, with this version of gpu-syringe."))?;
    let cluster = EmbeddedCluster::start(fixture).await;
    let cluster = cluster.map_err(|error| Failure::new(what, error, "Free a port on the loopback interface."))?;
    let contexts = Contexts::in_memory(cluster.kubeconfig(), None);
    Ok(Opened { settings, contexts, cluster: Some(cluster), nodes, unread })
}

/// Returns the kernel logs and files that the archive has for these nodes. Empty if the cluster is not an archive.
///
/// # Errors
/// If the archive cannot be read again.
pub(crate) fn raw_records(settings: &Settings, nodes: &[String]) -> Result<BTreeMap<String, RawRecords>, Failure> {
    let Some(path) = &settings.from else { return Ok(BTreeMap::new()) };
    let what = || format!("Reading the kernel logs of the archive {}", path.display());
    let file = File::open(path).map_err(|error| Failure::new(what(), error, "Check the path after --from."))?;
    let archive = Archive::read_with_raw_of(BufReader::new(file), &|name| nodes.iter().any(|node| node == name));
    let archive = archive.map_err(|error| Failure::new(what(), error, "Check the file after --from."))?;
    let of_node = |node: SavedNode| RawRecords { kernel_log: node.kernel_log, files: node.files };
    Ok(archive.nodes.into_iter().map(|(name, node)| (name, of_node(node))).collect())
}

/// Returns the settings without those that select a real cluster or describe its set-up.
fn for_archive(settings: Settings, note: ArchiveNote) -> Settings {
    let selected = Settings {
        kubeconfig: None,
        context: None,
        impersonate: None,
        impersonate_group: Vec::new(),
        allow_context: Vec::new(),
        ..settings
    };
    // The embedded cluster has no RuntimeClass.
    let defaults = Settings { runtime_class: None, ..selected };
    let via = if defaults.via == ProbeMethod::Inject { ProbeMethod::Auto } else { defaults.via };
    let probe_namespace = "gpu-syringe".to_owned();
    // The nodes of the embedded cluster have this image, and can pull every other image.
    Settings { via, probe_namespace, archive: Some(Arc::new(note)), ..defaults }
        .with_released_digest(demo_cluster::probe_image_digest())
}
