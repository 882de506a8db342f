//! `list`: lists the facts that could not be read, and whether this excludes `healthy`.
//! `not_requested`, `unchecked_sections`: the sections that were not requested, or that could not be read at all.
//!
//! Only requested sections count. For example, a report that contains only telemetry is not unknown because ECC is
//! missing. If several sections have the same cause, they are one entry.

use crate::conclusion::ruled_out::FaultsRuledOut;
use crate::input::node::{Node, OF_NVML};
use crate::input::optional_inputs::is_optional;
use crate::rule::Unread;
use syringe_core::facts::kubernetes::node::UnreadInput;
use syringe_core::report::{Report, Source, Status};
use syringe_core::section_name::SectionName;
use syringe_core::text::{clean, clean_keeping_end};
use syringe_core::unknown::{NOT_IN_ARCHIVE, Unknown};

/// Sections that are required for `healthy`. Processes, MIG instances and allocations do not decide about health.
const DECISIVE: [SectionName; 6] = [
    SectionName::Inventory,
    SectionName::Telemetry,
    SectionName::Topology,
    SectionName::Ecc,
    SectionName::Host,
    SectionName::Xid,
];

/// Maximum number of entries.
const MAX: usize = 12;

/// Maximum length of a reason.
const WHY: usize = 240;

/// Returns the sections that were not requested. The only fault of a node may be in such a section. For sections that
/// could not be read, see [`list`].
pub(crate) fn not_requested(node: &Node<'_>) -> Vec<SectionName> {
    let is_absent = |section: &SectionName| node.report.sections.get(*section).status().is_none();
    SectionName::ALL.into_iter().filter(is_absent).collect()
}

/// Returns the sections that were not requested, and the sections that could not be read at all.
pub(crate) fn unchecked_sections(node: &Node<'_>) -> Vec<SectionName> {
    let mut sections = not_requested(node);
    sections.extend(without_data(node));
    sections
}

/// Returns the sections that were requested, but could not be read at all.
fn without_data(node: &Node<'_>) -> impl Iterator<Item = SectionName> {
    node.report.sections.statuses().into_iter().map(|(name, _)| name).filter(|name| !node.has(*name))
}

/// Returns the facts that could not be read, and whether this excludes `healthy`. `unread`: facts that the rules need.
pub(crate) fn list(node: &Node<'_>, unread: Vec<Unread>, faults: &FaultsRuledOut) -> (Vec<Unknown>, bool) {
    let mut entries: Vec<(Vec<SectionName>, Unknown)> = Vec::new();
    // Advice about the driver of the host does not apply to GPUs that are passed through to virtual machines.
    let of_driver = |section: &SectionName| OF_NVML.contains(section) || *section == SectionName::Processes;
    let applies = |section: &SectionName| !(node.is_passed_through() && of_driver(section));
    for (section, problem) in node.report.sections.problems().into_iter().filter(|(section, _)| applies(section)) {
        // The entry has separate fields for section and GPU.
        let gpu = problem.gpu.map(|gpu| format!("GPU {gpu}"));
        let is_named = problem.what == section.as_str()
            || gpu.as_ref() == Some(&problem.what)
            || problem.why.starts_with(&problem.what);
        let what = if is_named { String::new() } else { format!("{}: ", problem.what) };
        let why = clean_keeping_end(&format!("{what}{}", problem.why), WHY);
        // If there is no room for the next step, the reason is not shortened.
        let with_next = format!("{}. {}", why.trim_end_matches('.'), problem.next_step);
        // Without a probe, the summary already contains the next step.
        let has_room =
            node.report.source != Source::Api && !problem.next_step.is_empty() && with_next.chars().count() <= WHY;
        let why = if has_room { clean(&with_next, WHY) } else { why };
        match entries.iter_mut().find(|(_, entry)| entry.gpu == problem.gpu && entry.why == why) {
            Some((sections, _)) if sections.contains(&section) => {}
            Some((sections, _)) => sections.push(section),
            None => entries.push((vec![section], Unknown { section: String::new(), gpu: problem.gpu, why })),
        }
    }
    if node.is_passed_through() {
        let why = "the GPUs are bound to vfio-pci for virtual machines: the host has no driver for them, and only the virtual machines \
             can read their state";
        entries.push((vec![SectionName::Inventory], Unknown { why: why.to_owned(), ..Unknown::default() }));
    }
    // These entries are first, because the list is cut off at the end.
    let mut list: Vec<Unknown> = Vec::new();
    node.kubernetes.unread.iter().map(unread_input).for_each(|input| join(&mut list, input));
    list.extend(
        entries.into_iter().map(|(sections, entry)| Unknown { section: SectionName::join(&sections, ", "), ..entry }),
    );
    let confined = !node.shows_gpus_of_node();
    if confined {
        list.push(Unknown::new(
            SectionName::Inventory,
            "the probe saw only the GPUs of its container: other GPUs of the node may have a fault",
        ));
    }
    let decisive = confined
        || unread.iter().any(|unread| unread.decides)
        || !faults.missing.is_empty()
        || !node.kubernetes.unread.is_empty()
        || undecided(node.report);
    list.extend(faults.missing.iter().map(|(section, why)| Unknown::new(*section, why.clone())));
    unread.into_iter().for_each(|unread| join(&mut list, unread.fact));
    for name in without_data(node) {
        if !list.iter().any(|entry| entry.is_of(name)) {
            list.push(Unknown::new(name, "the section has no data, and the probe gave no reason"));
        }
    }
    if list.len() > MAX {
        let more = list.len() - (MAX - 1);
        list.truncate(MAX - 1);
        let why = format!("{more} more values could not be read; see the problems of the sections");
        list.push(Unknown::new("all", why));
    }
    (list, decisive)
}

/// Adds an entry. If an archive lacks other data for the same reason, adds the section to the entry of that data.
fn join(list: &mut Vec<Unknown>, entry: Unknown) {
    let same = |known: &&mut Unknown| known.why == entry.why && entry.why.starts_with(NOT_IN_ARCHIVE);
    match list.iter_mut().find(same) {
        Some(known) => known.section = format!("{}, {}", known.section, entry.section),
        None => list.push(entry),
    }
}

/// Returns the entry for an input from Kubernetes that was not read.
fn unread_input(UnreadInput { input, why }: &UnreadInput) -> Unknown {
    Unknown::new(input.section(), clean_keeping_end(why, WHY))
}

fn undecided(report: &Report) -> bool {
    let failed = |(name, status): (SectionName, Status)| DECISIVE.contains(&name) && status == Status::Error;
    let log = report.sections.xid.as_ref();
    // A section that was read in part excludes the claims that need the missing part. A log with a missing source still
    // covers a time window, which the rules about the log check.
    let of_claims = |name: SectionName| DECISIVE.contains(&name) && name != SectionName::Xid;
    let partial =
        report.sections.problems().iter().any(|(name, problem)| of_claims(*name) && !is_optional(*name, problem));
    let no_log = log.is_some_and(|log| log.data.as_ref().is_none_or(|data| data.coverage.is_empty()));
    partial || no_log || report.sections.statuses().into_iter().any(failed) || report.error.is_some()
}
