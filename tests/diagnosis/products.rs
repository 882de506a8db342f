//! Tests of rules that use the GPU product or compare related facts: boards, power caps, clocks, P2P, NIC ports, PCIe.

use serde_json::{Value, json};

use super::facts::{changed, gpus, judged};
use super::told;
use diagnosis::finding::Verdict;
use syringe_core::classification::Severity;

/// A change of a healthy node.
type Change = fn(&mut Value);

/// Applies a change to the entries of all GPUs in a section.
fn of_all(value: &mut Value, section: &str, change: fn(&mut Value)) {
    gpus(value, section).iter_mut().for_each(change);
}

fn topology(value: &mut Value) -> &mut Value {
    &mut value["sections"]["topology"]["data"]
}

fn nics(value: &mut Value) -> &mut Vec<Value> {
    topology(value)["nics"].as_array_mut().expect("ports")
}

fn host(value: &mut Value) -> &mut Value {
    &mut value["sections"]["host"]["data"]
}

fn kernel_line(value: &mut Value, text: &str) {
    let lines = value["kernel_log"].as_array_mut().expect("lines");
    lines.push(json!(format!("2026-11-21T02:40:00Z n kernel: {text}")));
}

fn name_all(value: &mut Value, name: &'static str) {
    gpus(value, "inventory").iter_mut().for_each(|gpu| gpu["name"] = json!(name));
}

fn is_virtual(value: &mut Value) {
    of_all(value, "inventory", |gpu| gpu["virtualization_mode"] = json!("passthrough"));
}

/// Sets clocks, load and power of all GPUs.
fn capped(value: &mut Value) {
    of_all(value, "telemetry", |gpu| {
        gpu["clocks"]["sm_mhz"] = json!(345);
        gpu["clocks"]["graphics_mhz"] = json!(345);
        gpu["power"]["draw_milliwatts"] = json!(120_000);
        gpu["power"]["margin_to_limit_milliwatts"] = json!(580_000);
        gpu["throttling"]["reasons"] = json!(["SW power cap"]);
        gpu["throttling"]["reasons_mask"] = json!(4);
    });
}

/// Asserts that the diagnosis of a changed node has this finding with this severity, or (`None`) only information.
fn check(base: &str, what: &str, change: Change, expected: Option<(&str, Severity)>) {
    let diagnosis = judged(&changed(base, change));
    match expected {
        Some((id, severity)) => {
            let found = diagnosis.findings.iter().any(|finding| finding.id == id && finding.severity == severity);
            assert!(found, "{base}, {what}: {}", told(&diagnosis));
        }
        None => {
            assert!(diagnosis.verdict <= Verdict::Unknown, "{base}, {what}: {}", told(&diagnosis));
            let worst = diagnosis.findings.iter().map(|finding| finding.severity).max();
            assert!(worst <= Some(Severity::Info), "{base}, {what}: {}", told(&diagnosis));
        }
    }
}

const H100: &str = "healthy-h100-8";
const GB200: &str = "gb200-4";

#[test]
fn what_all_gpus_of_a_board_lack_is_found() {
    const BELOW: Option<(&str, Severity)> = Some(("board-below-specification", Severity::Warning));
    check(H100, "no NVLinks", |value| of_all(value, "topology", |gpu| gpu["nvlinks"] = json!([])), BELOW);
    check(
        H100,
        "no fabric",
        |value| of_all(value, "topology", |gpu| gpu["fabric"]["state"] = json!("not_supported")),
        BELOW,
    );
    let no_fabric: Change =
        |value| of_all(value, "topology", |gpu| drop(gpu.as_object_mut().expect("it").remove("fabric")));
    check(GB200, "no fabric", no_fabric, BELOW);
    let slow: Change = |value| {
        of_all(value, "topology", |gpu| gpu["nvlinks"][0]["speed_megabytes_per_second"] = json!(26_562));
    };
    check(GB200, "slow NVLinks", slow, BELOW);
    let fm_down: Change = |value| {
        name_all(value, "NVIDIA B200");
        topology(value)["nvswitches"] = json!([]);
        of_all(value, "topology", |gpu| {
            gpu["nvlinks"] = json!([{"links": (0..18).collect::<Vec<_>>(), "active": true, "version": 5,
                "speed_megabytes_per_second": 53_125, "remote_type": "switch"}]);
        });
        host(value)["daemons"]["fabric_manager"] = json!(false);
    };
    check(H100, "HGX B200 without Fabric Manager", fm_down, Some(("fabric-manager-not-running", Severity::Warning)));
    let seven: Change = |value| {
        for section in ["inventory", "telemetry", "topology", "ecc", "mig"] {
            gpus(value, section).remove(7);
        }
        let matrix = topology(value)["matrix"].as_array_mut().expect("a matrix");
        matrix.pop();
        matrix.iter_mut().for_each(|row| drop(row.as_array_mut().expect("a row").pop()));
        nics(value).pop();
        host(value)["pci_gpus"].as_array_mut().expect("it").pop();
        let files = host(value)["device_nodes"].as_array_mut().expect("it");
        files.retain(|file| file != "nvidia7");
        for (section, list) in [("kubelet", "allocations"), ("kubelet", "registered"), ("processes", "processes")] {
            value["sections"][section]["data"][list] = json!([]);
        }
    };
    check(H100, "seven GPUs", seven, Some(("board-gpu-missing", Severity::Critical)));
}

#[test]
fn a_virtual_machine_and_cards_need_not_be_as_boards_are() {
    let alone: Change = |value| {
        is_virtual(value);
        of_all(value, "topology", |gpu| {
            gpu["nvlinks"] = json!([]);
            gpu["fabric"] = json!({"state": "not_supported"});
        });
        topology(value)["nvswitches"] = json!([]);
        topology(value)["matrix"] = json!([]);
    };
    check(H100, "passthrough without NVLinks", alone, None);
    let cards: Change = |value| {
        name_all(value, "NVIDIA H100 PCIe");
        of_all(value, "topology", |gpu| {
            gpu["nvlinks"] = json!([]);
            gpu["fabric"] = json!({"state": "not_supported"});
        });
        topology(value)["nvswitches"] = json!([]);
        topology(value)["matrix"] = json!([]);
        host(value)["daemons"]["fabric_manager"] = json!(false);
    };
    check(H100, "cards", cards, None);
}

#[test]
fn a_power_cap_explains_low_clocks_only_near_the_limit() {
    check(H100, "capped", capped, Some(("power-cap-at-low-draw", Severity::Warning)));
    let at_limit: Change = |value| {
        capped(value);
        of_all(value, "telemetry", |gpu| {
            gpu["power"]["draw_milliwatts"] = json!(690_000);
            gpu["power"]["margin_to_limit_milliwatts"] = json!(10_000);
        });
    };
    check(H100, "at the limit", at_limit, None);
    let enforced: Change =
        |value| of_all(value, "telemetry", |gpu| gpu["power"]["enforced_limit_milliwatts"] = json!(400_000));
    check(H100, "limit in effect", enforced, Some(("power-limit-enforced-lower", Severity::Warning)));
}

#[test]
fn the_memory_clock_is_judged_in_a_fast_state_under_load() {
    let low: Change = |value| of_all(value, "telemetry", |gpu| gpu["clocks"]["memory_mhz"] = json!(1593));
    for base in [H100, GB200] {
        check(base, "memory clock", low, Some(("memory-clock-low-under-load", Severity::Warning)));
    }
    let idle: Change = |value| {
        of_all(value, "telemetry", |gpu| {
            gpu["clocks"]["memory_mhz"] = json!(1593);
            gpu["utilization"]["gpu_percent"] = json!(0);
        });
    };
    check(H100, "idle", idle, None);
    check("l40s-4-idle", "idle GDDR", |_| (), None);
}

#[test]
fn peer_to_peer_access_belongs_to_nvlinks() {
    let lacking: Change = |value| {
        topology(value)["p2p_lacking"] = json!([{"capability": "read", "status": "unknown", "pairs": [[3, 5]]}]);
        topology(value)["p2p_all_ok"] = json!(["write", "atomics"]);
    };
    check(H100, "one pair", lacking, Some(("peer-to-peer-missing", Severity::Warning)));
    let other: Change = |value| {
        let rows = topology(value)["matrix"].as_array_mut().expect("rows");
        for at in (0..8).filter(|at| *at != 3) {
            rows[at][3] = json!("SYS");
            rows[3][at] = json!("SYS");
        }
    };
    check(H100, "matrix", other, Some(("facts-disagree", Severity::Warning)));
    check("a100-mig-8", "MIG", |_| (), None);
}

#[test]
fn rdma_ports_are_compared_with_those_of_the_other_gpus() {
    let not_active = Some(("rdma-port-not-active", Severity::Warning));
    check(H100, "one down", |value| nics(value)[3]["state"] = json!("DOWN"), not_active);
    check(H100, "all down", |value| nics(value).iter_mut().for_each(|port| port["state"] = json!("DOWN")), not_active);
    check(
        H100,
        "slow",
        |value| nics(value)[3]["rate_gigabits_per_second"] = json!(100.0),
        Some(("rdma-port-slow", Severity::Warning)),
    );
    check(H100, "gone", |value| drop(nics(value).remove(3)), Some(("rdma-port-missing", Severity::Warning)));
    check(GB200, "no subnet manager", |value| nics(value)[0]["state"] = json!("INIT"), not_active);
    check(GB200, "one down of four", |value| nics(value)[0]["state"] = json!("DOWN"), not_active);
    let half_down: Change = |value| nics(value).iter_mut().take(4).for_each(|port| port["state"] = json!("DOWN"));
    check(H100, "half of the rails down", half_down, not_active);
    let most_down: Change = |value| nics(value).iter_mut().skip(1).for_each(|port| port["state"] = json!("DOWN"));
    check(H100, "all rails but one down", most_down, not_active);
    let half_of_tray: Change = |value| nics(value).iter_mut().take(2).for_each(|port| port["state"] = json!("DOWN"));
    check(GB200, "half of a tray down", half_of_tray, not_active);
    let half_slow: Change =
        |value| nics(value).iter_mut().take(4).for_each(|port| port["rate_gigabits_per_second"] = json!(100.0));
    check(H100, "half of the rails slow", half_slow, Some(("rdma-port-slow", Severity::Warning)));
    let dual: Change = |value| {
        let mut second = nics(value).clone();
        for port in &mut second {
            port["port"] = json!(2);
            port["state"] = json!("DOWN");
            port["rate_gigabits_per_second"] = json!(10.0);
        }
        nics(value).append(&mut second);
    };
    check(H100, "second ports without cables", dual, None);
    let one_of_dual: Change = |value| {
        let mut second = nics(value).clone();
        second.iter_mut().for_each(|port| (port["port"], port["state"]) = (json!(2), json!("DOWN")));
        nics(value).append(&mut second);
        nics(value)[3]["state"] = json!("DOWN");
    };
    check(H100, "both ports of a card", one_of_dual, not_active);
    let storage: Change = |value| {
        let mut spare = nics(value)[0].clone();
        (spare["device"], spare["state"]) = (json!("mlx5_8"), json!("DOWN"));
        spare["near"] = json!([{"gpu": 0, "via": "NODE"}, {"gpu": 1, "via": "NODE"}]);
        nics(value).push(spare.clone());
        (spare["device"], spare["link_layer"], spare["near"]) =
            (json!("mlx5_9"), json!("Ethernet"), json!([{"gpu": 0, "via": "PIX"}]));
        nics(value).push(spare);
    };
    check(H100, "spare ports", storage, None);
    let front: Change = |value| {
        let mut front = nics(value)[0].clone();
        (front["device"], front["link_layer"]) = (json!("mlx5_8"), json!("Ethernet"));
        front["rate_gigabits_per_second"] = json!(25.0);
        nics(value).push(front);
    };
    check(H100, "front end", front, None);
    let roce: Change = |value| nics(value).iter_mut().for_each(|port| port["link_layer"] = json!("Ethernet"));
    check(H100, "RoCE", roce, None);
    let unused: Change = |value| {
        nics(value).iter_mut().for_each(|port| {
            (port["link_layer"], port["state"]) = (json!("Ethernet"), json!("DOWN"));
        });
    };
    check(H100, "Ethernet ports without cables", unused, None);
}

#[test]
fn network_cards_are_compared_with_each_other() {
    let warning = |id| Some((id, Severity::Warning));
    let errors: Change = |value| nics(value)[2]["counters"]["symbol_error"] = json!(65_535);
    check(H100, "symbol errors", errors, warning("rdma-port-errors"));
    let few: Change = |value| nics(value)[2]["counters"]["symbol_error"] = json!(2_000);
    check(H100, "few symbol errors", few, None);
    let all: Change = |value| nics(value).iter_mut().for_each(|port| port["counters"]["link_downed"] = json!(30));
    check(H100, "all links went down alike", all, Some(("rdma-port-flaps", Severity::Info)));
    check(H100, "all links went down alike", all, None);
    let narrow: Change = |value| nics(value)[5]["slot"]["width"] = json!(8);
    check(H100, "lanes", narrow, warning("nic-slot-degraded"));
    let all: Change = |value| nics(value).iter_mut().for_each(|port| port["slot"]["generation"] = json!(4));
    check(H100, "the BIOS limits all cards", all, None);
    let request: Change = |value| nics(value)[1]["slot"]["max_read_request_bytes"] = json!(512);
    check(H100, "read request", request, warning("nic-pcie-settings-differ"));
    let firmware: Change = |value| nics(value)[7]["firmware"] = json!("28.39.1002");
    check(H100, "firmware", firmware, warning("nic-firmware-differs"));
    let other_model: Change = |value| {
        (nics(value)[7]["firmware"], nics(value)[7]["board_id"]) = (json!("28.39.1002"), json!("MT_0000000839"));
    };
    check(H100, "firmware of another model", other_model, None);
    let roce: Change = |value| {
        for port in nics(value) {
            (port["link_layer"], port["roce_v2_address"]) = (json!("Ethernet"), json!(port["device"] != "mlx5_4"));
        }
    };
    check(H100, "RoCE address", roce, warning("roce-address-missing"));
}

#[test]
fn what_keeps_gpus_and_network_cards_apart_is_named() {
    let no_module: Change = |value| {
        host(value)["modules"] = json!(["nvidia", "nvidia_uvm"]);
        host(value)["driver"]["flavor"] = json!("proprietary");
        topology(value)["gpudirect"]["memory_peers"] = json!([]);
    };
    check(H100, "no peermem", no_module, Some(("gpudirect-rdma-unavailable", Severity::Warning)));
    let dma_buf: Change = |value| {
        host(value)["modules"] = json!(["nvidia", "nvidia_uvm"]);
        topology(value)["gpudirect"]["memory_peers"] = json!([]);
    };
    check(H100, "DMA-BUF", dma_buf, None);
    let not_registered: Change = |value| {
        host(value)["driver"]["flavor"] = json!("proprietary");
        topology(value)["gpudirect"]["memory_peers"] = json!([]);
    };
    check(H100, "not registered", not_registered, Some(("nvidia-peermem-not-registered", Severity::Warning)));
    let acs: Change = |value| topology(value)["gpudirect"]["acs_switch_ports"] = json!(["00000000:16:00.0"]);
    check(H100, "ACS", acs, Some(("pcie-acs-redirects", Severity::Warning)));
    let in_a_machine: Change = |value| {
        topology(value)["gpudirect"]["acs_switch_ports"] = json!(["00000000:16:00.0"]);
        is_virtual(value);
    };
    check(H100, "ACS in a virtual machine", in_a_machine, None);
    let iommu: Change = |value| {
        host(value)["pci_gpus"]
            .as_array_mut()
            .expect("it")
            .iter_mut()
            .for_each(|gpu| gpu["iommu_domain"] = json!("DMA-FQ"));
    };
    check(H100, "IOMMU", iommu, Some(("iommu-translates-transfers", Severity::Info)));
}

#[test]
fn modules_of_rdma_and_ports_on_another_socket_are_judged() {
    let modules = |severity| Some(("rdma-module-missing", severity));
    let no_verbs: Change = |value| host(value)["rdma_modules_missing"] = json!(["ib_uverbs"]);
    check(H100, "no ib_uverbs", no_verbs, modules(Severity::Warning));
    let no_management: Change = |value| host(value)["rdma_modules_missing"] = json!(["ib_umad", "rdma_ucm"]);
    check(H100, "no ib_umad", no_management, modules(Severity::Info));
    check(H100, "no ib_umad", no_management, None);
    check("l40s-4-idle", "Ethernet cards", |value| host(value)["rdma_modules_missing"] = json!(["mlx5_ib"]), None);
    let waiting: Change = |value| {
        name_all(value, "NVIDIA B200");
        topology(value)["nvswitches"] = json!([]);
        of_all(value, "topology", |gpu| gpu["fabric"] = json!({"state": "in_progress"}));
        host(value)["rdma_modules_missing"] = json!(["mlx5_ib", "ib_umad"]);
    };
    let diagnosis = judged(&changed(H100, waiting));
    let named = diagnosis.findings.iter().find(|one| one.id == "fabric-not-registered").expect("a finding");
    assert!(named.reason.as_deref().is_some_and(|why| why.contains("mlx5_ib and ib_umad")), "{named:?}");
    assert!(named.action.text.starts_with("Load mlx5_ib"), "{named:?}");
    let far: Change = |value| {
        // The ports are not behind the PCIe switches of the GPUs, and the GPUs are on four NUMA nodes.
        of_all(value, "topology", |gpu| gpu["numa_node"] = json!(gpu["index"].as_u64().expect("an index") / 2));
        for port in nics(value) {
            let gpu = port["near"][0]["gpu"].as_u64().expect("a GPU");
            port["numa_node"] = json!(if gpu == 7 { 2 } else { gpu / 2 });
            port["near"] = json!([{"gpu": gpu, "via": "NODE"}]);
        }
        nics(value).remove(6);
    };
    check(H100, "no port on a NUMA node", far, Some(("rdma-port-on-other-socket", Severity::Info)));
    let one_socket: Change = |value| nics(value).iter_mut().for_each(|port| port["numa_node"] = json!(0));
    check(H100, "all ports on one socket", one_socket, None);
    let told = judged(&changed(H100, one_socket));
    assert!(!told.findings.iter().any(|one| one.id == "rdma-port-on-other-socket"), "{:?}", told.findings);
}

#[test]
fn a_kubelet_that_was_restarted_minutes_ago_is_shown() {
    let started: fn(&mut Value, i64) = |value, minutes| {
        let taken: jiff::Timestamp = value["taken_at"].as_str().expect("a time").parse().expect("a time");
        let started = taken - jiff::SignedDuration::from_mins(minutes);
        host(value)["nvidia_stack"] = json!({"kubelet_started_at": started.to_string()});
        host(value)["container_runtime"] = json!({"name": "containerd", "complete": true});
    };
    let found = |minutes| {
        let diagnosis = judged(&changed(H100, |value| started(value, minutes)));
        diagnosis.findings.iter().find(|one| one.id == "node-service-restarted").map(|one| one.severity)
    };
    assert_eq!((found(4), found(40)), (Some(Severity::Info), None));
}

#[test]
fn the_generation_of_the_whole_pcie_path_is_judged() {
    let slow = Some(("pcie-generation-low", Severity::Warning));
    let root: Change = |value| gpus(value, "topology")[2]["pcie_path"][3]["generation"] = json!(3);
    check(H100, "root port", root, slow);
    let all: Change = |value| {
        of_all(value, "telemetry", |gpu| {
            (gpu["pcie"]["generation"], gpu["pcie"]["max_generation"]) = (json!(4), json!(4));
        });
        of_all(value, "inventory", |gpu| gpu["pcie_max_generation"] = json!(4));
        of_all(value, "topology", |gpu| {
            (gpu["pcie_path"][0]["generation"], gpu["pcie_path"][1]["generation"]) = (json!(4), json!(4));
        });
    };
    check(H100, "a firmware setting", all, slow);
    let slot: Change = |value| {
        let hops = &mut gpus(value, "topology")[2]["pcie_path"];
        (hops[1]["max_generation"], hops[1]["generation"], hops[0]["generation"]) = (json!(3), json!(3), json!(3));
        let pcie = &mut gpus(value, "telemetry")[2]["pcie"];
        (pcie["generation"], pcie["max_generation"]) = (json!(3), json!(3));
        gpus(value, "inventory")[2]["pcie_max_generation"] = json!(3);
    };
    check(H100, "one slot of eight", slot, Some(("pcie-slot-below-peers", Severity::Warning)));
}

#[test]
fn errors_of_an_nvswitch_are_found_at_its_address() {
    let refused: Change = |value| {
        let fault = "DMAR: [DMA Read NO_PASID] Request device [07:00.0] fault addr 0x7f000000 [fault reason 0x06] PTE Read access is not set";
        kernel_line(value, fault);
    };
    check(H100, "IOMMU", refused, Some(("iommu-fault", Severity::Warning)));
    let fatal: Change = |value| {
        let error = "nvidia-nvswitch 0000:07:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)";
        kernel_line(value, error);
    };
    check(H100, "PCIe", fatal, Some(("pcie-errors-fatal", Severity::Critical)));
}

#[test]
fn counters_and_processes_that_contradict_each_other_are_found() {
    let counted: Change = |value| {
        gpus(value, "ecc")[2]["volatile"]["locations"] =
            json!([{"location": "sram", "corrected": 0, "uncorrected": 3}]);
    };
    check(H100, "errors at a location alone", counted, Some(("facts-disagree", Severity::Warning)));
    let ended: Change = |value| {
        let processes = value["sections"]["processes"]["data"]["processes"].as_array_mut().expect("processes");
        let process = processes.iter_mut().find(|process| process["uses"][0]["memory_bytes"].as_u64() > Some(1 << 30));
        process.expect("a process with memory")["state"] = json!("X");
    };
    check(H100, "a process that has ended", ended, Some(("process-ended-with-memory", Severity::Warning)));
    let pair: Change = |value| {
        name_all(value, "NVIDIA H100 NVL");
        for (at, gpu) in gpus(value, "topology").iter_mut().enumerate() {
            gpu["nvlinks"] = json!([{"links": [0, 1, 2, 3], "active": at < 2, "version": 4, "remote_type": "gpu"}]);
        }
    };
    check("l40s-4-idle", "a bridge", pair, Some(("nvlink-bridge-not-working", Severity::Info)));
}

/// Keeps the first `count` GPUs in all sections, and removes all processes and allocations.
fn keep(value: &mut Value, count: usize) {
    for section in ["inventory", "telemetry", "topology", "ecc", "mig"] {
        gpus(value, section).truncate(count);
    }
    let matrix = topology(value)["matrix"].as_array_mut().expect("a matrix");
    matrix.truncate(count);
    matrix.iter_mut().for_each(|row| row.as_array_mut().expect("a row").truncate(count));
    host(value)["pci_gpus"].as_array_mut().expect("it").truncate(count);
    let files = host(value)["device_nodes"].as_array_mut().expect("it");
    files.retain(|file| !(count..8).any(|index| *file == json!(format!("nvidia{index}"))));
    for (section, list) in [("kubelet", "allocations"), ("kubelet", "registered"), ("processes", "processes")] {
        value["sections"][section]["data"][list] = json!([]);
    }
}

#[test]
fn a_tray_has_two_or_four_gpus() {
    let missing = Some(("board-gpu-missing", Severity::Critical));
    for name in ["NVIDIA GB200", "NVIDIA GB300"] {
        for (count, expected) in [(1, missing), (2, None), (3, missing), (4, None)] {
            let diagnosis = judged(&changed(GB200, |value| {
                of_all(value, "inventory", |gpu| gpu["virtualization_mode"] = json!("none"));
                gpus(value, "inventory").iter_mut().for_each(|gpu| gpu["name"] = json!(name));
                keep(value, count);
            }));
            let found = diagnosis.findings.iter().find(|finding| finding.id == "board-gpu-missing");
            let found = found.map(|finding| (finding.id.as_str(), finding.severity));
            assert_eq!(found, expected, "{count} {name}: {}", told(&diagnosis));
        }
    }
}

/// If parts of one machine report different values of a property that the machine can have only once, there is a
/// finding, even if neither value has a majority.
#[test]
fn two_halves_of_one_machine_are_found() {
    for (section, path, severity) in [
        ("topology", ["fabric", "cluster_uuid"], Severity::Warning),
        ("topology", ["fabric", "clique_id"], Severity::Info),
        ("inventory", ["platform", "chassis_serial"], Severity::Warning),
        ("inventory", ["platform", "host_id"], Severity::Warning),
    ] {
        let diagnosis = judged(&changed(GB200, |value| {
            for (at, gpu) in gpus(value, section).iter_mut().enumerate() {
                let other = if path[1] == "clique_id" || path[1] == "host_id" {
                    json!(at / 2 + 3)
                } else {
                    json!(format!("{}", at / 2))
                };
                gpu[path[0]][path[1]] = other;
            }
        }));
        let found = diagnosis.findings.iter().find(|finding| finding.id == "gpu-differs-from-peers");
        assert_eq!(found.map(|finding| finding.severity), Some(severity), "{path:?}: {}", told(&diagnosis));
    }
}

#[test]
fn an_iommu_fault_is_found_at_every_pci_function_in_every_form() {
    for line in [
        "nvidia-nvswitch 0000:07:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0x1000 flags=0x0020]",
        "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:07:00.0 domain=0x0012 address=0x1000 flags=0x0020]",
        "nvidia-nvswitch3: AMD-Vi: Event logged [IO_PAGE_FAULT device=07:00.0 domain=0x0012 address=0x1000 flags=0x0020]",
    ] {
        let diagnosis = judged(&changed(H100, |value| kernel_line(value, line)));
        let found = diagnosis.findings.iter().find(|finding| finding.id == "iommu-fault");
        let found = found.unwrap_or_else(|| panic!("{line}: {}", told(&diagnosis)));
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.action.text.contains("all its GPUs and NVSwitches"), "{}", found.action.text);
    }
}

#[test]
fn a_reset_does_not_repair_a_gpu_whose_addresses_the_iommu_translates() {
    let blocked = |domain: &'static str| {
        judged(&changed(H100, |value| {
            let device = &mut value["sections"]["host"]["data"]["pci_gpus"][2];
            device["iommu_domain"] = json!(domain);
            let address =
                device["pci_address"].as_str().expect("an address").rsplit("0000:").next().expect("a part").to_owned();
            for _ in 0..4 {
                let fault = format!(
                    "DMAR: [DMA Read NO_PASID] Request device [{address}] fault addr 0x7f000000 [fault reason 0x06] PTE Read access is not set"
                );
                kernel_line(value, &fault);
            }
        }))
    };
    for (domain, step) in [("DMA-FQ", true), ("identity", false)] {
        let diagnosis = blocked(domain);
        assert!(diagnosis.findings.iter().any(|finding| finding.id == "iommu-fault"), "{}", told(&diagnosis));
        let steps = diagnosis.plan.iter().flat_map(|plan| &plan.steps).any(|step| step.contains("iommu=pt"));
        assert_eq!(steps, step, "{domain}: {:?}", diagnosis.plan);
    }
}

/// Sets the MIG layout of all GPUs, and offers their devices.
fn mig(value: &mut Value, profiles: &[&str]) {
    let mut names = Vec::new();
    for (index, gpu) in gpus(value, "mig").iter_mut().enumerate() {
        let devices = profiles.iter().enumerate().map(|(at, profile)| {
            let uuid = format!("MIG-0000000{index}-0000-4000-8000-00000000000{at}");
            names.push(uuid.clone());
            json!({"uuid": uuid, "gpu_instance": at, "compute_instance": 0, "profile": profile})
        });
        gpu["devices"] = devices.collect();
        (gpu["mode"], gpu["max_devices"]) = (json!({"current": true, "pending": true}), json!(7));
    }
    of_all(value, "inventory", |gpu| gpu["mig_mode"] = json!({"current": true, "pending": true}));
    value["sections"]["processes"]["data"]["processes"] = json!([]);
    let kubelet = &mut value["sections"]["kubelet"]["data"];
    kubelet["allocations"] = json!([]);
    kubelet["registered"] = json!([{"resource": "nvidia.com/mig-3g.40gb", "devices": names}]);
}

#[test]
fn the_mig_layout_is_compared_with_label_siblings_and_kubelet() {
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    let cluster = |label: &str| {
        let mut cluster = KubernetesFacts { other_gpu_resources: true, ..KubernetesFacts::default() };
        cluster.labels.mig_config = Some(label.into());
        cluster.labels.mig_config_state = Some("success".into());
        cluster
    };
    let ids = |label: &str, change: Change| {
        let report = changed(H100, |value| {
            mig(value, &["3g.40gb", "3g.40gb"]);
            change(value);
        });
        let found = diagnosis::diagnose(&report, &cluster(label)).findings;
        let found = found.into_iter().filter(|one| one.severity > Severity::Info && one.id.starts_with("mig-"));
        found.map(|one| (one.id, one.scope.gpu)).collect::<Vec<_>>()
    };
    let off: Change = |value| {
        gpus(value, "mig")[5]["devices"] = json!([]);
        gpus(value, "mig")[5]["mode"] = json!({"current": false, "pending": false});
        gpus(value, "inventory")[5]["mig_mode"] = json!({"current": false, "pending": false});
    };
    let half: Change = |value| drop(gpus(value, "mig")[5]["devices"].as_array_mut().expect("devices").pop());
    let whole: Change = |value| {
        let uuid = gpus(value, "inventory")[3]["uuid"].clone();
        let registered = &mut value["sections"]["kubelet"]["data"]["registered"];
        registered.as_array_mut().expect("resources").push(json!({"resource": "nvidia.com/gpu", "devices": [uuid]}));
    };
    let differs = |gpu| vec![("mig-layout-differs".to_owned(), Some(gpu))];
    assert_eq!(ids("all-3g.40gb", |_| ()), []);
    assert_eq!(ids("all-3g.40gb", off), differs(5));
    assert_eq!(ids("all-3g.40gb", half), differs(5));
    assert_eq!(ids("notebooks-and-training", half), [], "a layout of its own can be different for each GPU");
    assert_eq!(ids("notebooks-and-training", off), []);
    assert_eq!(ids("all-disabled", |_| ()).len(), 1, "one finding about all GPUs");
    assert_eq!(ids("all-3g.40gb", whole), [("mig-gpu-offered-whole".to_owned(), Some(3))]);
}

#[test]
fn a_node_in_mig_mode_without_devices_needs_a_layout_and_no_other_plugin() {
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    let (_, expected) = super::scenarios().remove("whole-h100-8").expect("the scenario");
    let cluster = KubernetesFacts {
        gpu_capacity: Some(0),
        gpu_allocatable: Some(0),
        other_gpu_resources: false,
        ..expected.cluster
    };
    let report = changed("whole-h100-8", |value| mig(value, &[]));
    let found = diagnosis::diagnose(&report, &cluster);
    let ids: Vec<&str> = found.findings.iter().map(|one| one.id.as_str()).collect();
    assert!(ids.contains(&"stack-without-mig-devices") && !ids.contains(&"stack-broken-at-plugin"), "{}", told(&found));
}

#[test]
fn counters_far_above_the_usual_are_shown() {
    let info = |id| Some((id, Severity::Info));
    let rolled: Change = |value| gpus(value, "telemetry")[3]["pcie"]["replay_rollovers"] = json!(3);
    check(H100, "rollovers of the replay counter", rolled, info("pcie-replays-high"));
    let draw: Change = |value| gpus(value, "telemetry")[3]["power"]["draw_milliwatts"] = json!(820_000);
    check(H100, "draw above the limit", draw, info("power-draw-above-limit"));
    let sram: Change = |value| gpus(value, "ecc")[3]["sram"] = json!({"volatile_corrected": 2_000_000});
    check(H100, "corrected SRAM errors", sram, info("ecc-correctable-storm"));
    let effective: Change =
        |value| gpus(value, "topology")[3]["nvlinks"][0]["errors"] = json!({"effective_errors": 5_000_000});
    check(GB200, "effective errors of all links", effective, info("nvlink-errors-counted"));
}
