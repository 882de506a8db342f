//! `out_of_memory`, `hung_task`, `crash`, `machine_check`, `nic`: parse kernel lines that explain GPU problems.
//! The lines are about OOM kills, blocked tasks, crashes, machine checks and firmware error records, network cards.
//!
//! Source: `mm/oom_kill.c`, `kernel/hung_task.c` and `arch/x86/mm/fault.c` of the kernel, firmware error records (GHES)
//! and the mlx5 driver. Limits: the stack of a blocked task is in later lines. Therefore this module cannot determine
//! whether the task is waiting in the GPU driver.

use crate::facts::kernel_log::KernelEventKind as Kind;

use crate::kernel_log::line::Line;
use crate::kernel_log::scan::{after, decimal, decimal_after, word};
use crate::kernel_log::{host_lines, pcie};
use crate::pci::PciAddress;

/// Parses `oom-kill:constraint=…` and `Out of memory: Killed process …`. Both lines of one kill are one event.
pub(super) fn out_of_memory(text: &str) -> Option<Line> {
    let mut line = Line::of(Kind::OomKill);
    if let Some(fields) = text.strip_prefix("oom-kill:") {
        for (name, value) in fields.split(',').filter_map(|field| field.split_once('=')) {
            match name {
                "constraint" => line.put("constraint", value),
                "oom_memcg" => line.put("oom_memcg", value),
                "task_memcg" => line.put("task_memcg", value),
                "task" => line.set_process(value),
                "pid" => line.pid = value.parse().ok(),
                _ => {}
            }
        }
        return Some(line);
    }
    // Older kernels first print the selected process (`Kill process … or sacrifice child`). The kernel may then kill
    // one of its children instead.
    let killed = after(text, "Killed process ")?;
    let (pid, rest) = decimal(killed)?;
    line.pid = u32::try_from(pid).ok();
    let name = after(rest, "(").map(|rest| {
        let end = rest.find(") total-vm").or_else(|| rest.find(')')).unwrap_or(rest.len());
        rest.get(..end).unwrap_or(rest)
    });
    line.set_process(name.unwrap_or_default());
    let scope = [("Memory cgroup", "cgroup"), ("Out of memory", "host")];
    line.put_some("scope", scope.iter().find(|(begin, _)| text.starts_with(begin)).map(|(_, scope)| scope));
    line.put_some("anon_rss_kib", decimal_after(rest, "anon-rss:"));
    Some(line)
}

/// Parses `INFO: task NAME:PID blocked for more than 120 seconds.`
pub(super) fn hung_task(text: &str) -> Option<Line> {
    let (task, rest) = text.strip_prefix("INFO: task ")?.split_once(" blocked for more than ")?;
    let (name, pid) = task.rsplit_once(':')?;
    let mut line = Line { pid: Some(pid.parse().ok()?), ..Line::of(Kind::HungTask) };
    line.set_process(name);
    line.put_some("seconds", decimal(rest).map(|(seconds, _)| seconds));
    Some(line)
}

/// Names of libraries that GPU workloads use.
const LIBRARIES: [&str; 11] = [
    "libcuda",
    "libnccl",
    "libcublas",
    "libcudnn",
    "libcudart",
    "libnvidia",
    "libnv",
    "libcufft",
    "libcusolver",
    "libcusparse",
    "libtorch_cuda",
];

/// Parses `name[pid]: segfault at … in libcuda.so…[…]`, `traps: name[pid] general protection … in libnccl.so…[…]`.
pub(super) fn crash(text: &str) -> Option<Line> {
    if let Some(place) = text.strip_prefix("RIP: ") {
        return crash_in_driver(place);
    }
    let body = text.strip_prefix("traps: ").unwrap_or(text);
    let library = after(body, " in ").map(|rest| rest.split('[').next().unwrap_or(rest).trim())?;
    if !LIBRARIES.iter().any(|known| library.starts_with(known)) {
        return None;
    }
    let (name, rest) = body.split_once('[')?;
    let (pid, _) = decimal(rest)?;
    let mut line = Line { pid: u32::try_from(pid).ok(), ..Line::of(Kind::Segfault) };
    line.set_process(name);
    line.put("library", library);
    line.sub_code = library.split(".so").next().map(|name| crate::text::clean(name, 40));
    Some(line)
}

/// Parses `RIP: 0010:uvm_va_block_find+0x1c/0x40 [nvidia_uvm]`: the kernel crashed or hangs in a module of the driver.
/// Such a line counts as a failed internal check of the driver.
fn crash_in_driver(place: &str) -> Option<Line> {
    let (function, rest) = place.split_once(" [nvidia")?;
    let module = rest.split(']').next().unwrap_or_default();
    let function = function.split_once(':').map_or(function, |(_, function)| function);
    let mut line = Line::of(Kind::Assertion);
    line.put("place", function.split('+').next().unwrap_or(function));
    line.put("module", format!("nvidia{module}"));
    line.sub_code = Some("kernel_crash".to_owned());
    Some(line)
}

/// Parses `EDAC MC1: 812 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0 …`: the number of
/// errors, and the memory module. Source: `drivers/edac/edac_mc.c` of the kernel.
fn edac(text: &str) -> Option<Line> {
    let (_, rest) = text.strip_prefix("EDAC MC")?.split_once(": ")?;
    let (times, rest) = decimal(rest)?;
    let (kind, rest) = word(rest.trim_start());
    let state = match kind {
        "CE" => "memory_corrected",
        "UE" => "memory_uncorrected",
        _ => return None,
    };
    let module = after(rest, " on ").and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let mut line = Line { times: Some(times), ..Line::of(Kind::Mce) };
    line.put("module", module);
    line.set_sub_code(format!("{state} {module}").trim_end());
    Some(line)
}

/// Bits of a bank's status: the error was not corrected.
const UNCORRECTED: u64 = 1 << 61;

/// Returns whether the status of the bank says that the error was corrected: `Machine Check: 0 Bank 7: 8c00000000010090`.
fn is_corrected(text: &str) -> bool {
    let status = after(text, " Bank ").and_then(|rest| rest.split_once(": ")).map(|(_, rest)| word(rest).0);
    let status = status.and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    !text.contains("Exception") && status.is_some_and(|status| status & UNCORRECTED == 0)
}

/// Parses a machine check. Only the first line of a record is used.
pub(super) fn machine_check(text: &str) -> Option<Line> {
    if let Some(line) = edac(text) {
        return Some(line);
    }
    let state = if text.contains("Machine check events logged") {
        "logged"
    } else if text.contains("Machine Check") && !text.contains("Run the above") {
        if is_corrected(text) { "corrected" } else { "exception" }
    } else if let Some(severity) = after(text, "event severity: ") {
        match word(severity).0 {
            "corrected" => "firmware_corrected",
            "recoverable" => "firmware_recoverable",
            "fatal" => "firmware_fatal",
            _ => "firmware",
        }
    } else if text.starts_with("EDAC ") && text.contains(" UE ") {
        "memory_uncorrected"
    } else if text.starts_with("EDAC ") && text.contains(" CE ") {
        "memory_corrected"
    } else if let Some(device) = after(text, "device_id: ").filter(|device| PciAddress::parse(device).is_some()) {
        // Another line has the device id of the vendor: `vendor_id: 0x10de, device_id: 0x2330`.
        return Some(of_firmware(device));
    } else if let Some(module) = after(text, "DIMM location: ") {
        return Some(of_firmware(module));
    } else {
        return None;
    };
    let mut line = Line::of(Kind::Mce);
    line.put_some("cpu", decimal_after(text, "CPU "));
    line.put_some("bank", decimal_after(text, "Bank "));
    line.sub_code = Some(state.to_owned());
    Some(line)
}

/// Parses the line with the device of a firmware error record: `device_id: 0000:5d:00.0`, `DIMM location: NODE 3
/// P1-DIMMA1`.
fn of_firmware(device: &str) -> Line {
    let mut line = Line { pci: PciAddress::parse(device), ..Line::of(Kind::Mce) };
    line.put("device", device.trim());
    line.set_sub_code(&format!("firmware_device {}", device.trim()));
    line
}

/// Parses `mlx5_core dddd:bb:dd.f…: TEXT`.
pub(super) fn nic(text: &str) -> Option<Line> {
    if text.contains(": AER: ") || text.contains(": PCIe Bus Error: ") {
        return pcie::parse(text);
    }
    host_lines::parse(text)
}
