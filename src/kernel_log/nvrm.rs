//! `parse`, `uvm`, `peermem`: parse driver lines other than Xids: lost GPUs, failed initialization, GSP, UVM, versions.
//!
//! Source: the print statements of the open GPU kernel modules 595.45.04 and lines from public reports. The number in
//! `GPU0` is an internal number of the driver that does not identify the GPU, so it is ignored.

use crate::facts::kernel_log::KernelEventKind as Kind;
use crate::pci::PciAddress;

use crate::kernel_log::line::{Line, Parsed, Part, address_after, leading_address};
use crate::kernel_log::scan::{after, between, decimal, decimal_after, hex, word, word_after};

/// Parses one `NVRM: …` line.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let rest = text.strip_prefix("NVRM: ")?;
    if let Some(rest) = rest.strip_prefix("GPU at PCI:") {
        return gpu_uuid(rest);
    }
    if let Some(rest) = rest.strip_prefix("GPU Board Serial Number: ") {
        return serial(None, rest);
    }
    if let Some((pci, rest)) = rest.strip_prefix("GPU ").and_then(leading_address) {
        return about_gpu(pci, rest);
    }
    if rest.starts_with("The NVIDIA ") {
        return the_nvidia(rest).map(Parsed::Event);
    }
    without_address(rest).map(Parsed::Event)
}

/// Parses `dddd:bb:dd: GPU-<uuid>`.
fn gpu_uuid(rest: &str) -> Option<Parsed> {
    let (pci, uuid) = rest.split_once(": ")?;
    let uuid = word(uuid.trim()).0;
    let plausible = uuid.starts_with("GPU-") && uuid.len() <= 48;
    plausible.then_some(Parsed::GpuUuid { pci: PciAddress::parse(pci)?, uuid: uuid.to_owned() })
}

fn serial(pci: Option<PciAddress>, rest: &str) -> Option<Parsed> {
    let serial = word(rest.trim()).0.trim_end_matches('.');
    let plausible = !serial.is_empty() && serial.len() <= 32;
    plausible.then(|| Parsed::GpuSerial { pci, serial: serial.to_owned() })
}

/// Parses a driver line that contains the address of one GPU.
fn about_gpu(pci: PciAddress, rest: &str) -> Option<Parsed> {
    if let Some(rest) = rest.strip_prefix("GPU serial number is ") {
        return serial(Some(pci), rest);
    }
    let mut line = if rest.contains("has fallen off the bus") {
        Line::of(Kind::OffBus)
    } else if rest.contains("does not have the necessary power cables") {
        Line { sub_code: Some(crate::kernel_log::NO_POWER.to_owned()), ..Line::of(Kind::RmInitFailed) }
    } else if rest.contains("RmInitAdapter failed") || rest.contains("rm_init_adapter failed") {
        init_failed(rest)
    } else {
        without_address(rest)?
    };
    line.pci = Some(pci);
    Some(Parsed::Event(line))
}

/// Parses the two lines of a failure: `RmInitAdapter failed! (0x26:0x1a:1227)`,
/// `rm_init_adapter failed, device minor number N`.
fn init_failed(rest: &str) -> Line {
    let part = if rest.contains("rm_init_adapter") { Part::Detail } else { Part::Header };
    let mut line = Line { part, ..Line::of(Kind::RmInitFailed) };
    line.put_some("minor", decimal_after(rest, "minor number "));
    if let Some(codes) = between(rest, "failed! (", ")") {
        let mut parts = codes.split(':');
        let init = parts.next().and_then(hex).map(|(code, _)| format!("{code:#x}"));
        let rm = parts.next().and_then(hex).map(|(code, _)| format!("{code:#x}"));
        line.put_some("init_status", init);
        line.put_some("rm_status", rm);
        line.put_some("rm_line", parts.next().and_then(decimal).map(|(number, _)| number));
        line.sub_code = Some(crate::text::clean(codes, 40));
    }
    line
}

/// Parses `The NVIDIA GPU …` and `The NVIDIA probe routine …`.
fn the_nvidia(rest: &str) -> Option<Line> {
    if let Some(rest) = rest.strip_prefix("The NVIDIA probe routine ") {
        let outcome = if rest.starts_with("was not called") { "not_called" } else { "failed" };
        let mut line = Line::of(Kind::ProbeFailed);
        line.put_some("count", decimal_after(rest, " for "));
        line.put("outcome", outcome);
        line.sub_code = Some(outcome.to_owned());
        return Some(line);
    }
    let off_bus = rest.contains("fallen off the bus");
    if !off_bus {
        return not_supported(rest);
    }
    let (pci, rest) = leading_address(rest.strip_prefix("The NVIDIA GPU ")?)?;
    let mut line = Line { pci: Some(pci), ..Line::of(Kind::OffBus) };
    line.put("when", "probe");
    let id = between(rest, "(PCI ID: ", ")");
    line.put_some("pci_id", id);
    line.sub_code = Some("probe".to_owned());
    Some(line)
}

/// Parses `… installed in this system is not supported by open nvidia.ko because …`, `… requires use of the NVIDIA open
/// kernel modules.`, `… is supported through the NVIDIA 470.xx Legacy drivers.`
fn not_supported(rest: &str) -> Option<Line> {
    let (_, said) = rest.split_once("installed in this system ")?;
    let why = if said.contains("requires use of the NVIDIA open kernel modules") {
        "needs_open_module"
    } else if said.contains("not supported by open nvidia.ko") {
        "needs_proprietary_module"
    } else if said.contains("Legacy drivers") {
        "needs_legacy_driver"
    } else if said.contains("not supported") {
        "not_supported"
    } else {
        return None;
    };
    let mut line = Line::of(Kind::NotSupported);
    line.pci = rest.strip_prefix("The NVIDIA GPU ").and_then(leading_address).map(|(pci, _)| pci);
    line.put_some("pci_id", between(rest, "(PCI ID: ", ")"));
    line.put_some("legacy_driver", between(said, "through the NVIDIA ", " Legacy"));
    line.sub_code = Some(why.to_owned());
    Some(line)
}

/// Parses `BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)`, with or without the sentence before it, and
/// `request_mem_region failed for 256M`.
fn bar(rest: &str) -> Option<Line> {
    let invalid = rest.starts_with("This PCI I/O region assigned to your NVIDIA device is invalid");
    let taken = rest.starts_with("request_mem_region failed");
    let number =
        rest.find("BAR").and_then(|at| decimal(rest.get(at + 3..)?)).filter(|(_, rest)| rest.starts_with(" is "));
    if !invalid && !taken && number.is_none() {
        return None;
    }
    let mut line = Line::of(Kind::BarUnassigned);
    line.put_some("bar", number.map(|(number, _)| number));
    line.put_some("size", number.and_then(|(_, rest)| word_after(rest, " is ")));
    line.put_some("address", rest.split_once(" @ ").map(|(_, rest)| word(rest).0));
    line.pci = between(rest, "(PCI:", ")").and_then(PciAddress::parse);
    line.sub_code = match number {
        _ if taken => Some("taken".to_owned()),
        Some((number, _)) => Some(format!("bar{number}")),
        None => None,
    };
    Some(line)
}

/// Parses `nvidia-uvm: …`, lines of the module for unified memory. After a fatal error, no CUDA program can start until
/// the module is loaded again.
pub(super) fn uvm(text: &str) -> Option<Line> {
    let rest = text.strip_prefix("nvidia-uvm: ")?;
    let fatal = rest.contains("global fatal error");
    if !fatal && !complains(rest) && !rest.contains("Assert") && !rest.contains("ERR") {
        return None;
    }
    let mut line = Line::of(Kind::Uvm);
    line.put_some("status", rest.find("NV_ERR_").and_then(|at| rest.get(at..)).map(|found| word(found).0));
    let place = rest.split_ascii_whitespace().next().map(|place| place.split('[').next().unwrap_or(place));
    line.put_some("place", place.filter(|_| !fatal));
    line.set_sub_code(if fatal { "fatal" } else { place.unwrap_or("error") });
    Some(line)
}

fn without_address(rest: &str) -> Option<Line> {
    // `GPU0 nvAssertFailed…`: the internal GPU number of the driver comes first.
    let rest = match rest.strip_prefix("GPU").and_then(decimal) {
        Some((_, after)) => after.trim_start_matches([':', ' ']),
        None => rest,
    };
    if rest.starts_with("Rate limiting GSP RPC error prints") {
        let mut line = Line::of(Kind::GspRateLimit);
        line.pci = address_after(rest, "for GPU at ");
        line.put_some("printed_one_of", decimal_after(rest, "printing 1 of every "));
        return Some(line);
    }
    if rest.starts_with("nvGpuOpsReportFatalError") {
        let mut line = Line::of(Kind::Uvm);
        line.put_some("error", crate::kernel_log::scan::hex_after(rest, "fatal error "));
        line.sub_code = Some("fatal".to_owned());
        return Some(line);
    }
    if let Some(line) = bar(rest) {
        return Some(line);
    }
    if rest.starts_with("API mismatch: ") {
        return Some(api_mismatch(rest));
    }
    if rest.starts_with("loading NVIDIA UNIX ") {
        return driver_loaded(rest);
    }
    if rest.starts_with("rm_init_adapter failed") || rest.starts_with("RmInitAdapter failed") {
        return Some(init_failed(rest));
    }
    if rest.contains("Assertion failed") || (rest.contains("Check failed: ") && rest.contains(RESET_REQUIRED)) {
        return Some(assertion(rest));
    }
    let function = word(rest).0;
    let bare = function.trim_start_matches('_');
    if bare.starts_with("knvlink") && complains(rest) {
        let mut line = Line::of(Kind::NvlinkInitFailed);
        line.sub_code = Some(crate::text::clean(function.trim_end_matches("_IMPL"), 64));
        return Some(line);
    }
    gsp_failed(rest, function, bare)
}

/// Parses failures of the GSP firmware that are logged without an Xid, or before an Xid.
fn gsp_failed(rest: &str, function: &str, bare: &str) -> Option<Line> {
    let from_gsp_code = bare.starts_with("kgsp") && !bare.starts_with("kgspLogXid") && complains(rest);
    let lacks_image = rest.contains("No firmware image found");
    let known_text = rest.contains("Cannot initialize GSP firmware RM") || rest.contains("GSP-CrashCat Report");
    if !from_gsp_code && !known_text && !lacks_image {
        return None;
    }
    let mut line = Line::of(Kind::GspFailed);
    let cause = match from_gsp_code {
        true => function,
        false if lacks_image => crate::kernel_log::NO_FIRMWARE_IMAGE,
        false => "gsp_firmware",
    };
    line.sub_code = Some(crate::text::clean(cause, 64));
    line.put_some("function", (!function.is_empty()).then_some(function));
    Some(line)
}

fn complains(text: &str) -> bool {
    const WORDS: [&str; 10] =
        ["ailed", "rror", "imed out", "imeout", "nexpected", "annot", "CrashCat", "not respond", "hang", "bad state"];
    WORDS.iter().any(|word| text.contains(word))
}

/// Parses `API mismatch: the client has the version X, but this kernel module has the version Y.`, and since R5xx
/// `API mismatch: the client 'NAME' (pid N) has the version X, but …`.
fn api_mismatch(rest: &str) -> Line {
    let client = word_after(rest, "has the version ");
    let kernel = word_after(rest, "kernel module has the version ");
    let mut line = Line::of(Kind::ApiMismatch);
    line.put_some("client_version", client);
    line.put_some("kernel_version", kernel);
    // The process is not part of the key: a monitor that runs every minute has a new process id each time.
    line.put_some("client", between(rest, "the client '", "'"));
    line.put_some("client_pid", decimal_after(rest, "' (pid "));
    line.sub_code = client.map(|client| crate::text::clean(client, 32));
    line
}

/// Parses `loading NVIDIA UNIX [Open] [x86_64] Kernel Module [for x86_64]  VERSION  DATE`.
fn driver_loaded(rest: &str) -> Option<Line> {
    let rest_of_module = after(rest, "Kernel Module")?;
    let version = rest_of_module.split_ascii_whitespace().find(|token| is_version(token))?;
    let mut line = Line::of(Kind::DriverLoaded);
    line.put("kernel_version", version);
    line.put("flavour", if rest.contains(" Open ") { "open" } else { "proprietary" });
    line.sub_code = Some(crate::text::clean(version, 32));
    Some(line)
}

fn is_version(token: &str) -> bool {
    let plain = token.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain && token.contains('.')
}

/// The status that the driver returns for a GPU that must be reset.
const RESET_REQUIRED: &str = "NV_ERR_RESET_REQUIRED";

/// Parses `nvAssertFailedNoLog: Assertion failed: EXPRESSION @ file.c:123`.
fn assertion(rest: &str) -> Line {
    let mut line = Line::of(Kind::Assertion);
    let (expression, place) = rest.rsplit_once(" @ ").unwrap_or((rest, ""));
    let failed = after(expression, "Assertion failed: ").or_else(|| after(expression, "Check failed: "));
    line.put_some("expression", failed);
    line.put_some("status", between(rest, "[NV_", "]").map(|status| format!("NV_{status}")));
    let place = place.split_ascii_whitespace().next();
    line.put_some("place", place);
    line.sub_code = place.map(|place| crate::text::clean(place, 64));
    if rest.contains(RESET_REQUIRED) {
        line.sub_code = Some("reset_required".to_owned());
    }
    line
}

/// Parses `nvidia-peermem FUNCTION:LINE ERROR …`, and the kernel's reasons why it does not load the module:
/// `nvidia_peermem: disagrees about version of symbol NAME`, `nvidia_peermem: Unknown symbol NAME (err -2)`.
pub(super) fn peermem(text: &str) -> Option<Line> {
    for (words, reason) in
        [(": disagrees about version of symbol ", "symbol_version"), (": Unknown symbol ", "unknown_symbol")]
    {
        if let Some((_, symbol)) = text.split_once(words) {
            let mut line = Line::of(Kind::PeermemError);
            line.put("symbol", symbol.split(' ').next().unwrap_or(symbol));
            line.sub_code = Some(reason.to_owned());
            return Some(line);
        }
    }
    let (before, message) = text.split_once("ERROR")?;
    let mut line = Line::of(Kind::PeermemError);
    let function = before.split_ascii_whitespace().nth(1).map(|token| token.split(':').next().unwrap_or(token));
    line.put_some("function", function);
    line.put("message", message.trim_start_matches([':', ' ']));
    line.sub_code = function.map(|function| crate::text::clean(function, 64));
    Some(line)
}
