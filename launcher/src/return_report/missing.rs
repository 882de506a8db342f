//! `of`: lists the data that a vendor asks for and that the report lacks (`Missing`), each with the command that gets
//! the data.

use diagnosis::finding::Rma;
use schemars::JsonSchema;
use serde::Serialize;
use syringe_core::report::Report;
use syringe_macros::omit;

use super::ReturnReport;
use super::gpu::Gpu;

/// Data that is missing for a complete case.
#[omit(Option)]
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Missing {
    #[schemars(extend("x-text" = "own"))]
    pub(super) what: String,
    #[schemars(extend("x-text" = "own"))]
    pub(super) why: String,
    /// The command that gets the data. It runs on the node, unless it is a command of gpu-syringe.
    pub(super) command: Option<String>,
}

/// Returns the missing data. The list is empty if the diagnosis does not support a return of the GPU.
pub(super) fn of(report: &ReturnReport, gpu: &Gpu, read: &Report) -> Vec<Missing> {
    if report.supported == Rma::No {
        return Vec::new();
    }
    let mut missing = Vec::new();
    let mut add = |is_missing: bool, what: &str, why: &str, command: Option<String>| {
        missing.extend(is_missing.then(|| Missing { what: what.to_owned(), why: why.to_owned(), command }));
    };
    let has = |name: &str| report.identity.iter().chain(&report.versions).any(|fact| fact.name == name);
    let node = &report.node;
    let device = gpu.uuid.clone().or_else(|| Some(gpu.pci.as_ref()?.sysfs().to_owned())).unwrap_or_default();
    let is_lost = gpu.lost.is_some() || gpu.index.is_none();
    let why_unread = match is_lost {
        true => "NVML cannot read the GPU now: read the value after a reboot, or from the label of the board",
        false => "the driver did not return it",
    };
    add(
        true,
        "bug report of the driver",
        "vendors ask for this report with each return; create the report before the next reboot",
        Some("nvidia-bug-report.sh".to_owned()),
    );
    let why = "the vendor of the server provides the program (fieldiag, partnerdiag), and many vendors require its log";
    add(true, "result of the field diagnostic", why, None);
    let why = "this diagnostic shows whether the fault occurs under load; move the workloads off the GPU first";
    add(!is_lost, "diagnostic of DCGM", why, gpu.index.map(|index| format!("dcgmi diag -r 3 -i {index}")));
    for (name, what) in [
        ("serial number", "serial number of the GPU"),
        ("part number", "part number of the board"),
        ("VBIOS", "VBIOS version"),
    ] {
        add(!has(name), what, why_unread, Some(format!("nvidia-smi -q -i {device} | grep -i '{name}'")));
    }
    let has_counters = report.counters.iter().any(|fact| fact.name.starts_with("ecc."));
    let command = format!("gpu-syringe ecc {node}");
    add(!has_counters, "ECC counters and remapped rows", why_unread, Some(command));
    let since = report.events.iter().filter_map(|event| event.first).min();
    let since = since.map(|since| format!(" --since '{}'", since.strftime("%Y-%m-%d %H:%M:%S UTC")));
    let command = format!("journalctl -k -o short-iso-precise{}", since.unwrap_or_default());
    let why = "the records of the log were not read";
    add(read.kernel_log.is_empty(), "raw kernel log since the first fault", why, Some(command));
    let why = "the files of the driver and of the kernel about the GPU were not read";
    let address = gpu.pci.as_ref().map(|pci| format!("lspci -vvvxxxx -s {}", pci.sysfs()));
    add(report.files.is_empty(), "configuration space of the GPU and of the ports above", why, address);
    let has_gaps = report.gaps.iter().any(|gap| gap.from.is_some());
    let why = "look in the log system of the cluster, and in the event log and console log of the BMC";
    add(has_gaps, "what happened in the gaps in the logs", why, Some("ipmitool sel elist".to_owned()));
    let is_once = report.supported == Rma::IfRepeated && report.tried.iter().all(|tried| !tried.fault_again);
    let why = "a fault that does not come back after a reset or a reboot is often not accepted";
    add(is_once, "a second occurrence after a recovery", why, Some(format!("gpu-syringe diagnose {node}")));
    let command = Some("dmidecode -t system -t baseboard -t chassis".to_owned());
    add(true, "product name and serial number of the server", "node-probe does not read them", command);
    missing
}
