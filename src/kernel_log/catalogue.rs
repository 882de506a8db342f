//! `xid`, `sxid`: return the catalogue entry of an Xid or SXid code (meaning, severity, action). `xids`, `sxids`: all.
//! `family_of`, `families`: the fault family of an event (evidence that a fault is over), and all families.
//!
//! Sources: NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors) for the Xid actions; the error names of the open
//! GPU kernel modules 595.45.04 (`nverror.h`, `ctrl_dev_nvswitch.h`); the Fabric Manager user guide for the fatal
//! SXids. Names, classes, severities, ageing and advice are our own work. If the advice differs from NVIDIA's, the row
//! contains the reason. The tables are `data/xid.tsv` and `data/sxid.tsv`, with one row per code. They are parsed once,
//! at first use. `docs/xid.md` is generated from them.
//!
//! Limits: a row describes the usual case. If the severity depends on the log line (64, 74, 144 to 150, 154, SXid), use
//! [`crate::kernel_log::event_meaning::of`].

use std::sync::LazyLock;

use serde::Deserialize;

use crate::classification::{ActionCode, Class, Severity};
use crate::facts::kernel_log::{KernelEvent, KernelEventKind};
use crate::tsv::{rows, word};

const XID_ROWS: &str = include_str!("data/xid.tsv");
const SXID_ROWS: &str = include_str!("data/sxid.tsv");
const FAMILY_ROWS: &str = include_str!("data/families.tsv");
/// Class in the table for a message that reports no fault.
const INFO: &str = "info";

/// How events age. After a driver load, reset or reboot, all events except permanent events are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ageing {
    /// The event becomes information after a day, because the announced fault would have occurred by then.
    AfterADay,
    /// If the GPU works again, the event is a warning for a day, then information.
    WhenWorking,
    /// As [`Self::WhenWorking`], but on the first day, only work that began after the event shows that the GPU works.
    WhenWorkingADay,
    /// The event does not age, because it describes a state (a pending repair, a used spare, a halted device).
    Never,
    /// The event describes a lasting state of the board. A reset or a reboot does not end this state.
    Permanent,
}

/// State that the GPU must have before a fault of a family counts as over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryEvidence {
    /// NVML can read the GPU.
    Responds,
    /// NVML can read the GPU, and the memory counters show no uncorrected error since the driver was loaded. A GPU without
    /// counters never passes.
    Counters,
    /// NVML can read the GPU, and its PCIe link has all lanes.
    PcieLink,
    /// NVML can read the GPU, and the number of its active NVLinks is the same as on other GPUs of the same model.
    Nvlinks,
    /// NVML can read the GPU, and its clocks are not reduced because of power or temperature.
    Power,
}

/// The work that shows that a fault is over. It is checked if the fault requires a reset or a reboot, but the log
/// contains no reset and no reboot. Elapsed time alone is not sufficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkEvidence {
    /// A program that started after the event is running on the GPU.
    Program,
    /// A program that started after the event is running on several GPUs, and therefore needs their links.
    ProgramOnSeveralGpus,
    /// A program on the GPU is not sufficient evidence, because it may compute wrong results. The GPU counts as working
    /// after a week of work.
    AfterAWeek,
}

/// The number of incidents within a period that count as a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub incidents: usize,
    pub days: i64,
}

/// Xids with the same kind of fault. They count together if they recur, and the same evidence shows that the GPU works
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultFamily {
    pub name: &'static str,
    /// Codes and ranges of codes: `48,144-150`.
    pub codes: &'static str,
    /// The state that the GPU must have now.
    pub recovery: RecoveryEvidence,
    /// Evidence that the fault is over: the kind of work that the GPU did after the event.
    pub work: WorkEvidence,
    /// Each entry is a number of incidents within a period after a repair. If one of these numbers is reached, the
    /// incidents count as a pattern.
    pub rates: Vec<Rate>,
    /// Action if the fault came back after a reset, a driver load or a reboot.
    pub action_if_back: ActionCode,
    /// The action in words, with the placeholders `{gpu}` and `{node}`.
    pub advice_if_back: &'static str,
}

/// Effect of a fatal SXid, from the Fabric Manager user guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fatality {
    /// Traffic continues.
    NonFatal,
    /// The GPUs on the affected port lose the connection to the fabric.
    Fatal,
    /// The whole NVSwitch is lost, regardless of the port.
    AlwaysFatal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidEntry {
    pub code: u32,
    /// Name in the driver.
    pub mnemonic: &'static str,
    /// Meaning in a few words.
    pub name: &'static str,
    /// Usual cause; `None` for a message that reports no fault.
    pub class: Option<Class>,
    pub severity: Severity,
    /// NVIDIA's immediate action (`RESET_GPU`, `RESTART_APP`, `WORKFLOW_…`), if the catalogue has one.
    pub nvidia_action: Option<&'static str>,
    /// NVIDIA's action for the later investigation.
    pub nvidia_investigation: Option<&'static str>,
    pub action: ActionCode,
    pub ageing: Ageing,
    /// The action on a Kubernetes node.
    pub sre_action: &'static str,
    /// Why the severity or the action differs from NVIDIA's.
    pub differs: Option<&'static str>,
    /// Whether drivers from R565 on (for some codes later) also log an Xid 154 with the recovery action.
    pub raises_recovery_action: bool,
    /// A note about this code.
    pub note: Option<&'static str>,
}

/// One SXid code, as reported by an NVSwitch of generation 2 or 3 (A100, H100 boards).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SxidEntry {
    pub code: u32,
    /// Name in the driver, without the prefix `NVSWITCH_ERR_`.
    pub mnemonic: &'static str,
    /// The name as plain words.
    pub words: String,
    /// Class in the guide. `None` if the class depends only on the word Fatal or Non-fatal in the line.
    pub fatality: Option<Fatality>,
    /// Severity if the line does not contain the word Fatal or Non-fatal.
    pub severity: Severity,
    /// Action in the guide (`RESET_SCOPED`, `RESTART_HOST`, …), if the guide has one.
    pub nvidia_action: Option<&'static str>,
    pub action: ActionCode,
    pub ageing: Ageing,
}

impl XidEntry {
    /// Returns the name of the class in the table: `info` for a message that reports no fault.
    pub fn class_name(&self) -> String {
        self.class.map_or_else(|| INFO.to_owned(), |class| format!("{class:?}").to_lowercase())
    }
}

impl SxidEntry {
    /// Returns the action on a Kubernetes node.
    pub fn sre_action(&self) -> &'static str {
        match self.nvidia_action {
            Some("IGNORE") => "No action for this event alone: watch the rate, and check whether a fatal SXid follows",
            Some("CHECK_COOLING") => "Check cooling and airflow of the NVSwitch",
            Some("CHECK_MECHANICALS") => {
                "When the jobs have ended, check how the board and the cables of this link are seated"
            }
            Some("RESTART_VM") => {
                "Check the partition and routing configuration of the fabric. If the node is a virtual machine, restart it afterwards"
            }
            Some("RESET_SCOPED") => {
                "Access port: drain and reset the GPUs on that port (or restart the VM). Trunk port: all GPUs and NVSwitches"
            }
            Some("RESET_ALL") => "Drain the node, then reset all its GPUs and NVSwitches",
            Some("RESTART_HOST") => "Drain and restart the host (or reset all GPUs and NVSwitches through their bus)",
            _ => {
                "If the line contains the word Fatal, drain and reset the GPUs on that port. If it contains Non-fatal, watch the rate"
            }
        }
    }
}

static XIDS: LazyLock<Vec<XidEntry>> = LazyLock::new(|| rows(XID_ROWS).filter_map(xid_row).collect());
static SXIDS: LazyLock<Vec<SxidEntry>> = LazyLock::new(|| rows(SXID_ROWS).filter_map(sxid_row).collect());

static FAMILIES: LazyLock<Vec<FaultFamily>> = LazyLock::new(|| rows(FAMILY_ROWS).filter_map(family_row).collect());

/// Returns every family of faults. The last family is for all other codes.
pub fn families() -> &'static [FaultFamily] {
    &FAMILIES
}

/// Returns the family of an event. `None` for lines that are not about a fault of a GPU or a switch.
pub fn family_of(event: &KernelEvent) -> Option<&'static FaultFamily> {
    use KernelEventKind as Kind;
    let named = |name: &str| FAMILIES.iter().find(|family| family.name == name);
    match event.kind {
        Kind::Xid => FAMILIES.iter().find(|family| family.has(event.code)).or_else(|| FAMILIES.last()),
        Kind::OffBus | Kind::Aer | Kind::PcieLink | Kind::Iommu => named("bus"),
        Kind::GspFailed | Kind::GspRateLimit => named("gsp"),
        Kind::Sxid | Kind::NvlinkInitFailed => named("nvlink"),
        Kind::RmInitFailed | Kind::ProbeFailed | Kind::Uvm => named("other"),
        _ => None,
    }
}

impl FaultFamily {
    fn has(&self, code: Option<u32>) -> bool {
        code.is_some_and(|code| {
            self.codes.split(',').any(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let range = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
                range.is_some_and(|(first, last)| (first..=last).contains(&code))
            })
        })
    }
}

/// Returns the entry of an Xid code. `None` if the code is not in the catalogue.
pub fn xid(code: u32) -> Option<&'static XidEntry> {
    let at = XIDS.binary_search_by_key(&code, |entry| entry.code).ok()?;
    XIDS.get(at)
}

/// Returns the entry of an SXid code. `None` if the code is not in the catalogue.
pub fn sxid(code: u32) -> Option<&'static SxidEntry> {
    let at = SXIDS.binary_search_by_key(&code, |entry| entry.code).ok()?;
    SXIDS.get(at)
}

/// Returns every Xid of the catalogue, sorted by code.
pub fn xids() -> impl Iterator<Item = &'static XidEntry> {
    XIDS.iter()
}

/// Returns every SXid of the catalogue, sorted by code.
pub fn sxids() -> impl Iterator<Item = &'static SxidEntry> {
    SXIDS.iter()
}

/// Returns the content of a table field; `None` for `-`, which marks an empty field in all tables.
pub(super) fn given(field: &'static str) -> Option<&'static str> {
    (field != "-").then_some(field)
}

fn xid_row(fields: Vec<&'static str>) -> Option<XidEntry> {
    let [
        code,
        mnemonic,
        name,
        class,
        severity,
        nvidia_action,
        investigation,
        raises,
        action,
        ageing,
        sre_action,
        differs,
        note,
    ] = fields[..]
    else {
        return None;
    };
    Some(XidEntry {
        code: code.parse().ok()?,
        mnemonic,
        name,
        class: if class == INFO { None } else { Some(word(class)?) },
        severity: word(severity)?,
        nvidia_action: given(nvidia_action),
        nvidia_investigation: given(investigation),
        action: word(action)?,
        ageing: word(ageing)?,
        sre_action,
        differs: given(differs),
        raises_recovery_action: raises == "yes",
        note: given(note),
    })
}

fn family_row(fields: Vec<&'static str>) -> Option<FaultFamily> {
    let [name, codes, recovery, work, rates, action, advice] = fields[..] else { return None };
    let (recovery, work, action_if_back) = (word(recovery)?, word(work)?, word(action)?);
    let rates = rates.split(' ').map(rate).collect::<Option<Vec<Rate>>>()?;
    Some(FaultFamily { name, codes, recovery, work, rates, action_if_back, advice_if_back: advice })
}

/// Parses `2/30`: two incidents within 30 days.
fn rate(text: &str) -> Option<Rate> {
    let (incidents, days) = text.split_once('/')?;
    Some(Rate { incidents: incidents.parse().ok()?, days: days.parse().ok()? })
}

fn sxid_row(fields: Vec<&'static str>) -> Option<SxidEntry> {
    let [code, mnemonic, fatality, severity, nvidia_action, action, ageing] = fields[..] else { return None };
    Some(SxidEntry {
        code: code.parse().ok()?,
        mnemonic,
        words: mnemonic.strip_prefix("HW_").unwrap_or(mnemonic).to_ascii_lowercase().replace('_', " "),
        fatality: word(fatality),
        severity: word(severity)?,
        nvidia_action: given(nvidia_action),
        action: word(action)?,
        ageing: word(ageing)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_rows(table: &str) -> usize {
        table.lines().filter(|row| !row.starts_with('#')).count()
    }

    #[test]
    fn every_row_of_the_tables_is_an_entry_and_the_codes_ascend() {
        assert_eq!((xids().count(), data_rows(XID_ROWS)), (178, 178));
        assert_eq!((sxids().count(), data_rows(SXID_ROWS)), (410, 410));
        assert!(XIDS.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(SXIDS.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn every_code_from_1_to_177_is_known_and_so_is_185() {
        assert!((1..=177).all(|code| xid(code).is_some()));
        assert!(xid(185).is_some());
        assert!(xid(0).is_none() && xid(178).is_none() && xid(99_999).is_none());
    }

    #[test]
    fn classes_and_severities_are_spread_as_in_the_source() {
        let class = |class| xids().filter(|entry| entry.class == class).count();
        assert_eq!(
            [Class::Application, Class::Driver, Class::Hardware, Class::Fabric].map(|one| class(Some(one))),
            [74, 46, 27, 15],
            "application, driver, hardware, fabric"
        );
        assert_eq!([Some(Class::Power), None, Some(Class::Thermal)].map(class), [8, 5, 3]);
        let severity = |severity| xids().filter(|entry| entry.severity == severity).count();
        assert_eq!(
            [Severity::Warning, Severity::Critical, Severity::Fatal, Severity::Info].map(severity),
            [57, 26, 14, 81]
        );
        // An application fault gives no information about the GPU. Another rule evaluates patterns of such faults.
        assert!(xids().all(|entry| entry.class != Some(Class::Application) || entry.severity == Severity::Info));
        assert_eq!(xids().filter(|entry| entry.raises_recovery_action).count(), 26);
        assert_eq!(xids().filter(|entry| entry.nvidia_action.is_none()).count(), 17);
        assert!(xids().all(|entry| !entry.name.is_empty() && entry.sre_action.len() > 8));
    }

    #[test]
    fn every_row_of_the_families_is_read_and_no_code_has_two() {
        assert_eq!(families().len(), data_rows(FAMILY_ROWS));
        for entry in xids() {
            let of = families().iter().filter(|family| family.has(Some(entry.code))).count();
            assert!(of <= 1, "{}", entry.code);
            let grave = entry.severity >= Severity::Critical && entry.code != 154;
            assert!(of == 1 || !grave, "{} is grave and has no family", entry.code);
        }
        let switch = KernelEvent { kind: KernelEventKind::Sxid, code: Some(20034), ..KernelEvent::default() };
        assert_eq!(family_of(&switch).map(|family| family.recovery), Some(RecoveryEvidence::Nvlinks));
    }

    #[test]
    fn no_code_for_which_nvidia_asks_for_a_cure_ends_by_age_alone() {
        let asks = |action| matches!(action, Some("RESET_GPU" | "RESTART_BM" | "RESTART_VM" | "UPDATE_SWFW"));
        for entry in xids().filter(|entry| entry.severity > Severity::Info && asks(entry.nvidia_action)) {
            assert_ne!(entry.ageing, Ageing::AfterADay, "{}", entry.code);
        }
    }

    #[test]
    fn the_codes_that_take_a_gpu_away_are_fatal() {
        let off_bus = xid(79).expect("79 is in the catalogue");
        assert_eq!(off_bus.mnemonic, "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS");
        assert_eq!((off_bus.class, off_bus.severity), (Some(Class::Hardware), Severity::Fatal));
        assert_eq!(off_bus.nvidia_action, Some("RESTART_BM"));
        assert!(off_bus.raises_recovery_action);
        for code in [62, 74, 95, 119, 120, 140] {
            assert_eq!(xid(code).map(|entry| entry.severity), Some(Severity::Fatal), "{code}");
        }
        for code in [13, 31, 43, 45] {
            assert_eq!(xid(code).map(|entry| entry.class), Some(Some(Class::Application)), "{code}");
        }
    }

    #[test]
    fn an_sxid_has_a_description_fatality_and_action() {
        let fault = sxid(20034).expect("20034 is in the catalogue");
        assert_eq!((fault.mnemonic, fault.words.as_str()), ("HW_DLPL_LTSSM_FAULT_UP", "dlpl ltssm fault up"));
        assert_eq!((fault.fatality, fault.severity), (Some(Fatality::Fatal), Severity::Fatal));
        assert_eq!(fault.nvidia_action, Some("RESET_SCOPED"));
        assert_eq!(sxid(0).map(|entry| entry.words.as_str()), Some("no error"));
        let fatality = |fatality| sxids().filter(|entry| entry.fatality == fatality).count();
        assert_eq!(
            [Some(Fatality::NonFatal), Some(Fatality::Fatal), Some(Fatality::AlwaysFatal)].map(fatality),
            [29, 43, 20]
        );
        assert!(sxid(10000).is_none(), "the marker of a group is not an error");
    }
}
