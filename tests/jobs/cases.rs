//! Tests of the comparison of the pods of a job: for each fault, the pod that must be named, and a case without it.
//!
//! In the second case, the same fact must not lead to the name of a pod.

use archive::ContainerLog;
use demo_cluster::{Fixture, NodeFixture, workloads_of};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use syringe_core::facts::nccl::{NOT_LISTENING, NcclCommunicator, NcclRank, NcclRanks, NcclStatus};
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::report::{Problem, Report, Section};
use syringe_core::scenarios;

use crate::tools::Bench;

/// Number of pods of the job, each on its own node with 8 GPUs. One more node has no pod of the job.
const PODS: usize = 64;
/// Maximum size of an answer, in bytes: 3,000 tokens.
const MOST_BYTES: usize = 10_000;
const NAMESPACE: &str = "workloads";

/// The nodes and pods of the cluster.
struct World {
    /// The last node has no pod of the job.
    nodes: Vec<NodeFixture>,
    pods: Vec<Pod>,
    logs: Vec<ContainerLog>,
}

impl World {
    fn healthy() -> Self {
        let base = scenarios::named("healthy-h100-8").unwrap().json;
        let node = |number: usize| {
            let facts = base
                .replace("a51fd701-db52-4ca5-a016-9ae03bf0f44d", &format!("a51fd701-db52-4ca5-a016-{number:012}"))
                .replace("gpu-h100-1", &name(number));
            NodeFixture::from_facts(&name(number), serde_json::from_str(&facts).unwrap())
        };
        let nodes: Vec<_> = (0..=PODS).map(node).collect();
        let pods = nodes.iter().take(PODS).enumerate().map(|(rank, node)| {
            let mut pod = workloads_of(node).remove(0);
            let owner =
                json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": "u", "controller": true}]);
            pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
            pod.metadata.name = Some(format!("train-{rank}-abcde"));
            pod.status.as_mut().unwrap().pod_ip = Some(address(rank));
            let labels = [("batch.kubernetes.io/job-completion-index", rank.to_string()), ("app", "llm".to_owned())];
            pod.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
            pod
        });
        Self { pods: pods.collect(), nodes, logs: Vec::new() }
    }

    /// Changes the report of a node.
    fn report(&mut self, number: usize, change: impl FnOnce(&mut Report)) {
        let mut report = Report::clone(&self.nodes[number].facts.report());
        change(&mut report);
        let name = name(number);
        self.nodes[number] = NodeFixture::from_facts(&name, report);
    }

    fn gpus(&mut self, number: usize, change: impl Fn(&mut GpuTelemetry)) {
        self.report(number, |report| data(&mut report.sections.telemetry).gpus.iter_mut().for_each(change));
    }

    /// Adds an Xid of GPU 0, some seconds before the facts were read.
    fn xid(&mut self, number: usize, seconds_ago: u64, line: &str) {
        let at = (1_036_815 - seconds_ago) * 1_000_000;
        self.report(number, |report| {
            let sequence = 100 + report.kernel_log.len();
            report.kernel_log.push(format!("3,{sequence},{at},-;NVRM: Xid (PCI:0000:18:00): {line}"));
        });
    }

    /// Ends the container of a pod.
    fn fail(&mut self, rank: usize, second: usize, code: i32, log: &str) {
        let pod = &mut self.pods[rank];
        let status = pod.status.as_mut().unwrap();
        status.phase = Some("Failed".to_owned());
        let finished = format!("2026-11-21T02:40:{second:02}Z");
        let ended = json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": "2026-11-09T03:54:35Z", "finishedAt": finished}});
        status.container_statuses.as_mut().unwrap()[0].state = serde_json::from_value(ended).unwrap();
        let pod = pod.metadata.name.clone().unwrap();
        self.logs.push(ContainerLog {
            namespace: NAMESPACE.to_owned(),
            pod,
            container: "trainer".to_owned(),
            text: log.to_owned(),
        });
    }

    /// Removes a pod from its node, as if it were not scheduled yet.
    fn unscheduled(&mut self, rank: usize) {
        let pod = &mut self.pods[rank];
        pod.spec.as_mut().unwrap().node_name = None;
        let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/65 nodes are available: 65 Insufficient nvidia.com/gpu."}]);
        let status = json!({"phase": "Pending", "conditions": condition});
        pod.status = Some(serde_json::from_value(status).unwrap());
    }

    /// Leaves out most pods, to make a case faster.
    fn small(&mut self) -> &mut Self {
        self.pods.truncate(20);
        self
    }

    /// Sets the answer of NCCL in the first two pods.
    fn nccl(&mut self, change: impl Fn(&mut NcclStatus)) {
        for number in 0..2 {
            let pod_uid = self.pods[number].metadata.uid.clone().unwrap();
            let ranks = vec![ranks(512, 4712, 4712, &[])];
            let communicator =
                NcclCommunicator { hash: "0x5ca1ab1e".to_owned(), size: 512, ranks, ..NcclCommunicator::default() };
            let mut status = NcclStatus {
                pod_uid,
                version: Some("2.29.2".to_owned()),
                between_ms: Some(3003),
                communicators: vec![communicator],
                ..NcclStatus::default()
            };
            change(&mut status);
            self.report(number, |report| report.nccl = Some(status));
        }
    }

    async fn bench(self) -> Bench {
        Bench::of(self.fixture()).await
    }

    async fn bench_with(self, flags: &[&str]) -> Bench {
        Bench::with(self.fixture(), flags).await
    }

    fn fixture(self) -> Fixture {
        let Self { nodes, pods, logs } = self;
        Fixture { pods, logs, ..Fixture::of(nodes) }
    }
}

fn address(pod: usize) -> String {
    format!("10.0.{pod}.7")
}

/// Returns ranks that have launched these numbers of operations in the two answers. With 8 GPUs in each pod, the
/// position of a rank is determined by its number.
fn ranks(count: u64, before: u64, after: u64, named: &[u64]) -> NcclRanks {
    let counts = |launched| [("AllReduce".to_owned(), launched), ("Broadcast".to_owned(), 1)].into();
    NcclRanks {
        count,
        launched: counts(after),
        launched_before: counts(before),
        examples: named.iter().map(|rank| nccl_rank(*rank)).collect(),
        ..NcclRanks::default()
    }
}

fn nccl_rank(rank: u64) -> NcclRank {
    let pod = usize::try_from(rank / 8).unwrap();
    NcclRank { rank, host: address(pod), pid: 100, device: i64::try_from(rank % 8).unwrap(), not_joined: false }
}

fn name(number: usize) -> String {
    format!("gpu-{number:03}")
}

fn data<T>(section: &mut Option<Section<T>>) -> &mut T {
    section.as_mut().unwrap().data.as_mut().unwrap()
}

fn stop(report: &mut Report, all: bool) {
    let processes = &mut data(&mut report.sections.processes).processes;
    let own = processes.iter_mut().filter(|process| !process.uses.is_empty());
    own.skip(if all { 0 } else { 3 })
        .take(if all { 8 } else { 1 })
        .for_each(|process| process.state = Some("T".to_owned()));
}

fn throttle(gpu: &mut GpuTelemetry) {
    gpu.throttling.active = Some(true);
    gpu.throttling.reasons = vec!["HW thermal slowdown".to_owned()];
    gpu.throttling.reasons_mask = Some(0x40);
    gpu.clocks.sm_mhz = Some(900);
}

fn idle(gpu: &mut GpuTelemetry) {
    (gpu.utilization.gpu_percent, gpu.utilization.memory_percent) = (Some(0), Some(0));
    (gpu.power.draw_milliwatts, gpu.power.instant_milliwatts) = (Some(118_000), Some(118_000));
    gpu.pcie.generation = Some(5);
}

fn tenth(report: &mut Report) {
    let port = &mut data(&mut report.sections.topology).nics[2];
    port.rate_gigabits_per_second = Some(40.0);
}

fn other_driver(report: &mut Report) {
    data(&mut report.sections.inventory).driver_version = Some("550.90.07".to_owned());
    let driver = &mut data(&mut report.sections.host).driver;
    let version = || Some("550.90.07".to_owned());
    (driver.loaded, driver.module_on_disk, driver.library) = (version(), version(), version());
}

const XID_149: &str =
    "149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)";
const XID_145: &str = "145, RLW_REMAP Nonfatal XC0 i0 Link 02";
const XID_31: &str = "31, pid=41210, name=python3, channel 0x00000018, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f1c_12000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ";
const NAN: &str = "step 18211 loss nan\nTraceback (most recent call last):\n  File \"train.py\", line 310, in <module>\nValueError: loss is NaN at step 18211\n";
const PEER: &str =
    "[rank 8]: torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error\n";

/// A change of the healthy job, and the expected pod: its rank, the reason, and words of the answer.
struct Case {
    name: &'static str,
    change: fn(&mut World),
    state: &'static str,
    suspect: Option<(&'static str, &'static str)>,
    words: &'static [&'static str],
}

const CASES: [Case; 24] = [
    Case {
        name: "NCCL: a rank lags and stands still",
        change: |world| {
            world.nccl(|nccl| {
                nccl.communicators[0].ranks = vec![ranks(1, 4711, 4711, &[139]), ranks(511, 4712, 4712, &[])]
            });
        },
        state: "waiting",
        suspect: Some(("17", "nccl_claim")),
        words: &[
            "NCCL 2.29.2 in pod train-0-abcde reports: 1 rank launched nothing within 3 s and is behind the others.",
            "rank 139 launched 4711 AllReduce, and 4711 also 3 s later",
            "\"common\":\"4712\"",
            "\"place\":\"GPU 3\"",
            "gpu-017",
        ],
    },
    Case {
        name: "NCCL: all ranks stand still alike",
        change: |world| world.small().nccl(|_| {}),
        state: "computing",
        suspect: None,
        words: &["all ranks launched the same operations, and none within 3 s", "Nothing differs"],
    },
    Case {
        name: "NCCL: a rank does not answer",
        change: |world| {
            world.small().nccl(|nccl| {
                nccl.communicators[0].ranks = vec![ranks(511, 4712, 4712, &[])];
                nccl.communicators[0].missing = vec![nccl_rank(139)];
            });
        },
        state: "computing",
        suspect: Some(("17", "nccl_claim")),
        words: &["1 rank did not answer it", "rank 139 does not answer"],
    },
    Case {
        name: "NCCL: a forged list of ranks",
        change: |world| {
            world.small().nccl(|nccl| {
                let one = &mut nccl.communicators[0];
                one.ranks = vec![ranks(1, 4711, 4711, &[139]), ranks(511, 4712, 4712, &[])];
                one.impossible = Some("rank 3 is listed twice\u{1b}[2J".to_owned());
            });
        },
        state: "computing",
        suspect: None,
        words: &["1 list of ranks cannot be an answer of NCCL and is not used", "Nothing differs"],
    },
    Case {
        name: "NCCL: the address of a pod of another job",
        change: |world| {
            world.small().nccl(|nccl| {
                let mut forged = ranks(1, 4711, 4711, &[139]);
                forged.examples[0].host = "10.9.9.9".to_owned();
                nccl.communicators[0].ranks = vec![forged, ranks(511, 4712, 4712, &[])];
            });
        },
        state: "waiting",
        suspect: None,
        words: &["Rank 139 on 10.9.9.9: the address does not belong to exactly one pod of this job"],
    },
    Case {
        name: "NCCL: the job does not use it",
        change: |world| {
            world.small().nccl(|nccl| {
                let problem =
                    Problem { code: NOT_LISTENING.to_owned(), why: "no process".to_owned(), ..Problem::default() };
                *nccl = NcclStatus { pod_uid: nccl.pod_uid.clone(), problem: Some(problem), ..NcclStatus::default() };
            });
        },
        state: "computing",
        suspect: None,
        words: &[
            "\"summary\":\"The job computes (the median of 160 GPUs is 100 % utilization and 683 W). Nothing differs.",
        ],
    },
    Case {
        name: "computes",
        change: |_| {},
        state: "computing",
        suspect: None,
        words: &["Nothing differs", "64 pods"],
    },
    Case {
        name: "a rank in SIGSTOP",
        change: |world| world.report(17, |report| stop(report, false)),
        state: "computing",
        suspect: Some(("17", "process_stopped")),
        words: &["stopped by a signal (T)", "train-17-abcde", "gpu-017", "SIGCONT"],
    },
    Case {
        name: "all ranks in SIGSTOP",
        change: |world| (0..PODS).for_each(|number| world.report(number, |report| stop(report, true))),
        state: "computing",
        suspect: None,
        words: &["process state: stopped by a signal (T) (on 64 of 64 pods)"],
    },
    Case {
        name: "a GPU that throttles",
        change: |world| world.report(9, |report| throttle(&mut data(&mut report.sections.telemetry).gpus[5])),
        state: "computing",
        suspect: Some(("9", "slower")),
        words: &["GPU 5", "HW thermal slowdown", "900 MHz", "gpu-009"],
    },
    Case {
        name: "all GPUs throttle",
        change: |world| (0..PODS).for_each(|number| world.gpus(number, throttle)),
        state: "computing",
        suspect: None,
        words: &["clocks reduced by: HW thermal slowdown"],
    },
    Case {
        name: "a port at a tenth of its rate",
        change: |world| world.report(33, tenth),
        state: "computing",
        suspect: Some(("33", "slower")),
        words: &["mlx5_2 port 1", "40 Gbit/s", "400 Gbit/s", "gpu-033"],
    },
    Case {
        name: "the port of a node without a member",
        change: |world| world.report(PODS, tenth),
        state: "computing",
        suspect: None,
        words: &["Nothing differs"],
    },
    Case {
        name: "a NaN crash of one rank",
        change: |world| {
            (0..PODS).for_each(|rank| world.fail(rank, 20 + rank % 8, 134, PEER));
            world.fail(21, 21, 1, NAN);
        },
        state: "failed",
        suspect: Some(("21", "failed_first")),
        words: &["loss is NaN", "gpu-021", "63 other pods", "fix_application"],
    },
    Case {
        name: "a NaN crash of all ranks",
        change: |world| (0..PODS).for_each(|rank| world.fail(rank, 20, 1, NAN)),
        state: "failed",
        suspect: None,
        words: &["at the same time with the same message", "loss is NaN"],
    },
    Case {
        name: "a pod that never started",
        change: |world| world.unscheduled(40),
        state: "starting",
        suspect: Some(("40", "never_started")),
        words: &["train-40-abcde", "Insufficient nvidia.com/gpu"],
    },
    Case {
        name: "no pod started",
        change: |world| (0..PODS).for_each(|rank| world.unscheduled(rank)),
        state: "starting",
        suspect: None,
        words: &["64 of 64 pods never started", "Insufficient nvidia.com/gpu"],
    },
    Case {
        name: "a node with another driver",
        change: |world| world.report(50, other_driver),
        state: "computing",
        suspect: Some(("50", "differs")),
        words: &["550.90.07", "570.124.06", "gpu-050"],
    },
    Case {
        name: "another driver on all nodes",
        change: |world| (0..PODS).for_each(|number| world.report(number, other_driver)),
        state: "computing",
        suspect: None,
        words: &["Nothing differs", "550.90.07"],
    },
    Case {
        name: "a fault of the fabric with 40 echoes",
        change: |world| {
            // The clock of this node is a second ahead.
            world.xid(3, 601, XID_145);
            world.xid(12, 600, XID_149);
            (20..60).for_each(|number| world.xid(number, 598, if number % 2 == 0 { XID_145 } else { XID_31 }));
        },
        state: "computing",
        suspect: Some(("12", "fault")),
        words: &["Xid 149", "Xid 145 on 21 other pods", "Xid 31 on 20 other pods", "gpu-012"],
    },
    Case {
        name: "a fault of the fabric on a node without a member",
        change: |world| world.xid(PODS, 600, XID_149),
        state: "computing",
        suspect: None,
        words: &["Nothing differs"],
    },
    Case {
        name: "waits for data",
        change: |world| (0..PODS).for_each(|number| world.gpus(number, idle)),
        state: "waiting",
        suspect: None,
        words: &["GPUs are idle", "data", "No node is the cause"],
    },
    Case {
        name: "one rank does not compute",
        change: |world| world.gpus(5, idle),
        state: "computing",
        suspect: Some(("5", "works_differently")),
        words: &["utilization", "gpu-005"],
    },
    Case {
        name: "a stage of a pipeline computes less",
        change: |world| (0..20).for_each(|number| world.gpus(number, |gpu| gpu.utilization.gpu_percent = Some(30))),
        state: "computing",
        suspect: None,
        words: &["Nothing differs"],
    },
];

#[tokio::test]
async fn the_pod_that_differs_is_named_and_its_twin_is_not() {
    for case in CASES {
        let mut world = World::healthy();
        (case.change)(&mut world);
        let flags: &[&str] = if case.name.starts_with("NCCL") { &["--ask-nccl"] } else { &[] };
        let bench = world.bench_with(flags).await;
        let answer = bench.ask("explain_gpu_pod", json!({"pod": "job/train", "namespace": NAMESPACE})).await;
        let text = answer.to_string();
        assert!(text.len() <= MOST_BYTES, "{}: {} bytes: {answer:#}", case.name, text.len());
        assert_eq!(answer["state"], case.state, "{}: {answer:#}", case.name);
        let first = &answer["suspects"][0];
        let named = first["members"][0]["rank"].as_str().zip(first["because"].as_str());
        assert_eq!(named, case.suspect, "{}: {answer:#}", case.name);
        let count = answer["suspects"].as_array().unwrap().len();
        assert_eq!(count, usize::from(case.suspect.is_some()), "{}: {answer:#}", case.name);
        for words in case.words {
            assert!(text.contains(words), "{}: no '{words}' in {answer:#}", case.name);
        }
        let on_nodes = answer["compared"].as_array().unwrap().iter().map(|one| one["pods"].as_u64().unwrap()).max();
        let probes = if case.name == "no pod started" { 0 } else { on_nodes.unwrap_or_default() };
        assert_eq!((bench.cluster.pods_created(), bench.left_over().await), (probes, 0), "{}", case.name);
    }
}

#[tokio::test]
async fn labels_select_a_job_and_one_pod_is_explained_as_a_pod() {
    let mut world = World::healthy();
    world.pods.truncate(3);
    world.report(1, |report| stop(report, false));
    let labels =
        |pod: &mut Pod, app: &str| drop(pod.metadata.labels.as_mut().unwrap().insert("app".to_owned(), app.to_owned()));
    labels(&mut world.pods[2], "other");
    let bench = world.bench().await;
    let ask = async |args: Value| bench.ask("explain_gpu_pod", args).await;
    let job = ask(json!({"selector": "app=llm", "namespace": NAMESPACE})).await;
    assert_eq!(
        (&job["job"], &job["phases"]["Running"]),
        (&json!("pods with labels app=llm in namespace workloads"), &json!(2)),
        "{job}"
    );
    assert_eq!(job["suspects"][0]["members"][0]["rank"], "1", "{job:#}");
    for one in [
        json!({"selector": "app=other", "namespace": NAMESPACE}),
        json!({"pod": "train-1-abcde", "namespace": NAMESPACE}),
    ] {
        let answer = ask(one).await;
        assert!(answer["cause"].is_string() && answer["suspects"].is_null(), "{answer}");
    }
    for wrong in [json!({}), json!({"pod": "train", "selector": "app=llm"}), json!({"selector": "app=none"})] {
        assert!(bench.call("explain_gpu_pod", wrong.clone()).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_node_with_several_pods_is_read_once_and_named_with_all_of_them() {
    let mut world = World::healthy();
    world.report(1, other_driver);
    let mut second = world.pods[1].clone();
    second.metadata.name = Some("train-64-abcde".to_owned());
    second.metadata.uid = Some("b51fd701-db52-4ca5-a016-000000000001".to_owned());
    second
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("batch.kubernetes.io/job-completion-index".to_owned(), "64".to_owned());
    world.pods.truncate(5);
    world.pods.push(second);
    let bench = world.bench().await;
    let answer = bench.ask("explain_gpu_pod", json!({"pod": "job/train", "namespace": NAMESPACE})).await;
    assert_eq!(bench.cluster.pods_created(), 5);
    let driver = answer["suspects"].as_array().unwrap().iter().find(|one| one["because"] == "differs").unwrap();
    let ranks: Vec<_> = driver["members"].as_array().unwrap().iter().map(|one| one["rank"].as_str().unwrap()).collect();
    assert_eq!(ranks, ["1", "64"], "{answer:#}");
    assert!(answer["summary"].as_str().unwrap().contains("no pod with index 5-63"), "{}", answer["summary"]);
}

#[tokio::test]
async fn nccl_is_asked_only_if_the_setting_allows_it() {
    const NOT_ASKED: &str = "NCCL in the job was not asked; to allow the question, use --ask-nccl";
    for flags in [&[][..], &["--ask-nccl"]] {
        let mut world = World::healthy();
        world.small().nccl(|_| {});
        let bench = world.bench_with(flags).await;
        let answer = bench.ask("explain_gpu_pod", json!({"pod": "job/train", "namespace": NAMESPACE})).await;
        let is_asked = !flags.is_empty();
        assert_eq!(answer["summary"].as_str().unwrap().contains("NCCL 2.29.2"), is_asked, "{answer:#}");
        let unknown = json!([{"section": "nccl", "why": NOT_ASKED}]);
        assert_eq!(answer["unknown"], if is_asked { Value::Null } else { unknown }, "{answer:#}");
    }
}
