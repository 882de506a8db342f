//! Tests of `line_parser`: the events and details of different wordings, forged lines, broken lines, harmless lines.
//!
//! `tests/kernel_lines.jsonl` contains more lines.

use proptest::prelude::*;

use super::{Parsed, family, looks_like_gpu_error, parse};
use crate::facts::kernel_log::KernelEventKind as Kind;
use crate::kernel_log::line::Line;

fn event(text: &str) -> Line {
    match parse(text) {
        Some(Parsed::Event(line)) => line,
        other => panic!("no event: {text}: {other:?}"),
    }
}

fn details<'a>(line: &'a Line, names: &[&str]) -> Vec<Option<&'a str>> {
    names.iter().map(|name| line.detail(name)).collect()
}

fn xid(rest: &str) -> Line {
    event(&format!("NVRM: Xid (PCI:0000:3b:00): {rest}"))
}

#[test]
fn an_incomplete_frame_is_no_xid() {
    for text in [
        "NVRM: Xid",
        "NVRM: Xid (",
        "NVRM: Xid (PCI:0000:65:00): ",
        "NVRM: Xid (PCI:0000:65:00): -1, x",
        "NVRM: Xid (PCI:0000:65:00): 99999999999, x",
        "NVRM: Xid (PCI:0000:65:00): 79x",
        "NVRM: Xid (PCI:0000:65:00): 7",
        "nvidia-nvswitch0: SXid (PCI:0000:3b:00.0): 2003",
        "NVRM: Xid (PCI:nowhere): 79, x",
        "NVRM: Xid (PCI:0000:3b:00 GPU-I:x): 79, x",
        "see NVRM: Xid (PCI:0000:3b:00): 79, x",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
    assert_eq!(xid("79,").code, Some(79), "the comma ends the number");
}

#[test]
fn a_program_cannot_pose_as_a_driver_by_its_name_or_its_libraries() {
    // A process name can have 15 bytes: `NVRM: Xid (PCI:`. The program also chooses the name of the mapped file.
    for text in [
        "NVRM: Xid (PCI:[4711]: segfault at 0 ip 0 sp 0 error 4 in 0000:3b:00): 79, x.so[7f00+1000]",
        "NVRM: Xid (x[4711]: segfault at 0 ip 0 sp 0 error 4 in PCI:0000:3b:00): 79, x.so[7f00+1000]",
        "NVRM: GPU 0000:[4711]: segfault at 0 ip 0 in 3b:00.0: GPU has fallen off the bus.[7f00+1000]",
        "nvidia-nvswitc[4711]: segfault at 0 ip 0 in 0: SXid (PCI:0000:3b:00.0): 20034, Fatal[7f00+1000]",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn mig_ids_names_with_commas_and_long_domains_are_read() {
    let line = event("NVRM: Xid (PCI:00010000:3b:00 GPU-I:07 GPU-CI:02): 43, pid=12, name=a, b: [c], Ch 00000008");
    assert_eq!((line.gpu_instance, line.compute_instance), (Some(7), Some(2)));
    assert_eq!(line.pci.map(String::from).as_deref(), Some("00010000:3b:00.0"));
    assert_eq!((line.pid, line.process.as_deref()), (Some(12), Some("a")), "a name ends at the first comma and blank");
    let comma = xid("43, pid=12, name=a,b:[c], Ch 00000008");
    assert_eq!(comma.process.as_deref(), Some("a,b:[c]"));
    assert_eq!(xid("79, pid=0, GPU has fallen off the bus.").pid, None);
}

#[test]
fn a_graphics_exception_has_a_place_and_a_class() {
    let line = xid("13, pid=5, name=a, Graphics Exception: ChID 000c, Class 0000cbc0, Offset 00000000, Data 00000000");
    assert_eq!(details(&line, &["channel", "class", "offset"]), [Some("0xc"), Some("0xcbc0"), Some("0x0")]);
    let line = xid("13, Graphics Exception: ESR 0x57c730=0xc04000b 0x57c734=0x24");
    assert_eq!(line.detail("esr"), Some("0x57c730=0xc04000b 0x57c734=0x24"));
}

#[test]
fn an_mmu_fault_with_a_gpc_between_engine_and_client_names_both() {
    let line =
        xid("31, pid=7, name=a, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC2 GPCCLIENT_T1_0 faulted @ \
         0x7fc6_55000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_WRITE");
    assert_eq!(
        details(&line, &["engine", "client", "fault_addr", "fault_type", "access", "intr"]),
        [
            Some("GRAPHICS"),
            Some("GPCCLIENT_T1_0"),
            Some("0x7fc655000000"),
            Some("FAULT_PDE"),
            Some("ACCESS_TYPE_VIRT_WRITE"),
            Some("0x0")
        ]
    );
    assert_eq!(line.sub_code.as_deref(), Some("GRAPHICS"));
}

#[test]
fn a_memory_error_names_dram_or_sram() {
    for (rest, memory) in [
        (
            "48, An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at physAddr 0x1",
            "dram",
        ),
        ("48, An uncorrectable ECC error detected in SRAM", "sram"),
        ("171, x", "dram"),
        ("172, x", "sram"),
        ("92, High single-bit ECC error rate detected on GPU in the framebuffer at partition 3", "dram"),
        ("92, SM SBE interrupt storm", "sram"),
    ] {
        assert_eq!(xid(rest).sub_code.as_deref(), Some(memory), "{rest}");
    }
}

#[test]
fn a_failed_remap_has_a_reason_and_a_pending_row_is_no_exhaustion() {
    for (rest, state) in [
        ("63, Row Remapper: New row (0x18f31d80) marked for remapping, reset gpu to activate.", "marked"),
        ("63, Dynamic Page Retirement: New page retired, reload the driver to activate.", "page_retirement"),
        ("64, Row Remapper: Error recording row 0x1, remap table full", "table_full"),
        ("64, Row Remapper: all reserved rows of this bank are remapped", "bank_spares_used"),
        ("64, Row Remapper: row is a reserved row", "reserved_row"),
        ("64, Row Remapper: internal error", "internal_error"),
        ("64, Row Remapper: row already pending remapping", "already_pending"),
    ] {
        assert_eq!(xid(rest).sub_code.as_deref(), Some(state), "{rest}");
    }
    assert_eq!(xid("63, cut").sub_code, None);
}

#[test]
fn nvlink_4_registers_are_classed() {
    let line = xid("74, NVLink: fatal error detected on link 3(0x10010, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)");
    assert_eq!(line.sub_code.as_deref(), Some("link 3"));
    assert_eq!(
        details(&line, &["regs", "register_class", "register_bits"]),
        [Some("0x10010 0x0 0x0 0x0 0x0 0x0 0x0"), Some("hardware"), Some("r1.4 r1.16")]
    );
    let training = xid("74, NVLink: failed to train link 2 to remote PCI:0000:4c:00.0");
    assert_eq!(training.sub_code.as_deref(), Some("link 2 training"));
    assert_eq!(training.detail("remote"), Some("PCI:0000:4c:00.0"));
}

#[test]
fn a_containment_line_names_the_required_reset() {
    let line = xid("95, pid=5, Uncontained: LTC TAG (0x2,0x4). physAddr: 0x12 RST: Yes, D-RST: No");
    assert_eq!(line.sub_code.as_deref(), Some("uncontained"));
    assert_eq!(
        details(&line, &["unit", "phys_addr", "rst", "drst"]),
        [Some("LTC TAG"), Some("0x12"), Some("true"), Some("false")]
    );
    let only_drain = xid("94, Contained: SM (0x1). D-RST: Yes");
    assert_eq!(details(&only_drain, &["rst", "drst"]), [None, Some("true")]);
}

#[test]
fn counters_of_escaped_errors_may_be_negative() {
    let line = xid("140, An uncorrectable ECC error detected DRAM:-2, LTC:1, MMU:0, PCIE:0");
    assert_eq!(details(&line, &["dram", "ltc"]), [Some("-2"), Some("1")]);
}

#[test]
fn nvlink_5_events_of_one_link_differ_by_fatality() {
    let fatal = xid("149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000)");
    assert_eq!(fatal.sub_code.as_deref(), Some("NETIR_LINK_EVT link 1 fatal"));
    assert_eq!(details(&fatal, &["action", "fatal"]), [Some("RESET_GPU"), Some("true")]);
    let harmless = xid("149, NETIR_BER_EVENT Nonfatal XC0 i0 Link 01 (0x00086226 0x00000001)");
    assert_eq!(harmless.sub_code.as_deref(), Some("NETIR_BER_EVENT link 1"));
    let everywhere = xid("149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000)");
    assert_eq!(everywhere.sub_code.as_deref(), Some("NETIR fatal"));
    let old = xid("145, RLW_REMAP Nonfatal XC 1 i 2 Link 01 [0x00000082, 0x00000001]");
    assert_eq!(
        details(&old, &["xc", "injected", "link", "action"]),
        [Some("1"), Some("2"), Some("1"), Some("XID_154_EVAL")]
    );
}

#[test]
fn every_recovery_action_has_its_name() {
    for (action, name) in
        [(0, "none"), (1, "gpu_reset"), (2, "node_reboot"), (3, "drain_p2p"), (4, "drain_and_reset"), (9, "unknown")]
    {
        let line = xid(&format!("154, GPU recovery action changed from 0x0 (None) to {action:#x} (Label)"));
        let sub_code = if action == 0 { "none after none" } else { name };
        assert_eq!(line.sub_code.as_deref(), Some(sub_code));
        let found = details(&line, &["recovery_action", "recovery_from", "recovery_label"]);
        assert_eq!(found, [Some(name), Some("0"), Some("Label")]);
    }
    // If different recommendations are withdrawn, the events must be different.
    for (from, sub_code) in [(3, "none after drain_p2p"), (4, "none after drain_and_reset")] {
        let line = xid(&format!("154, GPU recovery action changed from {from:#x} (Label) to 0x0 (None)"));
        assert_eq!(line.sub_code.as_deref(), Some(sub_code));
    }
}

#[test]
fn lines_of_the_driver_that_are_no_xid_have_their_kinds() {
    for (text, kind, sub_code) in [
        ("NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", Kind::OffBus, None),
        ("NVRM: GPU at PCI:0000:18:00: x", Kind::Xid, None),
        ("NVRM: The NVIDIA probe routine was not called for 2 device(s).", Kind::ProbeFailed, Some("not_called")),
        ("NVRM: rm_init_adapter failed, device minor number 3", Kind::RmInitFailed, None),
        ("NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0", Kind::RmInitFailed, None),
        ("NVRM: RmInitAdapter: Cannot initialize GSP firmware RM", Kind::GspFailed, Some("gsp_firmware")),
        ("NVRM: RmFetchGspRmImages: No firmware image found", Kind::GspFailed, Some("no_firmware_image")),
        ("NVRM: GPU0 _kgspBootGspRm: unexpected WPR2 already up", Kind::GspFailed, Some("_kgspBootGspRm")),
        (
            "NVRM: _kgspBootGspRm: (the GPU is likely in a bad state and may need to be reset)",
            Kind::GspFailed,
            Some("_kgspBootGspRm"),
        ),
        (
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release",
            Kind::DriverLoaded,
            Some("575.57.08"),
        ),
        (
            "NVRM: GPU0 nvAssertFailedNoLog: Assertion failed: 0 == x @ kernel_gsp.c:99",
            Kind::Assertion,
            Some("kernel_gsp.c:99"),
        ),
        (
            "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer0's postRxDetLinkMask failed!",
            Kind::NvlinkInitFailed,
            Some("knvlinkDiscoverPostRxDetLinks_GH100"),
        ),
        (
            "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
            Kind::PeermemError,
            Some("nv_get_p2p_free_callback"),
        ),
    ] {
        if kind == Kind::Xid {
            assert_eq!(parse(text), None, "{text}");
            continue;
        }
        let line = event(text);
        assert_eq!((line.kind, line.sub_code.as_deref()), (kind, sub_code), "{text}");
    }
    let open = event("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release");
    assert_eq!(details(&open, &["flavour", "kernel_version"]), [Some("open"), Some("575.57.08")]);
}

#[test]
fn harmless_driver_lines_are_no_events() {
    for text in [
        "NVRM: GPU0 RPC history (CPU -> GSP):",
        "NVRM: _kgspLogXid119: ********************************* GSP Timeout **********************************",
        "NVRM: nvCheckOkFailedNoLog: Check failed: GPU lost from the bus [NV_ERR_GPU_IS_LOST]",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 235",
        "nvidia 0000:3b:00.0: enabling device (0140 -> 0142)",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn pcie_lines_of_old_and_new_kernels_mean_the_same() {
    for (text, sub_code, pci) in [
        ("pcieport 0000:00:03.0: AER: Corrected error received: 0000:01:00.0", "corrected", "0000:01:00.0"),
        (
            "pcieport 0000:00:03.0: AER: Correctable error message received from 0000:01:00.0",
            "corrected",
            "0000:01:00.0",
        ),
        (
            "pcieport 0000:00:03.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0000:01:00.0",
            "uncorrected_nonfatal",
            "0000:01:00.0",
        ),
        (
            "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)",
            "corrected",
            "0000:3b:00.0",
        ),
        ("mlx5_core 0000:5d:00.0: AER: can't recover (no error_detected callback)", "cannot_recover", "0000:5d:00.0"),
        (
            "nvidia-nvswitch 0000:07:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)",
            "uncorrected_fatal",
            "0000:07:00.0",
        ),
        ("pcieport 0000:00:03.0: AER: device recovery failed", "recovery_failed", "0000:00:03.0"),
    ] {
        let line = event(text);
        assert_eq!((line.kind, line.sub_code.as_deref()), (Kind::Aer, Some(sub_code)), "{text}");
        assert_eq!(line.pci.as_ref().map(|pci| pci.sysfs()), Some(pci), "{text}");
    }
    for (text, sub_code) in [
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Link Down", "link_down"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Card not present", "card_not_present"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Power fault", "power_fault"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Power fault detected", "power_fault"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Attention button pressed", "attention_button"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Button press: will power off in 5 sec", "attention_button"),
        ("pcieport 0000:00:03.0: pciehp: Slot(12): Powering off due to button press", "attention_button"),
        (
            "pci 0000:3b:00.0: 63.012 Gb/s available PCIe bandwidth, limited by 8.0 GT/s PCIe x8 link at 0000:3a:00.0 \
             (capable of 252.048 Gb/s with 16.0 GT/s PCIe x16 link)",
            "bandwidth_limited",
        ),
    ] {
        let line = event(text);
        assert_eq!((line.kind, line.sub_code.as_deref()), (Kind::PcieLink, Some(sub_code)), "{text}");
    }
}

#[test]
fn a_line_of_edac_has_the_number_of_errors_and_the_module() {
    let line =
        event("EDAC MC1: 812 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 page:0x1d5c3a)");
    assert_eq!(
        (line.times, line.sub_code.as_deref()),
        (Some(812), Some("memory_corrected CPU_SrcID#0_MC#1_Chan#0_DIMM#0"))
    );
    let line = event("EDAC MC3: 1 UE memory read error on CPU_SrcID#1_MC#3_Chan#0_DIMM#0 (channel:0 slot:0)");
    assert_eq!(line.sub_code.as_deref(), Some("memory_uncorrected CPU_SrcID#1_MC#3_Chan#0_DIMM#0"));
    assert_eq!(parse("{1}[Hardware Error]:   vendor_id: 0x10de, device_id: 0x2330"), None, "no PCI address");
}

#[test]
fn the_hosts_own_troubles_are_read() {
    let oom = event("Memory cgroup out of memory: Killed process 42 (py (x)) total-vm:1kB, anon-rss:7kB, file-rss:0kB");
    assert_eq!((oom.kind, oom.pid, oom.process.as_deref()), (Kind::OomKill, Some(42), Some("py (x)")));
    assert_eq!(details(&oom, &["scope", "anon_rss_kib"]), [Some("cgroup"), Some("7")]);
    let hung = event("INFO: task a:b:4711 blocked for more than 120 seconds.");
    assert_eq!((hung.kind, hung.pid, hung.process.as_deref()), (Kind::HungTask, Some(4711), Some("a:b")));
    let crash = event("python3[99]: segfault at 8 ip 0 sp 0 error 4 in libnccl.so.2.18[7f00+1000]");
    assert_eq!((crash.kind, crash.pid, crash.sub_code.as_deref()), (Kind::Segfault, Some(99), Some("libnccl")));
    let trap = event("traps: python3[99] general protection fault ip:7f sp:7f error:0 in libcuda.so.1[7f00+1000]");
    assert_eq!((trap.process.as_deref(), trap.sub_code.as_deref()), (Some("python3"), Some("libcuda")));
    assert_eq!(parse("python3[99]: segfault at 8 ip 0 sp 0 error 4 in libc.so.6[7f00+1000]"), None);
    let nic =
        event("mlx5_core 0000:5d:00.0: port_module:252:(pid 0): Detected insufficient power on the PCIe slot (27W).");
    assert_eq!((nic.kind, nic.detail("watts")), (Kind::Nic, Some("27")));
    for text in ["mce: [Hardware Error]: Machine check events logged", "{1}[Hardware Error]: event severity: fatal"] {
        assert_eq!(event(text).kind, Kind::Mce, "{text}");
    }
    for (text, state) in [
        ("mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 7: 8c00000000010090", "corrected"),
        ("mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 7: ac00000000010090", "exception"),
        ("mce: [Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 7: be00000000010090", "exception"),
    ] {
        assert_eq!(event(text).sub_code.as_deref(), Some(state), "{text}");
    }
}

#[test]
fn almost_nothing_of_a_busy_log_is_worth_parsing() {
    for text in [
        "",
        "N",
        "eth0: renamed from tmp1",
        "audit: type=1400 apparmor=\"DENIED\"",
        "IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready",
    ] {
        assert_eq!(family(text), None, "{text}");
    }
}

#[test]
fn a_quoted_driver_line_looks_like_a_gpu_error() {
    assert!(looks_like_gpu_error("saw: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."));
    assert!(!looks_like_gpu_error("saw: NVRM: nothing"));
    assert!(!looks_like_gpu_error("kubelet started"));
}

proptest! {
    #[test]
    fn any_text_parses_without_a_panic(text in "\\PC*") {
        parse(&text);
    }

    #[test]
    fn any_tail_of_a_known_frame_parses_without_a_panic(
        head in prop::sample::select(vec![
            "NVRM: Xid (PCI:0000:3b:00): ", "NVRM: GPU 0000:3b:00.0: ", "NVRM: GPU at PCI:0000:3b:00: ", "NVRM: ",
            "NVRM: The NVIDIA ", "nvidia-nvswitch0: SXid (PCI:0000:3b:00.0): ", "pcieport 0000:00:03.0: ", "oom-kill:",
            "Out of memory: Killed process ", "INFO: task ", "mlx5_core 0000:5d:00.0: ", "mce: ", "traps: ",
        ]),
        code in 0_u32..190,
        tail in "[ -~äß\\n]{0,120}",
    ) {
        parse(&format!("{head}{tail}"));
        parse(&format!("{head}{code}, {tail}"));
    }

    #[test]
    fn a_line_cut_anywhere_parses_without_a_panic(at in 0_usize..60, length in 0_usize..300) {
        let line = include_str!("../../tests/kernel_lines.jsonl").lines().nth(at).unwrap_or_default();
        let sample: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let text = sample["line"].as_str().unwrap_or_default();
        parse(text.get(..length).unwrap_or(text));
    }
}

#[test]
fn every_name_of_nvidia_is_found_anywhere_in_a_line() {
    for name in ["nvidia", "NVRM", "nvrm", "NVSwitch", "SXid"] {
        for text in [name.to_owned(), format!("xvXV nvme0 {name}"), format!("{name} vV"), format!("nv{name}NS")] {
            assert!(super::mentions_nvidia(&text), "{text}");
        }
    }
    for text in ["", "v", "nvme nvme0: 64/0/0 default/read/poll queues", "device veth5e1f0a2b entered", "NV", "SX nvi"]
    {
        assert!(!super::mentions_nvidia(text), "{text}");
    }
}
