//! Tests of reading the document from the pod's log, with `--via logs` and as a fallback of `auto`.

use std::sync::Arc;
use std::time::Duration;

use demo_cluster::{
    AnswerFault, Cluster, CountedFault, Denial, ExecFault, Fixture, Invocation, NodeProbe, Process, Programs,
    RequestFault, StartFault, Streams, Timing,
};

use crate::support::{Launcher, fixture, ours};

/// A node-probe that prints its document but does not exit, as if a thread hung in the driver.
struct NeverEnds;

impl Programs for NeverEnds {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        let open = streams.stdout.clone();
        let probe = NodeProbe.start(invocation, streams)?;
        Some(Box::pin(async move {
            probe.await;
            let _open = open;
            std::future::pending().await
        }))
    }
}

#[tokio::test]
async fn a_probe_that_does_not_end_is_answered_from_what_it_printed() {
    let cluster = Cluster::start(Fixture { programs: Arc::new(NeverEnds), ..fixture() }).await.unwrap();
    let answer = Launcher::start(&cluster, &["--via", "logs"]).inventory().await.unwrap();
    assert_eq!(answer["inventory"]["gpus"].as_array().map(Vec::len), Some(8));
    assert_eq!(ours(&cluster), 0);
}

#[tokio::test]
async fn the_log_is_read_again_after_resets_and_errors_of_a_server() {
    let busy = AnswerFault::PlainText { code: 429, retry_after: Some(1) };
    let gateway = AnswerFault::PlainText { code: 502, retry_after: None };
    let page = AnswerFault::PlainText { code: 404, retry_after: None };
    for answer in [AnswerFault::Closed, AnswerFault::InternalError, gateway, page, busy] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        let armed = CountedFault::times(answer.clone(), 3);
        let fault = RequestFault { verb: Some("get"), resource: Some("pods/log"), answer: armed };
        cluster.faults(|faults| faults.api.requests.push(fault));
        let launcher = Launcher::start(&cluster, &["--via", "logs"]);
        launcher.inventory().await.unwrap_or_else(|failure| panic!("{answer:?}: {failure}"));
        assert_eq!(ours(&cluster), 0);
    }
}

#[tokio::test]
async fn a_log_that_is_never_served_is_the_failure_of_the_log() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let answer = CountedFault::always(AnswerFault::Closed);
    let fault = RequestFault { verb: Some("get"), resource: Some("pods/log"), answer };
    cluster.faults(|faults| faults.api.requests.push(fault));
    let said = Launcher::start(&cluster, &["--via", "logs", "--call-timeout", "6"]).failure().await;
    assert!(said.contains("Reading the log of pod") && said.contains("could not be read"), "{said}");
    assert_eq!(ours(&cluster), 0);
}

/// If no read of the pod succeeds, nothing is known about its container or the kubelet.
#[tokio::test]
async fn a_connection_that_fails_is_not_a_container_that_did_not_start() {
    for via in ["pod", "logs", "inject", "ephemeral"] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        let fails = |resource| RequestFault {
            verb: Some("get"),
            resource: Some(resource),
            answer: CountedFault::always(AnswerFault::Closed),
        };
        cluster.faults(|faults| faults.api.requests.extend([fails("pods"), fails("pods/exec"), fails("pods/log")]));
        let said = Launcher::start(&cluster, &["--via", via, "--start-timeout", "1"]).failure().await;
        assert!(said.contains("the connection failed") && said.contains("can be reached"), "{via}: {said}");
        let (said, _) = said.split_once("Left behind").unwrap_or((&said, ""));
        for wrong in ["did not start", "being created", "kubelet", "Your user needs"] {
            assert!(!said.contains(wrong), "{via}: {wrong}: {said}");
        }
    }
}

#[tokio::test]
async fn if_websockets_are_refused_the_log_is_read_and_the_answer_says_so() {
    for code in [400, 403, 404, 501] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        cluster.faults(|faults| faults.everywhere.exec = Some(CountedFault::always(ExecFault::UpgradeRefused(code))));
        let launcher = Launcher::start(&cluster, &["--via", "pod"]);
        let answer = launcher.inventory().await.unwrap_or_else(|failure| panic!("{code}: {failure}"));
        assert_eq!(answer["probe"]["via"], "logs", "{code}");
        let note = answer["probe"]["note"].as_str().unwrap();
        assert!(note.contains("websockets to") && note.contains("does not pass upgrades on"), "{note}");
        assert_eq!((answer["probe"]["deleted"].as_bool(), ours(&cluster)), (Some(true), 0));
        // The launcher remembers the result: the next call creates one pod, not two.
        let before = cluster.pods_created();
        launcher.inventory().await.unwrap();
        assert_eq!(cluster.pods_created() - before, 1, "{code}");
    }
}

#[tokio::test]
async fn one_refused_websocket_changes_nothing() {
    for code in [400, 404, 501] {
        for way in ["pod", "ephemeral", "inject"] {
            let cluster = Cluster::start(fixture()).await.unwrap();
            cluster.faults(|faults| faults.everywhere.exec = Some(CountedFault::once(ExecFault::UpgradeRefused(code))));
            let launcher = Launcher::start(&cluster, &["--via", way]);
            let answer = launcher.inventory().await.unwrap_or_else(|failure| panic!("{way} {code}: {failure}"));
            assert_eq!(answer["probe"]["via"], way, "{code}");
            assert_eq!((ours(&cluster), cluster.pods_created() <= 1), (0, true), "{way} {code}");
        }
    }
}

#[tokio::test]
async fn if_no_read_of_the_pod_succeeds_the_last_failure_is_reported() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let answer = CountedFault::always(AnswerFault::InternalError);
    let fault = RequestFault { verb: Some("get"), resource: Some("pods"), answer };
    cluster.faults(|faults| faults.api.requests.push(fault));
    let said = Launcher::start(&cluster, &["--via", "logs", "--start-timeout", "1"]).failure().await;
    assert!(said.contains("etcdserver: request timed out") && !said.contains("did not start"), "{said}");
}

#[tokio::test]
async fn the_page_of_a_proxy_is_no_proof_that_the_pod_was_deleted() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let page = AnswerFault::PlainText { code: 404, retry_after: None };
    let fault = RequestFault { verb: Some("get"), resource: Some("pods"), answer: CountedFault::times(page, 2) };
    cluster.faults(|faults| faults.api.requests.push(fault));
    Launcher::start(&cluster, &["--via", "logs"]).inventory().await.unwrap();
    assert_eq!(ours(&cluster), 0);
}

#[tokio::test]
async fn each_pod_of_a_call_has_its_line_in_the_audit_log() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.everywhere.exec = Some(CountedFault::always(ExecFault::UpgradeRefused(400))));
    let launcher = Launcher::start(&cluster, &["--via", "pod"]);
    launcher.inventory().await.unwrap();
    let lines = launcher.prober.audit().read(10).unwrap();
    let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(first.pod.is_some() && second.pod.is_some() && first.pod != second.pod, "{lines:?}");
    assert!(first.outcome.as_deref().unwrap().contains("failed"), "{first:?}");
    assert_eq!((second.outcome.as_deref(), second.deleted), (Some("answered"), Some(true)));
    assert_eq!((first.deleted, second.namespace.as_str()), (Some(true), "gpu-syringe"));
}

#[tokio::test]
async fn the_log_needs_no_exec() {
    let fixture = fixture().denying(Denial::of("get", "pods/exec")).denying(Denial::of("create", "pods/exec"));
    let cluster = Cluster::start(fixture).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "pod"]).failure().await;
    assert!(said.contains("pods/exec") && said.contains("--via logs"), "{said}");
    let answer = Launcher::start(&cluster, &["--via", "logs"]).inventory().await.unwrap();
    assert_eq!(answer["probe"]["via"], "logs");
    assert!(cluster.requests().iter().filter(|line| line.contains("/exec")).count() <= 1);
}

#[tokio::test]
async fn errors_of_the_pod_are_reported() {
    let cluster = Cluster::start(fixture().denying(Denial::of("get", "pods/log"))).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "logs"]).failure().await;
    assert!(said.contains("get on pods/log") && ours(&cluster) == 0, "{said}");
    let cluster = Cluster::start(fixture()).await.unwrap();
    cluster.faults(|faults| faults.on("gpu-1").start = Some(StartFault::ImagePull.into()));
    let said = Launcher::start(&cluster, &["--via", "logs"]).failure().await;
    // The first read may show the failed pull or, later, the back-off.
    assert!(said.contains("ImagePull") && said.contains("--via inject") && ours(&cluster) == 0, "{said}");
}

#[tokio::test]
async fn an_image_without_the_probe_and_a_pod_that_never_starts_are_errors() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "logs", "--image", "registry.example/other:1"]).failure().await;
    assert!(said.contains("does not contain node-probe") && ours(&cluster) == 0, "{said}");
    let timing = Timing { container_start: Duration::from_secs(30), ..Timing::fast() };
    let cluster = Cluster::start(Fixture { timing, ..fixture() }).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "logs", "--start-timeout", "1"]).failure().await;
    assert!(said.contains("did not start") && ours(&cluster) == 0, "{said}");
}
