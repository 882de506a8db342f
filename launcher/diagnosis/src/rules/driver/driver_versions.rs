//! Rules about the version of the driver: a branch without support, and versions with published defects.

use std::sync::LazyLock;

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, rules};
use crate::rules::driver::driver_log;
use syringe_core::classification::ActionCode;
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};
use syringe_core::tsv::{parts, rows};

rules! {
    OUT_OF_SUPPORT: "driver-branch-out-of-support" Info Driver LIFECYCLE, "The driver branch is no longer supported",
        Watch "Plan an update of the driver of {node} to a branch with support. No action now.",
        means "NVIDIA ended the support of the branch of the driver more than a year ago: it gets no fixes of defects or vulnerabilities.",
        reads "host.driver, inventory.driver_version, inventory.virtualization_mode";
    DEFECT: "driver-version-with-known-defect" Warning Driver LIFECYCLE, "The version of the driver has a published defect that fits an error in the kernel log",
        UpdateSoftware "Update the driver of {node} to a version without the defect.",
        means "The driver version has a defect that a later version of the same branch corrects, and the kernel log contains lines that the defect can cause. If the log does not show the defect, there is no finding.",
        reads "host.driver, inventory.driver_version, xid: Xids and lines of a crash", in_plan WorkContinues;
}

/// NVIDIA's table of driver branches.
const LIFECYCLE: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/tesla/drivers/620/supported-drivers-and-cuda-toolkit-versions.html");

/// Number of months after the end of support without a finding, because distributions and clouds still deliver the
/// branch.
const GRACE_MONTHS: u32 = 12;

/// A driver branch.
struct Branch {
    number: u32,
    /// Month in which the support ends, in months since the year 0.
    end: u32,
    words: &'static str,
    source: &'static str,
}

/// A published defect.
struct Defect {
    from: Vec<u32>,
    fixed: &'static str,
    /// Xids that confirm the defect. If there are none, a kernel crash in one of the functions confirms the defect.
    xids: Vec<u32>,
    /// Parts of the names of functions of the driver.
    functions: Vec<&'static str>,
    effect: &'static str,
    source: &'static str,
}

static TABLE: &str = include_str!("../../data/driver_versions.tsv");

static BRANCHES: LazyLock<Vec<Branch>> = LazyLock::new(|| {
    let branch = |row: Vec<&'static str>| {
        let ["branch", number, words, source, _] = row[..] else { return None };
        Some(Branch { number: number.parse().ok()?, end: month(words)?, words, source })
    };
    rows(TABLE).filter_map(branch).collect()
});

static DEFECTS: LazyLock<Vec<Defect>> = LazyLock::new(|| {
    let defect = |row: Vec<&'static str>| {
        let ["defect", from, fixed, confirmed, effect, source, _] = row[..] else { return None };
        let (xids, functions): (Vec<&str>, Vec<&str>) =
            parts(confirmed).into_iter().partition(|part| part.parse::<u32>().is_ok());
        let xids = xids.into_iter().filter_map(|xid| xid.parse().ok()).collect();
        Some(Defect { from: numbers(from)?, fixed, xids, functions, effect, source })
    };
    rows(TABLE).filter_map(defect).collect()
});

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let of_host = node.host().and_then(|host| host.driver.loaded.as_deref());
    let of_nvml = node.inventory().and_then(|inventory| inventory.driver_version.as_deref());
    let Some(version) = of_host.or(of_nvml) else { return Vec::new() };
    let Some(own) = numbers(version) else { return Vec::new() };
    let defects = DEFECTS.iter().filter_map(|defect| with_defect(node, defect, version, &own));
    out_of_support(node, version, &own).into_iter().chain(defects).collect()
}

fn out_of_support(node: &Node<'_>, version: &str, own: &[u32]) -> Option<Draft> {
    // Drivers of vGPU guests have their own lifecycle.
    let is_guest =
        |gpu: &GpuInventory| gpu.virtualization_mode.as_deref() == Some("vgpu") || gpu.vgpu_license.is_some();
    if node.inventory().is_some_and(|inventory| inventory.gpus.iter().any(is_guest)) {
        return None;
    }
    let branch = BRANCHES.iter().find(|branch| Some(&branch.number) == own.first())?;
    let now = month(node.now?.to_string().get(..7)?)?;
    (now >= branch.end + GRACE_MONTHS).then(|| {
        let line = format!(
            "driver {}: the support of branch {} ended by {}",
            evidence::data(version),
            branch.number,
            branch.words
        );
        Draft::on_node(OUT_OF_SUPPORT).with_evidence(line).with_evidence(format!("source: {}", branch.source))
    })
}

/// Returns a finding if the version has the defect, and the kernel log shows the defect.
fn with_defect(node: &Node<'_>, defect: &Defect, version: &str, own: &[u32]) -> Option<Draft> {
    let fixed = numbers(defect.fixed)?;
    let has_it = own.first() == fixed.first() && *own >= defect.from[..] && *own < fixed[..];
    if !has_it {
        return None;
    }
    let is_there = |event: &&KernelEvent| {
        let place = event.details.get("place").map(String::as_str).unwrap_or_default();
        defect.functions.iter().any(|function| place.contains(function))
    };
    let lines: Vec<&KernelEvent> = if defect.xids.is_empty() {
        driver_log::in_records(node, &driver_log::CRASHES).into_iter().filter(is_there).collect()
    } else {
        let is_one = |event: &&KernelEvent| event.code.is_some_and(|code| defect.xids.contains(&code));
        node.timeline.of_kind(Kind::Xid).filter(is_one).collect()
    };
    (!lines.is_empty()).then(|| {
        let line = format!("driver {}, corrected in {}: {}", evidence::data(version), defect.fixed, defect.effect);
        let advice = format!("Update the driver of {{node}} to {} or later.", defect.fixed);
        Draft::on_node(DEFECT)
            .with_evidence(line)
            .with_events(lines.iter().copied())
            .with_evidence(format!("source: {}", defect.source))
            .with_action(ActionCode::UpdateSoftware, advice)
            .aged_on_node(node, &lines)
    })
}

/// Parses a version: `570.133.20`.
fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|number| number.parse().ok()).collect()
}

/// Parses `2026-11` as the number of months since the year 0.
fn month(text: &str) -> Option<u32> {
    let (year, month) = text.split_once('-')?;
    let (year, month): (u32, u32) = (year.parse().ok()?, month.parse().ok()?);
    (1..=12).contains(&month).then_some(year * 12 + month)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use syringe_core::classification::Severity;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    use super::*;

    fn found(driver: &str, now: &str, events: Value) -> Vec<(&'static str, Severity, String)> {
        let report: Report = serde_json::from_value(json!({
            "schema_version": syringe_core::report::SCHEMA_VERSION, "taken_at": now,
            "sections": {"host": {"status": "ok", "data": {"driver": {"loaded": driver}}},
                "xid": {"status": "ok", "data": {"events": events}}}}))
        .expect("a report");
        let cluster = KubernetesFacts::default();
        let drafts = check(&Node::new(&report, &cluster)).into_iter();
        drafts.map(|draft| (draft.rule.id, draft.severity, draft.evidence.join("\n"))).collect()
    }

    #[test]
    fn every_row_is_read_and_has_a_source_and_a_date() {
        assert_eq!(BRANCHES.len() + DEFECTS.len(), rows(TABLE).count());
        let sources = BRANCHES.iter().map(|branch| branch.source).chain(DEFECTS.iter().map(|defect| defect.source));
        assert!(sources.into_iter().all(|source| source.starts_with("https://")));
        assert!(rows(TABLE).all(|row| row.last().is_some_and(|read| month(read).is_some())));
        for defect in DEFECTS.iter() {
            let fixed = numbers(defect.fixed).expect("a version");
            assert!(defect.from < fixed && defect.from[0] == fixed[0], "{}", defect.fixed);
        }
    }

    #[test]
    fn only_a_branch_whose_support_ended_more_than_a_year_ago_has_a_finding() {
        for branch in BRANCHES.iter() {
            let version = format!("{}.133.20", branch.number);
            let at = |months: u32| {
                let month = branch.end + months - 1;
                format!("{}-{:02}-21T10:00:00Z", month / 12, month % 12 + 1)
            };
            assert_eq!(found(&version, &at(0), json!([])), [], "{version}");
            assert_eq!(found(&version, &at(11), json!([])), [], "{version}");
            let told = found(&version, &at(12), json!([]));
            assert!(matches!(&told[..], [(id, Severity::Info, _)] if *id == OUT_OF_SUPPORT.id), "{version}: {told:?}");
        }
        // Drivers of other products have other version numbers.
        for version in ["540.4.0", "999.1", "unknown", ""] {
            assert_eq!(found(version, "2040-01-01T00:00:00Z", json!([])), [], "{version}");
        }
    }

    #[test]
    fn a_defect_is_reported_only_if_the_kernel_log_shows_it() {
        const NOW: &str = "2023-06-01T10:00:00Z";
        let xid = |code: u32| json!([{"kind": "xid", "code": code, "first": NOW, "last": NOW, "count": 1}]);
        let told = found("525.85.12", NOW, xid(119));
        assert!(matches!(&told[..], [(id, _, text)] if *id == DEFECT.id && text.contains("525.105.17")), "{told:?}");
        assert_eq!(found("525.85.12", NOW, json!([])), []);
        assert_eq!(found("525.85.12", NOW, xid(31)), []);
        assert_eq!(found("525.105.17", NOW, xid(119)), []);
        assert_eq!(found("535.54.03", NOW, xid(119)), []);
        let crash = |place: &str, opener: &str| {
            json!([
                {"kind": "host", "sub_code": opener, "first": NOW, "last": NOW, "count": 1},
                {"kind": "assertion", "sub_code": "kernel_crash", "first": NOW, "last": NOW, "count": 1, "details": {"place": place}},
            ])
        };
        let known = crash("gpuacctStopGpuAccounting_IMPL", "bad_access");
        assert!(matches!(&found("570.124.06", NOW, known.clone())[..], [(id, ..)] if *id == DEFECT.id));
        assert_eq!(found("570.133.20", NOW, known), []);
        // Another function, a processor that hangs, and a failed check of the kernel do not confirm the defect.
        assert_eq!(found("570.124.06", NOW, crash("uvm_va_space_destroy", "bad_access")), []);
        assert_eq!(found("570.124.06", NOW, crash("gpuacctStopGpuAccounting_IMPL", "soft_lockup")), []);
        assert_eq!(found("570.124.06", NOW, crash("gpuacctStopGpuAccounting_IMPL", "")), []);
    }
}
