//! Methods of `Node` that add lines to the kernel log of a scenario.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use syringe_core::report::Section;

use crate::node::Node;

/// The text in an Xid line in place of the process, if the driver does not know the process.
pub(crate) const UNKNOWN: &str = "pid='<unknown>', name=<unknown>";

impl Node {
    /// Adds a line of the kernel with the level `err`.
    pub(crate) fn kernel_line(self, when: Timestamp, line: impl Into<String>) -> Self {
        self.kernel_line_of_level(3, when, line)
    }

    pub(crate) fn kernel_line_of_level(mut self, level: u8, when: Timestamp, line: impl Into<String>) -> Self {
        self.log.incidents.push((when, level, line.into()));
        self
    }

    /// Returns the time at which the driver probes the GPUs.
    pub(crate) fn driver_start(&self) -> Timestamp {
        self.boot() + SignedDuration::from_millis(14_500)
    }

    /// Adds a line of the kernel at the time at which the driver probes the GPUs.
    pub(crate) fn driver_start_line(self, line: impl Into<String>) -> Self {
        let when = self.driver_start();
        self.kernel_line(when, line)
    }

    /// Adds an Xid. `process` is [`UNKNOWN`] or `pid=…, name=…`.
    pub(crate) fn xid(self, when: Timestamp, gpu: u32, code: u32, process: &str, message: &str) -> Self {
        let host = Section::data_of(&self.report.sections.host).expect("the host section");
        let address = host.pci_gpus[gpu as usize].pci_address.as_ref().expect("a PCI address").sysfs();
        // The address in an Xid does not contain the function.
        let (device, _) = address.split_once('.').unwrap_or((address, ""));
        let line = format!("NVRM: Xid (PCI:{device}): {code}, {process}, {message}");
        self.kernel_line(when, line)
    }

    /// Adds the Xid of a GSP that does not respond to a process `python3`.
    pub(crate) fn gsp_timeout(self, when: Timestamp, gpu: u32, pid: u32) -> Self {
        let message = format!(
            "Timeout after 6s of waiting for RPC response from GPU{gpu} GSP! Expected function 76 (GSP_RM_CONTROL) \
             (0x20801702 0x4)."
        );
        self.xid(when, gpu, 119, &format!("pid={pid}, name=python3"), &message)
    }

    /// Adds the Xid that reports a change of the recovery action that the driver recommends.
    pub(crate) fn recovery_changed(self, when: Timestamp, gpu: u32, change: &str) -> Self {
        self.xid(when, gpu, 154, UNKNOWN, &format!("GPU recovery action changed from {change}"))
    }

    /// Adds a line of the journal of an earlier boot.
    pub(crate) fn journal_line_of_earlier_boot(mut self, when: Timestamp, message: &str) -> Self {
        let line = json!({
            "__REALTIME_TIMESTAMP": when.as_microsecond().to_string(),
            "_BOOT_ID": "0e".repeat(16),
            "_TRANSPORT": "kernel",
            "SYSLOG_FACILITY": "0",
            "PRIORITY": "3",
            "SYSLOG_IDENTIFIER": "kernel",
            "MESSAGE": message,
        });
        self.log.earlier.push(line.to_string());
        self
    }

    /// Adds a line that a program wrote to /dev/kmsg, after all lines of the kernel.
    pub(crate) fn line_of_program(mut self, line: &str) -> Self {
        // Facility 1 (user), level 4.
        self.log.appended.push((12, line.to_owned()));
        self
    }

    /// Removes the lines of the kernel log that are older than this time.
    pub(crate) fn kernel_log_only_since(mut self, oldest: Timestamp) -> Self {
        self.log.only_since = Some(oldest);
        self
    }
}
