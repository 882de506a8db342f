//! `Contexts`: the contexts of the kubeconfig, with one client for each.
//! A client is created on first use, and again after the kubeconfig changes on disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, header};
use kube::Config;
use kube::config::{Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError};
use syringe_core::text::clean;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::Failure;
use crate::client::connection::{Connection, IN_CLUSTER, PROXY_NOTE_START};
use crate::client::{credentials, proxy, transport};
use crate::failure::sign_in_reason;

/// Time limit for connecting to the API server. An unreachable cluster must not use up the time of the call.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Time limit for a credential plugin. Some plugins open a browser and wait.
const SIGN_IN_TIME: Duration = Duration::from_secs(20);
/// The contexts of the kubeconfig, and the clients that were created for them.
pub struct Contexts {
    source: Source,
    preferred: Option<String>,
    /// Additional contexts that a tool argument may name; `*` for all.
    allowed: Vec<String>,
    /// User and groups of `--as`.
    impersonated: (Option<String>, Vec<String>),
    cache: Mutex<ClientCache>,
}

enum Source {
    /// Kubeconfig files by path. Changed files are read again. `named`: whether a setting or the environment sets the
    /// paths.
    Files { files: Vec<PathBuf>, named: bool },
    /// The kubeconfig of the demo cluster, in memory.
    InMemory(Box<Kubeconfig>),
}

/// The clients, which are valid until the files change.
#[derive(Default)]
struct ClientCache {
    modified_at: Vec<Option<SystemTime>>,
    /// One lock per context, so that a hanging credential plugin delays only the calls for its own context.
    connections: HashMap<Option<String>, Arc<Mutex<Option<Connection>>>>,
}

impl Contexts {
    /// Uses the contexts of a kubeconfig file or, if there is no such file, of the files that kubectl reads. The files
    /// are not read yet.
    pub fn new(kubeconfig: Option<&Path>, preferred: Option<String>, allowed: Vec<String>) -> Self {
        let (files, named) = kubeconfig_files(kubeconfig);
        Self {
            source: Source::Files { files, named },
            preferred,
            allowed,
            impersonated: (None, Vec::new()),
            cache: Mutex::default(),
        }
    }

    /// Uses the contexts of a kubeconfig in memory.
    pub fn in_memory(kubeconfig: Kubeconfig, preferred: Option<String>) -> Self {
        Self {
            source: Source::InMemory(Box::new(kubeconfig)),
            preferred,
            allowed: Vec::new(),
            impersonated: (None, Vec::new()),
            cache: Mutex::default(),
        }
    }

    /// Uses this connection for the default context.
    pub fn of_connection(connection: Connection) -> Self {
        let connections = HashMap::from([(None, Arc::new(Mutex::new(Some(connection))))]);
        let cache = Mutex::new(ClientCache { modified_at: Vec::new(), connections });
        Self { cache, ..Self::in_memory(Kubeconfig::default(), None) }
    }

    /// Sends every request as this user with these groups, like `kubectl --as`.
    #[must_use]
    pub fn impersonating(self, user: Option<String>, groups: Vec<String>) -> Self {
        Self { impersonated: (user, groups), ..self }
    }

    /// Returns the names of the contexts that a tool argument may name. Empty without a kubeconfig. Reads files, but
    /// does not use the network.
    pub fn names(&self) -> Vec<String> {
        let Ok(kubeconfig) = self.read() else { return Vec::new() };
        let default_context = self.default_context(&kubeconfig);
        let names = kubeconfig.contexts.into_iter().map(|context| context.name);
        names.filter(|name| self.is_allowed(name, default_context.as_deref())).collect()
    }

    fn default_context(&self, kubeconfig: &Kubeconfig) -> Option<String> {
        let only = || kubeconfig.contexts.first().filter(|_| kubeconfig.contexts.len() == 1);
        self.preferred
            .clone()
            .or_else(|| kubeconfig.current_context.clone().filter(|name| !name.is_empty()))
            .or_else(|| Some(only()?.name.clone()))
    }

    fn is_allowed(&self, name: &str, default_context: Option<&str>) -> bool {
        default_context == Some(name) || self.allowed.iter().any(|allowed| allowed == "*" || allowed == name)
    }

    /// Rejects a context that a tool argument must not name, so that a model can use only the allowed clusters.
    fn check_allowed(&self, name: &str) -> Result<(), Failure> {
        let default_context = self.read().ok().and_then(|kubeconfig| self.default_context(&kubeconfig));
        if self.is_allowed(name, default_context.as_deref()) {
            return Ok(());
        }
        let name = clean(name, 120);
        Err(Failure::new(
            "Choosing a kubeconfig context",
            format!(
                "a tool argument may not name the context '{name}', only these contexts: {}",
                self.names().join(", ")
            ),
            format!("Leave the context out, or start gpu-syringe with --allow-context {name}."),
        ))
    }

    /// Returns the value of `KUBECONFIG`, for a command that the user runs in another terminal.
    pub fn kubeconfig_variable(&self) -> Option<String> {
        let Source::Files { named: true, .. } = &self.source else { return None };
        std::env::var("KUBECONFIG").ok().filter(|list| !list.is_empty())
    }

    /// Returns the client for `context`, which comes from a tool argument, or for the default context if the argument
    /// is absent.
    pub async fn connect(&self, context: Option<&str>) -> Result<Connection, Failure> {
        context.map_or(Ok(()), |name| self.check_allowed(name))?;
        let wanted = context.map(str::to_owned).or_else(|| self.preferred.clone());
        let slot = {
            let mut cache = self.cache.lock().await;
            let modified_at = self.modified_at();
            if cache.modified_at != modified_at {
                *cache = ClientCache { modified_at, connections: HashMap::new() };
            }
            cache.connections.entry(wanted.clone()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.is_valid()) {
            return Ok(connection.clone());
        }
        let connection = self.create_connection(wanted.as_deref()).await?;
        Ok(slot.insert(connection).clone())
    }

    fn read(&self) -> Result<Kubeconfig, KubeconfigError> {
        match &self.source {
            Source::InMemory(kubeconfig) => Ok((**kubeconfig).clone()),
            Source::Files { files, .. } => {
                let mut merged = Kubeconfig::default();
                let present: Vec<_> = files.iter().filter(|file| files.len() == 1 || file.exists()).collect();
                if present.is_empty() {
                    return Err(KubeconfigError::FindPath);
                }
                for file in present {
                    merged = merged.merge(Kubeconfig::read_from(file)?)?;
                }
                Ok(merged)
            }
        }
    }

    fn modified_at(&self) -> Vec<Option<SystemTime>> {
        match &self.source {
            Source::InMemory(_) => Vec::new(),
            Source::Files { files, .. } => {
                files.iter().map(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok()).collect()
            }
        }
    }

    /// Returns whether the service account of the pod may be used: no kubeconfig file is set, and the default file does
    /// not exist. A file that cannot be read may be for another cluster.
    fn may_be_in_cluster(&self) -> bool {
        match &self.source {
            Source::Files { files, named } => !named && files.iter().all(|file| !file.exists()),
            Source::InMemory(_) => false,
        }
    }

    async fn create_connection(&self, context: Option<&str>) -> Result<Connection, Failure> {
        let (name, user, mut config) = match self.read() {
            Ok(kubeconfig) => {
                let environment = matches!(self.source, Source::Files { .. });
                from_kubeconfig(kubeconfig, context, environment).await?
            }
            Err(error) => match Config::incluster() {
                Ok(config) if context.is_none() && self.may_be_in_cluster() => (IN_CLUSTER.to_owned(), None, config),
                _ => return Err(self.no_kubeconfig(&error)),
            },
        };
        let user = match &self.impersonated {
            (None, _) => user,
            (Some(impersonated), groups) => {
                config.auth_info.impersonate = Some(impersonated.clone());
                config.auth_info.impersonate_groups = Some(groups.clone());
                Some(impersonated.clone())
            }
        };
        config.connect_timeout = Some(CONNECT_TIME);
        config.read_timeout = None;
        // kube's retries are disabled, because the module `retry` repeats requests.
        config.default_retry = false;
        let mut server = clean(config.cluster_url.to_string().trim_end_matches('/'), 300);
        let plugin = config.auth_info.exec.as_ref().and_then(credentials::file_name);
        if let Some(proxy) = &config.proxy_url {
            server.push_str(&format!("{PROXY_NOTE_START}{})", proxy::shown(proxy)));
        }
        // Creating the client runs a credential plugin, and blocks.
        let clock = Arc::default();
        let of_client = Arc::clone(&clock);
        let making = tokio::task::spawn_blocking(move || transport::client(config, &of_client));
        let signing_in = || format!("Signing in to {server} (context {name})");
        let client = timeout(SIGN_IN_TIME, making)
            .await
            .map_err(|_| {
                Failure::new(
                    signing_in(),
                    format!("the credential plugin did not exit within {SIGN_IN_TIME:?}"),
                    "Run kubectl get nodes in a terminal with that context: the plugin may require a login.",
                )
            })?
            .map_err(|panic| Failure::new(signing_in(), panic, "This is a defect of gpu-syringe: please report it."))?
            .map_err(|error| {
                Failure::new(
                    signing_in(),
                    sign_in_reason(&error, plugin.as_deref()),
                    "Run kubectl get nodes with that context to see whether the credentials still work.",
                )
            })?;
        Ok(Connection { context: name, server, user, client, clock })
    }

    fn no_kubeconfig(&self, error: &KubeconfigError) -> Failure {
        let files = match &self.source {
            Source::Files { files, .. } => {
                files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
            }
            Source::InMemory(_) => "of the demo cluster".into(),
        };
        // The message of the parser quotes lines of the file, which may contain credentials.
        let why = match error {
            KubeconfigError::Parse(error) => match error.location() {
                Some(place) => {
                    format!("the file is not a valid kubeconfig (line {}, column {})", place.line(), place.column())
                }
                None => "the file is not a valid kubeconfig".to_owned(),
            },
            // The message does not repeat the path, because the description of the failed step contains the path.
            KubeconfigError::ReadConfig(error, _) => error.to_string(),
            error => error.to_string(),
        };
        Failure::new(
            format!("Reading the kubeconfig ({files})"),
            why,
            if cfg!(feature = "demo") {
                "Set --kubeconfig or KUBECONFIG, or try the built-in demo cluster with --demo."
            } else {
                "Set --kubeconfig or KUBECONFIG."
            },
        )
    }
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The kubeconfig itself is never printed, because it contains credentials.
        formatter.debug_struct("Contexts").field("preferred", &self.preferred).finish_non_exhaustive()
    }
}

/// Returns the name of the context, its user and its configuration. Without `environment`, no proxy is used.
async fn from_kubeconfig(
    mut kubeconfig: Kubeconfig,
    context: Option<&str>,
    environment: bool,
) -> Result<(String, Option<String>, Config), Failure> {
    let names: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let chosen = context
        .map(str::to_owned)
        .or_else(|| kubeconfig.current_context.clone().filter(|name| !name.is_empty()))
        .or_else(|| names.first().filter(|_| names.len() == 1).cloned());
    let Some(chosen) = chosen.filter(|name| names.contains(name)) else {
        let available = names.join(", ");
        let (why, next_step) = match context {
            _ if names.is_empty() => {
                ("the kubeconfig has no contexts".to_owned(), "Use another file with --kubeconfig.".into())
            }
            Some(name) => (format!("there is no context '{name}'"), format!("Use one of: {available}.")),
            None => match kubeconfig.current_context.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => (
                    format!("current-context is '{}', which is not in the kubeconfig", clean(name, 120)),
                    format!("Pass --context NAME (available: {available})."),
                ),
                None => ("no current context".to_owned(), format!("Pass --context NAME (available: {available}).")),
            },
        };
        return Err(Failure::new("Choosing a kubeconfig context", why, next_step));
    };
    let user = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == chosen)
        .and_then(|named| named.context.as_ref()?.user.clone());
    let in_file = |what: &str, name: &str| {
        let why = format!("the context names {what} '{}', which is not in the kubeconfig", clean(name, 120));
        let next = format!("Correct the context: kubectl config set-context {}.", clean(&chosen, 120));
        Failure::new(format!("Reading kubeconfig context '{}'", clean(&chosen, 120)), why, next)
    };
    let cluster =
        kubeconfig.contexts.iter().find(|named| named.name == chosen).and_then(|named| named.context.as_ref());
    if let Some(name) = cluster.map(|context| &context.cluster).filter(|_| cluster_of(&kubeconfig, &chosen).is_none()) {
        return Err(in_file("cluster", name));
    }
    let is_known = |user: &&String| kubeconfig.auth_infos.iter().any(|named| named.name == **user);
    if let Some(name) = user.as_ref().filter(|user| !user.is_empty() && !is_known(user)) {
        return Err(in_file("user", name));
    }
    if let Some(user) = &user {
        credentials::prepare_plugin(&mut kubeconfig, user)?;
    }
    if !environment {
        let config = demo_config(&kubeconfig, &chosen, user.as_deref())?;
        return Ok((chosen, user, config));
    }
    let options = KubeConfigOptions { context: Some(chosen.clone()), ..KubeConfigOptions::default() };
    let own_proxy = cluster_of(&kubeconfig, &chosen).and_then(|cluster| cluster.proxy_url.clone());
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
        let next = "Fix the kubeconfig, or HTTPS_PROXY and NO_PROXY.";
        Failure::new(format!("Reading kubeconfig context '{chosen}'"), error, next)
    })?;
    // kube's client panics if the URL has no scheme.
    if config.cluster_url.scheme().is_none() {
        let why =
            format!("the server address {} does not start with https://", clean(&config.cluster_url.to_string(), 300));
        let next = "Write the whole URL of the server into the kubeconfig.";
        return Err(Failure::new(format!("Reading kubeconfig context '{chosen}'"), why, next));
    }
    let environment_proxy = || proxy::from_environment(&config.cluster_url, |name| std::env::var(name).ok());
    let proxy = own_proxy.filter(|proxy| !proxy.is_empty()).or_else(environment_proxy);
    config.proxy_url = proxy.map(|proxy| proxy::parse(&proxy)).transpose()?;
    // The audit log of the API server shows the program.
    let agent = HeaderValue::from_static(concat!("gpu-syringe/", env!("CARGO_PKG_VERSION")));
    config.headers.push((header::USER_AGENT, agent));
    Ok((chosen, user, config))
}

/// Creates the configuration of the demo cluster: its address and token, but no proxy or other setting from the
/// environment.
fn demo_config(kubeconfig: &Kubeconfig, context: &str, user: Option<&str>) -> Result<Config, Failure> {
    let server = cluster_of(kubeconfig, context).and_then(|cluster| cluster.server.clone()).unwrap_or_default();
    let url = server.parse().map_err(|error| {
        Failure::new(
            format!("Reading kubeconfig context '{context}'"),
            error,
            "This is a defect of gpu-syringe: please report it.",
        )
    })?;
    let user = kubeconfig.auth_infos.iter().find(|named| Some(named.name.as_str()) == user);
    let mut config = Config::new(url);
    config.auth_info = user.and_then(|named| named.auth_info.clone()).unwrap_or_default();
    Ok(config)
}

fn cluster_of<'a>(kubeconfig: &'a Kubeconfig, context: &str) -> Option<&'a Cluster> {
    let context = kubeconfig.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()
}

/// Returns the kubeconfig files in the order in which kubectl reads them, and whether a setting or the environment sets
/// them.
fn kubeconfig_files(named: Option<&Path>) -> (Vec<PathBuf>, bool) {
    if let Some(file) = named {
        return (vec![file.to_owned()], true);
    }
    let listed = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|file| !file.as_os_str().is_empty()).collect::<Vec<_>>());
    match listed {
        Some(files) if !files.is_empty() => (files, true),
        _ => (std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(), false),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_service_account_is_used_without_a_kubeconfig_but_not_with_a_broken_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (broken, absent) = (folder.path().join("broken"), folder.path().join("absent"));
        std::fs::write(&broken, "contexts: [").expect("a file");
        let may = |file: &PathBuf, named: bool| {
            let source = Source::Files { files: vec![file.clone()], named };
            Contexts {
                source,
                preferred: None,
                allowed: Vec::new(),
                impersonated: (None, Vec::new()),
                cache: Mutex::default(),
            }
            .may_be_in_cluster()
        };
        assert!(may(&absent, false));
        assert!(!may(&absent, true) && !may(&broken, false) && !may(&broken, true));
    }

    #[tokio::test]
    async fn an_impersonated_user_is_in_every_request() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let kubeconfig = serde_json::from_value(serde_json::json!({
            "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": server}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "admin"}}],
            "users": [{"name": "admin", "user": {}}],
        }));
        let contexts = Contexts::in_memory(kubeconfig.expect("a kubeconfig"), None);
        let contexts = contexts.impersonating(Some("sre".to_owned()), vec!["gpu-readers".to_owned()]);
        let connection = contexts.connect(None).await.expect("a connection");
        assert_eq!(connection.user.as_deref(), Some("sre"));
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).expect("a head");
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            String::from_utf8_lossy(&head[..length]).to_lowercase()
        });
        let _ = connection.client.apiserver_version().await;
        let head = answering.join().expect("a request");
        assert!(head.contains("impersonate-user: sre") && head.contains("impersonate-group: gpu-readers"), "{head}");
    }
}
