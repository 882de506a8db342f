//! `Installed`: the objects of a set-up that exist in the cluster, with the values that an administrator set in them.
//! `check_name`, `is_ours`, `failed`: check a namespace, recognize an object of a set-up, and create a failure.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;

use super::manifests::{LABEL, Parameters, Profile, Subject};
use super::objects::{self, ObjectRef, RequestError};
use super::permissions::GrantedBy;
use crate::policy::values::Values;
use crate::policy::{PROBE_ONLY, cluster_name};
use kube_read::Connection;
use kube_read::Failure;
use kube_read::failure::Cause;
use kube_read::objects::name_validation::check_namespace;

/// The system namespaces, and the default namespace.
const SYSTEM: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The objects of a set-up that exist.
pub(super) struct Installed {
    pub(super) namespace: Option<DynamicObject>,
    /// Whether a policy limits new pods in the namespace to the probe.
    pub(super) has_policy: bool,
    /// The values of the policy.
    policy: Values,
    /// Subjects of the binding of readers, without the operators.
    readers: Vec<Subject>,
    operators: Vec<Subject>,
}

impl Installed {
    /// Reads the objects that exist for this namespace.
    pub(super) async fn read(connection: &Connection, namespace: &str) -> Result<Self, Failure> {
        let get = async |object: ObjectRef| {
            objects::get(connection, &object).await.map_err(|error| failed(&format!("Reading {object}"), &error))
        };
        let name = cluster_name(PROBE_ONLY, namespace);
        let role_binding = |of: GrantedBy| ObjectRef::new::<RoleBinding>(Some(namespace), of.role());
        let (found, binding, policy, readers, operators) = tokio::try_join!(
            get(ObjectRef::new::<Namespace>(None, namespace)),
            get(ObjectRef::new::<ValidatingAdmissionPolicyBinding>(None, &name)),
            get(ObjectRef::new::<ValidatingAdmissionPolicy>(None, &name)),
            get(role_binding(GrantedBy::Reader)),
            get(role_binding(GrantedBy::Operator)),
        )?;
        // Bindings that setup did not create are ignored.
        let subjects_of_ours = |binding: Option<DynamicObject>| subjects(binding.filter(is_ours).as_ref());
        let (all, operators) = (subjects_of_ours(readers), subjects_of_ours(operators));
        let readers = all.into_iter().filter(|subject| !operators.contains(subject)).collect();
        // If any object of the policy exists, the hardened profile was installed.
        let has_policy = binding.is_some() || policy.is_some();
        let policy = policy.map(|policy| Values::of_policy(&policy.data["spec"])).unwrap_or_default();
        Ok(Self { namespace: found, has_policy, policy, readers, operators })
    }

    /// Rejects a namespace that setup did not create: its pods could become privileged, and `--uninstall` would delete them.
    pub(super) fn check_namespace(&self, name: &str) -> Result<(), Failure> {
        let what = || format!("Setting up namespace {name}");
        match &self.namespace {
            Some(found) if found.metadata.deletion_timestamp.is_some() => Err(Failure::new(
                what(),
                "the namespace is being deleted",
                format!("Wait for its deletion (kubectl wait --for=delete namespace/{name}), then run setup again."),
            )),
            Some(found) if !is_ours(found) => Err(Failure::new(
                what(),
                "the namespace exists and was not created by gpu-syringe; setup would allow privileged pods in it",
                format!(
                    "Choose another namespace. If this namespace is only for the probes, hand the namespace over to setup. To do this, run: \
                        kubectl label namespace {name} {}={} (setup --uninstall then deletes the namespace with \
                        everything in it).",
                    LABEL.0, LABEL.1
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Keeps policy values and subjects of bindings that an administrator set and that the command line does not
    /// specify.
    pub(super) fn keep(&self, parameters: &mut Parameters) {
        parameters.policy = std::mem::take(&mut parameters.policy).or(&self.policy);
        if parameters.readers.is_empty() && parameters.operators.is_empty() {
            return;
        }
        for subject in &self.operators {
            if !parameters.operators.contains(subject) {
                parameters.operators.push(subject.clone());
            }
        }
        for subject in &self.readers {
            if !parameters.readers.contains(subject) && !parameters.operators.contains(subject) {
                parameters.readers.push(subject.clone());
            }
        }
        parameters.readers.retain(|subject| !parameters.operators.contains(subject));
    }

    /// Returns the profile to set up if the command line specifies no profile.
    pub(super) fn profile(&self, parameters: &Parameters) -> Profile {
        if self.has_policy || !parameters.policy.image().is_empty() { Profile::Hardened } else { Profile::Trial }
    }
}

/// Rejects an invalid name and the system namespaces.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    check_namespace(name)?;
    if !SYSTEM.contains(&name) {
        return Ok(());
    }
    let why = "this is a system namespace; the probes need their own namespace";
    let next = "Choose another namespace, or leave the option out (default: gpu-syringe).";
    Err(Failure::usage(format!("Using namespace {name} for probes"), why, next))
}

/// Returns whether the object has the label of a set-up.
pub(super) fn is_ours(object: &DynamicObject) -> bool {
    object.labels().get(LABEL.0).is_some_and(|value| value == LABEL.1)
}

fn subjects(binding: Option<&DynamicObject>) -> Vec<Subject> {
    let each = binding.and_then(|binding| binding.data["subjects"].as_array()).into_iter().flatten();
    let subject = |subject: &Value| {
        let name = subject["name"].as_str()?.to_owned();
        match subject["kind"].as_str()? {
            "User" => Some(Subject { kind: "User", name }),
            "Group" => Some(Subject { kind: "Group", name }),
            // In RBAC, a service account also has this user name.
            "ServiceAccount" => {
                let namespace = subject["namespace"].as_str()?;
                Some(Subject { kind: "User", name: format!("system:serviceaccount:{namespace}:{name}") })
            }
            _ => None,
        }
    };
    each.filter_map(subject).collect()
}

/// Returns the failure of a request of the set-up, with the next step.
pub(super) fn failed(what: &str, error: &RequestError) -> Failure {
    let next = match error.code() {
        Some(401) => "Sign in again: the credentials of this context are no longer accepted.",
        Some(403) => {
            "An administrator of the cluster must run the setup command. To use kubectl, leave out --apply: the command then prints the \
             manifests for kubectl apply -f."
        }
        Some(404) => {
            "This API server does not have the kind: policies need Kubernetes 1.30 or later (--profile trial works without policies)."
        }
        Some(_) => {
            "See the message of the API server. Objects that were already applied stay; run the setup command \
            again."
        }
        None => "Check the connection (gpu-syringe doctor), and run the setup command again.",
    };
    let failure = error.failure(what.to_owned(), next);
    if error.code() == Some(403) { failure.because_of(Cause::Refused) } else { failure }
}
