//! Tests of `--via auto`: the order in which methods are tried, the reasons for skipped methods, and the answer.

use std::sync::Arc;

use demo_cluster::{
    AnswerFault, Cluster, CountedFault, Denial, ExecFault, Fixture, Image, RequestFault, ShellImages, StartFault,
};

use crate::auto_memory::creations;
use crate::support::{DEBIAN, DEBIAN_PINNED, Launcher, OURS, fixture, ours, privileged_pod};

/// An image of NVIDIA with a digest.
const DRIVER: &str = "nvcr.io/nvidia/driver@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The image in the settings.
pub(crate) const NAMED: &str = "registry.example/node-probe:9";
const POLICY: &str = "ValidatingAdmissionPolicy 'gpu-syringe-probe-only' with binding 'b' denied request: no probe is admitted \
    until variable image of ValidatingAdmissionPolicy gpu-syringe-probe-only is REGISTRY/PATH@sha256:DIGEST";
const QUOTA: &str = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";

/// Returns a cluster whose nodes have these images. Images with a digest, except the probe's, run in privileged pods.
pub(crate) fn with_images(images: &[&str]) -> Fixture {
    let mut fixture = fixture();
    for node in &mut fixture.nodes {
        node.images = images.iter().map(|image| (*image).to_owned()).collect();
    }
    let pinned: Vec<_> = images.iter().filter(|image| image.contains('@') && !OURS.contains(image)).collect();
    for (number, image) in pinned.into_iter().enumerate() {
        fixture.pods.push(privileged_pod(&format!("agent-{number}"), "gpu-1", image));
    }
    fixture
}

fn fault(verb: &'static str, resource: &'static str, answer: AnswerFault) -> RequestFault {
    RequestFault { verb: Some(verb), resource: Some(resource), answer: CountedFault::always(answer) }
}

/// A situation, the methods that must be tried, and the expected answer.
struct Case {
    situation: &'static str,
    fixture: Fixture,
    flags: &'static [&'static str],
    faults: fn(&mut demo_cluster::Faults),
    /// The skipped methods, in their order, each with a part of its reason.
    passed: &'static [&'static str],
    /// Number of pods that must be created.
    pods: u64,
    /// Number of further create requests that must be rejected.
    refused: u64,
    /// The method of the answer. `none`: the answer only has data from the API; `error`: the call fails.
    via: &'static str,
    /// Texts that the answer or the error must contain.
    says: &'static [&'static str],
}

fn case(situation: &'static str, images: &[&str]) -> Case {
    let none = |_: &mut demo_cluster::Faults| {};
    let fixture = with_images(images);
    Case { situation, fixture, flags: &[], faults: none, passed: &[], pods: 1, refused: 0, via: "pod", says: &[] }
}

fn cases() -> Vec<Case> {
    let named: &[&str] = &["--image", NAMED];
    let pull_fails =
        |faults: &mut demo_cluster::Faults| faults.everywhere.start = Some(CountedFault::once(StartFault::ImagePull));
    let no_websocket = |faults: &mut demo_cluster::Faults| {
        faults.everywhere.exec = Some(CountedFault::always(ExecFault::UpgradeRefused(400)));
    };
    let shell_less_driver =
        Arc::new(ShellImages::of([(DRIVER, Image::distroless()), (DEBIAN_PINNED, Image::debian())]));
    let shell_less = Arc::new(ShellImages::of([(DEBIAN_PINNED, Image::distroless())]));
    let no_exec =
        |fixture: Fixture| fixture.denying(Denial::of("create", "pods/exec")).denying(Denial::of("get", "pods/exec"));
    let both = [OURS[0], OURS[1], DEBIAN_PINNED];
    vec![
        // Images of the probe and of the node.
        case("the node has the image of this version", &both),
        Case { flags: named, ..case("an image is set", &[DEBIAN_PINNED]) },
        Case {
            via: "inject",
            passed: &["pod: no --image is set"],
            ..case("no image, and a trusted base image by digest", &[DEBIAN_PINNED])
        },
        Case {
            flags: &["--base-image", DEBIAN],
            via: "inject",
            passed: &["pod: no --image is set"],
            ..case("no image, and a base image that the user sets", &[DEBIAN])
        },
        Case {
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: no privileged container is running"],
            says: &["--image REGISTRY/node-probe@sha256:DIGEST", "--base-image", "gpu-syringe doctor"],
            ..case("no image, and a trusted name without a digest", &[DEBIAN])
        },
        Case {
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: no privileged container is running"],
            ..case(
                "another release of the probe, and a trusted name that runs unprivileged",
                &["ghcr.io/gpu-syringe/node-probe:0.0.1"],
            )
        },
        Case {
            via: "none",
            pods: 0,
            passed: &["pod: no --image is set", "inject: no privileged container is running"],
            ..case("the probe's image, only with a tag", &[OURS[0]])
        },
        Case {
            fixture: Fixture { programs: shell_less_driver, ..with_images(&[DRIVER, DEBIAN_PINNED]) },
            via: "inject",
            pods: 2,
            passed: &["pod: no --image is set", "inject: .*executable file"],
            ..case("the first base image has no shell, the second has one", &[])
        },
        Case {
            flags: &[
                "--image",
                "registry.example/node-probe@sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            ],
            faults: pull_fails,
            via: "none",
            passed: &["pod: ErrImagePull|ImagePullBackOff", "inject: the settings specify the image by its digest"],
            says: &["The pods that did not run the probe were deleted"],
            ..case("an image that is set with a digest cannot be pulled", &[DEBIAN_PINNED])
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
            ..case("the set image cannot be pulled", &[DEBIAN_PINNED])
        },
        Case {
            flags: named,
            faults: pull_fails,
            via: "none",
            passed: &["pod: ErrImagePull|ImagePullBackOff", "inject: no privileged container is running"],
            says: &["--image-pull-secret", "--base-image"],
            ..case("the set image cannot be pulled, and there is no base image", &[DEBIAN])
        },
        Case {
            fixture: Fixture { programs: shell_less, ..with_images(&[DEBIAN_PINNED]) },
            via: "none",
            passed: &["pod: no --image is set", "inject: .*executable file"],
            says: &["--base-image"],
            ..case("the base image has no shell", &[])
        },
        // If the cluster rejects the pod, no other pod is tried.
        Case {
            faults: |faults| faults.api.pod_security = true,
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["Pod Security \"baseline:latest\" of namespace gpu-syringe forbids it"],
            says: &[
                "gpu-syringe setup --apply --profile hardened",
                "--profile trial",
                "gpu-syringe doctor",
                "kubectl label --overwrite namespace",
            ],
            ..case("Pod Security rejects privileged pods", &both)
        },
        Case {
            flags: named,
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden(POLICY.into()))),
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["ValidatingAdmissionPolicy gpu-syringe-probe-only"],
            says: &["gpu-syringe setup --apply --profile hardened --image", "gpu-syringe doctor"],
            ..case("the policy admits another image", &both)
        },
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden(POLICY.into()))),
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["pod: no --image is set", "inject: ValidatingAdmissionPolicy gpu-syringe-probe-only"],
            says: &["gpu-syringe setup --apply --profile hardened --image", "gpu-syringe doctor"],
            ..case("the policy rejects the pod, and no image is set", &[DEBIAN_PINNED])
        },
        Case {
            fixture: Fixture { namespaces: Vec::new(), ..with_images(&both) },
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["namespaces \"gpu-syringe\" not found"],
            says: &["gpu-syringe setup --apply --profile hardened", "--profile trial", "gpu-syringe doctor"],
            ..case("the namespace does not exist", &[])
        },
        Case {
            fixture: with_images(&both).denying(Denial::of("create", "pods")),
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["pods is forbidden: User"],
            says: &["gpu-syringe setup --apply", "--user gpu-syringe", "gpu-syringe doctor"],
            ..case("the user may not create pods", &[])
        },
        Case {
            faults: |faults| faults.api.requests.push(fault("create", "pods", AnswerFault::Forbidden("no".into()))),
            via: "none",
            pods: 0,
            refused: 1,
            passed: &["pod: pods \".*is forbidden: no"],
            ..case("an unknown admission plugin rejects the pod", &both)
        },
        // Exec does not work.
        Case {
            faults: no_websocket,
            via: "logs",
            pods: 2,
            passed: &["pod: websockets to"],
            ..case("a proxy rejects websockets", &both)
        },
        Case {
            faults: no_websocket,
            via: "none",
            passed: &["pod: no --image is set", "inject: websockets to"],
            says: &["--image"],
            ..case("a proxy rejects websockets, and there is no image", &[DEBIAN_PINNED])
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
            says: &["setup --apply --user"],
            ..case("the user may neither exec nor read logs", &[])
        },
        // For these faults, another method would not help or would make the situation worse.
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
            ..case("the response to exec is 503", &both)
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
            ..case("the set image contains another program", &both)
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

/// Returns the reason why no probe ran, from the note of the answer.
fn no_probe(note: &str) -> String {
    let why = note.strip_prefix("No probe ran: ").and_then(|note| {
        note.split_once(". Nothing was read on the node: this answer has only data from the Kubernetes API.")
    });
    why.unwrap_or_else(|| panic!("{note}")).0.to_owned()
}

/// Returns whether `text` starts with `pattern`, which may contain `ErrImagePull|ImagePullBackOff` and `.*`.
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
    for Case { situation, fixture, flags, faults, passed, pods, refused, via, says } in cases() {
        let cluster = Cluster::start(fixture).await.unwrap();
        cluster.faults(faults);
        let launcher = Launcher::start(&cluster, flags);
        let said = match launcher.inventory().await {
            Ok(answer) => {
                let probe = &answer["probe"];
                assert_eq!(probe["via"], via, "{situation}: {probe}");
                let note = probe["note"].as_str().unwrap_or_default().to_owned();
                let lines: Vec<String> = match via {
                    // The note contains the reason: `No probe ran: pod: …; inject: …. The hardware …`.
                    "none" => vec![no_probe(&note)],
                    _ => serde_json::from_value(probe["passed_over"].clone()).unwrap_or_default(),
                };
                let all = lines.join("; ");
                assert!(starts_with(&all, &passed.join(".*; ")), "{situation}: {all}");
                // There must not be more skipped methods than expected.
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
            assert!(said.contains(words), "{situation}: '{words}' is missing in: {said}");
        }
        assert_eq!(cluster.pods_created(), pods, "{situation}: {said}");
        if via != "error" {
            assert_eq!(creations(&cluster), usize::try_from(pods + refused).unwrap(), "{situation}: {said}");
        }
        launcher.prober.settle().await;
        let left = usize::from(said.contains("Left behind"));
        assert_eq!(ours(&cluster), left, "{situation}: {said}");
        let lines = launcher.audit();
        assert_eq!(lines.iter().filter(|line| line.pod.is_some()).count() as u64, pods, "{situation}: {lines:?}");
        assert!(
            lines.iter().filter(|line| line.pod.is_some()).all(|line| line.image.is_some() && line.via.is_some()),
            "{situation}"
        );
        assert!(!lines.is_empty(), "{situation}: every call must have a line in the audit log");
    }
}

/// A tenant can make a node pull an image with any name. Therefore, an image with the name of the probe is not trusted
/// if it has another digest or only a tag. A launcher without a known digest skips this method.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_only_has_the_name_of_the_probe_is_never_started() {
    let theirs = format!("{}@sha256:{}", OURS[1].split_once('@').unwrap().0, "f".repeat(64));
    for images in [&[OURS[0], theirs.as_str()][..], &[OURS[0]], &[OURS[0], OURS[1]]] {
        let knows_digest = !images.contains(&OURS[1]);
        let mut fixture = fixture();
        for node in &mut fixture.nodes {
            node.images = images.iter().map(|image| (*image).to_owned()).collect();
        }
        let cluster = Cluster::start(fixture).await.unwrap();
        let launcher = if knows_digest { Launcher::start(&cluster, &[]) } else { Launcher::without_digest(&cluster) };
        let answer = launcher.call("get_gpu_health", serde_json::json!({"node_name": "gpu-1"})).await.unwrap();
        launcher.prober.settle().await;
        assert_eq!(answer["probe"]["via"], "none", "{images:?}: {answer}");
        assert!(answer["probe"]["note"].to_string().contains("no --image is set"), "{answer}");
        assert_eq!(cluster.pods_created(), 0, "{images:?}");
    }
}
