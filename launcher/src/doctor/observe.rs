//! `observe`: reads from the API server, in parallel, all data for the doctor checks (`Observed`). It creates only dry
//! runs of pods. `Seen`, `DryRun`, `ExecAnswer`: the responses. `version`: the version of the server.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ResourceQuota};
use kube::api::{AttachParams, Request};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::policy::values::Values;
use crate::policy::{PROBE_ONLY, cluster_name};
use crate::probe;
use crate::settings::{Mode, ProbeMethod, Settings};
use crate::setup::access::{self, Access};
use crate::setup::apply::{PolicyState, check_policy, of_each_policy};
use crate::setup::objects::{self, ObjectRef, RequestError};
use crate::setup::permissions::{GrantedBy, Permission, permissions};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::client::api_status::{is_not_a_status, is_page_of_proxy};
use kube_read::failure::kube_reason;
use kube_read::objects::node_labels::is_gpu_node;
use kube_read::reads::nodes;
use syringe_core::probe_command::ProbeCommand;
use syringe_core::section_name::SectionName;

/// The result of a request.
#[derive(Clone, Debug)]
pub(super) enum Seen<T> {
    Found(T),
    Absent,
    /// The user lacks the permission.
    Forbidden,
    /// There is no usable response.
    Unknown(String),
}

impl<T> Seen<T> {
    pub(super) fn found(&self) -> Option<&T> {
        if let Self::Found(value) = self { Some(value) } else { None }
    }
}

/// The response of the API server to the dry run of a pod.
#[derive(Clone, Debug)]
pub(super) enum DryRun {
    Admitted,
    /// The pod was rejected with this message and HTTP status.
    Rejected(String, u16),
    Unknown(String),
}

/// The response to an exec in a pod that does not exist.
#[derive(Clone, Debug)]
pub(super) enum ExecAnswer {
    /// The API server responded.
    Server,
    /// A proxy or another program responded instead of the API server.
    NotServer(String),
    Forbidden,
    Unknown(String),
}

/// The responses of the API server.
pub(super) struct Observed {
    pub(super) user: Option<String>,
    /// How far the clock of this machine is ahead of the clock of the API server.
    pub(super) ahead: Option<SignedDuration>,
    pub(super) permissions: Vec<(Permission, Seen<bool>)>,
    pub(super) namespace: Seen<DynamicObject>,
    pub(super) policy: Seen<DynamicObject>,
    pub(super) binding: Seen<DynamicObject>,
    /// Whether no image is set, so that the image of the policy is used.
    pub(super) is_image_of_policy: bool,
    /// The policies and bindings of the hardened profile that do not exist. Also empty if the user may not read them.
    pub(super) missing_policies: Vec<String>,
    pub(super) quota: Seen<DynamicObject>,
    /// The response to the dry run of a pod that is not a probe. `None` if there was no response.
    pub(super) other_pod: Option<PolicyState>,
    pub(super) dry_runs: Vec<(ProbeMethod, DryRun)>,
    pub(super) exec: ExecAnswer,
    /// GPU nodes, without their images.
    pub(super) nodes: Seen<Vec<Node>>,
    /// Some of the GPU nodes, with the images that their kubelets report.
    pub(super) with_images: Vec<Node>,
    /// The base image of the container into which node-probe would be uploaded, for each node in `with_images`.
    pub(super) base_images: Vec<(String, Result<String, Failure>)>,
}

impl Observed {
    /// Returns whether a policy limits the pods of the namespace to the probe.
    pub(super) fn has_policy(&self) -> bool {
        matches!(self.other_pod, Some(PolicyState::InEffect { .. }))
    }

    /// Returns the image that the policy admits, from the policy or else from its message.
    pub(super) fn image_of_policy(&self) -> Option<String> {
        let of_object = self.policy.found().map(|policy| Values::of_policy(&policy.data["spec"]).image().to_owned());
        let of_message = || match &self.other_pod {
            Some(PolicyState::InEffect { image }) => image.clone(),
            _ => None,
        };
        of_object.or_else(of_message).filter(|image| !image.is_empty())
    }
}

/// Number of nodes whose images are read.
const NODES_WITH_IMAGES: usize = 8;

/// The probe methods for which a dry run of the pod is made.
const METHODS: [ProbeMethod; 3] = [ProbeMethod::Pod, ProbeMethod::Logs, ProbeMethod::Inject];
/// Reason for a request that got no response within the time limit of all checks.
const LATE: &str = "no answer in time";

/// Reads the version of the API server.
pub(super) async fn version(connection: &Connection, end: Instant) -> Result<String, Option<kube::Error>> {
    match timeout_at(end, connection.client.apiserver_version()).await {
        Ok(Ok(info)) => Ok(info.git_version),
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    }
}

/// Sends all requests. Each request ends at `end` at the latest.
pub(super) async fn observe(connection: &Connection, settings: &Settings, end: Instant) -> Observed {
    let namespace = settings.probe_namespace.as_str();
    let policy_name = cluster_name(PROBE_ONLY, namespace);
    let nodes = read_nodes(connection, end).await;
    // The dry run uses the pod that would be created, for an existing node if a node is known.
    let node =
        nodes.found().and_then(|nodes| nodes.first()?.metadata.name.clone()).unwrap_or_else(|| "gpu-node".to_owned());
    let (
        user,
        permissions,
        found,
        policy,
        binding,
        missing_policies,
        quota,
        other_pod,
        dry_runs,
        exec,
        (with_images, base_images),
    ) = tokio::join!(
        user(connection, end),
        check_permissions(connection, settings, end),
        read(connection, ObjectRef::new::<Namespace>(None, namespace), end),
        read(connection, ObjectRef::new::<ValidatingAdmissionPolicy>(None, &policy_name), end),
        read(connection, ObjectRef::new::<ValidatingAdmissionPolicyBinding>(None, &policy_name), end),
        missing_policies(connection, namespace, end),
        read(connection, ObjectRef::new::<ResourceQuota>(Some(namespace), "gpu-syringe"), end),
        async { timeout_at(end, check_policy(connection, namespace)).await.ok() },
        dry_runs(connection, settings, &node, end),
        try_exec(connection, namespace, end),
        read_images(connection, settings, &nodes, end),
    );
    // `Date` has a resolution of one second.
    let half = SignedDuration::from_millis(500);
    // The clock of an archive shows the time of the archive.
    let server = connection.clock.now().filter(|_| settings.archive.is_none());
    let ahead = server.map(|server| Timestamp::now().duration_since(server) - half);
    Observed {
        user,
        ahead,
        permissions,
        namespace: found,
        policy,
        binding,
        missing_policies,
        is_image_of_policy: false,
        quota,
        other_pod,
        dry_runs,
        exec,
        nodes,
        with_images,
        base_images,
    }
}

/// Returns the name of the user, as reported by the API server (Kubernetes 1.28 or later).
async fn user(connection: &Connection, end: Instant) -> Option<String> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(review.to_string().into_bytes())
        .ok()?;
    let answer: Value = timeout_at(end, connection.client.request(request)).await.ok()?.ok()?;
    answer["status"]["userInfo"]["username"].as_str().map(|name| syringe_core::text::clean(name, 200))
}

async fn check_permissions(
    connection: &Connection,
    settings: &Settings,
    end: Instant,
) -> Vec<(Permission, Seen<bool>)> {
    let mut of = vec![GrantedBy::Reader, GrantedBy::ClusterRead];
    if settings.mode == Mode::Operator {
        of.push(GrantedBy::Operator);
    }
    if settings.via == ProbeMethod::Ephemeral {
        of.push(GrantedBy::Ephemeral);
    }
    let asked = permissions(&of).into_iter().map(async |permission| {
        let (resource, subresource) = permission.parts();
        let is_of_probes = matches!(permission.grant.by, GrantedBy::Reader | GrantedBy::Operator);
        let namespace = is_of_probes.then_some(settings.probe_namespace.as_str());
        let name = permission.grant.name.map(|name| cluster_name(name, &settings.probe_namespace));
        let (verb, group, name) = (permission.verb, permission.grant.group, name.as_deref());
        let access = Access { verb, group, resource, subresource, name, namespace };
        let answer = match timeout_at(end, access::is_allowed(connection, &access)).await {
            Ok(Ok(allowed)) => Seen::Found(allowed),
            Ok(Err(error)) => Seen::Unknown(error.reason()),
            Err(_) => Seen::Unknown(LATE.to_owned()),
        };
        (permission, answer)
    });
    futures_util::future::join_all(asked).await
}

async fn read(connection: &Connection, object: ObjectRef, end: Instant) -> Seen<DynamicObject> {
    match timeout_at(end, objects::get(connection, &object)).await {
        Ok(Ok(Some(value))) => Seen::Found(value),
        Ok(Ok(None)) => Seen::Absent,
        Ok(Err(error)) if error.code() == Some(403) => Seen::Forbidden,
        Ok(Err(error)) => Seen::Unknown(error.reason()),
        Err(_) => Seen::Unknown(LATE.to_owned()),
    }
}

async fn read_nodes(connection: &Connection, end: Instant) -> Seen<Vec<Node>> {
    // This request gets half of the time. The rest is for later requests.
    let end = end.min(Instant::now() + (end - Instant::now()) / 2);
    match timeout_at(end, nodes::collect(connection, None, is_gpu_node, |node| node)).await {
        Ok(Ok((_, nodes))) => Seen::Found(nodes),
        Ok(Err(Failure { why, .. })) if why.contains("HTTP 403") => Seen::Forbidden,
        Ok(Err(Failure { why, .. })) => Seen::Unknown(why),
        Err(_) => Seen::Unknown(LATE.to_owned()),
    }
}

/// Reads the whole objects of the first GPU nodes, because a list of all nodes with their images would be large.
async fn read_images(
    connection: &Connection,
    settings: &Settings,
    nodes: &Seen<Vec<Node>>,
    end: Instant,
) -> (Vec<Node>, Vec<(String, Result<String, Failure>)>) {
    let names =
        nodes.found().into_iter().flatten().take(NODES_WITH_IMAGES).filter_map(|node| node.metadata.name.as_ref());
    let reads = names.map(async |name| timeout_at(end, nodes::read(connection, name)).await.ok()?.ok());
    let nodes: Vec<Node> = futures_util::future::join_all(reads).await.into_iter().flatten().collect();
    let previews = nodes.iter().map(async |node| {
        let image = timeout_at(end, probe::inject_preview(connection, settings, node)).await.ok()?;
        Some((node.name_any(), image))
    });
    let base_images = futures_util::future::join_all(previews).await.into_iter().flatten().collect();
    (nodes, base_images)
}

/// Returns the objects of the hardened profile's policies that do not exist in the cluster.
async fn missing_policies(connection: &Connection, namespace: &str, end: Instant) -> Vec<String> {
    let objects = of_each_policy::<ValidatingAdmissionPolicy>(namespace)
        .chain(of_each_policy::<ValidatingAdmissionPolicyBinding>(namespace));
    let reads = objects.map(async |object| {
        let name = object.to_string();
        matches!(read(connection, object, end).await, Seen::Absent).then_some(name)
    });
    futures_util::future::join_all(reads).await.into_iter().flatten().collect()
}

/// Makes a dry run with the exact pod of each method.
async fn dry_runs(
    connection: &Connection,
    settings: &Settings,
    node: &str,
    end: Instant,
) -> Vec<(ProbeMethod, DryRun)> {
    let each = METHODS.into_iter().map(async |via| {
        let settings = Settings { via, ..settings.clone() };
        let answer = match probe::printed(&settings, node) {
            Ok(pod) => dry_run(connection, &pod.namespace, &pod.object, end).await,
            Err(failure) => DryRun::Unknown(failure.why),
        };
        (via, answer)
    });
    futures_util::future::join_all(each).await
}

async fn dry_run(connection: &Connection, namespace: &str, pod: &Pod, end: Instant) -> DryRun {
    let api = Api::namespaced(connection.client.clone(), namespace);
    match timeout_at(end, objects::check_admitted(&api, pod)).await {
        Ok(Ok(())) => DryRun::Admitted,
        Ok(Err(RequestError::Kube(kube::Error::Api(status)))) if !is_not_a_status(&status) && status.code < 500 => {
            DryRun::Rejected(kube_reason(&kube::Error::Api(status.clone())), status.code)
        }
        Ok(Err(error)) => DryRun::Unknown(error.reason()),
        Err(_) => DryRun::Unknown(LATE.to_owned()),
    }
}

/// Time limit for the upgrade to a websocket.
const EXEC_TIME: Duration = Duration::from_secs(6);

/// Opens an exec in a pod that does not exist. If everything between this machine and the API
/// server lets the upgrade pass, the API server responds with 404 and a `Status`.
async fn try_exec(connection: &Connection, namespace: &str, end: Instant) -> ExecAnswer {
    let path = <Pod as kube::Resource>::url_path(&(), Some(namespace));
    let params = AttachParams::default().container(probe::CONTAINER).stdin(true).stdout(true).stderr(true).tty(false);
    // The policy allows this command.
    let argv = ProbeCommand::Read(SectionName::Inventory.into()).argv();
    let request = match Request::new(path).exec("gpu-syringe-doctor", argv, &params) {
        Ok(request) => request,
        Err(error) => return ExecAnswer::Unknown(error.to_string()),
    };
    let end = end.min(Instant::now() + EXEC_TIME);
    match timeout_at(end, connection.client.connect(request)).await {
        Ok(Err(kube::Error::Api(status))) if is_page_of_proxy(&status) => {
            ExecAnswer::NotServer(kube_reason(&kube::Error::Api(status)))
        }
        Ok(Err(kube::Error::Api(status))) if is_not_a_status(&status) => {
            ExecAnswer::Unknown(kube_reason(&kube::Error::Api(status)))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 && !status.message.contains("ValidatingAdmission") => {
            ExecAnswer::Forbidden
        }
        Ok(Err(kube::Error::Api(status))) if status.code >= 500 => {
            ExecAnswer::Unknown(kube_reason(&kube::Error::Api(status)))
        }
        Ok(Ok(_) | Err(kube::Error::Api(_))) => ExecAnswer::Server,
        Ok(Err(error @ kube::Error::UpgradeConnection(_))) => ExecAnswer::NotServer(kube_reason(&error)),
        Ok(Err(error)) => ExecAnswer::Unknown(kube_reason(&error)),
        Err(_) => ExecAnswer::NotServer("the upgrade to a websocket was not answered".to_owned()),
    }
}
