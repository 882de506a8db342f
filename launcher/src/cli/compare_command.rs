//! `run`: runs `gpu-syringe compare`: opens the two states, each an archive or the cluster, and prints the differences.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kube_read::{Contexts, Failure};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::{call_context, until_stopped};
use crate::archives::{self, EmbeddedCluster, Opened};
use crate::compare::{self, CompareArgs, Side};
use crate::consent::TerminalPrompt;
use crate::outcome::Outcome;
use crate::probe::{Prober, SETTLE_TIME};
use crate::settings::Settings;
use crate::tools::node_name;

pub(super) async fn run(
    args: &CompareArgs,
    output: Output,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    // The embedded clusters and their probers must outlive the calls.
    let mut opened = Vec::new();
    let mut earlier = open_side(&args.earlier, settings, contexts, prober, stop, &mut opened).await?;
    let mut later = open_side(&args.later, settings, contexts, prober, stop, &mut opened).await?;
    // A node is compared with the node of the same name in an archive of many nodes.
    for (side, other) in [(&mut earlier, &args.later), (&mut later, &args.earlier)] {
        if side.file.is_some() && archive(other).is_none() && side.nodes.len() + side.unread.len() > 1 {
            let Ok(wanted) = node_name(other) else { continue };
            side.nodes.retain(|node| *node == wanted);
            side.unread.retain(|node, _| *node == wanted);
        }
    }
    let compared = until_stopped(compare::compare(earlier, later), prober, stop).await;
    for (_, prober) in &opened {
        let _ = tokio::time::timeout(SETTLE_TIME, prober.settle()).await;
        prober.end_session();
    }
    let compared = compared?;
    output.print(&compared.json(), &compared.names(), || compared.page())?;
    Ok(compared.outcome())
}

/// Returns one of the two states. The embedded cluster of an archive and its prober are added to `opened`.
async fn open_side(
    name: &str,
    settings: &Arc<Settings>,
    contexts: &Arc<Contexts>,
    prober: &Prober,
    stop: &CancellationToken,
    opened: &mut Vec<(Option<EmbeddedCluster>, Prober)>,
) -> Result<Side, Failure> {
    let call = |settings: &Arc<Settings>, contexts: &Arc<Contexts>, prober: &Prober| {
        call_context(Arc::new(TerminalPrompt), settings, contexts, prober, stop)
    };
    let name = name.to_owned();
    let Some(path) = archive(&name) else {
        let node = node_name(&name).map_err(|why| {
            let next = "Name a node, or an archive: its name contains a slash or ends in .gz, .tgz or .json.";
            Failure::usage(format!("Comparing {name}"), why, next)
        })?;
        let call = call(settings, contexts, prober);
        return Ok(Side { name, call, nodes: vec![node], unread: BTreeMap::new(), file: None });
    };
    let file = path.canonicalize().unwrap_or_else(|_| path.clone());
    let Opened { settings, contexts, cluster, nodes, unread } =
        archives::open_file(Settings::clone(settings), path).await?;
    let settings = Arc::new(settings);
    let prober = Prober::new(Arc::clone(&settings), stop.clone());
    let call = call(&settings, &Arc::new(contexts), &prober);
    opened.push((cluster, prober));
    Ok(Side { name, call, nodes, unread, file: Some(file) })
}

/// Returns the path, if an argument names an archive and not a node.
fn archive(name: &str) -> Option<PathBuf> {
    let ends = [".gz", ".tgz", ".json"].iter().any(|end| name.ends_with(end));
    let is_path = ends || name.contains(std::path::MAIN_SEPARATOR) && !name.starts_with("node/");
    // A file in the working directory with the name of a node is not an archive: another user may have written it.
    is_path.then(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_or_the_end_of_a_file_names_an_archive() {
        for name in ["./gpu-1", "/tmp/x", "a.tar.gz", "a.tgz", "node.json"] {
            assert_eq!(archive(name), Some(PathBuf::from(name)));
        }
        // This file is in the working directory of the test.
        assert!(PathBuf::from("Cargo.toml").is_file());
        for name in ["Cargo.toml", "gpu-1", "node/gpu-1"] {
            assert_eq!(archive(name), None, "{name}");
        }
    }
}
