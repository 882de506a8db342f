//! Tests that the policy on a real API server is the shipped admission policy, and rejects the hostile requests.

use std::path::Path;

use http::Request;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::Api;
use serde_json::{Value, json};

use crate::cases::{self, Attempt, Case, POD, Subresource};
use crate::site::Site;

/// A response of an API server: HTTP status and message.
struct Answer {
    code: u16,
    message: String,
}

impl Answer {
    fn is_a_refusal_of_ours(&self) -> bool {
        matches!(self.code, 403 | 422) && self.message.contains("ValidatingAdmissionPolicy 'gpu-syringe-")
    }
}

impl Site {
    /// Sends a request as the administrator, or as a member of a group of deploy/rbac.yaml.
    async fn send(&self, method: &str, path: &str, body: &Value, group: Option<&str>) -> Answer {
        let kind = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        let path = format!("/api/v1/namespaces/{}/{path}", self.namespace);
        let mut request = Request::builder().method(method).uri(path).header("Content-Type", kind);
        if let Some(group) = group {
            request = request.header("Impersonate-User", "gpu-syringe-e2e").header("Impersonate-Group", group);
        }
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        match self.kubernetes.request_text(request.body(body).unwrap()).await {
            Ok(text) => Answer { code: 200, message: text },
            Err(kube::Error::Api(status)) => Answer { code: status.code, message: status.message.clone() },
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the pod that `gpu-syringe pod-spec` prints.
    async fn printed(&self, settings: &[&str]) -> Value {
        let words = ["pod-spec", "--output", "json", &self.node];
        self.launcher().args(words.into_iter().chain(settings.iter().copied())).run().await.json()
    }

    /// Sends a hostile request. Nothing is changed: requests are dry runs if possible, and connections are not used.
    async fn attempt(&self, case: &Case, genuine: &Value) -> Answer {
        // An administrator has all rights, so only a user without the right can show that the right is checked.
        let group = case.refused.contains("actions.gpu-syringe.dev").then_some("gpu-readers");
        if let Some(pod) = case.pod(genuine) {
            return self.send("POST", "pods?dryRun=All", &pod, group).await;
        }
        if let Some(options) = case.exec() {
            return self.send("POST", &format!("pods/{POD}/exec?{}", query(&options)), &Value::Null, group).await;
        }
        match &case.attempt {
            Attempt::Update(change) => self.send("PATCH", &format!("pods/{POD}?dryRun=All"), change, group).await,
            Attempt::Subresource(Subresource { name, operation, object }) => {
                let path = format!("pods/{POD}/{name}");
                match operation.as_str() {
                    "UPDATE" => self.send("PATCH", &format!("{path}?dryRun=All"), object, group).await,
                    "CREATE" => self.send("POST", &format!("{path}?dryRun=All"), object, group).await,
                    _ => self.send("POST", &format!("{path}?{}", query(object)), &Value::Null, group).await,
                }
            }
            _ => unreachable!("requests for pods and execs are sent above"),
        }
    }
}

/// Encodes the options of a connection as a query.
fn query(options: &Value) -> String {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut pairs = Vec::new();
    for (name, value) in options.as_object().unwrap() {
        match value {
            Value::String(_) if matches!(name.as_str(), "kind" | "apiVersion") => {}
            Value::String(text) => pairs.push(format!("{name}={}", escaped(text))),
            Value::Array(all) => {
                let word = |word: &Value| word.as_str().map_or_else(|| word.to_string(), escaped);
                pairs.extend(all.iter().map(|value| format!("{name}={}", word(value))));
            }
            other => pairs.push(format!("{name}={other}")),
        }
    }
    pairs.join("&")
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn the_installed_policy_is_the_shipped_one() {
    let site = Site::open().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/admission-policy.yaml");
    let shipped: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap();
    let policies = Api::<ValidatingAdmissionPolicy>::all(site.kubernetes.clone());
    for policy in shipped.iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicy") {
        let name = policy["metadata"]["name"].as_str().unwrap();
        let installed = policies.get(name).await.unwrap_or_else(|error| panic!("{name} is not installed: {error}"));
        let warnings = installed.status.as_ref().and_then(|status| status.type_checking.clone()).unwrap_or_default();
        assert_eq!(warnings.expression_warnings, None, "{name}");
        let installed = serde_json::to_value(installed.spec).unwrap();
        // These variables are settings of the cluster, so their values differ between clusters.
        let rest = |spec: &Value| {
            let variables = spec["variables"].as_array().into_iter().flatten();
            let is_value = |one: &&Value| {
                ["image", "runtimeClass", "priorityClass", "pullSecrets", "moreLabels", "moreAnnotations"]
                    .iter()
                    .any(|name| one["name"] == *name)
            };
            variables.filter(|one| !is_value(one)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(rest(&installed), rest(&policy["spec"]), "variables of {name}");
        for part in ["validations", "paramKind"] {
            assert_eq!(installed.get(part), policy["spec"].get(part), "{part} of {name}");
        }
    }
}

#[tokio::test]
#[ignore = "needs GPU_SYRINGE_E2E_KUBECONFIG and GPU_SYRINGE_E2E_IMAGE"]
async fn hostile_requests_are_refused_and_genuine_ones_are_not() {
    let site = Site::open().await;
    let (privileged, plain) = (site.printed(&[]).await, site.printed(&["--runtime-class", "nvidia"]).await);
    for settings in [&[][..], &["--via", "logs"]] {
        let answer = site.send("POST", "pods?dryRun=All", &site.printed(settings).await, Some("gpu-readers")).await;
        assert_eq!(answer.code, 200, "{settings:?}: {}", answer.message);
    }
    // Some requests are about a pod that exists.
    let mut stored = privileged.clone();
    stored["metadata"]["name"] = POD.into();
    let made = site.send("POST", "pods", &stored, None).await;
    let (mut wrong, mut by_policy) = (Vec::new(), 0);
    for case in cases::all() {
        // All users of this namespace share the values of the policy.
        if !case.values.is_null() {
            continue;
        }
        let answer = site.attempt(&case, if case.plain { &plain } else { &privileged }).await;
        let is_ours = answer.is_a_refusal_of_ours();
        by_policy += usize::from(is_ours);
        let is_first = case.first && (400..500).contains(&answer.code);
        let is_dropped = case.gated && is_bare_of(&answer, &case);
        if !(is_ours || is_first || is_dropped) {
            wrong.push(format!("{} (tries {}): {} {}", case.name, case.tries, answer.code, answer.message));
        }
    }
    let removed = site.send("DELETE", &format!("pods/{POD}"), &json!({"gracePeriodSeconds": 0}), None).await;
    assert_eq!(made.code, 200, "{}", made.message);
    assert_eq!(removed.code, 200, "{}", removed.message);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(by_policy >= 100, "{by_policy}");
}

/// Returns whether an admitted object lacks the fields that made the request hostile. If an exec passes admission, the API
/// server only reports that the upgrade to a websocket is missing.
fn is_bare_of(answer: &Answer, case: &Case) -> bool {
    let Attempt::Pod(change) = &case.attempt else { return answer.code == 400 };
    let Ok(admitted) = serde_json::from_str::<Value>(&answer.message) else { return false };
    change["spec"].as_object().unwrap().keys().all(|field| admitted["spec"].get(field).is_none())
}
