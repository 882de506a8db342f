//! `--via auto`: what is tried in which order, and what the answer is.

use std::sync::Arc;

use demo_cluster::{
    AnswerFault, Cluster, CountedFault, Denial, ExecFault, Fixture, Image, PROBE_IMAGE, RequestFault, ShellImages,
    StartFault,
};

use crate::support::{DEBIAN, DEBIAN_PINNED, Launcher, fixture, ours};

/// The image that the settings name.
pub(crate) const NAMED: &str = "registry.example/node-probe:9";
const POLICY: &str = "ValidatingAdmissionPolicy 'gpu-syringe-probe-only' with binding 'b' denied request: no probe is admitted \
    until ConfigMap gpu-syringe-policy of this namespace has the image in data.image: REGISTRY/PATH@sha256:DIGEST";
const QUOTA: &str = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";

/// A node with these images.
pub(crate) fn with_images(images: &[&str]) -> Fixture {
    let mut fixture = fixture();
    for node in &mut fixture.nodes {
        node.images = images.iter().map(|image| (*image).to_owned()).collect();
    }
    fixture
}

fn fault(verb: &'static str, resource: &'static str, answer: AnswerFault) -> RequestFault {
    RequestFault { verb: Some(verb), resource: Some(resource), answer: CountedFault::always(answer) }
}

/// A situation, what is tried in it, and what is answered.
struct Case {
    situation: &'static str,
    fixture: Fixture,
    flags: &'static [&'static str],
    faults: fn(&mut demo_cluster::Faults),
    /// The methods that are passed over, in their order, each with a part of its reason.
    passed: &'static [&'static str],
    /// How many pods were created.
    pods: u64,
    /// The method of the answer; `none` for one of the API alone, `error` for a call that fails.
    via: &'static str,
    /// What the answer, or the error, must say.
    says: &'static [&'static str],
}

fn case(situation: &'static str, images: &[&str]) -> Case {
    let none = |_: &mut demo_cluster::Faults| {};
    let fixture = with_images(images);
    Case { situation, fixture, flags: &[], faults: none, passed: &[], pods: 1, via: "pod", says: &[] }
}

fn cases() -> Vec<Case> {
    let named: &[&str] = &["--image", NAMED];
    let pull_fails =
        |faults: &mut demo_cluster::Faults| faults.everywhere.start = Some(CountedFault::once(StartFault::ImagePull));
    let no_websocket = |faults: &mut demo_cluster::Faults| {
        faults.everywhere.exec = Some(CountedFault::always(ExecFault::UpgradeRefused(400)));
    };
    let shell_less = Arc::new(ShellImages::of([(DEBIAN_PINNED, Image::distroless())]));
    let no_exec =
        |fixture: Fixture| fixture.denying(Denial::of("create", "pods/exec")).denying(Denial::of("get", "pods/exec"));
    let both = [PROBE_IMAGE, DEBIAN_PINNED];
    vec![
        // The image.
        case("the node has the image of this version", &both),
        Case { flags: named, ..case("an image is named", &[DEBIAN_PINNED]) },
        Case {
            via: "inject",
            passed: &["pod: no --image is set"],
            ..case("no image, and a trusted base image by digest", &[DEBIAN_PINNED])
        },
        Case {
            flags: &["--base-image", DEBIAN],
            via: "inject",
            passed: &["pod: no --image is set"],
            ..case("no image, and a base image that the user names", &[DEBIAN])
        },
        Case {
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: none of the 1 images"],
            says: &["--image REGISTRY/node-probe@sha256:DIGEST", "--base-image"],
            ..case("no image, and a trusted name without a digest", &[DEBIAN])
        },
        Case {
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: none of the 2 images"],
            ..case(
                "another release of the probe, and an image of a workload",
                &[
                    "ghcr.io/gpu-syringe/node-probe:0.0.1",
                    "nvcr.io/nvidia/pytorch@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                ],
            )
        },
        Case {
            flags: &["--probe-binary", "/nowhere/node-probe"],
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: /nowhere/node-probe"],
            says: &["--probe-binary"],
            ..case("no image, and no program to upload", &[DEBIAN_PINNED])
        },
        Case {
            flags: named,
            faults: pull_fails,
            via: "inject",
            pods: 2,
            passed: &["pod: ErrImagePull|ImagePullBackOff"],
            ..case("the named image cannot be pulled", &[DEBIAN_PINNED])
        },
        Case {
            flags: named,
            faults: pull_fails,
            via: "none",
            passed: &["pod: ErrImagePull|ImagePullBackOff", "inject: none of the 1 images"],
            says: &["--image-pull-secret", "--base-image"],
            ..case("the named image cannot be pulled, and there is no base image", &[DEBIAN])
        },
        Case {
            fixture: Fixture { programs: shell_less, ..with_images(&[DEBIAN_PINNED]) },
            via: "none",
            passed: &["pod: no --image is set", "inject: .*executable file"],
            says: &["--base-image"],
            ..case("the base image has no shell", &[])
        },
        // Refusals of the cluster: no other pod.
        Case {
            faults: |faults| faults.api.pod_security = true,
            via: "none",
            pods: 0,
            passed: &["Pod Security \"baseline:latest\" of namespace gpu-syringe forbids it"],
            says: &[
                "gpu-syringe setup --apply --profile hardened",
                "--profile trial",
                "gpu-syringe doctor",
                "kubectl label namespace",
            ],
            ..case("Pod Security refuses privileged pods", &both)
        },
        Case {
            flags: named,
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden(POLICY.into()))),
            via: "none",
            pods: 0,
            passed: &["ValidatingAdmissionPolicy gpu-syringe-probe-only"],
            says: &["gpu-syringe setup --apply --profile hardened --image", "gpu-syringe doctor"],
            ..case("the policy admits another image", &both)
        },
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden(POLICY.into()))),
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: ValidatingAdmissionPolicy gpu-syringe-probe-only"],
            says: &["gpu-syringe setup --apply --profile hardened --image", "gpu-syringe doctor"],
            ..case("the policy, and no image", &[DEBIAN_PINNED])
        },
        Case {
            fixture: Fixture { namespaces: Vec::new(), ..with_images(&both) },
            via: "none",
            pods: 0,
            passed: &["namespaces \"gpu-syringe\" not found"],
            says: &["gpu-syringe setup --apply --profile hardened", "--profile trial", "gpu-syringe doctor"],
            ..case("the namespace does not exist", &[])
        },
        Case {
            fixture: with_images(&both).denying(Denial::of("create", "pods")),
            via: "none",
            pods: 0,
            passed: &["pods is forbidden: User"],
            says: &["setup --apply --profile hardened", "--user 'gpu-syringe'", "gpu-syringe doctor"],
            ..case("the user may not create pods", &[])
        },
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden("no".into()))),
            via: "none",
            pods: 0,
            passed: &["pods \".*is forbidden: no"],
            ..case("an unknown admission plugin refuses", &both)
        },
        // No exec.
        Case {
            faults: no_websocket,
            via: "logs",
            pods: 2,
            passed: &["pod: websockets to"],
            ..case("a proxy refuses websockets", &both)
        },
        Case {
            faults: no_websocket,
            via: "none",
            passed: &["pod: no --image is set", "inject: websockets to"],
            says: &["--image"],
            ..case("a proxy refuses websockets, and there is no image", &[DEBIAN_PINNED])
        },
        Case {
            fixture: no_exec(with_images(&both)),
            via: "logs",
            pods: 2,
            passed: &["pod: pods \".*cannot (get|create) resource \"pods/exec\""],
            ..case("the user may not exec", &[])
        },
        Case {
            fixture: no_exec(with_images(&both)).denying(Denial::of("get", "pods/log")),
            via: "none",
            pods: 2,
            passed: &["pod: .*pods/exec", "logs: .*pods/log", "inject: .*pods/exec"],
            says: &["deploy/rbac.yaml"],
            ..case("the user may neither exec nor read logs", &[])
        },
        // What another method would not mend, or would make worse.
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::TooManyRequests(1))),
            via: "error",
            pods: 0,
            says: &["HTTP 429"],
            ..case("the API server is busy", &both)
        },
        Case {
            faults: |faults| {
                let busy = AnswerFault::PlainText { code: 503, retry_after: Some(1) };
                faults.api.requests.push(fault("get", "pods/exec", busy));
            },
            flags: &["--start-timeout", "2"],
            via: "error",
            ..case("exec is answered with 503", &both)
        },
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden(QUOTA.into()))),
            via: "error",
            pods: 0,
            says: &["describe quota"],
            ..case("the quota is used up", &both)
        },
        Case {
            faults: |faults| faults.everywhere.start = Some(StartFault::HungPull.into()),
            flags: &["--image", NAMED, "--start-timeout", "1"],
            via: "error",
            says: &["did not start"],
            ..case("the registry does not answer", &[DEBIAN_PINNED])
        },
        Case {
            faults: |faults| faults.everywhere.start = Some(StartFault::HungRuntime.into()),
            flags: &["--start-timeout", "1"],
            via: "error",
            says: &["did not start"],
            ..case("the container runtime hangs", &both)
        },
        Case {
            faults: |faults| faults.everywhere.start = Some(StartFault::out_of_pods().into()),
            via: "error",
            says: &["OutOfpods"],
            ..case("the node is full", &both)
        },
        Case {
            flags: &["--image", "registry.example/other:1"],
            via: "error",
            says: &["does not contain node-probe"],
            ..case("the named image is another program", &both)
        },
        Case {
            fixture: with_images(&[DEBIAN_PINNED]).denying(Denial::of("delete", "pods")),
            flags: named,
            faults: pull_fails,
            via: "error",
            says: &["Left behind"],
            ..case("the first pod cannot be deleted", &[])
        },
    ]
}

/// The reason in the note of an answer without a probe.
fn no_probe(note: &str) -> String {
    let why = note.strip_prefix("No probe ran: ").and_then(|note| note.split_once(". The hardware was not checked."));
    why.unwrap_or_else(|| panic!("{note}")).0.to_owned()
}

/// Whether `text` starts with `pattern`, in which `|` and `.*` have their meaning.
fn starts_with(text: &str, pattern: &str) -> bool {
    regex::Regex::new(&format!(
        "^{}",
        pattern.replace("ErrImagePull|ImagePullBackOff", "(ErrImagePull|ImagePullBackOff)")
    ))
    .unwrap()
    .is_match(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_situation_has_its_methods_and_its_answer() {
    for Case { situation, fixture, flags, faults, passed, pods, via, says } in cases() {
        let cluster = Cluster::start(fixture).await.unwrap();
        cluster.faults(faults);
        let launcher = Launcher::start(&cluster, flags);
        let said = match launcher.inventory().await {
            Ok(answer) => {
                let probe = &answer["probe"];
                assert_eq!(probe["via"], via, "{situation}: {probe}");
                let note = probe["note"].as_str().unwrap_or_default().to_owned();
                let lines: Vec<String> = match via {
                    // The reason is the note: `No probe ran: pod: …; inject: …. The hardware …`.
                    "none" => vec![no_probe(&note)],
                    _ => serde_json::from_value(probe["passed_over"].clone()).unwrap_or_default(),
                };
                let all = lines.join("; ");
                assert!(starts_with(&all, &passed.join(".*; ")), "{situation}: {all}");
                // No more of them than expected.
                let methods = ["pod: ", "inject: ", "logs: "];
                let number = |text: &str| methods.iter().map(|method| text.matches(method).count()).sum::<usize>();
                assert_eq!(number(&all), number(&passed.concat()), "{situation}: {all}");
                note
            }
            Err(failure) => {
                assert_eq!(via, "error", "{situation}: {failure}");
                failure.to_string()
            }
        };
        for words in says {
            assert!(said.contains(words), "{situation}: no '{words}' in: {said}");
        }
        assert_eq!(cluster.pods_created(), pods, "{situation}: {said}");
        launcher.prober.settle().await;
        let left = usize::from(said.contains("Left behind"));
        assert_eq!(ours(&cluster), left, "{situation}: {said}");
        assert!(launcher.audit().len() >= 1, "{situation}: every call has its line");
    }
}
