//! `run`: runs `gpu-syringe compare`: opens the two states, each an archive or the cluster, and prints the differences.
//! `open_earlier`: opens an archive.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kube_read::{Contexts, Failure};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::{call_context, until_stopped};
use crate::archives::{self, EmbeddedCluster, Opened};
use crate::call::EarlierState;
use crate::compare::{self, CompareArgs, Side, archive_path};
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
    // The embedded clusters and their probers must exist until the calls end.
    let mut opened = Vec::new();
    let mut earlier = open_side(&args.earlier, settings, contexts, prober, stop, &mut opened).await?;
    let mut later = open_side(&args.later, settings, contexts, prober, stop, &mut opened).await?;
    // A node is compared with the node of the same name in an archive of many nodes.
    for (side, other) in [(&mut earlier, &args.later), (&mut later, &args.earlier)] {
        if let (true, None, Ok(wanted)) = (side.file.is_some(), archive_path(other), node_name(other)) {
            side.keep_node(&wanted);
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
    let Some(path) = archive_path(&name) else {
        let node = node_name(&name).map_err(|why| {
            let next =
                "Specify a node or an archive. The name of an archive contains a slash or ends in .gz, .tgz or .json.";
            Failure::usage(format!("Comparing {name}"), why, next)
        })?;
        let call = call(settings, contexts, prober);
        return Ok(Side { name, call, context: None, nodes: vec![node], unread: BTreeMap::new(), file: None });
    };
    let (state, cluster) = open_earlier(&path, settings, stop).await?;
    let call = call(&state.settings, &state.contexts, &state.prober);
    opened.push((cluster, state.prober.clone()));
    Ok(Side { name, ..state.side(&call) })
}

/// Opens an archive in addition to the cluster of the settings. The embedded cluster must exist until the last call
/// ends.
pub(super) async fn open_earlier(
    path: &Path,
    settings: &Settings,
    stop: &CancellationToken,
) -> Result<(EarlierState, Option<EmbeddedCluster>), Failure> {
    let opened = archives::open_file(settings.clone(), path.to_owned()).await?;
    let Opened { settings, contexts, cluster, nodes, unread } = opened;
    let settings = Arc::new(settings);
    let prober = Prober::new(Arc::clone(&settings), stop.clone());
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok((EarlierState { settings, contexts: Arc::new(contexts), prober, nodes, unread, file }, cluster))
}
