//! Generates `docs/xid.md` from the tables in `src/kernel_log/data`, and tests that the page is current and
//! that each action that differs from NVIDIA's has a reason.
//!
//! Run the tests with `INSTA_UPDATE=always` after a change of a table.

use std::fmt::Write as _;
use std::path::Path;

use syringe_core::classification::ActionCode;
use syringe_core::kernel_log::catalogue::{FaultFamily, SxidEntry, XidEntry, families, sxids, xids};
use syringe_core::kernel_log::event_meaning::kinds;

const HEAD: &str = "\
# Xid and SXid codes

This file is generated from `src/kernel_log/data/*.tsv` by `tests/xid_table.rs`. Change the tables, not this file.

**NVIDIA** is the immediate action in [NVIDIA's Xid catalogue](https://docs.nvidia.com/deploy/xid-errors/). For SXids, it is the
action in the [Fabric Manager guide](https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/). `-` means that they
contain no action. Class, severity, action and ageing are from gpu-syringe. If severity or action differs from NVIDIA's, the
last column contains the reason.

The severity is that of a new event. The ageing determines how the severity decreases:

| ageing | meaning |
|---|---|
| `after_a_day` | after 24 h, the event is information, because the announced fault would have occurred by then |
| `when_working` | if the GPU works again, the event is a warning for a day, then information |
| `when_working_a_day` | if the GPU works after a day, the event is information |
| `never` | the event describes a state that does not end by itself |
| `permanent` | the event describes a lasting state of the board: no reset and no reboot ends it |

After a reboot, a driver load or a reset of the GPU (an Xid 154 that withdraws a reset or reboot), all other earlier events are
over. An event that recurs after that is a finding, regardless of its ageing. A GPU **works again** if NVML can read it and counts
no uncorrected error, the driver recommends no recovery action, ten minutes have passed, and the GPU has the state for the
[family](#families) of the fault.

If the action is a reset, a reboot or a return, time alone does not end the fault: after the event, the work in the table of
families must have run on the GPU. Without this work, an event of a GPU that responds is at most critical for a day and then a
warning, with the same action, which can wait until the jobs end. After a week, a working GPU counts as recovered even if the
start of its program is not known; an idle GPU does not.
";

const FAMILIES: &str = "
## Families

Faults of one family count together. The state is the state that the GPU must have now if a fault is over. The work shows that a
fault is over although the log contains no reset, driver load or boot. If a fault recurs after a reset, a driver load or a reboot,
it is a pattern at one of the rates (`2/30`: two incidents within 30 days), and then critical; below the rates, it is information.
Without a repair in between, three incidents within a day or since the last repair are a pattern. The GPU is returned only if the
field diagnostic fails.

| work | meaning |
|---|---|
| `program` | a program that started after the event runs on the GPU |
| `program_on_several_gpus` | such a program, or its pod, uses several GPUs |
| `after_a_week` | such a program may compute wrong results, so it counts only after a week |

| state | meaning |
|---|---|
| `responds` | NVML can read the GPU |
| `counters` | also, the counters show no uncorrected memory error since the driver was loaded; a GPU without counters never has this state |
| `pcie_link` | also, the PCIe link has all its lanes |
| `nvlinks` | also, as many NVLinks are up as on the other GPUs of the model |
| `power` | also, the clocks are not reduced because of power or temperature |

| family | codes | state | work | rates | action if the fault recurs | what to do |
|---|---|---|---|---|---|---|
";

fn snake_case(variant: impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn document() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "\n## Xid\n\n| code | name | class | severity | NVIDIA | action | ageing | what to do | why it differs |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for entry in xids() {
        let XidEntry { code, name, severity, nvidia_action, action, ageing, sre_action, differs, .. } = entry;
        let class = entry.class_name();
        let (nvidia, why) = (nvidia_action.unwrap_or("-"), differs.unwrap_or("-"));
        let [severity, action, ageing] = [snake_case(severity), snake_case(action), snake_case(ageing)];
        let row = format!(
            "| {code} | {name} | {class} | {severity} | {nvidia} | {action} | {ageing} | {sre_action} | {why} |"
        );
        page.push_str(&row);
        page.push('\n');
    }
    page.push_str(
        "\n## Kinds of one Xid\n\nThe row depends on the text of the line. The first matching row is used.\n\n",
    );
    page.push_str(
        "| codes | condition | severity | action | ageing | what to do | why |\n|---|---|---|---|---|---|---|\n",
    );
    for kind in kinds() {
        let (first, last) = kind.codes;
        let codes = if first == last { first.to_string() } else { format!("{first} to {last}") };
        let meaning = kind.meaning;
        let [severity, action, ageing] =
            [snake_case(meaning.severity), snake_case(meaning.action), snake_case(meaning.ageing)];
        let (advice, why) = (kind.meaning.advice, kind.why.unwrap_or("-"));
        let condition = cell(kind.condition);
        let _ = writeln!(page, "| {codes} | `{condition}` | {severity} | {action} | {ageing} | {advice} | {why} |");
    }
    page.push_str(FAMILIES);
    for FaultFamily { name, codes, recovery, work, rates, action_if_back, advice_if_back } in families() {
        let advice = advice_if_back.replace("{gpu}", "the GPU").replace("{node}", "the node");
        let [recovery, work, action] = [snake_case(recovery), snake_case(work), snake_case(action_if_back)];
        let rates: Vec<String> = rates.iter().map(|rate| format!("{}/{}", rate.incidents, rate.days)).collect();
        let (codes, rates) = (codes.replace(',', ", "), rates.join(", "));
        let _ = writeln!(page, "| {name} | {codes} | {recovery} | {work} | {rates} | {action} | {advice} |");
    }
    page.push_str(
        "\n## SXid\n\nThe word Fatal or Non-fatal in a line has priority over its row: Fatal is always fatal; Non-fatal is information, \
         unless\nNVIDIA recommends an action.\n\n| code | name | fatality | severity | NVIDIA | action | ageing |\n|---|---|---|---|---|---|---|\n",
    );
    for SxidEntry { code, words, fatality, severity, nvidia_action, action, ageing, .. } in sxids() {
        let fatality = fatality.map_or("-".to_owned(), |fatality| format!("{fatality:?}").to_lowercase());
        let [severity, action, ageing] = [snake_case(severity), snake_case(action), snake_case(ageing)];
        let nvidia = nvidia_action.unwrap_or("-");
        let _ = writeln!(page, "| {code} | {words} | {fatality} | {severity} | {nvidia} | {action} | {ageing} |");
    }
    page
}

#[test]
fn the_page_matches_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/xid.md");
    let page = document();
    if std::env::var("INSTA_UPDATE").is_ok_and(|mode| mode == "always") {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("docs");
        std::fs::write(&path, &page).expect("docs/xid.md");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/xid.md does not match the tables: run this test with INSTA_UPDATE=always");
}

/// Converts an action of NVIDIA's catalogue into an action of this program.
fn meant(nvidia: &str) -> Option<ActionCode> {
    match nvidia {
        "IGNORE" => Some(ActionCode::Watch),
        "RESTART_APP" => Some(ActionCode::RestartPod),
        "RESET_GPU" | "RESET_ALL" | "RESET_SCOPED" => Some(ActionCode::DrainAndReset),
        "RESTART_BM" | "RESTART_VM" | "RESTART_HOST" => Some(ActionCode::DrainAndReboot),
        "UPDATE_SWFW" => Some(ActionCode::UpdateSoftware),
        "CHECK_MECHANICALS" => Some(ActionCode::CheckCabling),
        "CHECK_COOLING" => Some(ActionCode::CheckCooling),
        _ => None,
    }
}

#[test]
fn every_action_that_differs_from_nvidias_has_a_reason() {
    for entry in xids() {
        let differs = match entry.nvidia_action {
            Some(word) => meant(word) != Some(entry.action),
            None => true,
        };
        assert!(!differs || entry.differs.is_some(), "{}: {:?} {:?}", entry.code, entry.nvidia_action, entry.action);
    }
    for entry in sxids() {
        // `RESTART_VM` is not compared: a node without a hypervisor has no virtual machine to restart, so the
        // configuration of the fabric must be checked.
        let nvidia = entry.nvidia_action.filter(|word| *word != "RESTART_VM").and_then(meant);
        assert!(nvidia.is_none_or(|nvidia| nvidia == entry.action), "{}", entry.code);
    }
}
