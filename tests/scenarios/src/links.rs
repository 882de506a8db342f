//! Scenarios of faults outside the GPU chip: NVLink and NVSwitch, temperature, power, PCIe, other devices.

use std::collections::BTreeMap;

use syringe_core::facts::rates::{LinkGrowth, Sample};
use syringe_core::facts::telemetry::{GpuTelemetry, Violation};
use syringe_core::facts::topology::{Bond, C2cLinks, Fabric, NetworkCard, NicInterface, NvlinkGroup};
use syringe_core::pci::PciAddress;

use crate::benign::{links_down, nvlink_5};
use crate::prelude::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        critical("nvlink-down", "Link 5 of GPU 2 on an NVSwitch board is down.")
            .must(finding("nvlink-down").gpu(2).evidence(["17 of 18", "5"]))
            .node(|| {
                h100(4).topology(2, |gpu| {
                    gpu.nvlinks.iter_mut().for_each(|group| group.links.retain(|link| *link != 5));
                    gpu.nvlinks.push(NvlinkGroup { version: Some(4), ..links_down([5]) });
                })
            }),
        critical("c2c-link-down", "One link between GPU 1 and its CPU is down.")
            .must(finding("c2c-link-down").gpu(1).evidence(["C2C links 3 of 10"]))
            .must_not(["nvlink-down"])
            .node(|| (0..2).fold(gb200(2), |node, gpu| c2c(node, gpu, if gpu == 1 { vec![3] } else { vec![] }))),
        healthy("c2c-links-not-used", "No C2C link of the node is active, so the board does not use them.")
            .must_not(["c2c-link-down"])
            .node(|| (0..2).fold(gb200(2), |node, gpu| c2c(node, gpu, (0..10).collect()))),
        warning("c2c-errors-grow", "The links between GPU 1 and its CPU count errors now, those of GPU 0 only did so before.")
            .must(finding("c2c-link-errors").gpu(1).severity(Warning).evidence(["C2C errors: 3 more in the last 1.0 s"]))
            .must(finding("c2c-link-errors").gpu(0).severity(Info).evidence(["C2C replay: 7 since driver load"]))
            .must_not(["c2c-link-down", "nvlink-errors"])
            .node(|| {
                let counted = |node: Node, gpu: u32, new| {
                    let sample = Sample { window_ms: 1000, c2c_errors: Some(new), ..Sample::default() };
                    let errors = BTreeMap::from([("replay".to_owned(), 7)]);
                    c2c(node, gpu, Vec::new())
                        .topology(gpu, |gpu| gpu.c2c.iter_mut().for_each(|links| links.errors.clone_from(&errors)))
                        .telemetry(gpu, |gpu| gpu.sample = Some(sample))
                };
                counted(counted(gb200(2), 0, 0), 1, 3)
            }),
        warning("nvlink-traffic-disabled", "The driver has disabled traffic on a link of GPU 2.")
            .must(finding("nvlink-traffic-disabled").gpu(2).evidence(["links 5: active"]))
            .must_not(["nvlink-down"])
            .node(|| {
                h100(4).topology(2, |gpu| {
                    gpu.nvlinks.iter_mut().for_each(|group| group.links.retain(|link| *link != 5));
                    let group = gpu.nvlinks[0].clone();
                    gpu.nvlinks.push(NvlinkGroup { links: vec![5], traffic_disabled: true, ..group });
                })
            }),
        critical("fabric-manager-down", "Fabric Manager is not running, and the GPUs are not registered.")
            .must(finding("fabric-manager-not-running").evidence(["4 GPUs not registered"]))
            .must_not(["class:hardware", "fabric-not-registered"])
            .node(|| {
                let waiting = || Some(Fabric { state: "in_progress".to_owned(), ..Fabric::default() });
                (0..4)
                    .fold(h100(4).idle(), |node, gpu| node.topology(gpu, |gpu| gpu.fabric = waiting()))
                    .host(|host| host.daemons.fabric_manager = Some(false))
            }),
        fatal("sxid-and-xid74", "A fatal SXid and the Xid 74 of the GPU on that port are one fault.")
            .must(finding("nvswitch-fault").evidence(["SXid 20034", "other end: GPU 1", "Xid 74"]))
            .must_not(["nvlink-fault", "class:hardware"])
            .node(|| {
                let when = ago(minutes(55));
                let sxid = |node: Node, rest: &str| {
                    node.kernel_line(when, format!("nvidia-nvswitch2: SXid (PCI:0000:09:00.0): 20034, {rest}"))
                };
                let node = [
                    "Fatal, Link 33 LTSSM Fault Up (First)",
                    "Severity 1 Engine instance 33 Sub-engine instance 00",
                    "Data {0x50610002, 0x10100030, 0x00000000}",
                ]
                .into_iter()
                .fold(h100(2), sxid);
                let xid = "NVLink: fatal error detected on link 6(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)";
                (8..12).fold(node.xid(when, 1, 74, UNKNOWN, xid), |node, channel| {
                    node.xid(when + seconds(2), 1, 45, "pid=41211, name=python3", &format!("Ch {channel:08x}"))
                })
            }),
        warning("nvlink-errors-of-one-switch", "Links of all GPUs that lead to one NVSwitch report an error at the same time.")
            .must(finding("nvlink-warning").evidence(["links of 4 GPUs to the NVSwitch at 0000:09:00.0"]))
            .node(|| {
                let (when, node) = (ago(minutes(9)), h100(4));
                let ends = node.report.sections.topology.as_ref().and_then(|section| section.data.as_ref());
                let link_of = |gpu: &syringe_core::facts::topology::GpuTopology| {
                    let leads = |group: &&syringe_core::facts::topology::NvlinkGroup| {
                        group.remote_pci_address.as_ref().is_some_and(|pci| pci.sysfs() == "0000:09:00.0")
                    };
                    gpu.nvlinks.iter().find(leads).and_then(|group| group.links.first()).copied()
                };
                let links: Vec<u32> = ends.into_iter().flat_map(|data| &data.gpus).filter_map(link_of).collect();
                (0..4).zip(links).fold(node, |node, (gpu, link)| {
                    let line = format!("NVLink: fatal error detected on link {link}(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)");
                    node.xid(when, gpu, 74, UNKNOWN, &line)
                })
            }),
        fatal("nvlinks-of-all-gpus-failed", "One link of each GPU failed in the same second: their common end is the cause.")
            .must(finding("nvlink-fault"))
            .must(finding("nvlink-shared-end").evidence(["of 4 GPUs"]))
            .node(|| {
                let when = ago(minutes(9));
                let down = nvlink_5("NETIR_LINK_EVT Fatal XC0 i0 Link 11", "0x021425c6 0x00000000");
                (0..4).fold(gb200(4), |node, gpu| node.xid(when, gpu, 149, UNKNOWN, &down))
            }),
        critical("nvswitch-not-started", "The driver could not start one NVSwitch at the boot.")
            .must(finding("nvswitch-not-started").evidence(["0000:09:00.0"]))
            .must("nvlink-down")
            .must_not(["kernel-log-lines-not-recognized"])
            .node(|| {
                let line = "nvidia-nvswitch 0000:09:00.0: probe with driver nvidia-nvswitch failed with error -5";
                let mut node = h100(4).kernel_line(ago(hours(3)), line);
                let topology = node.report.sections.topology.iter_mut().flat_map(|section| &mut section.data);
                let groups = topology.flat_map(|data| &mut data.gpus).flat_map(|gpu| &mut gpu.nvlinks);
                let of_switch = groups.filter(|group| {
                    group.remote_pci_address.as_ref().is_some_and(|pci| pci.sysfs() == "0000:09:00.0")
                });
                of_switch.for_each(|group| group.active = Some(false));
                node
            }),
        healthy("nvswitch-started-later", "The driver could not start an NVSwitch, and its NVLinks are up now.")
            .must(finding("nvswitch-not-started").severity(Info))
            .node(|| {
                let line = "nvidia-nvswitch 0000:09:00.0: probe with driver nvidia-nvswitch failed with error -5";
                h100(4).kernel_line(ago(hours(3)), line)
            }),
        critical(
            "nvlink-fault-ends-job",
            "A job on four GPUs ended because of a fault of one link. Fabric Manager does not run.",
        )
        .must(finding("nvlink-fault").gpu(1).evidence(["Xid 74", "Xid 45 (4)"]))
        .must(finding("fabric-manager-not-running").severity(Warning))
        .must_not(["application-fault", "program-ended", "class:hardware"])
        .node(|| {
            let when = ago(minutes(55));
            let xid = "NVLink: fatal error detected on link 6(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)";
            (0..4)
                .fold(h100(4).xid(when, 1, 74, UNKNOWN, xid), |node, gpu| {
                    let process = format!("pid={}, name=python3", 41_210 + gpu);
                    node.xid(when + seconds(2), gpu, 45, &process, "Ch 00000008")
                })
                .host(|host| host.daemons.fabric_manager = Some(false))
        }),
        fatal("gb200-link-down", "A link of a GB200 went down. Errors in the next 30 s follow from it.")
            .must(finding("nvlink-fault").gpu(1).evidence(["Xid 149", "link-down reason 33", "Xid 145 (2)"]))
            .must_not(["application-fault"])
            .node(|| {
                let when = ago(minutes(18));
                let down = nvlink_5("NETIR_LINK_EVT Fatal XC0 i0 Link 11", "0x021425c6 0x00000000");
                let remap = nvlink_5("RLW_REMAP Nonfatal XC0 i0 Link 11", "0x00000004 0x00000004");
                gb200(2)
                    .xid(when, 1, 149, UNKNOWN, &down)
                    .xid(when + seconds(2), 1, 145, UNKNOWN, &remap)
                    .xid(when + seconds(9), 1, 145, UNKNOWN, &remap)
                    .xid(when + seconds(10), 1, 45, "pid=30119, name=python3", "Ch 00000008")
            }),
        critical("fabric-unhealthy", "The health of the fabric says that GPU 0 has an unhealthy route.")
            .must(finding("fabric-unhealthy").gpu(0).evidence(["route_unhealthy"]))
            .node(|| {
                h100(2).topology(0, |gpu| {
                    let fabric = gpu.fabric.as_mut().expect("a fabric");
                    fabric.health = text("unhealthy");
                    fabric.health_issues = vec!["route_unhealthy".to_owned()];
                })
            }),
        critical("fabric-no-partition", "GPU 1 is in no partition of the fabric.")
            .must(finding("fabric-unhealthy").gpu(1).evidence(["configuration: no_partition"]))
            .node(|| {
                h100(2).topology(1, |gpu| {
                    let fabric = gpu.fabric.as_mut().expect("a fabric");
                    fabric.health = text("unhealthy");
                    fabric.health_issues = vec!["incorrect_configuration".to_owned()];
                    fabric.misconfiguration = text("no_partition");
                })
            }),
        critical(
            "fabric-without-modules",
            "Fabric Manager of an HGX B200 lacks the modules with which it reaches the NVSwitches.",
        )
        .must(finding("fabric-not-registered").evidence(["kernel modules not loaded: mlx5_ib, ib_umad"]))
        .node(|| {
            let node = (0..8).fold(h100(8).idle(), |node, gpu| {
                node.inventory(gpu, |gpu| gpu.name = text("NVIDIA B200")).topology(gpu, |gpu| {
                    gpu.nvlinks.iter_mut().for_each(|group| {
                        (group.version, group.speed_megabytes_per_second) = (Some(5), Some(53_125));
                    });
                    gpu.fabric = Some(Fabric { state: "in_progress".to_owned(), ..Fabric::default() });
                })
            });
            let mut node =
                node.host(|host| host.rdma_modules_missing = ["mlx5_ib", "ib_umad"].map(str::to_owned).to_vec());
            node.report.sections.topology.iter_mut().flat_map(|section| &mut section.data).for_each(|topology| {
                topology.nvswitches.clear();
            });
            node
        }),
        warning(
            "network-cards",
            "The link of one port flaps, a bond of network interfaces lost a member, and no driver is bound to a card.",
        )
        .must(finding("rdma-port-flaps").gpu(3).evidence(["link_downed 40"]))
        .must("network-bond-degraded")
        .must(finding("network-card-without-driver").evidence(["15b3:1021 at 0000:ba:00.0"]))
        .node(|| {
            let mut node = Node::of_base("healthy-h100-8");
            node.report.sections.topology.iter_mut().flat_map(|section| &mut section.data).for_each(|topology| {
                topology.nics[3].counters = BTreeMap::from([("link_downed".to_owned(), 40)]);
                topology.nics[0].interface =
                    Some(NicInterface { name: "eth0".to_owned(), bond: text("bond0"), ..NicInterface::default() });
                let (up, down) = (vec!["eth0".to_owned()], vec!["eth1".to_owned()]);
                topology.bonds = vec![Bond { name: "bond0".to_owned(), default_route: false, up, down }];
                topology.cards_without_ports = vec![NetworkCard {
                    pci_address: PciAddress::parse("0000:ba:00.0"),
                    device_id: "15b3:1021".to_owned(),
                    kind: "infiniband".to_owned(),
                    driver: None,
                }];
            });
            node
        }),
        warning("nvlink-slow", "Link 5 of GPU 2 runs at half the speed of the other links.")
            .must(finding("nvlink-slow").gpu(2).evidence(["links 5:"]))
            .must_not(["facts-disagree", "board-below-specification"])
            .node(|| {
                h100(4).topology(2, |gpu| {
                    let mut slow = gpu.nvlinks[0].clone();
                    gpu.nvlinks.iter_mut().for_each(|group| group.links.retain(|link| *link != 5));
                    slow.links = vec![5];
                    slow.speed_megabytes_per_second = Some(13_281);
                    gpu.nvlinks.push(slow);
                })
            }),
        critical("thermal-slowdown", "GPU 1 slows down because of its temperature.")
            .must(finding("thermal-slowdown-hardware").gpu(1).evidence(["87 °C", "memory-too-hot: "]))
            .must_not(["class:hardware", "memory-too-hot", "gpu-too-hot", "gpu-hotter-than-peers"])
            .node(|| h100(4).load(1, |load| (load.degrees, load.reasons, load.mhz) = (87, Some(0x48), Some(1005)))),
        critical("power-brake", "The power supply slows down all GPUs.")
            .must(finding("power-brake").evidence(["GPUs 0-3"]))
            .must_not(["class:thermal"])
            .node(|| h100(4).loads(|_, load| (load.reasons, load.mhz, load.watts) = (Some(0x88), Some(660), 301))),
        healthy("power-limit-lowered", "The power limit of all GPUs was reduced to two thirds.")
            .must("power-limit-lowered")
            .must_not(["class:hardware"])
            .node(|| {
                (0..4).fold(h100(4), |node, gpu| {
                    node.telemetry(gpu, |gpu| {
                        gpu.power.limit_milliwatts = Some(450_000);
                        gpu.power.enforced_limit_milliwatts = Some(450_000);
                        gpu.power.draw_milliwatts = Some(441_000);
                    })
                })
            }),
        warning("clocks-locked", "The clocks of GPU 2 are locked to a low value under load.")
            .must(("clocks-low-under-load", 2))
            .must_not(["gpu-clocks-below-peers"])
            .node(|| h100(4).load(2, |load| (load.mhz, load.reasons, load.watts) = (Some(720), Some(0), 310))),
        healthy("clocks-set-lower", "An administrator set the application clocks of all GPUs to 72 % of the maximum.")
            .must("clocks-low-under-load")
            .node(|| {
                (0..4).fold(
                    h100(4).loads(|_, load| (load.mhz, load.reasons, load.watts) = (Some(1_425), Some(0x2), 480)),
                    |node, gpu| node.telemetry(gpu, |gpu| gpu.clocks.application_graphics_mhz = Some(1_425)),
                )
            }),
        critical("pcie-width", "The PCIe link of GPU 0 has 8 of 16 lanes.")
            .must(finding("pcie-width-degraded").gpu(0).evidence(["x8 of x16"]))
            .node(|| {
                l40s(2).telemetry(0, |gpu| gpu.pcie.width = Some(8)).topology(0, |gpu| gpu.pcie_path[0].width = Some(8))
            }),
        warning("pcie-generation", "The PCIe link of GPU 1 stays at generation 1 under load.")
            .must(("pcie-generation-low", 1))
            .node(|| {
                let slow = l40s(2).telemetry(1, |gpu| gpu.pcie.generation = Some(1));
                slow.topology(1, |gpu| gpu.pcie_path[0].generation = Some(1))
            }),
        healthy("pcie-generation-of-a-virtual-machine", "A virtual machine does not show the slot: its host decides the generation.")
            .must(finding("pcie-generation-low").severity(Info))
            .must_not(ANY_WARNING)
            .node(|| {
                t4().telemetry(0, |gpu| {
                    (gpu.pcie.generation, gpu.pcie.max_generation) = (Some(2), Some(3));
                    gpu.utilization.gpu_percent = Some(60);
                })
                .topology(0, |gpu| {
                    gpu.pcie_path.truncate(1);
                    gpu.pcie_path[0].generation = Some(2);
                })
            }),
        healthy("pcie-generation-of-two-moments", "NVML read the link of GPU 1 before the load raised its generation.")
            .must_not(ANY_WARNING)
            .node(|| l40s(2).telemetry(1, |gpu| gpu.pcie.generation = Some(1))),
        critical(
            "tray-not-registered",
            "The GPUs of a compute tray of a rack are not registered for weeks: the tray has no Fabric Manager.",
        )
        .must(finding("fabric-not-registered").evidence(["in_progress"]))
        .must_not(["class:hardware", "fabric-manager-not-running"])
        .node(|| {
            let waiting = || Some(Fabric { state: "in_progress".to_owned(), ..Fabric::default() });
            (0..4).fold(gb200(4).idle(), |node, gpu| node.topology(gpu, |gpu| gpu.fabric = waiting()))
        }),
        warning("clique-differs", "GPU 2 of a tray is in another clique than the other GPUs.")
            .must(finding("gpu-in-another-fabric-partition").gpu(2).evidence(["clique_id"]))
            .must_not(["gpu-differs-from-peers", "class:hardware"])
            .node(|| {
                gb200(4).topology(2, |gpu| gpu.fabric.iter_mut().for_each(|fabric| fabric.clique_id = Some(32_767)))
            }),
        healthy(
            "fabric-of-the-host",
            "A virtual machine shows no NVSwitch, and all its GPUs are registered with all links.",
        )
        .must_not(["fabric-manager-not-running", "facts-disagree", "nvswitch-missing"])
        .node(|| {
            let mut node = h100(8).host(|host| host.daemons.fabric_manager = Some(false));
            let topology = &mut node.report.sections.topology;
            topology.iter_mut().flat_map(|section| &mut section.data).for_each(|data| data.nvswitches.clear());
            node
        }),
        unknown("pci-not-listed", "The devices on the PCI bus could not be listed: this does not show that a GPU is missing.")
            .unknown("/sys/bus/pci/devices")
            .node(|| {
                let mut node = l40s(4).host(|host| host.pci_gpus.clear());
                node.report.sections.host.iter_mut().for_each(|section| {
                    let what = "/sys/bus/pci/devices".to_owned();
                    section.add_problems([Problem { what, ..crate::unread::problem("Input/output error", "io", "") }]);
                });
                node
            }),
        critical("switch-missing-and-no-fabric-manager", "An NVSwitch is gone, and Fabric Manager has ended: the switch is the cause.")
            .must("nvswitch-missing")
            .must(finding("fabric-manager-not-running").severity(Warning).evidence(["an NVSwitch is missing"]))
            .must("nvlink-down")
            .node(|| {
                let mut node = h100(8).idle().host(|host| host.daemons.fabric_manager = Some(false));
                let topology = &mut node.report.sections.topology;
                topology.iter_mut().flat_map(|section| &mut section.data).for_each(|data| {
                    let gone = data.nvswitches.pop();
                    let fabrics = data.gpus.iter_mut().filter_map(|gpu| gpu.fabric.as_mut());
                    fabrics.for_each(|fabric| fabric.state = "in_progress".to_owned());
                    let groups = data.gpus.iter_mut().flat_map(|gpu| &mut gpu.nvlinks);
                    groups.filter(|group| group.remote_pci_address == gone).for_each(|group| group.active = Some(false));
                });
                node
            }),
        critical("no-switch-and-links-down", "The board shows no NVSwitch, and a link of GPU 2 is down.")
            .must("fabric-manager-not-running")
            .must("nvlink-down")
            .must("nvswitch-missing")
            .node(|| {
                let down = |gpu: &mut syringe_core::facts::topology::GpuTopology| {
                    gpu.nvlinks.iter_mut().for_each(|group| group.links.retain(|link| *link != 5));
                    gpu.nvlinks.push(NvlinkGroup { version: Some(4), ..links_down([5]) });
                };
                let mut node = h100(8).topology(2, down).host(|host| host.daemons.fabric_manager = Some(false));
                let topology = &mut node.report.sections.topology;
                topology.iter_mut().flat_map(|section| &mut section.data).for_each(|data| data.nvswitches.clear());
                node
            }),
        warning("memory-clock-low", "The memory clock of GPU 1 stays low under the same load as that of the others.")
            .must(finding("gpu-clocks-below-peers").gpu(1).evidence(["memory clock 405 MHz"]))
            .node(|| {
                let node = l40s(4).loads(|_, load| load.gpu = 96);
                (0..4).fold(node, |node, gpu| {
                    let (clock, state) = if gpu == 1 { (405, 8) } else { (9_001, 0) };
                    node.telemetry(gpu, |gpu| {
                        (gpu.clocks.memory_mhz, gpu.performance_state) = (Some(clock), Some(state));
                    })
                })
            }),
        fatal(
            "lost-with-network-card",
            "GPU 2 and a network card failed at the same second: a switch above both is suspect.",
        )
        .must(finding("devices-lost-together").evidence(["Xid 79", "fatal_error", "uncorrected_fatal"]))
        .must(("gpu-off-bus", 2))
        .must("nic-problem")
        .must_not(["network-card-without-driver"])
        .node(|| {
            let when = ago(minutes(29));
            let mut node = h100(4)
                .lost(2)
                .kernel_line(when, "pcieport 0000:04:00.0: AER: Uncorrected (Fatal) error received: 0000:04:00.0")
                .xid(when, 2, 79, UNKNOWN, "GPU has fallen off the bus.")
                .kernel_line(
                    when + seconds(3),
                    "mlx5_core 0000:06:00.0: poll_health:795:(pid 0): Fatal error 3 detected",
                );
            node.report.sections.topology.iter_mut().flat_map(|section| &mut section.data).for_each(|topology| {
                topology.cards_without_ports = vec![NetworkCard {
                    pci_address: PciAddress::parse("0000:06:00.0"),
                    device_id: "15b3:101b".to_owned(),
                    kind: "infiniband".to_owned(),
                    driver: None,
                }];
            });
            node
        }),
        fatal("lost-after-blocked-transfers", "The IOMMU blocked transfers of GPU 2, and its controller halted, before it was lost.")
            .must(finding("gpu-off-bus").gpu(2).evidence(["shortly before: kernel", "IOMMU fault DMA Write", "Xid 62 (1 time) on"]))
            .must("xid-driver")
            .node(|| {
                let when = ago(minutes(29));
                let pci = h100(4).report.sections.topology.and_then(|section| section.data).and_then(|data| data.gpus[2].pci_address.clone());
                let address = pci.expect("an address").sysfs().to_string();
                let line = format!(
                    "DMAR: [DMA Write NO_PASID] Request device [{}] fault addr 0x23f00000000 [fault reason 0x05] PTE Write access is not set",
                    &address[5..]
                );
                h100(4)
                    .lost(2)
                    .kernel_line(when - seconds(20), &line)
                    .xid(when - seconds(1), 2, 62, UNKNOWN, "0000(0000) 00000000 00000000")
                    .xid(when, 2, 79, UNKNOWN, "GPU has fallen off the bus.")
            }),
        critical("network-card-not-started", "The firmware of a network card does not start.")
            .must(finding("nic-problem").evidence(["The firmware of the card did not start"]))
            .must_not(["network-card-without-driver", "severity:fatal"])
            .node(|| {
                let when = ago(days(3)) + seconds(30);
                let mut node = h100(4)
                    .kernel_line(
                        when,
                        "mlx5_core 0000:06:00.0: mlx5_function_setup:1237:(pid 912): Firmware over 120000 MS in pre-initializing state, aborting",
                    )
                    .kernel_line(
                        when + seconds(1),
                        "mlx5_core 0000:06:00.0: probe_one:1951:(pid 912): mlx5_init_one failed with error code -16",
                    );
                node.report.sections.topology.iter_mut().flat_map(|section| &mut section.data).for_each(|topology| {
                    topology.cards_without_ports = vec![NetworkCard {
                        pci_address: PciAddress::parse("0000:06:00.0"),
                        device_id: "15b3:101b".to_owned(),
                        kind: "infiniband".to_owned(),
                        driver: None,
                    }];
                });
                node
            }),
        fatal("lost-long-after-network-card", "GPU 2 fell off the bus hours after a network card failed.")
            .must(("gpu-off-bus", 2))
            .must("nic-problem")
            .must_not(["devices-lost-together"])
            .node(|| {
                let line = "mlx5_core 0000:06:00.0: poll_health:795:(pid 0): Fatal error 3 detected";
                h100(4).lost(2).kernel_line(ago(hours(5)), line).xid(
                    ago(minutes(29)),
                    2,
                    79,
                    UNKNOWN,
                    "GPU has fallen off the bus.",
                )
            }),
        critical("pcie-aer", "The PCIe port above GPU 1 has fatal errors.").must(("pcie-errors-fatal", 1)).node(|| {
            let error = "PCIe Bus Error: severity=Uncorrectable (Fatal), type=Data Link Layer, (Receiver ID)";
            let line = format!("pcieport 0000:28:00.0: {error}");
            let counted = BTreeMap::from([("correctable".to_owned(), 212), ("fatal".to_owned(), 2)]);
            h100(2)
                .topology(1, |gpu| gpu.pcie_path[1].aer = counted)
                .kernel_line(ago(minutes(71)), line.clone())
                .kernel_line(ago(minutes(71)), line)
        }),
        warning("hot-sibling", "GPU 3 is much hotter than the other GPUs at the same power.")
            .must(("gpu-hotter-than-peers", 3))
            .node(|| h100(4).load(3, |load| load.degrees = 79)),
        warning("nvlink-errors", "One link recovered from errors. The other links have only usual error counts.")
            .must(finding("nvlink-errors").gpu(1).evidence(["recovery: 3"]))
            .must(("nvlink-errors-counted", 0))
            .node(|| {
                let counted = BTreeMap::from([("crc_flit".to_owned(), 41), ("recovery".to_owned(), 3)]);
                h100(2)
                    .topology(0, |gpu| gpu.nvlinks[0].errors = BTreeMap::from([("replay".to_owned(), 7)]))
                    .topology(1, |gpu| gpu.nvlinks[1].errors = counted)
            }),
        warning("machine-trouble", "Machine checks, and a network card without enough power.")
            .must("machine-check")
            .must("nic-power-missing")
            .node(|| {
                let check = "mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 7: be00000000800400";
                let power = "mlx5_core 0000:17:00.0: Detected insufficient power on the PCIe slot (27W).";
                l40s(2).kernel_line(ago(hours(3)), check).kernel_line(ago(hours(2)), power)
            }),
        warning("memory-module-failing", "A module of the host's memory corrects hundreds of errors in each report of the kernel.")
            .must(finding("machine-check").evidence(["CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (4872 times)"]))
            .must_not(["host-memory-error"])
            .node(|| {
                let line = "EDAC MC1: 812 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1d5c3a offset:0x640 grain:32 syndrome:0x0)";
                (0..6).fold(l40s(2), |node, at| node.kernel_line(ago(hours(2)) + minutes(5 * at), line))
            }),
        healthy("memory-module-corrects-once", "A module of the host's memory corrected one error.")
            .must(finding("machine-check").severity(Info))
            .node(|| {
                let line = "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1d5c3a offset:0x640 grain:32 syndrome:0x0)";
                l40s(2).kernel_line(ago(days(7)), line)
            }),
        critical("memory-module-uncorrected", "An uncorrectable error of a memory module ended a process: one finding with all lines.")
            .must(finding("host-memory-error").evidence(["CPU_SrcID#1_MC#3_Chan#0_DIMM#0", "Sending SIGBUS"]))
            .must_not(["machine-check"])
            .node(|| {
                let when = ago(hours(4));
                let line = "EDAC MC3: 1 UE memory read error on CPU_SrcID#1_MC#3_Chan#0_DIMM#0 (channel:0 slot:0 page:0x71d5c3a offset:0x0 grain:32 - err_code:0x0000:0x009f)";
                let kill = "Memory failure: 0x71d5c3a: Sending SIGBUS to python3:52735 due to hardware memory corruption";
                l40s(2)
                    .kernel_line(when, "mce: [Hardware Error]: Machine check events logged")
                    .kernel_line(when, line)
                    .kernel_line(when, kill)
            }),
        warning("memory-module-uncorrected-yesterday", "A memory module had an uncorrectable error in this boot, more than a day ago.")
            .must(finding("host-memory-error").severity(Warning).evidence(["CPU_SrcID#1_MC#3_Chan#0_DIMM#0"]))
            .node(|| {
                let line = "EDAC MC3: 1 UE memory read error on CPU_SrcID#1_MC#3_Chan#0_DIMM#0 (channel:0 slot:0 page:0x71d5c3a offset:0x0 grain:32 - err_code:0x0000:0x009f)";
                l40s(2).kernel_line(ago(hours(28)), line)
            }),
        healthy("disk-replaced", "The kernel lost a disk, and started its replacement a day later.")
            .must(finding("storage-error").severity(Info))
            .node(|| {
                l40s(2)
                    .kernel_line(ago(days(5)), "nvme nvme5: Removing after probe failure status: -19")
                    .kernel_line(ago(days(4)), "nvme nvme5: 16/0/0 default/read/poll queues")
            }),
        critical("disk-lost-after-it-started", "The kernel started a disk, and lost it later.")
            .must(finding("storage-error").severity(Critical))
            .node(|| {
                l40s(2)
                    .kernel_line(ago(days(5)), "nvme nvme5: 16/0/0 default/read/poll queues")
                    .kernel_line(ago(days(4)), "nvme nvme5: Removing after probe failure status: -19")
            }),
        warning("firmware-reports-link-of-gpu", "The firmware reports a fatal PCIe error of the port above GPU 1.")
            .must(finding("machine-check").gpu(1))
            .node(|| {
                let node = l40s(2);
                let pcie = node.report.sections.topology.as_ref().and_then(|section| section.data.as_ref());
                let hops = pcie.and_then(|data| data.gpus.get(1)).map(|gpu| gpu.pcie_path.clone()).unwrap_or_default();
                let port = hops.get(1).and_then(|hop| hop.pci_address.clone()).expect("a port");
                let when = ago(hours(1));
                node.kernel_line(when, "{1}[Hardware Error]: event severity: fatal")
                    .kernel_line(when, format!("{{1}}[Hardware Error]:   device_id: {}", port.sysfs()))
                    .kernel_line(when, "{1}[Hardware Error]:   vendor_id: 0x10de, device_id: 0x2330")
            }),
        warning("pcie-replays", "Hundreds of replays per minute on the PCIe link of GPU 0.")
            .must(("pcie-replays-high", 0))
            .node(|| l40s(2).uptime(86_400).telemetry(0, |gpu| gpu.pcie.replays = Some(912_331))),
        warning(
            "poor-links",
            "The error correction of one NVLink is not sufficient, and another GPU counts damaged PCIe packets.",
        )
        .must(finding("nvlink-bit-error-rate").gpu(1).evidence(["links 4: bit error rate effective 2e-8, raw 4e-4"]))
        .must(finding("pcie-packets-damaged").gpu(2).evidence(["naks_received: 90000"]))
        .node(|| {
            gb200(4)
                .topology(1, |gpu| {
                    let links = &mut gpu.nvlinks[0];
                    links.links.retain(|link| *link != 4);
                    let rates = [("effective".to_owned(), 2e-8), ("raw".to_owned(), 4e-4)];
                    let poor = NvlinkGroup { links: vec![4], bit_error_rates: rates.into(), ..links.clone() };
                    gpu.nvlinks.push(poor);
                })
                .uptime(86_400)
                .telemetry(2, |gpu| {
                    let errors = [("naks_received", 90_000), ("recoveries", 4_000_000), ("unsupported_request", 4)];
                    gpu.pcie.errors = errors.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
                })
        }),
        warning("counters-grow", "Errors of a PCIe link and of an NVLink, few since the driver was loaded, grow now.")
            .must(finding("pcie-replays-high").gpu(1).evidence(["12 replays in the last 1.0 s"]))
            .must(finding("nvlink-errors").gpu(1).evidence(["crc_flit: 340 more on links 7"]))
            .node(|| {
                let grown = |replays, crc| Sample {
                    window_ms: 1000,
                    pcie_replays: Some(replays),
                    corrected_memory_errors: Some(0),
                    nvlink_errors: vec![LinkGrowth { links: vec![7], counter: "crc_flit".to_owned(), added: crc }],
                    throttled: vec![Violation { policy: "power".to_owned(), duration_ms: 310 }],
                    ..Sample::default()
                };
                let counts = |gpu: &mut GpuTelemetry, sample| (gpu.pcie.replays, gpu.sample) = (Some(30), Some(sample));
                h100(4).telemetry(1, |gpu| counts(gpu, grown(12, 340))).telemetry(2, |gpu| counts(gpu, grown(1, 2)))
            }),
    ]
}

/// Adds ten C2C links to a GPU.
fn c2c(node: Node, gpu: u32, down: Vec<u32>) -> Node {
    let megabytes_per_second = (down.len() < 10).then_some(44_712);
    let links = C2cLinks { count: 10, down, megabytes_per_second, ..C2cLinks::default() };
    node.topology(gpu, |gpu| gpu.c2c = Some(links))
}
