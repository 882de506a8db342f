//! Tests of reset plans: the blockers that each changed fact of an idle GPU causes, and the steps of a plan.

use serde_json::{Value, json};

use diagnosis::diagnose;
use syringe_core::action_rules::reset_plan::{ResetConditions, plan};
use syringe_core::classification::ActionCode;
use syringe_core::facts::kubernetes::KubernetesFacts;
use syringe_core::report::Report;

const GPU: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000001";
const OTHER: &str = "GPU-aaaaaaaa-0000-4000-8000-000000000002";
const MIG: &str = "MIG-bbbbbbbb-0000-4000-8000-000000000001";

/// Returns a report of two idle GPUs behind NVSwitches, with persistence mode on. Everything was read.
fn idle(architecture: &str) -> Value {
    let gpu = |index: u32, uuid: &str| {
        json!({"index": index, "uuid": uuid, "pci_address": format!("00000000:{:02x}:00.0", 0x3b + index),
            "name": "NVIDIA Test", "architecture": architecture, "minor_number": index, "persistence_mode": true,
            "display_active": false, "virtualization_mode": "none", "mig_mode": {"current": false, "pending": false},
            "ecc_mode": {"current": true, "pending": true}})
    };
    let linked = |index: u32, uuid: &str| json!({"index": index, "uuid": uuid, "nvlinks": [{"links": [0, 1], "active": true, "remote_type": "switch"}]});
    let on_bus = |index: u32| json!({"pci_address": format!("00000000:{:02x}:00.0", 0x3b + index), "driver": "nvidia", "answers": true});
    let ok = |data: Value| json!({"status": "ok", "data": data});
    json!({"schema_version": 3, "sections": {
        "inventory": ok(json!({"gpus": [gpu(0, GPU), gpu(1, OTHER)]})),
        "topology": ok(json!({"gpus": [linked(0, GPU), linked(1, OTHER)]})),
        "ecc": ok(json!({"gpus": [{"index": 0, "uuid": GPU, "recovery_action": "none"}]})),
        "processes": ok(json!({"host_pid_namespace": true, "processes": []})),
        "mig": ok(json!({"gpus": [{"index": 0, "uuid": GPU, "devices": []}]})),
        "kubelet": ok(json!({"source": "checkpoint", "allocations": [], "registered": []})),
        "host": ok(json!({"pci_gpus": [on_bus(0), on_bus(1)], "daemons": {"fabric_manager": true, "mps": false}})),
        "xid": ok(json!({"events": []}))}})
}

fn set(mut facts: Value, pointer: &str, value: Value) -> Value {
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let parent = facts.pointer_mut(&format!("/sections{parent}")).unwrap_or_else(|| panic!("no {pointer}"));
    match parent {
        Value::Array(list) => list.push(value),
        parent => parent[last] = value,
    }
    facts
}

fn without(mut facts: Value, section: &str) -> Value {
    facts["sections"].as_object_mut().expect("sections").remove(section);
    facts
}

fn h100(pointer: &str, value: Value) -> Value {
    set(idle("Hopper"), pointer, value)
}

fn process(pid: u32, name: &str, state: &str, more: Value) -> Value {
    let mut process = json!({"pid": pid, "name": name, "state": state, "uses": []});
    process.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    process
}

fn problem(code: &str, gpu: Option<u32>) -> Value {
    json!([{"what": "x", "why": "NVML: said so", "code": code, "gpu": gpu}])
}

const CORDONED: ResetConditions = ResetConditions { cordoned: true, drain_check: true };

/// Returns the codes of the blockers.
fn codes(facts: Value, gpu: &str, conditions: ResetConditions) -> Vec<String> {
    let facts: Report = serde_json::from_value(facts).expect("a report");
    plan(&facts, gpu, conditions).blockers.into_iter().map(|blocker| blocker.code).collect()
}

const INVENTORY: &str = "/inventory/data/gpus/0";

/// A name, the facts, and the expected blockers for a reset of the first GPU of a cordoned node.
type Situation = (&'static str, Value, Vec<&'static str>);

/// Returns the facts of an H100 whose inventory has this value in this field.
fn gpu(field: &str, value: Value) -> Value {
    h100(&format!("{INVENTORY}/{field}"), value)
}

fn situations() -> Vec<Situation> {
    [presence(), allocations(), users(), modes(), nvlinks(), errors()].into_iter().flatten().collect()
}

/// Situations in which the GPU exists or not, and the driver controls it or not.
fn presence() -> Vec<Situation> {
    vec![
        ("an idle H100", idle("Hopper"), vec![]),
        ("an idle A100 with a fabric manager", idle("Ampere"), vec![]),
        (
            "NVML does not work",
            h100("/inventory", json!({"status": "error", "problems": problem("driver_not_loaded", None)})),
            vec!["inventory_unknown"],
        ),
        ("no inventory at all", without(idle("Hopper"), "inventory"), vec!["inventory_unknown"]),
        (
            "NVML reports that the GPU is lost",
            h100("/inventory/problems", problem("gpu_lost", Some(0))),
            vec!["gpu_lost"],
        ),
        ("another GPU is lost", h100("/inventory/problems", problem("gpu_lost", Some(1))), vec![]),
        ("the configuration space is all ones", h100("/host/data/pci_gpus/0/answers", json!(false)), vec!["gpu_lost"]),
        (
            "the GPU is bound to vfio-pci",
            h100("/host/data/pci_gpus/0/driver", json!("vfio-pci")),
            vec!["not_nvidia_driver"],
        ),
        ("the bus could not be read", without(idle("Hopper"), "host"), vec!["host_unknown"]),
        ("a vGPU guest", gpu("virtualization_mode", json!("vgpu")), vec!["vgpu"]),
        ("a vGPU host", gpu("virtualization_mode", json!("host_vgpu")), vec!["vgpu"]),
        ("a virtual machine with the whole GPU", gpu("virtualization_mode", json!("passthrough")), vec![]),
    ]
}

/// Situations with pods and claims to which the GPU is allocated.
fn allocations() -> Vec<Situation> {
    let allocation =
        |device: &str| json!({"pod_uid": "0f8a", "container": "c", "resource": "nvidia.com/gpu", "devices": [device]});
    let claim = |device: &str| json!({"pod_uid": "0f8a", "container": "", "resource": "gpu.nvidia.com", "claim": "c", "devices": [device]});
    vec![
        ("a pod has the GPU", h100("/kubelet/data/allocations/-", allocation(GPU)), vec!["allocated"]),
        (
            "a pod has a replica of the GPU",
            h100("/kubelet/data/allocations/-", allocation(&format!("{GPU}::3"))),
            vec!["allocated"],
        ),
        ("a pod has another GPU", h100("/kubelet/data/allocations/-", allocation(OTHER)), vec![]),
        ("a pod claims the GPU", h100("/kubelet/data/allocations/-", claim("gpu-0")), vec!["allocated"]),
        (
            "a pod claims a part of the GPU",
            h100("/kubelet/data/allocations/-", claim("gpu-0-mig-9-0")),
            vec!["allocated"],
        ),
        ("a pod claims the other GPU", h100("/kubelet/data/allocations/-", claim("gpu-1")), vec![]),
        ("the allocations are not known", without(idle("Hopper"), "kubelet"), vec!["allocations_unknown"]),
        (
            "a pod has the GPU, on GKE",
            h100("/kubelet/data/allocations/-", allocation("nvidia0/vgpu3")),
            vec!["allocated"],
        ),
        ("a pod has the other GPU, on GKE", h100("/kubelet/data/allocations/-", allocation("nvidia1")), vec![]),
        (
            "the allocations are incomplete",
            h100("/kubelet/problems", problem("dra_state_unreadable", None)),
            vec!["allocations_unknown"],
        ),
    ]
}

/// Situations with processes that use the GPU.
fn users() -> Vec<Situation> {
    let use_of = |gpu: u32| json!({"uses": [{"gpu": gpu, "kind": "compute"}]});
    let uses = |pid: u32, name: &str, state: &str, more: Value| {
        h100("/processes/data/processes/-", process(pid, name, state, more))
    };
    let holds = |name: &str, file: &str| uses(9, name, "S", json!({"open_device_files": [file]}));
    vec![
        ("a job runs on the GPU", uses(7, "python3", "S", use_of(0)), vec!["processes"]),
        ("a job runs on the other GPU", uses(7, "python3", "S", use_of(1)), vec![]),
        ("a job hangs in the driver", uses(7, "python3", "D", use_of(0)), vec!["processes_stuck"]),
        ("a monitor holds the GPU", holds("nv-hostengine", "/dev/nvidia0"), vec!["processes"]),
        ("a monitor holds the other GPU", holds("nv-hostengine", "/dev/nvidia1"), vec![]),
        ("persistenced holds the GPU", holds("nvidia-persiste", "/dev/nvidia0"), vec![]),
        ("the processes are not known", without(idle("Hopper"), "processes"), vec!["processes_unknown"]),
        (
            "the listed processes are not those of the host",
            h100("/processes/data/host_pid_namespace", json!(false)),
            vec!["processes_unknown"],
        ),
        (
            "the list of processes is incomplete",
            h100("/processes/problems", problem("permission", None)),
            vec!["processes_unknown"],
        ),
        ("MPS runs", h100("/host/data/daemons/mps", json!(true)), vec!["mps"]),
        ("it is not known whether MPS runs", h100("/host/data/daemons/mps", json!(null)), vec!["mps_unknown"]),
    ]
}

/// Situations with displays, MIG, and mode changes that a reset applies.
fn modes() -> Vec<Situation> {
    let mig_mode = json!({"current": true, "pending": true});
    let lacks = |field: &str| {
        let facts = gpu(field, json!(null));
        set(facts, "/inventory/data/unsupported", json!([{"gpus": [0, 1], "fields": [field]}]))
    };
    let allocation =
        |device: &str| json!({"pod_uid": "0f8a", "container": "c", "resource": "nvidia.com/gpu", "devices": [device]});
    vec![
        ("a display is active on the GPU", gpu("display_active", json!(true)), vec!["display"]),
        ("it is not known whether a display is active", gpu("display_active", json!(null)), vec!["display_unknown"]),
        ("the GPU does not support displays", lacks("display_active"), vec![]),
        ("the MIG mode is not known", gpu("mig_mode", json!(null)), vec!["mig_unknown"]),
        ("the GPU does not support MIG", lacks("mig_mode"), vec![]),
        ("MIG is on, without instances", gpu("mig_mode", mig_mode.clone()), vec![]),
        (
            "MIG is on, with two instances",
            set(gpu("mig_mode", mig_mode.clone()), "/mig/data/gpus/0/devices", json!([{"uuid": MIG}, {}])),
            vec!["mig_instances"],
        ),
        (
            "a pod has a MIG device of the GPU",
            set(
                set(gpu("mig_mode", mig_mode.clone()), "/mig/data/gpus/0/devices", json!([{"uuid": MIG}])),
                "/kubelet/data/allocations/-",
                allocation(MIG),
            ),
            vec!["allocated", "mig_instances"],
        ),
        ("MIG is on, the instances are not known", without(gpu("mig_mode", mig_mode), "mig"), vec!["mig_unknown"]),
        ("the reset enables MIG", gpu("mig_mode", json!({"current": false, "pending": true})), vec![]),
        (
            "the reset disables ECC",
            gpu("ecc_mode", json!({"current": true, "pending": false})),
            vec!["ecc_off_pending"],
        ),
    ]
}

/// Situations with GPUs that can only be reset together with other GPUs.
fn nvlinks() -> Vec<Situation> {
    let ampere = idle("Ampere");
    let links = "/topology/data/gpus/0/nvlinks";
    let link = |remote: &str, active: bool| json!([{"links": [0], "active": active, "remote_type": remote}]);
    vec![
        (
            "A100, no fabric manager",
            set(ampere.clone(), "/host/data/daemons/fabric_manager", json!(false)),
            vec!["nvlink_group"],
        ),
        (
            "A100, fabric manager not seen",
            set(ampere.clone(), "/host/data/daemons/fabric_manager", json!(null)),
            vec!["nvlink_group"],
        ),
        ("H100, no fabric manager", h100("/host/data/daemons/fabric_manager", json!(false)), vec![]),
        ("A100 with a bridge", set(ampere.clone(), links, link("gpu", true)), vec![]),
        (
            "A100, the remote device of a link is not known",
            set(ampere.clone(), links, link("unknown", true)),
            vec!["nvlink_group"],
        ),
        ("A100, links down", set(ampere.clone(), links, link("switch", false)), vec![]),
        ("A100, topology not known", without(ampere, "topology"), vec!["nvlink_unknown"]),
        ("V100 behind switches", idle("Volta"), vec!["nvlink_group"]),
        ("V100 with a bridge", set(idle("Volta"), links, link("gpu", true)), vec!["nvlink_group"]),
        ("T4 without NVLink", set(idle("Turing"), links, json!([])), vec![]),
        ("L40S without NVLink", set(idle("Ada"), links, json!([])), vec![]),
        (
            "an unknown architecture",
            set(idle("Hopper"), &format!("{INVENTORY}/architecture"), json!(null)),
            vec!["nvlink_group"],
        ),
    ]
}

/// Situations with errors, and with actions that the driver recommends.
fn errors() -> Vec<Situation> {
    let asked = |action: &str| h100("/ecc/data/gpus/0/recovery_action", json!(action));
    let xid79 = |more: Value| {
        let mut event = json!({"kind": "xid", "code": 79, "gpu_index": 0, "count": 1, "raw": "x"});
        event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        h100("/xid/data/events/-", event)
    };
    vec![
        ("errors and repairs are not known", without(idle("Hopper"), "ecc"), vec!["ecc_unknown"]),
        (
            "errors and repairs of this GPU are not known",
            h100("/ecc/problems", problem("unknown", Some(0))),
            vec!["ecc_unknown"],
        ),
        (
            "errors and repairs of the other GPU are not known",
            h100("/ecc/problems", problem("unknown", Some(1))),
            vec![],
        ),
        ("the driver recommends a reboot", asked("node_reboot"), vec!["reboot_required"]),
        ("the driver recommends draining P2P", asked("drain_p2p"), vec!["drain_p2p"]),
        ("the driver recommends recovering IMEX", asked("recover_imex"), vec!["recover_imex"]),
        ("the driver recommends a bus reset", asked("bus_reset"), vec!["bus_reset"]),
        ("the driver recommends a reset", asked("gpu_reset"), vec![]),
        ("the GPU fell off the bus in this boot", xid79(json!({})), vec!["fell_off_bus"]),
        ("the GPU fell off the bus before this boot", xid79(json!({"boot_id": "earlier"})), vec![]),
        ("the other GPU fell off the bus", xid79(json!({"gpu_index": 1})), vec![]),
        ("the kernel log was not read", without(idle("Hopper"), "xid"), vec![]),
    ]
}

#[test]
fn every_situation_is_refused_for_its_own_reason_or_clear() {
    let situations = situations();
    assert!(situations.len() >= 25);
    for (name, facts, expected) in situations {
        assert_eq!(codes(facts, GPU, CORDONED), expected, "{name}");
    }
}

/// The plan must not permanently block a reset that the diagnosis recommends.
#[test]
fn no_finding_advises_a_reset_where_the_plan_asks_for_a_reboot() {
    let mut seen = 0;
    for (name, facts, _) in situations() {
        let facts: Report = serde_json::from_value(facts).expect("a report");
        if !plan(&facts, GPU, CORDONED).blockers.iter().any(|blocker| blocker.next_step.contains("reboot it")) {
            continue;
        }
        seen += 1;
        for finding in diagnose(&facts, &KubernetesFacts::default()).findings {
            let reset = matches!(finding.action.code, ActionCode::ResetGpu | ActionCode::DrainAndReset);
            assert!(!reset, "{name}: {} says '{}'", finding.id, finding.action.text);
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn the_uuid_must_be_a_gpu_of_this_node() {
    assert_eq!(codes(idle("Hopper"), MIG, CORDONED), ["mig_uuid"]);
    assert_eq!(codes(idle("Hopper"), "GPU-cccccccc", CORDONED), ["no_such_gpu"]);
    assert_eq!(codes(idle("Hopper"), &GPU[..12], CORDONED), ["no_such_gpu"], "a prefix of the UUID is not accepted");
    let one_gone = h100("/host/data/pci_gpus/-", json!({"pci_address": "00000000:5d:00.0", "driver": "nvidia"}));
    assert_eq!(codes(one_gone, "GPU-cccccccc", CORDONED), ["gpu_lost"]);
}

#[test]
fn a_node_that_takes_pods_is_in_the_way_unless_the_check_is_off() {
    let allocated = h100(
        "/kubelet/data/allocations/-",
        json!({"pod_uid": "0f8a", "container": "c", "resource": "nvidia.com/gpu", "devices": [GPU]}),
    );
    assert_eq!(codes(allocated.clone(), GPU, ResetConditions::default()), ["not_cordoned", "allocated"]);
    let off = ResetConditions { cordoned: false, drain_check: false };
    let facts: Report = serde_json::from_value(allocated).expect("a report");
    let plan = plan(&facts, GPU, off);
    assert!(plan.is_clear());
    assert_eq!(plan.notes.len(), 2, "the plan still has both notes: {:?}", plan.notes);
    let job = json!({"pid": 7, "name": "python3", "uses": [{"gpu": 0, "kind": "compute"}]});
    assert_eq!(
        codes(h100("/processes/data/processes/-", job), GPU, off),
        ["processes"],
        "a running job always blocks a reset"
    );
}

#[test]
fn persistence_mode_is_disabled_before_and_enabled_after() {
    let facts: Report = serde_json::from_value(idle("Hopper")).expect("a report");
    let steps = plan(&facts, GPU, CORDONED).steps;
    let order: Vec<bool> =
        ["-pm 0", "--gpu-reset", "-pm 1", "check"].iter().zip(&steps).map(|(word, step)| step.contains(word)).collect();
    assert_eq!(order, [true; 4], "{steps:?}");
    let off: Report =
        serde_json::from_value(h100(&format!("{INVENTORY}/persistence_mode"), json!(false))).expect("a report");
    assert_eq!(plan(&off, GPU, CORDONED).steps.len(), 2);
}

#[test]
fn a_blocked_plan_has_no_steps_and_names_the_group() {
    let facts: Report = serde_json::from_value(idle("Volta")).expect("a report");
    let plan = plan(&facts, GPU, CORDONED);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.together_with, [1]);
}
