//! Tests of `--via inject`: faults of the base image, of the upload and of the file.

use std::sync::Arc;

use demo_cluster::{
    Cluster, CountedFault, ExecFault, Fixture, Image, Invocation, Process, Programs, ShellImages, Streams, Tmp,
};
use k8s_openapi::api::core::v1::NodeStatus;

use crate::support::{BUSYBOX, Launcher, fixture, ours, probe_binary, with_image};

async fn failure_of(image: Image) -> String {
    let cluster = Cluster::start(with_image(image)).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "inject"]).failure().await;
    assert_eq!(ours(&cluster), 0, "{said}");
    assert!(!said.contains("Left behind"), "{said}");
    said
}

async fn works_with(image: Image) -> String {
    let cluster = Cluster::start(with_image(image)).await.unwrap();
    let answer = Launcher::start(&cluster, &["--via", "inject"]).inventory().await;
    let answer = answer.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((answer["probe"]["deleted"].as_bool(), ours(&cluster)), (Some(true), 0));
    answer["probe"]["note"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_image_without_glibc_uses_the_loader_of_the_host() {
    let note = works_with(Image::busybox()).await;
    assert!(note.contains("which therefore ran with the loader of the node"), "{note}");
    assert_eq!(works_with(Image::debian()).await, "");
}

/// A process with the name kubelet may belong to a tenant, so only the root directory of PID 1 is entered.
#[tokio::test]
async fn if_the_root_of_pid_1_cannot_be_entered_no_other_root_is_entered() {
    for host_process in [Some("/proc/812"), None] {
        let said = failure_of(Image { host_process, ..Image::busybox() }).await;
        assert!(said.contains("root cannot be entered") && said.contains("Permission denied"), "{said}");
        assert!(said.contains("specify a base image with glibc"), "{said}");
    }
}

#[tokio::test]
async fn an_image_may_lack_tar_or_head_but_not_both() {
    works_with(Image::debian().without(&["tar"])).await;
    works_with(Image::debian().without(&["head", "chmod"])).await;
    // Without chmod, the file would be complete but could not be executed.
    let said = failure_of(Image::debian().without(&["tar", "chmod"])).await;
    assert!(said.contains("lacks chmod and tar."), "{said}");
    let said = failure_of(Image::debian().without(&["tar", "head"])).await;
    assert!(said.contains("lacks head and tar.") && said.contains("--base-image"), "{said}");
    let said = failure_of(Image::debian().without(&["sha256sum"])).await;
    assert!(said.contains("the upload cannot be verified"), "{said}");
}

#[tokio::test]
async fn without_head_the_protocol_must_signal_the_end_of_the_input() {
    let image = Image::debian().without(&["head"]);
    let cluster = Cluster::start(Fixture { half_close: false, ..with_image(image) }).await.unwrap();
    let said = Launcher::start(&cluster, &["--via", "inject"]).failure().await;
    assert!(said.contains("lacks head") && ours(&cluster) == 0, "{said}");
}

#[tokio::test]
async fn an_image_without_a_shell_has_its_own_error() {
    let said = failure_of(Image::distroless()).await;
    assert!(said.contains("executable file not found") && said.contains("The base image has no shell"), "{said}");
}

#[tokio::test]
async fn a_read_only_or_noexec_directory_is_an_error() {
    let said = failure_of(Image::debian().with_tmp(Tmp::ReadOnly)).await;
    assert!(said.contains("/tmp of the base image is read-only"), "{said}");
    let said = failure_of(Image::debian().with_tmp(Tmp::NoExec)).await;
    assert!(said.contains("mounted noexec"), "{said}");
    let said = failure_of(Image::busybox().with_tmp(Tmp::NoExec)).await;
    assert!(said.contains("mounted noexec"), "{said}");
    let bare = Image { host_glibc: false, ..Image::busybox() };
    let said = failure_of(bare).await;
    assert!(said.contains("the base image and the host have no loader"), "{said}");
}

#[tokio::test]
async fn a_damaged_upload_is_sent_again_and_never_run() {
    for fault in [ExecFault::InputGarbled, ExecFault::InputCut { after_bytes: 200_000 }] {
        let cluster = Cluster::start(fixture()).await.unwrap();
        cluster.faults(|faults| faults.on("gpu-1").exec = Some(CountedFault::once(fault.clone())));
        let answer = Launcher::start(&cluster, &["--via", "inject"]).inventory().await;
        assert!(answer.is_ok(), "{fault:?}: {answer:?}");
        cluster.faults(|faults| faults.on("gpu-1").exec = Some(CountedFault::always(fault.clone())));
        let said = Launcher::start(&cluster, &["--via", "inject"]).failure().await;
        assert!(said.contains("checksum mismatch after two uploads") && said.contains("SHA-256"), "{fault:?}: {said}");
        assert_eq!(ours(&cluster), 0);
    }
}

#[tokio::test]
async fn a_probe_for_another_architecture_is_refused_before_anything_is_created() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let arm = probe_binary("arm64");
    let words = ["--via", "inject", "--probe-binary", arm.to_str().unwrap()];
    let said = Launcher::start(&cluster, &words).failure().await;
    assert!(said.contains("is for arm64, but the architecture of the node is amd64"), "{said}");
    assert_eq!(cluster.pods_created(), 0);
    cluster.edit_node("gpu-1", |node| {
        let info = node.status.get_or_insert_with(NodeStatus::default).node_info.as_mut().unwrap();
        info.architecture = "arm64".into();
    });
    assert!(Launcher::start(&cluster, &words).inventory().await.is_ok());
    let said = Launcher::start(&cluster, &["--via", "inject", "--probe-binary", "/nowhere/node-probe"]).failure().await;
    assert!(said.contains("/nowhere/node-probe") && said.contains("--probe-binary"), "{said}");
}

#[tokio::test]
async fn the_base_image_is_the_named_one_or_the_best_of_the_node() {
    let cluster = Cluster::start(fixture()).await.unwrap();
    let named = Launcher::start(&cluster, &["--via", "inject", "--base-image", BUSYBOX]).inventory().await.unwrap();
    assert!(named["probe"]["note"].as_str().unwrap().contains(BUSYBOX));
    let said = Launcher::start(&cluster, &["--via", "inject", "--base-image", "example/absent:1"]).failure().await;
    assert!(said.contains("ErrImageNeverPull") && said.contains("--base-image") && ours(&cluster) == 0, "{said}");
    cluster.edit_node("gpu-1", |node| node.status.as_mut().unwrap().images = None);
    let said = Launcher::start(&cluster, &["--via", "inject"]).failure().await;
    assert!(said.contains("none of the 0 images"), "{said}");
}

/// A shell that does not read the upload, as if the connection were extremely slow.
struct ReadsNothing;

impl Programs for ReadsNothing {
    fn start(&self, invocation: &Invocation, streams: Streams) -> Option<Process> {
        if invocation.argv.iter().any(|word| word.contains("exec sleep")) {
            return ShellImages::default().start(invocation, streams);
        }
        Some(Box::pin(async move {
            let _open = streams;
            std::future::pending().await
        }))
    }
}

#[tokio::test]
async fn an_upload_that_is_too_slow_says_how_fast_it_was() {
    let cluster = Cluster::start(Fixture { programs: Arc::new(ReadsNothing), ..fixture() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("large");
    // The file is larger than the buffers of the connection.
    std::fs::write(&binary, [crate::support::program(62), vec![7; 24 << 20]].concat()).unwrap();
    let flags = ["--via", "inject", "--probe-binary", binary.to_str().unwrap(), "--call-timeout", "25"];
    let said = Launcher::start(&cluster, &flags).failure().await;
    assert!(said.contains("kB were sent in") && said.contains("kB/s"), "{said}");
    assert!(said.contains("--call-timeout") && !said.contains("kubelet"), "{said}");
    assert_eq!(ours(&cluster), 0);
}
