//! Rules about past Xids: severe Xids that occurred in several boots, and a list of the others.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence;
use crate::input::node::{Gpu, Node};
use crate::input::timeline::is_xid;
use crate::rule::aging;
use crate::rule::{Draft, XID_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kernel_log::{KernelEvent, KernelEventKind as Kind};

rules! {
    RECURRING: "xid-recurring" Warning Hardware XID_DOC, "The same severe Xid in several boots",
        ContactVendor "Have {gpu} of {node} inspected: resets and reboots did not fix it.",
        means "The same severe Xid occurred in several boots on the same GPU: resets and reboots did not fix it.",
        reads "xid";
    PAST: "xid-history" Info Driver XID_DOC, "Xids from before the last boot, driver load or reset",
        None "No action: they do not describe the current state of the GPUs of {node}.",
        means "Xids from before the last boot, driver load or reset. They do not describe the current state.",
        reads "xid";
}

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let again = recurring(node);
    let history = history(node).map(|draft| match again.is_empty() {
        true => draft,
        false => draft.with_action(
            ActionCode::None,
            "No action needed on its own; see xid-recurring for the Xids that occurred again.",
        ),
    });
    again.into_iter().chain(history).collect()
}

/// Returns whether an Xid that occurs again after a boot indicates a broken GPU: fatal Xids and uncorrectable memory
/// errors.
fn is_severe(event: &KernelEvent) -> bool {
    event.kind == Kind::Xid && (is_xid(event, &[48]) || aging::severity(event) == Severity::Fatal)
}

/// A severe Xid of one GPU, with the boots in which it occurred.
struct SevereXid<'a> {
    gpu: Gpu,
    code: u32,
    boots: BTreeSet<Option<&'a str>>,
}

/// Severe Xids that occurred on one GPU in at least two boots: resets and reboots did not fix the GPU.
fn recurring(node: &Node<'_>) -> Vec<Draft> {
    let mut found: Vec<SevereXid<'_>> = Vec::new();
    for event in node.timeline.events.iter().map(|event| event.fact).filter(|event| is_severe(event)) {
        let Some(code) = event.code else { continue };
        let Some(gpu) = owner(node, event) else { continue };
        let boot = event.boot_id.as_deref();
        match found.iter_mut().find(|known| known.code == code && known.gpu == gpu) {
            Some(known) => drop(known.boots.insert(boot)),
            None => found.push(SevereXid { gpu, code, boots: BTreeSet::from([boot]) }),
        }
    }
    let again = found.iter().filter(|xid| xid.boots.len() > 1);
    again
        .map(|SevereXid { gpu, code, boots }| {
            Draft::on_gpu(RECURRING, gpu).with_evidence(format!("Xid {code} in {} boots", boots.len()))
        })
        .collect()
}

/// Returns the GPU of an event. GPUs that were removed from the node are ignored. An event without a UUID at an address
/// where the log names several GPUs belongs to none of them.
fn owner(node: &Node<'_>, event: &KernelEvent) -> Option<Gpu> {
    let pci = event.pci_address.as_ref()?;
    let of_place = || node.gpus.iter().find(|gpu| gpu.pci.as_ref() == Some(pci));
    // The GPU at the address, with the UUID from the log: events with and without the UUID are about the same GPU.
    let named = |uuid: Option<&String>| {
        let place = of_place().cloned().unwrap_or_else(|| Gpu { pci: Some(pci.clone()), ..Gpu::default() });
        Gpu { uuid: uuid.cloned(), ..place }
    };
    if let Some(uuid) = &event.gpu_uuid {
        let there = node.gpus.iter().find(|gpu| gpu.uuid.as_ref() == Some(uuid));
        let nobody_knows_another = of_place().is_none_or(|gpu| gpu.uuid.is_none());
        return there.cloned().or_else(|| nobody_knows_another.then(|| named(Some(uuid))));
    }
    let at_place = node.timeline.events.iter().filter(|other| other.fact.pci_address.as_ref() == Some(pci));
    let mut uuids: BTreeSet<&String> = at_place.filter_map(|other| other.fact.gpu_uuid.as_ref()).collect();
    uuids.extend(of_place().and_then(|gpu| gpu.uuid.as_ref()));
    (uuids.len() <= 1).then(|| named(uuids.first().copied()))
}

/// Past events of one code.
#[derive(Default)]
struct PastXids {
    count: u64,
    last: Option<jiff::Timestamp>,
    places: BTreeSet<String>,
}

/// All past events as one finding.
fn history(node: &Node<'_>) -> Option<Draft> {
    let mut past: BTreeMap<(String, &'static str), PastXids> = BTreeMap::new();
    for event in
        node.timeline.events.iter().filter(|event| matches!(event.fact.kind, Kind::Xid | Kind::Sxid | Kind::OffBus))
    {
        let Some(why) = event.history else { continue };
        let entry = past.entry((evidence::event_name(event.fact), why)).or_default();
        entry.count += event.fact.count.max(1);
        entry.last = entry.last.max(event.fact.last);
        let pci = event.fact.pci_address.as_ref().map(|pci| pci.sysfs().to_owned());
        entry.places.extend(event.fact.gpu_index.map(|index| format!("GPU {index}")).or(pci));
    }
    let lines: Vec<String> = past
        .into_iter()
        .map(|((name, why), PastXids { count, last, places })| {
            let when = last.map(|last| format!(", last {}", evidence::time(last))).unwrap_or_default();
            let places: Vec<String> = places.into_iter().take(4).collect();
            format!("{name} ({}) {why}{when}, on {}", evidence::times(count), places.join(", "))
        })
        .collect();
    (!lines.is_empty()).then(|| Draft::on_node(PAST).with_all_evidence(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syringe_core::facts::host::{Host, PciGpu};
    use syringe_core::facts::inventory::{GpuInventory, Inventory};
    use syringe_core::facts::kernel_log::KernelLog;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::pci::PciAddress;
    use syringe_core::report::{Report, Section};

    /// An Xid 79 at 5d:00.0.
    fn xid(boot: Option<&str>, uuid: Option<&str>) -> KernelEvent {
        let (boot_id, gpu_uuid) = (boot.map(str::to_owned), uuid.map(str::to_owned));
        let pci_address = PciAddress::parse("5d:00.0");
        KernelEvent { code: Some(79), pci_address, boot_id, gpu_uuid, count: 1, ..KernelEvent::default() }
    }

    /// The UUIDs of the GPUs with a recurring Xid. NVML lists no GPU, and PCI shows the address.
    fn accused_on_pci(events: Vec<KernelEvent>) -> Vec<Option<String>> {
        let pci_gpus = vec![PciGpu { pci_address: PciAddress::parse("5d:00.0"), ..PciGpu::default() }];
        let mut report = Report::default();
        report.sections.host = Some(Section::read(Host { pci_gpus, ..Host::default() }, Vec::new()));
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let cluster = KubernetesFacts::default();
        recurring(&Node::new(&report, &cluster)).into_iter().map(|draft| draft.scope.uuid).collect()
    }

    #[test]
    fn a_gpu_on_the_bus_and_in_the_log_is_one_gpu() {
        let (a, b) = (Some("a"), Some("b"));
        let known = Some("GPU-1");
        let one = [Some("GPU-1".to_owned())];
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(None, None)]), one, "the earlier boot names the GPU");
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(None, known)]), one, "this boot names the GPU");
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(b, known)]), one);
        assert_eq!(accused_on_pci(vec![xid(a, None), xid(None, None)]), [None]);
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(b, Some("GPU-2"))]), [], "two GPUs with one event each");
        assert_eq!(accused_on_pci(vec![xid(a, known), xid(b, Some("GPU-2")), xid(None, None)]), []);
    }

    /// The number of findings about a recurring Xid of `GPU-new`, which is at that address now.
    fn accused(events: Vec<KernelEvent>) -> usize {
        let pci_address = PciAddress::parse("5d:00.0");
        let gpu = GpuInventory { uuid: Some("GPU-new".into()), pci_address, ..GpuInventory::default() };
        let mut report = Report::default();
        let inventory = Inventory { gpus: vec![gpu], ..Inventory::default() };
        report.sections.inventory = Some(Section::read(inventory, Vec::new()));
        report.sections.xid = Some(Section::read(KernelLog { events, ..KernelLog::default() }, Vec::new()));
        let cluster = KubernetesFacts::default();
        let drafts = recurring(&Node::new(&report, &cluster));
        assert!(drafts.iter().all(|draft| draft.scope.uuid.as_deref() == Some("GPU-new")));
        drafts.len()
    }

    #[test]
    fn a_replacement_gpu_is_not_blamed_for_errors_of_its_predecessor() {
        let now = || xid(None, Some("GPU-new"));
        assert_eq!(accused(vec![now(), xid(Some("a"), Some("GPU-new"))]), 1);
        assert_eq!(accused(vec![now(), xid(Some("a"), None)]), 1, "the log names no other GPU");
        assert_eq!(accused(vec![now(), xid(Some("a"), Some("GPU-old"))]), 0);
        assert_eq!(
            accused(vec![xid(Some("b"), Some("GPU-old")), xid(Some("a"), Some("GPU-old"))]),
            0,
            "the GPU is gone"
        );
        let between = vec![now(), xid(Some("b"), Some("GPU-old")), xid(Some("a"), Some("GPU-new"))];
        assert_eq!(accused(between), 1, "the GPU was removed in between, and had the error before");
        let unclear = vec![now(), xid(Some("b"), None), xid(Some("a"), Some("GPU-old"))];
        assert_eq!(accused(unclear), 0, "the log does not show which GPU had the error");
    }
}
