//! Rules about a requested start of CUDA in a new process: it fails, hangs or crashes, or CUDA and NVML count different
//! numbers of GPUs. `refine`: moves the finding into the finding that is its cause. `unread`: why CUDA was not started.

use std::sync::LazyLock;

use jiff::SignedDuration;

use crate::evidence;
use crate::input::cuda;
use crate::input::node::Node;
use crate::rule::{Draft, Rule, Unread, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::cuda::CudaStart;
use syringe_core::section_name::SectionName;
use syringe_core::tsv::{rows, word};
use syringe_core::unknown::Unknown;

rules! {
    FAILS: "cuda-does-not-start" Critical Driver CUDA_DOC, "CUDA does not start in a new process",
        UpdateSoftware "Look the result up in NVIDIA's documentation, and read the kernel log of {node} for lines of the driver.",
        means "A new process without privileges loaded the CUDA library of the node, and its first call failed. Programs in containers get \
            the same library. Programs that run already are not affected.",
        reads "host.cuda", in_plan WorkContinues;
    HANGS: "cuda-hangs" Critical Driver CUDA_DOC, "CUDA does not return in a new process",
        DrainAndReboot "Drain {node}. If CUDA still hangs then, reboot the node. Check the kernel log for Xid 79, Xid 119 and hung tasks.",
        means "A new process called CUDA, and the call did not return within the time limit. Critical if the process could not be killed: it \
            hangs in the driver.",
        reads "host.cuda";
    CRASHES: "cuda-crashes" Critical Driver CUDA_DOC, "The CUDA library of the node crashes",
        UpdateSoftware "Reinstall the libraries of the driver of {node} in the version of the loaded module.",
        means "A new process loaded the CUDA library of the node, and crashed in a call of this library.",
        reads "host.cuda", in_plan WorkContinues;
    COUNT: "cuda-gpu-count-differs" Critical Driver CUDA_DOC, "CUDA and NVML count different numbers of GPUs",
        DrainAndReboot "Check the kernel log of {node} for the GPU that CUDA does not start. If there is no other \
            cause, drain and reboot {node}.",
        means "All GPUs respond to NVML, but CUDA offers another number of GPUs to a new process. The numbers are not \
            compared if MIG is enabled, if a compute mode is not the default, or if a GPU does not respond.",
        reads "host.cuda, inventory.compute_mode, mig.mode", in_plan WorkContinues;
}

/// `CUresult` in NVIDIA's documentation of the driver API.
const CUDA_DOC: Option<&str> = Some("https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html");

const TABLE: &str = include_str!("../../data/cuda_results.tsv");

/// The meaning of a result of CUDA.
struct Meaning {
    code: u32,
    name: &'static str,
    severity: Severity,
    action: ActionCode,
    means: &'static str,
    advice: &'static str,
    /// Ids of findings that can be the cause, or the first parts of such ids.
    causes: Vec<&'static str>,
}

static MEANINGS: LazyLock<Vec<Meaning>> = LazyLock::new(|| rows(TABLE).filter_map(meaning).collect());

fn meaning(row: Vec<&'static str>) -> Option<Meaning> {
    let [code, name, severity, action, means, advice, causes] = row[..] else { return None };
    let causes = causes.split(' ').filter(|cause| *cause != "-").collect();
    Some(Meaning {
        code: code.parse().ok()?,
        name,
        severity: word(severity)?,
        action: word(action)?,
        means,
        advice,
        causes,
    })
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let started = node.host().and_then(|host| host.cuda.as_ref()).filter(|cuda| cuda.problem.is_none());
    started
        .and_then(|cuda| not_returned(cuda).or_else(|| failed(node, cuda)).or_else(|| other_count(node, cuda)))
        .into_iter()
        .collect()
}

fn not_returned(cuda: &CudaStart) -> Option<Draft> {
    let call = evidence::data(cuda.open_call.as_deref()?);
    let draft = match (&cuda.ended, cuda.left_process) {
        (Some(ended), _) => {
            Draft::on_node(CRASHES).with_evidence(format!("the process {} in {call}", evidence::data(ended)))
        }
        (None, left) => {
            let waited = evidence::span(SignedDuration::from_millis(
                i64::try_from(cuda.duration_ms.unwrap_or_default()).unwrap_or(i64::MAX),
            ));
            let draft = Draft::on_node(HANGS).with_evidence(format!("{call} did not return within {waited}"));
            match left {
                Some(process) => draft.with_evidence(format!("process {process} of the probe could not be killed")),
                // The first call initializes GPUs that no other program uses, which can take long.
                None => draft.with_severity(Severity::Warning).with_action(
                    ActionCode::Watch,
                    "Run the diagnosis of {node} with deep again in a minute. If CUDA hangs again, drain the node and check the kernel log.",
                ),
            }
        }
    };
    Some(draft.with_all_evidence(library(cuda)))
}

/// `CUDA_ERROR_SYSTEM_NOT_READY`.
const NOT_READY: u32 = 802;

/// Start of the state that is set on a node whose GPUs are in confidential-computing mode.
const CONFIDENTIAL: &str = "nvidia.com/cc.mode.state=on";

const SET_READY: &str = "The GPUs of {node} are in confidential-computing mode. Attest them, then set them to ready (nvidia-smi conf-compute -srs 1): CUDA \
     starts only after that.";

fn failed(node: &Node<'_>, cuda: &CudaStart) -> Option<Draft> {
    let calls = [("cuInit", cuda.init_code), ("cuDeviceGetCount", cuda.count_code)];
    let (call, code) = calls.into_iter().find_map(|(call, code)| Some((call, code.filter(|code| *code != 0)?)))?;
    let draft = Draft::on_node(FAILS);
    let draft = match MEANINGS.iter().find(|meaning| meaning.code == code) {
        Some(Meaning { name, severity, action, means, advice, .. }) => draft
            .with_severity(*severity)
            .with_action(*action, *advice)
            .with_evidence(format!("{call} of a new process fails with {code} ({name}): {means}")),
        None => draft.with_evidence(format!("{call} of a new process fails with {code}")),
    };
    let confidential = node.kubernetes.states.iter().find(|state| state.starts_with(CONFIDENTIAL));
    let draft = match confidential.filter(|_| code == NOT_READY) {
        Some(state) => draft
            .with_evidence(format!("label {}", evidence::reason(state)))
            .with_action(ActionCode::UpdateSoftware, SET_READY),
        None => draft,
    };
    Some(draft.with_all_evidence(library(cuda)))
}

fn other_count(node: &Node<'_>, cuda: &CudaStart) -> Option<Draft> {
    let devices = cuda.devices?;
    let gpus = cuda::comparable_gpus(node).ok()?;
    (devices != gpus).then(|| {
        Draft::on_node(COUNT)
            .with_evidence(format!("CUDA counts {devices}, NVML lists {gpus}"))
            .with_all_evidence(library(cuda))
    })
}

fn library(cuda: &CudaStart) -> Option<String> {
    let path = evidence::path(cuda.library.as_deref()?);
    let version =
        cuda.version.as_deref().map(|version| format!(" (CUDA {})", evidence::data(version))).unwrap_or_default();
    Some(format!("library {path}{version}"))
}

/// Returns why CUDA was not started, if the caller asked for it.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    let problem = node.host().and_then(|host| host.cuda.as_ref()?.problem.as_ref());
    let why = problem.map(|problem| format!("CUDA was not started: {}", evidence::reason(&problem.why)));
    // A node can be healthy even if CUDA was not started.
    why.map(|why| Unread { fact: Unknown::new(SectionName::Host, why), decides: false }).into_iter().collect()
}

/// Moves the finding into the finding that is its cause, if there is one of at least the same severity.
pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let is_own = |draft: &Draft| RULES.iter().any(|rule: &Rule| rule.id == draft.rule.id);
    let Some(at) = drafts.iter().position(is_own) else { return };
    let cuda = node.host().and_then(|host| host.cuda.as_ref());
    let code = cuda.and_then(|cuda| [cuda.init_code, cuda.count_code].into_iter().flatten().find(|code| *code != 0));
    let row = MEANINGS.iter().find(|meaning| meaning.code == code.unwrap_or_default());
    let causes = row.map(|row| row.causes.as_slice()).unwrap_or_default();
    let own = drafts[at].severity;
    let is_cause = |draft: &Draft| {
        draft.severity >= own && !is_own(draft) && causes.iter().any(|cause| draft.rule.id.starts_with(cause))
    };
    let Some(cause) = drafts.iter().position(is_cause) else { return };
    let evidence = std::mem::take(&mut drafts[at].evidence);
    drafts[cause].evidence.extend(evidence);
    drafts.remove(at);
}

#[cfg(test)]
mod tests {
    use super::{MEANINGS, TABLE};
    use syringe_core::tsv::rows;

    #[test]
    fn every_row_is_read_and_its_causes_exist() {
        assert_eq!(MEANINGS.len(), rows(TABLE).count());
        let rules = crate::catalogue_of_rules();
        let named = MEANINGS.iter().flat_map(|meaning| &meaning.causes);
        for cause in named {
            assert!(rules.iter().any(|rule| rule.id.starts_with(cause)), "{cause}");
        }
    }
}
