//! `read`, `sub_code`: parse the text of an Xid depending on its code, e.g. its location, memory, link or GSP function.
//! `exception_location`: the location of a graphics exception.
//!
//! Source: the print statements of the open GPU kernel modules 595.45.04, NVIDIA's Xid documentation, and lines from
//! public reports. On drivers with GSP, the wording depends on the firmware, so missing values are ignored. If the text
//! does not match the code, only the code is used.

use crate::facts::ecc::RecoveryAction;
use crate::kernel_log::line::Line;
use crate::kernel_log::nvlink4;
use crate::kernel_log::nvlink5;
use crate::kernel_log::nvlink5::XidLine;
use crate::kernel_log::scan::{after, decimal, decimal_after, hex, hex_after, signed, word, word_after};

/// Maximum number of register words of one line.
const MAX_WORDS: usize = 8;

/// Returns the sub-code, if events with the same code must be distinguished. This function must be fast, because it is
/// called for each line of a storm.
pub(super) fn sub_code(code: u32, text: &str) -> Option<String> {
    match code {
        31 => word_after(text, "ENGINE ").map(capped),
        45 => decimal_after(text, "caused by previous Xid ").map(|cause| format!("caused_by_{cause}")),
        48 | 171 | 172 => memory_of(code, text).map(str::to_owned),
        63 | 64 => remap_state(code, text).map(str::to_owned),
        74 | 136 => nvlink4_location(text),
        92 => single_bit_memory(text).map(str::to_owned),
        94 => Some("contained".to_owned()),
        95 => Some("uncontained".to_owned()),
        119 | 120 | 175 => gsp_function(text).map(capped),
        144..=150 => nvlink5_location(code, text),
        154 => recovery_kind(text),
        156 | 157 | 160 | 161 => retired_location(text),
        _ => None,
    }
}

/// Parses the values in the text of Xid `code`.
pub(super) fn read(code: u32, text: &str, line: &mut Line) {
    line.sub_code = sub_code(code, text);
    channel(text, line);
    match code {
        13 => graphics_exception(text, line),
        31 => mmu_fault(text, line),
        45 => removed_channel(text, line),
        48 | 171 | 172 => double_bit_error(code, text, line),
        62 => line.put_some("words", (!text.is_empty()).then_some(text)),
        63 | 64 => row_remap(code, text, line),
        74 | 136 => nvlink4_error(text, line),
        92 => single_bit_errors(text, line),
        94 | 95 => containment(text, line),
        119 | 120 | 175 => gsp(text, line),
        140 => escaped_errors(text, line),
        144..=150 => nvlink5_error(code, text, line),
        154 => recovery_action(text, line),
        156 | 157 | 160 | 161 => retirement(text, line),
        _ => {}
    }
}

/// Parses `Ch 00000008`, `channel 0x0000000a`, `Channel ID 00000000`, `ChID 000c`. All numbers are hexadecimal.
fn channel(text: &str, line: &mut Line) {
    line.put_some("channel", channel_of(text));
    line.put_some("info", hex_after(text, "Info "));
    line.put_some("intr", hex_after(text, "intr "));
}

fn channel_of(text: &str) -> Option<String> {
    let marker = ["Ch ", "ChID ", "Channel ID ", "Channel ", "channel "];
    marker.iter().find_map(|marker| hex_after(text, marker))
}

/// Returns a word of the driver, truncated.
fn capped(word: &str) -> String {
    crate::text::clean(word, crate::kernel_log::line::VALUE_CAP)
}

/// Returns the location of a graphics exception: `GPC 9 TPC 5 SM 0`.
pub(super) fn exception_location(text: &str) -> Option<String> {
    let place = after(text, "(GPC ")?;
    let (gpc, rest) = decimal(place)?;
    let tpc = decimal_after(rest, "TPC ")?;
    let sm = decimal_after(rest, "SM ").map_or("?".to_owned(), |sm| sm.to_string());
    Some(format!("GPC {gpc} TPC {tpc} SM {sm}"))
}

fn graphics_exception(text: &str, line: &mut Line) {
    if let Some(place) = after(text, "(GPC ") {
        line.put_some("gpc", decimal(place).map(|(number, _)| number));
        line.put_some("tpc", decimal_after(place, "TPC "));
        line.put_some("sm", decimal_after(place, "SM "));
        line.put_some("reason", after(place, "): "));
    }
    line.put_some("esr", after(text, "ESR "));
    line.put_some("class", hex_after(text, "Class "));
    line.put_some("offset", hex_after(text, "Offset "));
}

/// Parses `MMU Fault: ENGINE E [GPC] CLIENT faulted @ 0xhigh_low. Fault is of type T ACCESS_TYPE_A`.
fn mmu_fault(text: &str, line: &mut Line) {
    line.put_some("engine", word_after(text, "ENGINE "));
    if let Some((who, _)) = text.split_once(" faulted @ ") {
        line.put_some("client", who.rsplit(' ').next());
    }
    line.put_some("fault_addr", hex_after(text, "faulted @ "));
    line.put_some("fault_type", word_after(text, "Fault is of type "));
    line.put_some("access", text.find("ACCESS_TYPE_").and_then(|at| text.get(at..)).map(|found| word(found).0));
}

fn removed_channel(text: &str, line: &mut Line) {
    line.put_some("caused_by", decimal_after(text, "caused by previous Xid "));
}

fn double_bit_error(code: u32, text: &str, line: &mut Line) {
    line.put_some("phys_addr", hex_after(text, "physAddr "));
    line.put_some("partition", decimal_after(text, " partition "));
    line.put_some("subpartition", decimal_after(text, "subpartition "));
    line.put_some("memory", memory_of(code, text));
}

fn memory_of(code: u32, text: &str) -> Option<&'static str> {
    match code {
        171 => Some("dram"),
        172 => Some("sram"),
        _ if text.contains("framebuffer") || text.contains("DRAM") => Some("dram"),
        _ if text.contains("SRAM") => Some("sram"),
        _ => None,
    }
}

/// Parses a memory repair. Ampere and later remap rows; older GPUs retire pages.
fn row_remap(code: u32, text: &str, line: &mut Line) {
    line.put_some("row_remap", remap_state(code, text));
    line.put_some("phys_addr", hex_after(text, "(0x").or_else(|| hex_after(text, "0x")));
}

fn remap_state(code: u32, text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if any(&["already pending", "already marked"]) {
        Some("already_pending")
    } else if code == 64 && any(&["table full", "table is full"]) {
        Some("table_full")
    } else if code == 64 && any(&["reserved row"]) && any(&["all ", "no more"]) {
        Some("bank_spares_used")
    } else if code == 64 && any(&["reserved row"]) {
        Some("reserved_row")
    } else if code == 64 && any(&["internal error"]) {
        Some("internal_error")
    } else if any(&["marked for remapping"]) {
        Some("marked")
    } else if any(&["retir", "blacklist"]) {
        Some("page_retirement")
    } else {
        None
    }
}

/// Parses `NVLink: fatal error detected on link N(0x…, …)` or `failed to train link N to remote PCI:…`.
fn nvlink4_error(text: &str, line: &mut Line) {
    line.put_some("link", nvlink4_link(text));
    if text.contains("train") {
        line.put("training", "failed");
        line.put_some("remote", word_pci(text, "remote "));
    }
    let words = words(text);
    if !words.is_empty() {
        line.put("regs", hex_list(&words));
        line.put_some("register_class", nvlink4::worst(&words).map(nvlink4::RegisterClass::word));
        let bits: Vec<String> =
            nvlink4::decode(&words).iter().map(|bit| format!("r{}.{}", bit.word, bit.bit)).collect();
        line.put("register_bits", bits.join(" "));
    }
}

fn nvlink4_link(text: &str) -> Option<u64> {
    decimal_after(text, "link ").or_else(|| decimal_after(text, "Link "))
}

fn nvlink4_location(text: &str) -> Option<String> {
    match (nvlink4_link(text), text.contains("train")) {
        (Some(link), true) => Some(format!("link {link} training")),
        (Some(link), false) => Some(format!("link {link}")),
        (None, true) => Some("training".to_owned()),
        (None, false) => None,
    }
}

fn single_bit_errors(text: &str, line: &mut Line) {
    line.put_some("partition", decimal_after(text, "partition "));
    line.put_some("memory", single_bit_memory(text));
}

fn single_bit_memory(text: &str) -> Option<&'static str> {
    let sram = (text.contains("SRAM") || text.contains("SM ")).then_some("sram");
    sram.or((text.contains("framebuffer") || text.contains("FB")).then_some("dram"))
}

/// Parses `Contained: UNIT (0x..[,0x..]). physAddr: 0x.. RST: Yes, D-RST: No`.
fn containment(text: &str, line: &mut Line) {
    let unit = text.split_once("ontained: ").map(|(_, unit)| unit);
    let unit = unit.and_then(|unit| unit.split(['(', '.']).next()).map(str::trim);
    line.put_some("unit", unit);
    line.put_some("phys_addr", hex_after(text, "physAddr: "));
    line.put_some("drst", answer(text, "D-RST: "));
    line.put_some("rst", answer(&text.replace("D-RST", ""), "RST: "));
}

fn answer(text: &str, marker: &str) -> Option<bool> {
    match word_after(text, marker)? {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// Parses `Timeout after 6s of waiting for RPC response from GPU1 GSP! Expected function 76 (GSP_RM_CONTROL) (0x… 0x…).`
///
/// The number in `GPU1` is an internal number of the driver and is ignored.
fn gsp(text: &str, line: &mut Line) {
    line.put_some("gsp_timeout_s", decimal_after(text, "Timeout after "));
    line.put_some("gsp_sequence", decimal_after(text, "sequence "));
    let Some((function, rest)) = after(text, "function ").and_then(decimal) else { return };
    line.put("gsp_function", function.to_string());
    line.put_some("gsp_function_name", gsp_function(text));
    let arguments = rest.find("(0x").and_then(|at| rest.get(at + 1..)).and_then(|rest| rest.split(')').next());
    line.put_some("gsp_args", arguments);
}

fn gsp_function(text: &str) -> Option<&str> {
    let (_, rest) = after(text, "function ").and_then(decimal)?;
    rest.strip_prefix(" (").map(|rest| word(rest).0).filter(|name| !name.is_empty())
}

/// Parses error counters. They are signed, and the driver can print negative values.
fn escaped_errors(text: &str, line: &mut Line) {
    for (name, marker) in [("dram", "DRAM:"), ("ltc", "LTC:"), ("mmu", "MMU:"), ("pcie", "PCIE:")] {
        line.put_some(name, after(text, marker).map(str::trim_start).and_then(signed).map(|(number, _)| number));
    }
}

/// Parses `UNIT Fatal|Nonfatal XC0 i0 Link 03 (0x… 0x…)`. An older form has `XC 0 i 0` and `[…]`.
fn nvlink5_error(code: u32, text: &str, line: &mut Line) {
    let Some((unit, fatal)) = nvlink5_head(text) else { return };
    line.put("unit", unit);
    line.put_some("nv_severity", fatal.and_then(|_| text.split_ascii_whitespace().nth(1)));
    line.put_some("xc", decimal_after(text, " XC"));
    line.put_some("injected", decimal_after(text, " i"));
    line.put_some("link", nvlink5_link(text));
    let words = words(text);
    if !words.is_empty() {
        line.put("regs", words.iter().map(|word| format!("{word:#010x}")).collect::<Vec<_>>().join(" "));
    }
    let (intr_info, error_status) = (words.first().copied(), words.get(1).copied());
    let mut lost = fatal;
    if let (Some(intr_info), Some(error_status)) = (intr_info, error_status) {
        let decoded = nvlink5::decode(&XidLine { xid: code, unit, fatal, intr_info, error_status });
        lost = Some(decoded.fatal);
        line.put("subcode_pre_r575", nvlink5::sub_code_before_r575(intr_info).to_string());
        line.put("subcode_r575", nvlink5::sub_code_from_r575(intr_info).to_string());
        line.put("link_down_reason", nvlink5::link_down_reason(intr_info).to_string());
        line.put("error_status", format!("{error_status:#010x}"));
        line.put_some("action", decoded.action);
        line.put_some("investigate", decoded.investigate);
        line.put_some("origin", decoded.origin);
    }
    line.put_some("fatal", lost);
}

/// Returns the unit, and whether the line has the word Fatal or Nonfatal.
fn nvlink5_head(text: &str) -> Option<(&str, Option<bool>)> {
    let mut tokens = text.split_ascii_whitespace();
    let unit = tokens.next()?;
    let fatal = match tokens.next() {
        Some("Fatal") => Some(true),
        Some("Nonfatal" | "Non-fatal") => Some(false),
        _ => None,
    };
    Some((unit, fatal))
}

fn nvlink5_link(text: &str) -> Option<i64> {
    after(text, "Link ").and_then(signed).map(|(link, _)| link)
}

/// Returns unit, link and severity. A harmless event must not hide a fatal event of the same unit and link.
fn nvlink5_location(code: u32, text: &str) -> Option<String> {
    let (unit, fatal) = nvlink5_head(text)?;
    let lost = match words(text)[..] {
        [intr_info, error_status, ..] => {
            nvlink5::decode(&XidLine { xid: code, unit, fatal, intr_info, error_status }).fatal
        }
        _ => fatal == Some(true),
    };
    let link = nvlink5_link(text).filter(|&link| link >= 0).map(|link| format!(" link {link}")).unwrap_or_default();
    Some(crate::text::clean(&format!("{unit}{link}{}", if lost { " fatal" } else { "" }), 64))
}

/// Parses `GPU recovery action changed from 0xA (Label) to 0xB (Label)`.
fn recovery_action(text: &str, line: &mut Line) {
    line.put_some("recovery_from", recovery_from(text));
    let Some((action, rest)) = recovery_to(text) else { return };
    line.put("recovery_to", action.to_string());
    line.put_some("recovery_label", rest.trim_start().strip_prefix('(').and_then(|rest| rest.split(')').next()));
    line.put("recovery_action", recovery_name(action));
}

fn recovery_from(text: &str) -> Option<u64> {
    let text = after(text, "changed from ")?;
    recovery_number(text).map(|(action, _)| action).or_else(|| recovery_words(text.split_once(" to ")?.0))
}

fn recovery_to(text: &str) -> Option<(u64, &str)> {
    let text = after(text, ") to ").or_else(|| after(text, " to "))?;
    recovery_number(text).or_else(|| Some((recovery_words(text)?, "")))
}

/// Parses `0x2`. The label `Drain` also begins with a hexadecimal digit, so `0x` is required.
fn recovery_number(text: &str) -> Option<(u64, &str)> {
    hex(text).filter(|_| text.starts_with(|first: char| first.is_ascii_digit()))
}

/// Returns the number of a label.
fn recovery_words(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let label = |word: &str| text.contains(word);
    Some(match () {
        () if label("drain") && label("p2p") => 3,
        () if label("drain") && label("reset") => 4,
        () if label("imex") => 5,
        () if label("bus") && label("reset") => 6,
        () if label("system") && label("reboot") => 7,
        () if label("reboot") => 2,
        () if label("reset") => 1,
        () if text.trim_start_matches(['(', '"', '\'']).starts_with("none") => 0,
        () => return None,
    })
}

/// Returns the sub-code of a recommendation, or of its withdrawal. Withdrawals of different recommendations are different
/// events, because a reset ends only some recommendations.
fn recovery_kind(text: &str) -> Option<String> {
    let (to, _) = recovery_to(text)?;
    let name = recovery_name(to);
    Some(match recovery_from(text).filter(|_| to == 0) {
        Some(from) => format!("{name} after {}", recovery_name(from)),
        None => name.to_owned(),
    })
}

fn recovery_name(action: u64) -> &'static str {
    u32::try_from(action).map_or(RecoveryAction::Unknown, RecoveryAction::from).name()
}

/// Parses the location of the retired resource, and the action that activates the spare (reboot or reset).
fn retirement(text: &str, line: &mut Line) {
    line.put_some("gpc", decimal_after(text, "GPC "));
    line.put_some("tpc", decimal_after(text, "TPC "));
    let lower = text.to_ascii_lowercase();
    let activates = ["reboot", "reset"].into_iter().find(|action| lower.contains(action));
    line.put_some("activated_by", activates);
}

fn retired_location(text: &str) -> Option<String> {
    match (decimal_after(text, "GPC "), decimal_after(text, "TPC "), channel_of(text)) {
        (Some(gpc), Some(tpc), _) => Some(format!("gpc {gpc} tpc {tpc}")),
        (Some(gpc), None, _) => Some(format!("gpc {gpc}")),
        (None, Some(tpc), _) => Some(format!("tpc {tpc}")),
        (None, None, Some(channel)) => Some(format!("channel {channel}")),
        (None, None, None) => None,
    }
}

/// Returns the hex words in the first `(0x…)`, or in the first `[0x…]` if there are no round brackets.
fn words(text: &str) -> Vec<u32> {
    let open = text.find("(0x").or_else(|| text.find("[0x"));
    let Some(list) = open.and_then(|at| text.get(at + 1..)) else { return Vec::new() };
    let list = list.split([')', ']']).next().unwrap_or_default();
    let parts = list.split([' ', ',']).filter(|part| !part.is_empty());
    parts.map_while(|part| u32::try_from(hex(part)?.0).ok()).take(MAX_WORDS).collect()
}

fn hex_list(words: &[u32]) -> String {
    words.iter().map(|word| format!("{word:#x}")).collect::<Vec<_>>().join(" ")
}

fn word_pci<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    after(text, marker)?.split([' ', ',', '(']).next()
}
