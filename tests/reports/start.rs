//! Cases of public reports about containers that did not start and rejected pods, for the tool `explain_gpu_pod`.

use demo_cluster::Fixture;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use syringe_core::report::Report;

use crate::case::Case;
use crate::cluster::{at, changed, event, from_json, pod, scenario, section, status};

/// Scenario of a node without faults.
const HEALTHY: &str = "healthy-h100-8";

/// Start of containerd's message around the error of NVIDIA's hook.
const HOOK: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
    failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, \
    stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: ";

/// Start of the kubelet's message around the error of a DRA driver.
const PREPARE: &str = "Failed to prepare dynamic resources: NodePrepareResources failed for ResourceClaim \
    train-0-gpu-x7k2p: error preparing devices for claim research/train-0-gpu-x7k2p: ";

const CLAIM_DEVICE: &str = "k8s.gpu.nvidia.com/claim=0b7a5c1e-1111-4222-8333-123456789abc-gpu-0";

/// Returns a cluster with the pods of the base cluster and these pods, and with these events.
fn with(base: Fixture, pods: Vec<Pod>, events: Vec<Event>) -> Fixture {
    Fixture { pods: base.pods.into_iter().chain(pods).collect(), events, ..base }
}

fn healthy_with(pods: Vec<Pod>, events: Vec<Event>) -> Fixture {
    with(scenario(HEALTHY), pods, events)
}

/// Returns a pod whose container is waiting, with this reason and message of the kubelet.
fn waits(reason: &str, message: &str) -> Pod {
    pod("start", 1, status("Pending", json!({"waiting": {"reason": reason, "message": message}})))
}

/// Returns a pod in a crash loop. The runtime has never started its container.
fn never_started(message: &str) -> Pod {
    let mut status = status("Running", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}));
    status["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 128, "reason": "StartError",
        "message": message, "startedAt": "1970-01-01T00:00:00Z", "finishedAt": at("02:30:00")}});
    status["containerStatuses"][0]["restartCount"] = json!(6);
    pod("start", 1, status)
}

/// Returns a pod that started after the events.
fn runs() -> Pod {
    let mut status = status("Running", json!({"running": {"startedAt": at("02:35:00")}}));
    status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    pod("start", 0, status)
}

/// Creates a case of a pod in ContainerCreating, with an event that contains the reason. In the same cluster without
/// the fault, the pod is running.
fn creating(row: u32, reason: &str, message: &str) -> Case {
    let events = || vec![event("start", reason, message)];
    Case::of_pod(row, "research/start", healthy_with(vec![waits("ContainerCreating", "")], events()))
        .twin(healthy_with(vec![runs()], events()))
}

/// Creates a case of a pod with a container that the runtime failed to start.
fn refused_start(row: u32, message: &str) -> Case {
    Case::of_pod(row, "research/start", healthy_with(vec![never_started(message)], Vec::new()))
        .never(&["kubectl logs"])
        .twin(healthy_with(vec![runs()], vec![event("start", "Failed", &format!("Error: {message}"))]))
}

/// Creates a case of a pod that the kubelet rejected, on a node in this state.
fn not_admitted(row: u32, gpus: u32, reason: &str, message: &str, base: Fixture) -> Case {
    Case::of_pod(
        row,
        "research/start",
        with(base, vec![refused(gpus, reason, message)], vec![event("start", reason, message)]),
    )
}

fn refused(gpus: u32, reason: &str, message: &str) -> Pod {
    let message = format!("Pod was rejected: {message}");
    let status = json!({"phase": "Failed", "reason": reason, "message": message, "startTime": at("02:29:40")});
    pod("start", gpus, status)
}

/// Sets the kubelet's allocations: the GPUs with these indexes are allocated to one pod.
fn booked(report: &mut Report, uid: &str, indexes: &[usize]) {
    let uuids: Vec<String> =
        section(&mut report.sections.inventory).gpus.iter().filter_map(|gpu| gpu.uuid.clone()).collect();
    let kubelet = section(&mut report.sections.kubelet);
    kubelet.allocations = indexes
        .iter()
        .map(|index| {
            from_json(json!({"pod_uid": uid, "container": "main", "resource": "nvidia.com/gpu",
                "devices": [uuids[*index]]}))
        })
        .collect();
    // This cluster does not contain the pods of these processes. Processes without a pod would be another fault.
    section(&mut report.sections.processes).processes.clear();
}

pub(crate) fn cases() -> Vec<Case> {
    [runtime(), claims(), admission(), node()].concat()
}

/// Returns cases with messages of the container runtime and NVIDIA's hook.
fn runtime() -> Vec<Case> {
    let names = "failed to create containerd task: failed to create shim task: OCI runtime create failed: could not apply \
        required modification to OCI specification: error modifying OCI spec: failed to inject CDI devices: unresolvable CDI \
        devices management.nvidia.com/gpu=GPU-e78e68c0-4e6a-737e-f9cc-4223fe50aead: unknown";
    let handler = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime \
        for \"nvidia\" is configured";
    let incomplete = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to start sandbox \
        \"6e2c7f0b9d1a4c5e8f7061a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6\": failed to create containerd task: \
        container.Runtime.Name must be set: invalid argument";
    let ldcache = format!("{HOOK}ldcache error: process /sbin/ldconfig terminated with signal 9: unknown");
    let cuda = format!(
        "{HOOK}requirement error: unsatisfied condition: cuda>=13.2, please update your driver to a newer version, or use an \
         earlier cuda container: unknown"
    );
    vec![
        refused_start(2, names).cause("node", &["management.nvidia.com/gpu=GPU-e78e68c0-4e6a-737e-f9cc-4223fe50aead"]),
        creating(7, "FailedCreatePodSandBox", handler).cause("node", &["has no handler nvidia"]),
        creating(8, "FailedCreatePodSandBox", incomplete).cause("node", &["has no runtime_type for the pod's handler"]),
        refused_start(10, &ldcache).cause("node", &["library cache", "CDI mode"]),
        refused_start(11, &cuda).cause("node", &["needs CUDA 13.2", "supports CUDA 12.8 at most", "595.45.04"]),
    ]
}

/// Returns cases with messages of DRA drivers and the kubelet about claims.
fn claims() -> Vec<Case> {
    let empty = format!(
        "{PREPARE}unable to create CDI spec file for claim: failed to write spec: invalid CDI Spec: failed add device \
         \"0b7a-gpu-0\": invalid device, empty device edits"
    );
    let unresolvable = format!(
        "failed to create containerd container: CDI device injection failed: unresolvable CDI devices {CLAIM_DEVICE}"
    );
    let driver = "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver compute-domain.nvidia.com is not \
        registered";
    let channel = format!(
        "{PREPARE}requested device channel-0 is already allocated to different claim 4914da61-1a20-42b3-bf26-981025df4289"
    );
    let prepare = "FailedPrepareDynamicResources";
    vec![
        creating(4, prepare, &empty)
            .cause("node", &["CDI specification of its node is empty", "restart components that cache it"]),
        Case::of_pod(5, "research/start", healthy_with(vec![waits("CreateContainerError", &unresolvable)], Vec::new()))
            .cause("node", &["the CDI specification of its claim is not on its node", CLAIM_DEVICE, "Delete the pod"])
            .twin(healthy_with(vec![runs()], vec![event("start", "Failed", &format!("Error: {unresolvable}"))])),
        creating(45, prepare, driver).cause("node", &["DRA driver compute-domain.nvidia.com has not registered"]),
        creating(47, prepare, &channel).cause("cluster", &["another claim, 4914da61-1a20-42b3-bf26-981025df4289"]),
    ]
}

/// Returns cases of pods that the kubelet's device manager or topology manager rejected.
fn admission() -> Vec<Case> {
    let unhealthy = "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, \
        which is unexpected";
    let preferred = "Allocate failed due to device plugin GetPreferredAllocation rpc failed with err: rpc error: code = \
        Unknown desc = error getting list of preferred allocation devices: unable to get device link information: error, \
        which is unexpected";
    let numa = "Resources cannot be allocated with Topology locality";
    let admission = "UnexpectedAdmissionError";
    // The pod was rejected at 02:29:40, and the facts are from 02:45:10.
    let up_for = |minutes: u64| {
        changed(HEALTHY, |report| section(&mut report.sections.host).uptime_seconds = Some(minutes * 60))
    };
    // This cluster does not contain the pods that the demo cluster creates from allocations.
    let with_bookings = |uid: &'static str, indexes: &'static [usize]| Fixture {
        pods: Vec::new(),
        ..changed(HEALTHY, |report| booked(report, uid, indexes))
    };
    let spread = |indexes: &'static [usize]| with_bookings("uid-holder", indexes);
    let holder = || {
        let mut status = status("Running", json!({"running": {"startedAt": at("01:00:00")}}));
        status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        pod("holder", 8, status)
    };
    let live = |mut base: Fixture| {
        base.pods.push(holder());
        base
    };
    let twin = |gpus, reason, message: &str, base: Fixture| {
        with(base, vec![refused(gpus, reason, message)], vec![event("start", reason, message)])
    };
    vec![
        not_admitted(18, 1, admission, unhealthy, up_for(17))
            .cause("node", &["its node had just booted", "Delete the pod"])
            .twin(twin(1, admission, unhealthy, up_for(10_000))),
        not_admitted(20, 1, admission, preferred, scenario("gpu-lost"))
            .cause("gpu", &["could not choose GPUs for the pod"])
            .twin(twin(1, admission, preferred, scenario(HEALTHY))),
        not_admitted(23, 4, "TopologyAffinityError", numa, live(spread(&[0, 1, 4, 5])))
            .cause("node", &["2 on NUMA node 0, 2 on NUMA node 1", "at most 2 of them on one"])
            .twin(twin(4, "TopologyAffinityError", numa, live(spread(&[0, 1, 2, 3])))),
    ]
}

/// Adds the label and the controller that make a pod a part of NVIDIA's stack.
fn of_stack(mut pod: Pod, app: &str) -> Pod {
    pod.metadata.labels = Some(from_json(json!({"app": app})));
    let owner: Value =
        json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": app, "uid": "u", "controller": true}]);
    pod.metadata.owner_references = Some(from_json(owner));
    pod
}

/// Returns a pod of the device plugin in a crash loop.
fn device_plugin() -> Pod {
    let mut status = status("Running", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}));
    status["containerStatuses"][0]["lastState"] = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "",
        "startedAt": at("02:29:58"), "finishedAt": at("02:30:00")}});
    status["containerStatuses"][0]["restartCount"] = json!(269);
    of_stack(pod("start", 0, status), "nvidia-device-plugin-daemonset")
}

/// Returns a driver pod whose image cannot be pulled for this reason.
fn driver_pod(why: &str) -> Pod {
    let message = format!("Back-off pulling image \"nvcr.io/nvidia/driver:570-rocky8.10\": ErrImagePull: {why}");
    let waits = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
    of_stack(pod("start", 0, status("Pending", waits)), "nvidia-driver-daemonset")
}

/// Returns a running pod that requests a GPU, whether or not a GPU is allocated.
fn unbooked() -> Pod {
    let mut status = status("Running", json!({"running": {"startedAt": at("02:00:05")}}));
    status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    pod("start", 1, status)
}

/// Returns cases of pods whose problem is caused by the state of the node.
fn node() -> Vec<Case> {
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "", "startedAt": at("02:00:05"),
        "finishedAt": at("02:30:00")}});
    let killed = json!({"terminated": {"exitCode": 137, "reason": "Error", "message": "", "startedAt": at("02:00:05"),
        "finishedAt": at("02:30:00")}});
    let failed = |state: &Value| healthy_with(vec![pod("start", 1, status("Failed", state.clone()))], Vec::new());
    vec![
        Case::of_pod(15, "research/start", healthy_with(vec![unbooked()], Vec::new()))
            .cause("node", &["the kubelet has allocated no GPU to it", "Delete the pod"])
            .twin(with(
                Fixture { pods: Vec::new(), ..changed(HEALTHY, |report| booked(report, "uid-start", &[0])) },
                vec![unbooked()],
                Vec::new(),
            )),
        Case::of_pod(32, "research/start", with(scenario("no-driver"), vec![driver_pod("not found")], Vec::new()))
            .cause("application", &["the registry has no such image", "operating system and kernel"])
            .twin(with(scenario("no-driver"), vec![driver_pod("dial tcp: i/o timeout")], Vec::new())),
        Case::of_pod(25, "research/start", with(scenario("driver-mismatch"), vec![device_plugin()], Vec::new()))
            .cause("node", &["finding driver-version-mismatch"])
            .twin(healthy_with(vec![device_plugin()], Vec::new())),
        Case::of_pod(60, "research/start", failed(&oom))
            .cause("application", &["exceeded its memory limit (host memory"])
            .twin(failed(&killed)),
    ]
}
