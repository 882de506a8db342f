//! Clients, one per context, made when first asked for and made anew when the kubeconfig changes on disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::plugin;
use crate::error::{Failure, kube_reason};
use crate::settings::Settings;

/// Time to reach the API server. A dead context must cost seconds, not the call.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Time for a credential plugin: some open a browser, none may keep a call waiting for it.
const SIGN_IN_TIME: Duration = Duration::from_secs(20);
/// Name of the connection that a pod's service account gives.
const IN_CLUSTER: &str = "in-cluster";

/// A client of one cluster.
#[derive(Clone)]
pub struct Connection {
    /// Name of the context.
    pub context: String,
    /// Address of the API server, for messages.
    pub server: String,
    /// User of the kubeconfig, as it is named there.
    pub user: Option<String>,
    /// The client.
    pub client: Client,
}

/// The contexts of the kubeconfig and the clients made so far.
pub struct Contexts {
    source: Source,
    preferred: Option<String>,
    made: Mutex<Made>,
}

enum Source {
    /// Files that are read anew when they change.
    Files(Vec<PathBuf>),
    /// A kubeconfig in memory: the embedded cluster's.
    Given(Box<Kubeconfig>),
}

/// Clients, valid as long as the files are as they were.
#[derive(Default)]
struct Made {
    stamps: Vec<Option<SystemTime>>,
    connections: HashMap<Option<String>, Connection>,
}

impl Contexts {
    /// Contexts of the kubeconfig that the settings name. Reads nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            source: Source::Files(kubeconfig_files(settings)),
            preferred: settings.context.clone(),
            made: Mutex::default(),
        }
    }

    /// Contexts of a kubeconfig in memory.
    pub fn given(kubeconfig: Kubeconfig, preferred: Option<String>) -> Self {
        Self { source: Source::Given(Box::new(kubeconfig)), preferred, made: Mutex::default() }
    }

    /// Names of all contexts; empty when there is no kubeconfig. Reads files, never the network.
    pub fn names(&self) -> Vec<String> {
        let kubeconfig = self.read().ok();
        kubeconfig.map(|config| config.contexts.into_iter().map(|context| context.name).collect()).unwrap_or_default()
    }

    /// The client of `context`, or of the preferred or current one.
    pub async fn connect(&self, context: Option<&str>) -> Result<Connection, Failure> {
        let wanted = context.map(str::to_owned).or_else(|| self.preferred.clone());
        let mut made = self.made.lock().await;
        let stamps = self.stamps();
        if made.stamps != stamps {
            *made = Made { stamps, connections: HashMap::new() };
        }
        if let Some(connection) = made.connections.get(&wanted) {
            return Ok(connection.clone());
        }
        let connection = self.make(wanted.as_deref()).await?;
        // A plugin may hand out a client certificate that ends: such a client is made anew each time.
        if connection.client.valid_until().is_none() {
            made.connections.insert(wanted, connection.clone());
        }
        Ok(connection)
    }

    fn read(&self) -> Result<Kubeconfig, kube::config::KubeconfigError> {
        match &self.source {
            Source::Given(kubeconfig) => Ok((**kubeconfig).clone()),
            Source::Files(files) => {
                let mut merged = Kubeconfig::default();
                let present: Vec<_> = files.iter().filter(|file| files.len() == 1 || file.exists()).collect();
                if present.is_empty() {
                    return Err(kube::config::KubeconfigError::FindPath);
                }
                for file in present {
                    merged = merged.merge(Kubeconfig::read_from(file)?)?;
                }
                Ok(merged)
            }
        }
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        match &self.source {
            Source::Given(_) => Vec::new(),
            Source::Files(files) => {
                files.iter().map(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()).collect()
            }
        }
    }

    async fn make(&self, context: Option<&str>) -> Result<Connection, Failure> {
        let (name, user, mut config) = match self.read() {
            Ok(kubeconfig) => from_kubeconfig(kubeconfig, context).await?,
            Err(error) => match Config::incluster() {
                Ok(config) if context.is_none() => (IN_CLUSTER.to_owned(), None, config),
                _ => return Err(self.no_kubeconfig(&error)),
            },
        };
        config.connect_timeout = Some(CONNECT_TIME);
        config.read_timeout = None;
        // Our own loops decide what is worth another try, and when to stop.
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        // A credential plugin runs inside this, and blocks.
        let making = tokio::task::spawn_blocking(move || Client::try_from(config));
        let signing_in = || format!("Signing in to {server} (context {name})");
        let client = timeout(SIGN_IN_TIME, making)
            .await
            .map_err(|_| {
                Failure::new(
                    signing_in(),
                    format!("the credential plugin did not end within {SIGN_IN_TIME:?}"),
                    "Run kubectl get nodes in a terminal with that context: the plugin may want a person to sign in.",
                )
            })?
            .map_err(|panic| Failure::new(signing_in(), panic, "This is a defect of gpu-syringe: please report it."))?
            .map_err(|error| {
                Failure::new(
                    signing_in(),
                    kube_reason(&error),
                    "Run kubectl get nodes with that context to see whether the credentials still work.",
                )
            })?;
        Ok(Connection { context: name, server, user, client })
    }

    fn no_kubeconfig(&self, error: &kube::config::KubeconfigError) -> Failure {
        let files = match &self.source {
            Source::Files(files) => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", "),
            Source::Given(_) => "the built-in cluster's".into(),
        };
        Failure::new(
            format!("Reading the kubeconfig ({files})"),
            error,
            "Name one with --kubeconfig or KUBECONFIG, or try the built-in example cluster with --demo.",
        )
    }
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the kubeconfig itself: it holds credentials.
        formatter.debug_struct("Contexts").field("preferred", &self.preferred).finish_non_exhaustive()
    }
}

/// Name of the context, its user, and how to connect.
async fn from_kubeconfig(
    mut kubeconfig: Kubeconfig,
    context: Option<&str>,
) -> Result<(String, Option<String>, Config), Failure> {
    let names: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let chosen = context
        .map(str::to_owned)
        .or_else(|| kubeconfig.current_context.clone().filter(|name| !name.is_empty()))
        .or_else(|| names.first().filter(|_| names.len() == 1).cloned());
    let Some(chosen) = chosen.filter(|name| names.contains(name)) else {
        let asked = context.map_or_else(|| "none is current".to_owned(), |name| format!("there is no '{name}'"));
        return Err(Failure::new(
            "Choosing a kubeconfig context",
            asked,
            format!(
                "Use one of: {}.",
                if names.is_empty() { "(the kubeconfig has none)".into() } else { names.join(", ") }
            ),
        ));
    };
    let user = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == chosen)
        .and_then(|named| named.context.as_ref()?.user.clone());
    if let Some(user) = &user {
        plugin::tame(&mut kubeconfig, user)?;
    }
    let options = KubeConfigOptions { context: Some(chosen.clone()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
        Failure::new(format!("Reading kubeconfig context '{chosen}'"), error, "Correct the kubeconfig.")
    })?;
    Ok((chosen, user, config))
}

/// The files of a kubeconfig, in the order in which kubectl reads them.
fn kubeconfig_files(settings: &Settings) -> Vec<PathBuf> {
    if let Some(file) = &settings.kubeconfig {
        return vec![file.clone()];
    }
    let listed = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|file| !file.as_os_str().is_empty()).collect::<Vec<_>>());
    match listed {
        Some(files) if !files.is_empty() => files,
        _ => std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
    }
}
