//! `Profile`: the scope of a set-up. `Parameters`: its values, and the files of `deploy/` with these values.
//! `deploy_files`, `permissions_table`: the generated files and table. `pinned_image`: the image that the policy can
//! admit.
//!
//! `gpu-syringe setup` applies the text that it prints, so `kubectl apply` of the printed text has the same result.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::Value;

use super::permissions::{self, GrantedBy};
use crate::policy::values::{IMAGE, PULL_SECRETS, Values};
use crate::policy::{DEFAULT_NAMESPACE, cluster_name};
use crate::settings::Settings;
use crate::settings::image_reference::{self, PINNED};
use kube_read::Failure;

const NAMESPACE: &str = include_str!("templates/namespace.yaml");
const POLICY: &str = include_str!("templates/admission-policy.yaml");
const RBAC: &str = include_str!("templates/rbac.yaml");

/// Label of every object of a set-up, and its value.
pub(crate) const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "gpu-syringe");

/// Scope of a set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Namespace, permissions and quota: no image of node-probe is needed. Users of gpu-syringe have root on the nodes
    Trial,
    /// The objects of trial, and a policy that admits only the probe, from one image pinned by digest (recommended)
    Hardened,
}

impl Profile {
    /// Returns the comment of the namespace: what limits the pods in it.
    fn limit(self) -> &'static str {
        match self {
            Self::Trial => {
                "Trial profile: NOTHING limits the pods of this namespace. Whoever may create a pod in it has root on every node."
            }
            Self::Hardened => {
                "The namespace of the probe pods. It admits privileged pods; deploy/admission-policy.yaml limits them to the probe."
            }
        }
    }

    /// Returns the name on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Hardened => "hardened",
        }
    }
}

/// A user or group of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// `User` or `Group`.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
}

/// The values of one set-up.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    pub(crate) namespace: String,
    pub(crate) readers: Vec<Subject>,
    pub(crate) operators: Vec<Subject>,
    /// The values of the policy.
    pub(crate) policy: Values,
    /// Whether the subjects are placeholders that the reader of the file replaces.
    pub(crate) example: bool,
}

impl Parameters {
    /// Returns the values for these settings, so that the policy admits the pod that the settings create.
    pub(crate) fn new(settings: &Settings, readers: Vec<Subject>, operators: Vec<Subject>) -> Self {
        let keys = |pairs: &[crate::settings::KeyValue]| pairs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>();
        let policy = Values::default()
            .with(IMAGE, pinned_image(settings).filter(|_| settings.names_image()).unwrap_or_default())
            .with("runtimeClass", settings.runtime_class.clone().unwrap_or_default())
            .with(PULL_SECRETS, settings.image_pull_secret.clone())
            .with("moreLabels", keys(&settings.label))
            .with("moreAnnotations", keys(&settings.annotation));
        Self { namespace: settings.probe_namespace.clone(), readers, operators, policy, example: false }
    }

    /// Returns the values of the files in `deploy/`.
    fn of_the_files() -> Self {
        let group = |name: &str| vec![Subject { kind: "Group", name: name.to_owned() }];
        Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            readers: group("gpu-readers"),
            operators: group("gpu-operators"),
            policy: Values::default(),
            example: true,
        }
    }

    /// Returns the name of a cluster-scoped object, which differs for each namespace.
    pub(crate) fn cluster_name(&self, name: &str) -> String {
        cluster_name(name, &self.namespace)
    }

    fn fill(&self, template: &str) -> String {
        let suffix = self.cluster_name("");
        let namespace = match self.namespace.as_str() {
            DEFAULT_NAMESPACE => DEFAULT_NAMESPACE.to_owned(),
            // Without quotes, YAML would read a name such as 123 or true as a number or a boolean.
            name => quoted(name),
        };
        let mut values = vec![("NAMESPACE", namespace), ("SUFFIX", suffix), ("PINNED", PINNED.to_owned())];
        values.extend(self.policy.expressions().map(|(name, expression)| (name, quoted_once(&expression))));
        replaced(template, &values)
    }

    fn rbac(&self) -> String {
        let note = if self.example { " Set your groups in the bindings at the end." } else { "" };
        // The rules are inserted before the values, because a name may contain text that looks like a placeholder.
        let template = RBAC
            .replace("@BINDINGS_NOTE@", note)
            .replace("@RULES_READER@", &permissions::rules(GrantedBy::Reader))
            .replace("@RULES_OPERATOR@", &permissions::rules(GrantedBy::Operator))
            .replace("@RULES_CLUSTER@", &permissions::rules(GrantedBy::ClusterRead))
            .replace("@RULES_EPHEMERAL@", &permissions::rules(GrantedBy::Ephemeral));
        let filled = self.fill(&template);
        let Some((roles, _)) = filled.split_once("@BINDINGS@") else { return filled };
        format!("{roles}{}", self.bindings())
    }

    fn bindings(&self) -> String {
        let both: Vec<_> = self.readers.iter().chain(&self.operators).collect();
        let operators: Vec<_> = self.operators.iter().collect();
        [(GrantedBy::Reader, &both), (GrantedBy::Operator, &operators), (GrantedBy::ClusterRead, &both)]
            .into_iter()
            .filter(|(_, subjects)| !subjects.is_empty())
            .map(|(of, subjects)| self.binding(of, subjects))
            .collect()
    }

    fn binding(&self, of: GrantedBy, subjects: &[&Subject]) -> String {
        let (role, kind) = (of.role(), of.kind());
        let (name, place) = match kind {
            "Role" => (role.to_owned(), self.fill("  namespace: @NAMESPACE@\n")),
            _ => (self.cluster_name(role), String::new()),
        };
        let (label, value) = LABEL;
        let mut text = format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\nmetadata:\n  name: {name}\n{place}  labels:\n    \
             {label}: {value}\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\nsubjects:\n"
        );
        let hint = if self.example { " # replace with your group" } else { "" };
        for Subject { kind, name } in subjects {
            let name = if self.example { name.clone() } else { quoted(name) };
            let _ = writeln!(text, "  - apiGroup: rbac.authorization.k8s.io\n    kind: {kind}\n    name: {name}{hint}");
        }
        text
    }

    /// Returns the files of a profile in the order in which they are applied: the policy comes before the namespace
    /// that it limits, and before the permissions.
    pub(crate) fn files(&self, profile: Profile) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if profile == Profile::Hardened {
            files.push(("admission-policy.yaml", self.fill(POLICY)));
        }
        files.push(("namespace.yaml", self.fill(&NAMESPACE.replace("@LIMIT@", profile.limit()))));
        files.push(("rbac.yaml", self.rbac()));
        files
    }

    /// Returns all files as one document.
    pub(crate) fn yaml(&self, profile: Profile) -> String {
        self.files(profile).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("---\n")
    }

    /// Returns all files as objects.
    pub(crate) fn objects(&self, profile: Profile) -> Result<Vec<Value>, Failure> {
        let mut objects = Vec::new();
        for (name, text) in self.files(profile) {
            let parsed: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&text);
            objects.extend(parsed.map_err(|error| {
                Failure::new(format!("Making {name}"), error, "This is a defect of gpu-syringe: please report it.")
            })?);
        }
        Ok(objects)
    }
}

/// Returns the image of the settings if it has a registry and a digest, so that the policy can admit it.
pub(crate) fn pinned_image(settings: &Settings) -> Option<String> {
    Some(settings.probe_image()).filter(|image| image_reference::refusal(image).is_none())
}

/// Returns the template with each `@NAME@` replaced by its value. A value that looks like a placeholder is not replaced.
fn replaced(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('@') {
        let after = &rest[at + 1..];
        text.push_str(&rest[..at]);
        let end = |(name, _): &&(&str, String)| after.strip_prefix(name).is_some_and(|end| end.starts_with('@'));
        match values.iter().find(end) {
            Some((name, value)) => {
                text.push_str(value);
                rest = &after[name.len() + 1..];
            }
            None => {
                text.push('@');
                rest = after;
            }
        }
    }
    text + rest
}

/// Returns the text as a YAML string. A text without special characters is in single quotes, which a person can read
/// more easily.
fn quoted_once(text: &str) -> String {
    let is_plain = text.chars().all(|one| matches!(one, ' '..='~'));
    if is_plain { format!("'{}'", text.replace('\'', "''")) } else { quoted(text) }
}

/// Returns the text as a YAML string. A JSON string is also a YAML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns the generated files of `deploy/`.
#[must_use]
pub fn deploy_files() -> Vec<(&'static str, String)> {
    Parameters::of_the_files().files(Profile::Hardened)
}

/// Returns the generated table of permissions in `docs/permissions.md`.
#[must_use]
pub fn permissions_table() -> String {
    permissions::table()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(namespace: &str, name: &str) -> Parameters {
        let settings = Settings::from_args(["--probe-namespace", namespace]).expect("settings");
        let subject = Subject { kind: "User", name: name.to_owned() };
        Parameters::new(&settings, vec![subject], Vec::new())
    }

    /// Tests names that YAML, the placeholders or the CEL of the policy could interpret as something else.
    #[test]
    fn a_name_stays_the_name_that_was_given() {
        for name in
            ["true", "123", "a: b", "x\n- y", "@BINDINGS@", "@image@", "\"", "#", "{}", "{{", "u@example.com", "é"]
        {
            for namespace in ["gpu-syringe", "123", "true", "null", "on"] {
                let parameters = parameters(namespace, name);
                for profile in [Profile::Trial, Profile::Hardened] {
                    let objects = parameters.objects(profile).expect("manifests");
                    let named = |kind: &str| {
                        objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
                    };
                    assert_eq!(named("RoleBinding")["subjects"][0]["name"], name);
                    assert_eq!(named("RoleBinding")["metadata"]["namespace"], namespace);
                    assert_eq!(named("Namespace")["metadata"]["name"], namespace);
                    assert!(objects.iter().all(|object| object["metadata"]["labels"][LABEL.0] == LABEL.1));
                    let text = parameters.yaml(profile);
                    let again: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
                    assert_eq!(again, objects);
                }
            }
        }
    }

    /// Tests values that YAML, CEL or the placeholders could mistake for something else.
    #[test]
    fn a_value_of_the_policy_is_read_back_as_it_was_given() {
        for text in ["@image@", "a'b", "\"", "\\", "é\n", "' + params", "#", "${x}", "@PINNED@"] {
            let parameters = Parameters {
                policy: Values::default().with("runtimeClass", text).with("moreLabels", vec![text, "team"]),
                ..parameters("gpu-syringe", "u")
            };
            let objects = parameters.objects(Profile::Hardened).expect("manifests");
            let policy = objects.iter().find(|object| object["metadata"]["name"] == "gpu-syringe-probe-only");
            assert_eq!(Values::of_policy(&policy.expect("a policy")["spec"]), parameters.policy, "{text}");
        }
    }

    #[test]
    fn two_namespaces_share_no_object() {
        let ids = |namespace: &str| {
            let objects = parameters(namespace, "u").objects(Profile::Hardened).expect("manifests");
            let id = |object: &Value| {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                (object["kind"].to_string(), text("namespace"), text("name"))
            };
            objects.iter().map(id).collect::<std::collections::BTreeSet<_>>()
        };
        let (one, other) = (ids("gpu-syringe"), ids("trial"));
        assert_eq!((one.len(), one.intersection(&other).count()), (14, 0), "{one:?}");
    }

    #[test]
    fn without_a_user_there_is_no_binding() {
        let settings = Settings::from_args([]).expect("settings");
        let objects = Parameters::new(&settings, Vec::new(), Vec::new()).objects(Profile::Trial).expect("manifests");
        let kinds: Vec<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["Namespace", "ResourceQuota", "Role", "Role", "ClusterRole", "ClusterRole"]);
    }
}
