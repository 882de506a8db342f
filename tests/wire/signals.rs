//! Tests of signals during a call: the pod is deleted before the process exits.

use demo_cluster::{AnswerFault, ExecFault, RequestFault, StartFault};

use crate::bed::Bed;
use crate::cleanup::{NEVER, READ, START, on_gpu_1};
use crate::support::wait;

/// Sends the signal to a server that is reading a node.
async fn while_reading(signal: &str) {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, READ).await;
    assert_eq!(bed.pods().len(), 1);
    client.program.signal(signal);
    client.program.exit().await;
    bed.assert_bare(1);
    client.log();
}

#[tokio::test]
async fn the_pod_is_gone_after_sigterm_in_mid_call() {
    while_reading("TERM").await;
}

#[tokio::test]
async fn the_pod_is_gone_after_sigint_in_mid_call() {
    while_reading("INT").await;
}

#[tokio::test]
async fn the_pod_is_gone_after_sighup_in_mid_call() {
    while_reading("HUP").await;
}

#[tokio::test]
async fn the_pod_is_gone_after_sigterm_before_its_container_runs() {
    let bed = Bed::with(|faults| faults.everywhere.start = Some(StartFault::Slow(NEVER).into())).await;
    let mut client = bed.client().await;
    let call = client.send_call("get_gpu_inventory", on_gpu_1());
    client.until_progress(call, START).await;
    client.program.signal("TERM");
    client.program.exit().await;
    bed.assert_bare(1);
}

#[tokio::test]
async fn the_pod_is_gone_after_ctrl_c_at_the_command_line() {
    let bed = Bed::with(|faults| faults.everywhere.exec = Some(ExecFault::Hang.into())).await;
    let mut running = bed.launcher().args(["inventory", "gpu-1"]).start();
    wait::until("the probe pod", async || (!bed.pods().is_empty()).then_some(())).await;
    running.signal("INT");
    let status = running.exit().await;
    bed.assert_bare(1);
    assert_eq!(status.code(), Some(130));
    assert!(running.said().contains("gpu-syringe was interrupted"), "{}", running.said());
}

/// The API server does not respond to the deletion: only a second signal stops the program before the time limit.
#[tokio::test]
async fn a_second_ctrl_c_ends_at_once_and_names_what_is_left() {
    for serves in [false, true] {
        let bed = Bed::with(|faults| {
            faults.everywhere.exec = Some(ExecFault::Hang.into());
            let answer = AnswerFault::Slow(NEVER).into();
            faults.api.requests.push(RequestFault { verb: Some("delete"), resource: Some("pods"), answer });
        })
        .await;
        let words: &[&str] = if serves { &["mcp"] } else { &["inventory", "gpu-1"] };
        let mut client = bed.client().await;
        let mut running = bed.launcher().args(words.iter().copied()).start();
        let program = if serves {
            let call = client.send_call("get_gpu_inventory", on_gpu_1());
            client.until_progress(call, READ).await;
            &mut client.program
        } else {
            wait::until("the exec", async || {
                bed.cluster.requests().iter().any(|one| one.contains("/exec")).then_some(())
            })
            .await;
            &mut running
        };
        program.signal("INT");
        wait::until("the deletion", async || {
            bed.cluster.requests().iter().any(|one| one.starts_with("DELETE")).then_some(())
        })
        .await;
        let began = std::time::Instant::now();
        program.signal("INT");
        assert_eq!(program.exit().await.code(), Some(130));
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
        let name = bed.pods()[0].metadata.name.clone().unwrap();
        let command = format!("kubectl --context embedded -n gpu-syringe delete pod {name}");
        assert!(program.said().contains(&command), "{}", program.said());
        let audited = bed.audit().iter().any(|line| line["pod"] == name.as_str() && line["deleted"] == false);
        assert!(audited, "{:?}", bed.audit());
        if serves {
            client.log();
        }
    }
}

#[tokio::test]
async fn a_command_that_makes_no_pod_ends_at_once_with_ctrl_c() {
    let bed = Bed::with(|faults| faults.api.slow(NEVER)).await;
    for words in [&["nodes"][..], &["sweep"], &["diagnose", "gpu-1"]] {
        let asked = bed.cluster.requests().len();
        let mut running = bed.launcher().args(words.iter().copied()).start();
        wait::until("a request", async || (bed.cluster.requests().len() > asked).then_some(())).await;
        let began = std::time::Instant::now();
        running.signal("INT");
        let status = running.exit().await;
        assert_eq!(status.code(), Some(130), "{words:?}");
        assert!(running.said().contains("gpu-syringe was interrupted"), "{words:?}: {}", running.said());
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{words:?}: {:?}", began.elapsed());
    }
    bed.assert_bare(0);
}

#[tokio::test]
async fn an_idle_server_ends_at_once_with_sigterm() {
    let bed = Bed::healthy().await;
    let mut client = bed.client().await;
    client.program.signal("TERM");
    assert!(client.program.exit().await.success());
    bed.assert_bare(0);
}

#[tokio::test]
async fn a_server_without_any_message_of_the_host_ends_with_sigterm() {
    let bed = Bed::healthy().await;
    let mut running = bed.launcher().args(["mcp"]).start();
    // When the server has sent its first request to the API server, its signal handlers are installed.
    wait::until("the first clean-up", async || (!bed.cluster.requests().is_empty()).then_some(())).await;
    running.signal("TERM");
    assert!(running.exit().await.success(), "{}", running.said());
}
