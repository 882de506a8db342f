//! `Node::recovery`, `Node::recovered`: decide whether a fault of a GPU is over (`Recovery`, `Recovered`), from the
//! evidence that the family of the fault requires. `asks_for_reset`: whether an event requires a reset or a reboot.
//!
//! A reset, a driver load, a boot or an Xid 154 that withdraws a recommendation ends a fault. The timeline recognizes
//! these events. This module covers faults after which no such line was logged. If NVIDIA asks for a reset or a reboot,
//! the fault does not end by time alone: only work that ran on the GPU since then shows that the GPU works.

use jiff::{SignedDuration, Timestamp};

use crate::evidence;
use crate::input::node::{Gpu, Node, SETTLE_TIME, STALE_AFTER};
use crate::input::processes::is_service;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::clock_events::{FAULTS, mask_of};
use syringe_core::facts::ecc::GpuEcc;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::kernel_log::catalogue::{self, RecoveryEvidence, WorkEvidence};
use syringe_core::kernel_log::event_meaning;

/// Work on a GPU after this time shows that the GPU works, even if the start time of the program is not known, or if
/// the fault can cause wrong results. `docs/xid.md` documents this time.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Minimum run time of a program that shows that the GPU works. The driver reports a timeout only after minutes.
const AT_WORK: SignedDuration = SignedDuration::from_mins(5);

/// The Xid that records a row remap.
const ROW_REMAP: u32 = 63;

/// Maximum time between the lines about one error of GPU memory.
const ONE_ERROR: SignedDuration = SignedDuration::from_secs(5);

/// First driver branch that logs the reset of a GPU (Xid 154).
const LOGS_RESETS: u32 = 565;

/// Whether a fault of a GPU is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The GPU does not work, or it is too early to decide.
    Current,
    /// The GPU responds, but no fact shows that the fault is over, and NVIDIA asks for a reset or a reboot.
    Unproven {
        /// True if the event was less than a day ago.
        recent: bool,
        /// The missing evidence, or the fact that contradicts the log.
        why: String,
    },
    /// The GPU works again.
    Shown(Recovered),
}

/// A GPU that works again after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// True if the event was more than a day ago. A more recent event may occur again.
    pub(crate) long_ago: bool,
    /// The facts that show that the GPU works again.
    pub(crate) shown_by: String,
}

impl Recovery {
    pub(crate) fn shown(self) -> Option<Recovered> {
        match self {
            Self::Shown(recovered) => Some(recovered),
            Self::Current | Self::Unproven { .. } => None,
        }
    }
}

impl From<Option<Recovered>> for Recovery {
    fn from(recovered: Option<Recovered>) -> Self {
        recovered.map_or(Self::Current, Self::Shown)
    }
}

/// Maximum interval between repeated log lines of a hanging GPU. After a longer pause, the fault counts as a new
/// occurrence.
const PAUSE: SignedDuration = SignedDuration::from_mins(15);

/// Returns how often a fault occurred in the day before its newest log line. `None` if the fault came back fewer than
/// two times after a pause of [`PAUSE`].
fn came_back(events: &[&KernelEvent]) -> Option<usize> {
    let mut times: Vec<Timestamp> = events.iter().flat_map(|event| event.occurred_at()).collect();
    times.sort_unstable();
    let newest = *times.last()?;
    times.retain(|time| newest.duration_since(*time) < STALE_AFTER);
    let returns = times.windows(2).filter(|pair| pair[1].duration_since(pair[0]) >= PAUSE).count();
    (returns > 1).then_some(returns + 1)
}

/// Returns whether an event requires a repair: a reset, a reboot, or other driver versions. The fault lasts until the
/// repair.
fn asks_for_cure(event: &KernelEvent) -> bool {
    let asks_for_versions = event_meaning::of(event)
        .is_some_and(|meaning| meaning.severity >= Severity::Critical && meaning.action == ActionCode::UpdateSoftware);
    asks_for_reset(event) || asks_for_versions
}

/// Returns whether an event requires a reset or a reboot. The fault lasts until then.
pub(crate) fn asks_for_reset(event: &KernelEvent) -> bool {
    match event.kind {
        Kind::OffBus | Kind::GspRateLimit => true,
        Kind::Xid | Kind::Sxid => event_meaning::of(event).is_some_and(|meaning| {
            meaning.severity >= Severity::Critical && meaning.action.includes(ActionCode::ResetGpu)
        }),
        _ => false,
    }
}

impl Node<'_> {
    /// Returns whether these events of a GPU are over. Each family of faults requires specific evidence.
    pub(crate) fn recovery(&self, gpu: &Gpu, events: &[&KernelEvent]) -> Recovery {
        let newest = events.iter().filter_map(|event| event.ordered_at()).max();
        let families = || events.iter().filter_map(|event| Some((*event, catalogue::family_of(event)?)));
        let held = match families().next() {
            None => self.holds(gpu, RecoveryEvidence::Responds, newest),
            Some(_) => {
                families().map(|(_, family)| self.holds(gpu, family.recovery, newest)).reduce(Option::and).flatten()
            }
        };
        let Some(held) = held else { return Recovery::Current };
        if let Some(shown_by) = self.remap_is_active(gpu, newest) {
            return Recovery::Shown(Recovered { shown_by, ..held });
        }
        let needed: Vec<WorkEvidence> =
            families().filter(|(event, _)| asks_for_cure(event)).map(|(_, family)| family.work).collect();
        let counters = families().any(|(_, family)| family.recovery == RecoveryEvidence::Counters);
        if let Some(times) =
            came_back(events).filter(|_| !needed.is_empty() && self.age(newest).is_none_or(|age| age < WEEK))
        {
            let why = format!(
                "the fault occurred {times} times within a day and nothing repaired it: a program that is running now \
                    can fail in the same way"
            );
            return Recovery::Unproven { recent: !held.long_ago, why };
        }
        let shown: Option<Vec<String>> = needed.iter().map(|work| self.work_since(gpu, *work, newest)).collect();
        match shown {
            Some(shown) => {
                let work = shown.into_iter().next().map(|words| format!(", and {words}")).unwrap_or_default();
                Recovery::Shown(Recovered { shown_by: format!("{}{work}", held.shown_by), ..held })
            }
            None => Recovery::Unproven { recent: !held.long_ago, why: self.why_unproven(gpu, counters) },
        }
    }

    /// Returns a text if a row remap that was recorded with or after an event is active now. Only a reset activates it.
    fn remap_is_active(&self, gpu: &Gpu, event: Option<Timestamp>) -> Option<String> {
        let rows = self.ecc_of(gpu)?.remapped_rows.as_ref().filter(|rows| !rows.pending && rows.uncorrectable > 0)?;
        let recorded = |remap: &&KernelEvent| {
            remap.ordered_at().zip(event).is_some_and(|(remap, event)| remap.duration_since(event) >= -ONE_ERROR)
        };
        let remap = self.timeline.xids(gpu, &[ROW_REMAP]).find(recorded)?;
        let at = remap.ordered_at()?;
        (rows.uncorrectable_inactive.unwrap_or(0) == 0).then(|| {
            format!("the row remap that was recorded at {at:.0} is no longer pending, and only a reset activates it")
        })
    }

    /// Returns the recovery if the GPU works again after these events.
    pub(crate) fn recovered(&self, gpu: &Gpu, events: &[&KernelEvent]) -> Option<Recovered> {
        self.recovery(gpu, events).shown()
    }

    /// Returns the evidence that a GPU no longer has a fault of this kind. The conditions are: NVML can read the GPU,
    /// the driver recommends no action (in NVML since R570, in Xid 154 since R565), and the last event is old enough.
    /// `None` if a condition is not met.
    pub(crate) fn holds(&self, gpu: &Gpu, evidence: RecoveryEvidence, last: Option<Timestamp>) -> Option<Recovered> {
        if self.has_recovery_action(gpu) || !self.is_readable(gpu) {
            return None;
        }
        let shown_by = self.state(gpu, evidence)?.to_owned();
        let age = self.age(last)?;
        (age > SETTLE_TIME).then_some(Recovered { long_ago: age > STALE_AFTER, shown_by })
    }

    /// Returns the fact that shows that a readable GPU no longer has a fault of this kind. `None` if there is no such
    /// fact.
    fn state(&self, gpu: &Gpu, evidence: RecoveryEvidence) -> Option<&'static str> {
        // An uncorrected error is a reason for doubt, whatever the fault was.
        let uncorrected = self.ecc_of(gpu).and_then(GpuEcc::uncorrected_since_load);
        if uncorrected.is_some_and(|count| count > 0) {
            return None;
        }
        let now = self.telemetry_of(gpu)?;
        match evidence {
            // Without counters, no fact shows that the memory works, and NVIDIA asks for a reset.
            RecoveryEvidence::Counters if uncorrected.is_none() => None,
            RecoveryEvidence::Responds | RecoveryEvidence::Counters => Some(match uncorrected {
                Some(_) => "NVML can read the GPU, and there is no uncorrected error since the driver was loaded",
                None => "NVML can read the GPU",
            }),
            RecoveryEvidence::PcieLink => {
                let lanes = now.pcie.width.zip(now.pcie.max_width);
                match lanes {
                    Some((width, most)) if width < most => None,
                    Some(_) => Some("NVML can read the GPU, and its PCIe link has all lanes"),
                    None => Some("NVML can read the GPU"),
                }
            }
            RecoveryEvidence::Nvlinks if self.topology_of(gpu).is_none() => Some("NVML can read the GPU"),
            RecoveryEvidence::Nvlinks => {
                self.has_links_of_siblings(gpu).then_some("NVML can read the GPU, and its NVLinks are up")
            }
            RecoveryEvidence::Power => (mask_of(&now.throttling) & FAULTS == 0)
                .then_some("NVML can read the GPU, and its clocks are not reduced because of power or temperature"),
        }
    }

    /// Returns whether the GPU has at least as many active NVLinks as each GPU of the same model.
    fn has_links_of_siblings(&self, gpu: &Gpu) -> bool {
        let up = |gpu: &Gpu| {
            let groups = self.topology_of(gpu)?.nvlinks.iter().filter(|group| group.active == Some(true));
            Some(groups.map(|group| group.links.len()).sum::<usize>())
        };
        let most = self.answering().filter(|other| other.name == gpu.name).filter_map(up).max();
        up(gpu) >= most
    }

    /// Returns the work on a GPU that shows that the GPU has worked since an event.
    pub(crate) fn work_since(&self, gpu: &Gpu, work: WorkEvidence, last: Option<Timestamp>) -> Option<String> {
        let last = last?;
        let busy = self.telemetry_of(gpu).and_then(|now| now.utilization.gpu_percent);
        let (since, before): (Vec<&GpuProcess>, Vec<&GpuProcess>) =
            self.programs_on(gpu).partition(|process| process.started_at.is_some_and(|started| started > last));
        let long_ago = self.age(Some(last)).is_some_and(|age| age > WEEK);
        let is_mig = self.mig_mode(gpu).is_some_and(|mode| mode.current);
        let at_work = |process: &&&GpuProcess| {
            let lives = !process.is_uninterruptible() && process.state.as_deref() != Some("Z");
            lives && self.age(process.started_at).is_some_and(|age| age >= AT_WORK)
        };
        // NVML reports no utilization for a GPU with MIG devices. A program in one MIG instance does not show that the
        // other instances work.
        let shows_work = if is_mig { long_ago } else { busy != Some(0) };
        let program = since.iter().find(at_work).filter(|_| shows_work);
        let shows = match work {
            WorkEvidence::Program => true,
            WorkEvidence::ProgramOnSeveralGpus => program.is_some_and(|process| self.uses_several(process, last)),
            WorkEvidence::AfterAWeek => long_ago,
        };
        match program.filter(|_| shows) {
            Some(process) => {
                Some(format!("{}, which started since then, is running on the GPU", evidence::process(process)))
            }
            // A program that has been hanging since the event also causes utilization.
            None => (long_ago && busy > Some(0) && before.is_empty() && work != WorkEvidence::ProgramOnSeveralGpus)
                .then(|| "the program was still running more than a week later".to_owned()),
        }
    }

    /// Returns the programs on a GPU, without the services of the node.
    fn programs_on(&self, gpu: &Gpu) -> impl Iterator<Item = &GpuProcess> {
        let all = self.processes().into_iter().flat_map(|section| &section.processes);
        all.filter(|process| process.uses.iter().any(|one| Some(one.gpu) == gpu.index) && !is_service(process))
    }

    /// Returns whether a program, or its pod, uses more than one GPU with processes that started after an event.
    fn uses_several(&self, program: &GpuProcess, last: Timestamp) -> bool {
        let all = self.processes().into_iter().flat_map(|section| &section.processes);
        let together = all.filter(|process| {
            let same_pod = process.pod_uid.is_some() && process.pod_uid == program.pod_uid;
            (process.pid == program.pid || same_pod) && process.started_at.is_some_and(|started| started > last)
        });
        let gpus: std::collections::BTreeSet<u32> =
            together.flat_map(|process| &process.uses).map(|one| one.gpu).collect();
        gpus.len() > 1
    }

    /// Returns the branch of the driver: 570 for version 570.124.06.
    fn driver_version(&self) -> Option<u32> {
        let loaded = self.host().and_then(|host| host.driver.loaded.as_deref());
        let version = loaded.or_else(|| self.inventory()?.driver_version.as_deref())?;
        version.split('.').next()?.parse().ok()
    }

    /// Returns why the end of a fault is not proven. A memory error counter of 0 after an uncorrectable error
    /// contradicts the log.
    fn why_unproven(&self, gpu: &Gpu, counters: bool) -> String {
        let silent = self.driver_version().is_some_and(|version| version < LOGS_RESETS);
        let limit = if silent { " (this driver logs no resets)" } else { "" };
        let none = format!("no reset, driver load or boot is in the log since then{limit}");
        let zero = self.ecc_of(gpu).and_then(GpuEcc::uncorrected_since_load) == Some(0);
        match counters && zero {
            true => format!(
                "{none}, but the counter of uncorrected errors is 0, which contradicts the log: the GPU was reset without a line \
                 in the log, or the error was not counted"
            ),
            false if self.processes().is_none() => format!(
                "{none}, and it was not read whether a program that started since then is running on the GPU: diagnose_gpu_node reads \
                 this and may lower the severity"
            ),
            false => format!("{none}, and no program that started since then is using the GPU"),
        }
    }
}
