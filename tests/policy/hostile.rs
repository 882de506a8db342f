//! Tests that every hostile request is rejected with the expected message, and that every validation is needed.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syringe_core::probe_command::{ProbeCommand, ReadCommand};

use crate::admission::{Denial, Policies, Request};
use crate::cases::{self, Attempt, Case, Subresource};
use crate::manifests::{NAMESPACE, shipped, usual, with_values};
use crate::pod::{defaulted, printed};

/// The genuine pods that the cases modify.
struct Genuine {
    privileged: Value,
    plain: Value,
}

impl Genuine {
    fn new() -> Self {
        Self { privileged: printed(&[]), plain: printed(&["--runtime-class", "nvidia"]) }
    }

    fn of(&self, case: &Case) -> &Value {
        if case.plain { &self.plain } else { &self.privileged }
    }
}

fn request(operation: &'static str, subresource: &str, object: Value) -> Request {
    let namespace = NAMESPACE.to_owned();
    Request { operation, subresource: subresource.to_owned(), namespace, object, may_act: false }
}

/// Returns the request of a case in the form in which admission receives it.
fn asked(case: &Case, genuine: &Genuine) -> Request {
    let stored = || defaulted(genuine.of(case).clone());
    let plainly = match &case.attempt {
        Attempt::Pod(_) | Attempt::Container(_) | Attempt::MoreContainers(_) => {
            request("CREATE", "", defaulted(case.pod(genuine.of(case)).unwrap()))
        }
        Attempt::Exec(_) | Attempt::ExecOptions(_) => request("CONNECT", "exec", case.exec().unwrap()),
        Attempt::Update(change) => {
            let mut pod = stored();
            cases::merge(&mut pod, change);
            request("UPDATE", "", pod)
        }
        Attempt::Subresource(Subresource { name, operation, object }) => match operation.as_str() {
            "UPDATE" => {
                let mut pod = stored();
                cases::merge(&mut pod, object);
                request("UPDATE", name, pod)
            }
            "CONNECT" => request("CONNECT", name, object.clone()),
            "CREATE" => request("CREATE", name, object.clone()),
            other => panic!("{}: {other}", case.name),
        },
    };
    Request { may_act: case.operator, ..plainly }
}

#[test]
fn every_hostile_request_is_denied_with_its_message_and_every_validation_is_needed() {
    let (cases, genuine, policies) = (cases::all(), Genuine::new(), usual());
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = Vec::new();
    // If only one validation rejects a request, the request would be admitted without that validation. Therefore, the
    // validation is needed.
    let mut alone = BTreeSet::new();
    for case in &cases {
        let others = (!case.values.is_null()).then(|| with_values(&case.values));
        let denials = others.as_ref().unwrap_or(&policies).review(&asked(case, &genuine));
        if !denials.iter().any(|denial| denial.message.contains(&case.refused)) {
            wrong.push(format!("{} (tries {}): {denials:#?}", case.name, case.tries));
        }
        if let [Denial { policy, validation: Some(place), .. }] = denials.as_slice() {
            alone.insert((policy.clone(), *place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let idle =
        policies.validations().into_iter().filter(|(policy, place, _)| !alone.contains(&(policy.clone(), *place)));
    let idle: Vec<_> = idle.map(|(_, _, message)| message).collect();
    assert!(idle.is_empty(), "no hostile request needs these validations:\n{}", idle.join("\n"));
}

#[test]
fn a_field_that_no_kubernetes_has_yet_is_refused_at_every_level() {
    let (genuine, policies) = (defaulted(printed(&[])), usual());
    assert_eq!(policies.review(&request("CREATE", "", genuine.clone())), []);
    for place in [
        "/metadata",
        "/spec",
        "/spec/containers/0",
        "/spec/containers/0/securityContext",
        "/spec/securityContext",
        "/spec/containers/0/resources",
        "/spec/containers/0/resources/limits",
        "/spec/containers/0/resources/requests",
    ] {
        let mut pod = genuine.clone();
        pod.pointer_mut(place).unwrap()["fieldOfTomorrow"] = json!("x");
        assert_ne!(policies.review(&request("CREATE", "", pod)), [], "{place}");
    }
    let mut options = cases::exec(&["node-probe", "all"]);
    assert_eq!(policies.review(&request("CONNECT", "exec", options.clone())), []);
    options["fieldOfTomorrow"] = json!(true);
    assert_ne!(policies.review(&request("CONNECT", "exec", options)), []);
    assert_ne!(policies.review(&request("CONNECT", "subresourceoftomorrow", json!({}))), []);
}

#[test]
fn nothing_is_admitted_before_the_policy_names_an_image_by_registry_and_digest() {
    let pod = request("CREATE", "", defaulted(printed(&[])));
    let why =
        |policies: &Policies| policies.review(&pod).first().map(|denial| denial.message.clone()).unwrap_or_default();
    assert!(why(&shipped()).contains("variable image of ValidatingAdmissionPolicy"), "{}", why(&shipped()));
    let digest = "1".repeat(64);
    for image in [
        "registry.test/gpu/node-probe:0.1.0".to_owned(),
        format!("node-probe@sha256:{digest}"),
        format!("gpu/node-probe@sha256:{digest}"),
        format!("registry.test/gpu/node-probe@sha256:{}", &digest[1..]),
        format!("registry.test/gpu/node-probe@sha256:{digest}\n"),
        format!("local/node-probe@sha256:{digest}"),
        format!("localhost@sha256:{digest}"),
        format!("' + '/x@sha256:{digest}"),
        "@image@".to_owned(),
    ] {
        let why = why(&with_values(&json!({"image": image})));
        assert!(why.contains("no probe is admitted until variable image"), "{image}: {why}");
    }
}

/// Tests images of podman and kind, and an image of a registry whose name has no dot.
#[test]
fn an_image_of_localhost_is_admitted() {
    for name in ["localhost/node-probe", "localhost:5000/gpu/node-probe", "registry:5000/node-probe:0.1.0"] {
        let image = format!("{name}@sha256:{}", "1".repeat(64));
        let policies = with_values(&json!({"image": image}));
        let pod = |image: &str| {
            let mut pod = defaulted(printed(&[]));
            pod["spec"]["containers"][0]["image"] = image.into();
            request("CREATE", "", pod)
        };
        assert_eq!(policies.review(&pod(&image)), [], "{image}");
        assert_ne!(policies.review(&pod(&image.replace('1', "2"))), [], "{image}");
    }
}

#[test]
fn defaults_of_a_cluster_in_a_genuine_pod_are_admitted() {
    let policies = with_values(
        &json!({"pullSecrets": ["a", "b"], "moreLabels": ["team"], "moreAnnotations": ["openshift.io/scc"]}),
    );
    let additions = [
        json!({"spec": {"priority": 1000, "priorityClassName": "usual", "preemptionPolicy": "Never"}}),
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "b"}}}),
        json!({"metadata": {"annotations": {"kubernetes.io/limit-ranger": "x", "openshift.io/scc": "privileged"}}}),
        json!({"metadata": {"labels": {"team": "ml"}}}),
        json!({"spec": {"imagePullSecrets": [{"name": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300}]}}),
    ];
    for addition in additions {
        let mut pod = defaulted(printed(&[]));
        cases::merge(&mut pod, &addition);
        assert_eq!(policies.review(&request("CREATE", "", pod)), [], "{addition}");
    }
    // The first request is a status update of the kubelet, the second is an eviction during a drain.
    for (operation, subresource) in [("UPDATE", "status"), ("CREATE", "eviction")] {
        assert_eq!(policies.review(&request(operation, subresource, defaulted(printed(&[])))), []);
    }
}

#[test]
fn an_action_needs_its_permission_in_the_pod_and_in_the_exec() {
    let policies = usual();
    let words = ["node-probe", "--operator", "reset", "--gpu", "GPU-0ef073d2-8b0d-4220-a630-44b3db6f98bb", "--plan"];
    let mut pod = defaulted(printed(&[]));
    pod["spec"]["containers"][0]["command"] = json!(words);
    for asked in [request("CREATE", "", pod), request("CONNECT", "exec", cases::exec(&words))] {
        let [denial] = &policies.review(&asked)[..] else { panic!("{asked:?}") };
        assert!(denial.message.contains("actions.gpu-syringe.dev"), "{denial:?}");
        assert_eq!(policies.review(&Request { may_act: true, ..asked }), []);
    }
}

#[test]
fn the_end_of_the_log_of_a_stack_container_may_be_asked_for() {
    let (policies, log) = (usual(), "0f8a7c2e-11aa-4bbb-8ccc-123456789abc/nvidia-driver-ctr");
    let id = "0f".repeat(32);
    for words in [
        vec!["node-probe", "all", "--stack-log", log],
        vec!["node-probe", "host", "--stack-log", log],
        vec!["node-probe", "all", "--container", &id, "--stack-log", log],
    ] {
        let mut pod = defaulted(printed(&[]));
        pod["spec"]["containers"][0]["command"] = json!(words);
        for asked in [request("CREATE", "", pod), request("CONNECT", "exec", cases::exec(&words))] {
            assert_eq!(policies.review(&asked), [], "{words:?}");
        }
    }
}

#[test]
fn nccl_in_a_pod_may_be_asked() {
    let (policies, log) = (usual(), "0f8a7c2e-11aa-4bbb-8ccc-123456789abc/nvidia-driver-ctr");
    let asked =
        ReadCommand { nccl_ras: "0f8a7c2e-11aa-4bbb-8ccc-123456789abc".parse().ok(), ..ReadCommand::everything() };
    let with_log = ReadCommand { stack_log: log.parse().ok(), ..asked.clone() };
    for words in [asked, with_log].map(|read| ProbeCommand::from(read).argv()) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut pod = defaulted(printed(&[]));
        pod["spec"]["containers"][0]["command"] = json!(words);
        for asked in [request("CREATE", "", pod), request("CONNECT", "exec", cases::exec(&words))] {
            assert_eq!(policies.review(&asked), [], "{words:?}");
        }
    }
}

#[test]
fn cuda_may_be_started() {
    let (policies, log) = (usual(), "0f8a7c2e-11aa-4bbb-8ccc-123456789abc/nvidia-driver-ctr");
    let deep = ReadCommand { deep: true, ..ReadCommand::everything() };
    let with_log = ReadCommand { stack_log: log.parse().ok(), ..deep.clone() };
    for words in [deep, with_log].map(|read| ProbeCommand::from(read).argv()) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut pod = defaulted(printed(&[]));
        pod["spec"]["containers"][0]["command"] = json!(words);
        for asked in [request("CREATE", "", pod), request("CONNECT", "exec", cases::exec(&words))] {
            assert_eq!(policies.review(&asked), [], "{words:?}");
        }
    }
}

/// Policies cannot share a variable, so two policies contain the list of permitted commands.
#[test]
fn pod_and_exec_admit_the_same_commands() {
    let documents = crate::manifests::documents("admission-policy.yaml");
    for variable in ["isReading", "isAction", "line"] {
        let variables =
            documents.iter().flat_map(|document| document["spec"]["variables"].as_array().cloned().unwrap_or_default());
        let same: BTreeSet<_> =
            variables.filter(|one| one["name"] == variable).map(|one| one["expression"].to_string()).collect();
        assert_eq!(same.len(), 1, "{variable}: {same:#?}");
    }
}
