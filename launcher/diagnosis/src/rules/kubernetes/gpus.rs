//! Rules that compare the number and identity of the GPUs in Kubernetes and the kubelet with the GPUs of the node, and
//! rules about node conditions about GPUs.
//!
//! If all GPUs of a node are missing, no rule about a single GPU applies. Therefore the number of GPUs is compared with
//! the PCI bus (in `rules/gpu/unusable.rs`), the capacity, the labels, and the allocations of the kubelet.

use super::conditions;
use crate::evidence;
use crate::input::boards;
use crate::input::instance_types::{self, InstanceType};
use crate::input::node::Node;
use crate::input::platforms;
use crate::input::pods_match::matching_fails;
use crate::messages::phrases::{self, Part};
use crate::messages::shapes;
use crate::messages::subjects;
use crate::rule::{DEBUG_DOC, Draft, MIG_DOC, PLUGIN_DOC, rules};
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::kubernetes::node::{Component, NvidiaPod};
use syringe_core::gpu_names::{count_without_shares, without_share};
use syringe_core::report::{Problem, Source};
use syringe_core::section_name::SectionName;
use syringe_core::text::clean;

rules! {
    NONE_FOUND: "no-gpus-found" Fatal Hardware DEBUG_DOC, "No GPU found on a node that should have GPUs",
        DrainAndReboot "Drain and reboot {node}. If PCI still shows no GPU, check the machine or its instance type.",
        means "Kubernetes lists GPUs of the node, but NVML and the PCI bus show no GPU. No pod can use a GPU there.",
        reads "host.pci_gpus, inventory.gpus, kubernetes.gpu_capacity, kubernetes.gpu_label_count, \
            kubernetes.other_gpu_resources, kubernetes.gpu_dra, kubernetes.labels, kubelet.registered, \
            kubelet.allocations";
    FEWER: "gpu-count-low" Critical Hardware DEBUG_DOC, "Fewer GPUs than Kubernetes expects",
        DrainAndReboot "Drain and reboot {node}. If a GPU is still missing, check its seating and power.",
        means "NVML and PCI list fewer GPUs than Kubernetes counted. Pods may be scheduled to GPUs that no \
            longer exist.",
        reads "host.pci_gpus, inventory.gpus, kubernetes.gpu_capacity, kubernetes.gpu_label_count, \
            kubernetes.instance_type", in_plan WorkContinues;
    CONTRADICTED: "gpu-count-contradicted" Warning Driver PLUGIN_DOC, "Sources contradict each other about the number of GPUs",
        Watch "Find out which source is wrong before you repair {node}. Compare the label of the instance type with \
            the machine. Restart GPU feature discovery, which writes nvidia.com/gpu.count again. Then run the \
            diagnosis again. All GPUs that NVML lists can be used.",
        means "A label of the node names another number or product of GPUs than NVML, the PCI bus and the capacity: a GPU is missing, \
            or the label is out of date or was set by hand.",
        reads "host.pci_gpus, inventory.gpus, kubernetes.gpu_capacity, kubernetes.gpu_label_count, \
            kubernetes.instance_type", about Workload;
    NOT_GPU_NODE: "not-a-gpu-node" Info Driver None, "The node has no NVIDIA GPU",
        None "No action: {node} has no NVIDIA GPU, and nothing indicates that it should have a GPU.",
        means "The node has no NVIDIA GPU, and Kubernetes does not expect one.",
        reads "host.pci_gpus, inventory.gpus, kubernetes.gpu_capacity, kubernetes.labels, kubelet.registered";
    UNALLOCATABLE: "gpus-not-allocatable" Warning Driver PLUGIN_DOC, "Not all GPUs are allocatable",
        Watch "Check the log of the device plugin on {node} for devices that it marks unhealthy, and the other \
            findings.",
        means "The device plugin reports some GPUs as unhealthy, so that fewer GPUs are allocatable than the node has.",
        reads "kubernetes.gpu_capacity, kubernetes.gpu_allocatable, kubernetes.other_gpus_withheld", about Unavailable, depth 3;
    NOT_ADVERTISED: "gpus-not-advertised" Warning Driver PLUGIN_DOC, "GPUs are not advertised to Kubernetes",
        UpdateSoftware "Check the NVIDIA device plugin on {node}: is its pod running, with the nvidia runtime?",
        means "GPUs respond, or Kubernetes expects GPUs on a node that was not read. But Kubernetes advertises none \
            of these GPUs, so that no pod that requests a GPU can run on the node.",
        reads "inventory.gpus, kubernetes.gpu_capacity, kubernetes.other_gpu_resources, kubernetes.gpu_dra, \
            kubernetes.gpu_plugin_in_cluster, kubernetes.nvidia_pods", about Unavailable, depth 3;
    ALLOCATED_MISSING: "allocated-gpu-missing" Critical Hardware PLUGIN_DOC,
        "A pod is allocated a GPU that is missing",
        RestartPod "Restart the pod when {node} has its GPU back, or move the pod to another node.",
        means "The kubelet has allocated to a pod a GPU that NVML does not list. CUDA fails in that pod.",
        reads "kubelet.allocations, inventory.gpus";
    ALLOCATED_MIG_MISSING: "allocated-mig-device-missing" Critical Driver MIG_DOC, "A pod is allocated a MIG device that no longer exists",
        UpdateSoftware "Create the MIG devices of {node} again as its MIG configuration says, or restart the device plugin, so that it offers \
            the MIG devices that exist. Then recreate the pod.",
        means "The kubelet has allocated to a pod a MIG device that NVML does not list: the MIG device was deleted or created again, which \
            gives it another UUID. CUDA fails in that pod.",
        reads "kubelet.allocations, mig.gpus";
    STALE_DEVICES: "device-plugin-stale" Warning Driver PLUGIN_DOC,
        "The device plugin advertises GPUs that do not exist",
        UpdateSoftware "Restart the NVIDIA device plugin on {node}: its list is older than the devices (a new MIG layout, a replaced GPU).",
        means "The device plugin advertises GPUs or MIG devices that NVML does not list. A pod that gets such a device \
            cannot start.",
        reads "kubelet.registered, inventory.gpus, mig.gpus", about Unavailable;
    STALE_ALLOCATION: "allocation-stale" Info Driver PLUGIN_DOC, "The kubelet still lists allocations of deleted pods",
        Watch "No action: the kubelet releases these allocations when it admits the next pod on {node}.",
        means "The kubelet still has GPUs allocated to pods that do not exist or have ended. The kubelet releases them when it \
            admits the next pod with devices.",
        reads "kubelet.allocations, kubernetes.live_pod_uids", depth 3;
    CONDITION: "kubernetes-gpu-condition" Warning Driver None, "A node condition reports a GPU problem",
        Watch "Compare the condition, which another monitor set, with the other findings of {node}.",
        means "A monitor, such as node-problem-detector, set a condition of the node about a GPU problem.",
        reads "kubernetes.gpu_conditions", depth 3;
    REFUTED: "kubernetes-gpu-condition-refuted" Info Driver None, "A node condition about a GPU does not match the readings",
        Watch "Let the monitor measure {node} again (restart its pod there), or reset the condition. {node} needs no \
            repair because of this condition.",
        means "A monitor set a condition about a GPU, and the readings of that GPU show that the fault no longer exists.",
        reads "kubernetes.gpu_conditions, kubernetes.gpu_conditions_since, ecc, topology";
}

/// Maximum number of devices in one line of evidence.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = counts(node).into_iter().chain(offers(node)).collect();
    drafts.extend(kubelet(node));
    if !node.kubernetes.gpu_conditions.is_empty() {
        let (refuted, all) = conditions::refuted(node);
        drafts.extend((!refuted.is_empty()).then(|| Draft::on_node(REFUTED).with_all_evidence(refuted)));
        if all.is_empty() {
            return drafts;
        }
        // If a monitor did not measure, it reports no fault. Its condition is shown only if there is no other
        // condition.
        let measured: Vec<&str> = all.iter().copied().filter(|text| !is_unmeasured(text)).collect();
        let is_unknown = measured.is_empty();
        let shown = if is_unknown { all } else { measured };
        let is_stale = shown.iter().all(|text| is_about_absent_gpu(node, text));
        let conditions = shown.iter().map(|text| evidence::reason(text));
        let told = shown.iter().copied();
        let known = |text: &str| Some(phrases::known(Part::Program, text)?.meaning(text));
        let reason = told.clone().find_map(known).map(|meaning| format!("its monitor reports that {meaning}"));
        let reason = reason.or_else(|| told.clone().find_map(shapes::read).map(|reading| reading.quoted()));
        let reason = reason
            .or_else(|| told.clone().next().map(|text| format!("its monitor says \"{}\"", shapes::words_of(text))));
        let repair = told.clone().find_map(|text| phrases::known(Part::Program, text)).map(|phrase| phrase.action);
        let repair = repair.or_else(|| told.clone().find_map(shapes::read).map(|reading| reading.advice));
        let draft = Draft { reason, ..Draft::on_node(CONDITION) }.with_all_evidence(conditions);
        let advice = repair.map(|repair| format!("{} {repair}", draft.advice));
        let draft = if is_unknown { draft.with_severity(Severity::Info) } else { draft };
        if is_stale {
            let absent = "the node has all its GPUs, but no GPU has the UUID in the condition: the GPU was replaced";
            let draft = draft.with_severity(Severity::Info).with_evidence(absent);
            drafts.push(Draft { reason: None, ..draft }.with_action(ActionCode::Watch, CLEAR));
            return drafts;
        }
        let action = draft.action;
        drafts.push(match advice {
            Some(advice) => draft.with_action(action, advice),
            None => draft,
        });
    }
    drafts
}

/// Joins a condition of another monitor with the finding about the same subject, because the finding contains its
/// meaning and the action.
pub(super) fn refine(drafts: &mut [Draft]) {
    let Some(at) = drafts.iter().position(|draft| draft.rule.id == CONDITION.id) else { return };
    let says = |draft: &Draft, id: &str| draft.evidence.iter().any(|line| subjects::is_about(line, id));
    let Some(same) = drafts.iter().find(|other| says(&drafts[at], other.rule.id)).cloned() else { return };
    let condition = drafts[at].clone();
    let action = condition.action;
    let advice = format!(
        "The condition is about the same subject as the finding {}. {} The monitor resets its condition at its next measurement.",
        same.rule.id, same.advice
    );
    drafts[at] = condition
        .with_evidence(format!("finding {}: {}", same.rule.id, same.rule.title))
        .with_all_evidence(same.evidence.iter().take(1).cloned())
        .with_action(action, advice);
}

/// Action for a condition about a GPU that is no longer in the node.
const CLEAR: &str = "Let the monitor measure {node} again (restart its pod there): the condition is about a GPU that the node no longer has.";

/// Returns whether a condition names GPUs by UUID that are not in the node, although no GPU is missing.
fn is_about_absent_gpu(node: &Node<'_>, condition: &str) -> bool {
    let is_uuid = |word: &&str| word.len() == 40 && word.starts_with("GPU-");
    let words = condition.split(|one: char| !one.is_ascii_alphanumeric() && one != '-');
    let named: Vec<&str> = words.filter(is_uuid).collect();
    let present: Vec<&str> = node.gpus.iter().filter_map(|gpu| gpu.uuid.as_deref()).collect();
    let cluster = node.kubernetes;
    let counted = cluster.gpu_label_count.max(cluster.gpu_capacity).and_then(|count| usize::try_from(count).ok());
    let is_complete = node.gpus.iter().all(|gpu| gpu.answers && gpu.uuid.is_some())
        && counted.is_some_and(|count| count <= present.len());
    is_complete && !named.is_empty() && !named.iter().any(|uuid| present.contains(uuid))
}

/// Returns whether a condition has the status Unknown: `XidError is Unknown: NotMeasured, …`.
fn is_unmeasured(condition: &str) -> bool {
    let Some((name, rest)) = condition.split_once(": ") else { return false };
    name.ends_with(" is Unknown") || rest.starts_with("Unknown")
}

/// Returns whether any GPU has MIG enabled. Kubernetes then does not count whole GPUs.
fn has_mig(node: &Node<'_>) -> bool {
    let section = node.mig().is_some_and(|mig| mig.gpus.iter().any(|gpu| gpu.mode.is_some_and(|mode| mode.current)));
    section
        || node.inventory().is_some_and(|all| all.gpus.iter().any(|gpu| gpu.mig_mode.is_some_and(|mode| mode.current)))
}

/// Returns whether the plugin advertises several shares of each GPU (time-slicing of GKE, HAMi, Volcano): the capacity
/// is a multiple of the registered GPUs, and NVML lists each of these GPUs. If the plugin still advertises a lost GPU,
/// it registers the name of that GPU.
fn offers_shares(node: &Node<'_>, capacity: u32) -> bool {
    let listed = u32::try_from(node.answering().count()).unwrap_or(u32::MAX);
    // With renamed resources, the plugin advertises the shares as another resource.
    let Some(registered) =
        node.kubelet().and_then(|kubelet| kubelet.registered.iter().find(|one| one.are_whole_gpus()))
    else {
        return false;
    };
    let count = count_without_shares(&registered.devices);
    let all_listed = registered.devices.iter().all(|device| !is_missing(node, device));
    listed > 0 && count == listed && all_listed && capacity > listed && capacity.is_multiple_of(listed)
}

/// A number of GPUs that Kubernetes expects.
struct Expected {
    count: u32,
    source: String,
    /// The reason why the number cannot be right, if another source contradicts it.
    doubt: Option<String>,
    /// Whether this is a number of physical GPUs, which cannot be smaller than the number in NVML.
    is_physical: bool,
}

/// Returns the numbers of GPUs that Kubernetes expects, each with its source.
fn expected(node: &Node<'_>, known: u32) -> Vec<Expected> {
    let cluster = node.kubernetes;
    let label = cluster.gpu_label_count.filter(|_| !has_mig(node));
    // A plugin that advertises several shares of each GPU multiplies the capacity, but feature discovery does not.
    let is_shared = |count: u32| {
        offers_shares(node, count)
            || (label == Some(known) && known > 0 && count > known && count.is_multiple_of(known))
    };
    let capacity = cluster.gpu_capacity.filter(|count| !has_mig(node) && !is_shared(*count));
    let type_name = cluster.instance_type.as_deref();
    let of_type = type_name.and_then(instance_types::of);
    let mut all = Vec::new();
    // If several numbers are equal, the capacity is named as the source, because most readers know it.
    all.extend(capacity.map(|count| Expected {
        count,
        source: "capacity".to_owned(),
        doubt: if count > known && label == Some(known) { set_by_hand(node, known) } else { None },
        is_physical: false,
    }));
    // With MIG devices of one size and the strategy `single`, the label counts these devices.
    all.extend(label.map(|count| Expected {
        count,
        source: "label nvidia.com/gpu.count".to_owned(),
        doubt: if count > known { confirmed(node, known, capacity, of_type) } else { None },
        is_physical: false,
    }));
    all.extend(of_type.zip(type_name).map(|(of_type, name)| Expected {
        count: of_type.gpus,
        source: format!("instance type {}", evidence::data(name)),
        doubt: other_product(node, of_type),
        is_physical: true,
    }));
    all.retain(|expected| expected.count > 0);
    all.sort_by_key(|expected| std::cmp::Reverse(expected.count));
    all
}

/// Returns the number of devices that the device plugin has registered under the usual name.
fn registered(node: &Node<'_>) -> Option<u32> {
    let mut all = node.kubelet()?.registered.iter();
    let registered = all.find(|one| one.resource == "nvidia.com/gpu")?;
    Some(u32::try_from(registered.devices.len()).unwrap_or(u32::MAX))
}

/// Returns the number of registered devices, if it shows that the capacity is wrong: the kubelet makes the capacity from
/// these devices, and a person can only change it by hand.
fn set_by_hand(node: &Node<'_>, known: u32) -> Option<String> {
    let on_pci = node.host().is_some_and(|host| u32::try_from(host.pci_gpus.len()) == Ok(known));
    (on_pci && registered(node) == Some(known)).then(|| format!("devices of the kubelet: {known}"))
}

/// Returns a source other than the label that counts as many GPUs as are known. It is the capacity together with the
/// registered devices, which the device plugin counts at each start, or the instance type.
fn confirmed(node: &Node<'_>, known: u32, capacity: Option<u32>, of_type: Option<&InstanceType>) -> Option<String> {
    let registered = registered(node);
    let of_type = of_type.filter(|of_type| other_product(node, of_type).is_none()).map(|of_type| of_type.gpus);
    // The capacity also counts GPUs that the plugin marks as unhealthy.
    if node.kubernetes.gpu_capacity.is_some_and(|capacity| capacity > known) {
        return None;
    }
    let sources =
        [(capacity, "Kubernetes capacity"), (registered, "devices of the kubelet"), (of_type, "instance type")];
    let same = sources.into_iter().find(|(count, _)| *count == Some(known));
    same.map(|(_, source)| format!("{source}: {known}"))
}

/// Returns a sentence about a GPU model that machines of this instance type do not have.
fn other_product(node: &Node<'_>, of_type: &InstanceType) -> Option<String> {
    let mut names = node.answering().filter_map(|gpu| gpu.name.as_deref());
    let name = names.find(|name| !of_type.has(name))?;
    Some(format!("machines of this type have {}, but NVML lists {}", of_type.product, evidence::data(name)))
}

/// Returns other signs in Kubernetes that the node has or had GPUs. They do not contain the number of GPUs.
fn signs(node: &Node<'_>) -> Vec<String> {
    let cluster = node.kubernetes;
    let mut signs = Vec::new();
    if cluster.gpu_dra == Some(true) {
        signs.push("a ResourceSlice publishes GPUs of the node".to_owned());
    }
    if node.offers_other_resources() {
        signs.push("the node advertises GPUs under other resource names".to_owned());
    }
    if cluster.labels.pci_present {
        signs.push("node feature discovery labelled a PCI device of NVIDIA".to_owned());
    }
    let deployed = cluster.labels.deploy.iter().filter(|(_, value)| *value == "true").map(|(name, _)| name);
    let deployed = evidence::names(deployed, NAMED);
    if !deployed.is_empty() {
        signs.push(format!("labels of the GPU Operator for this node: {deployed}"));
    }
    if let Some(kubelet) = node.kubelet() {
        let of_nvidia = |resource: &str| resource.starts_with("nvidia.com/");
        let registered = kubelet.registered.iter().filter(|one| of_nvidia(&one.resource) && !one.devices.is_empty());
        let allocated = kubelet.allocations.iter().filter(|one| of_nvidia(&one.resource) && !one.devices.is_empty());
        for (count, words) in [(registered.count(), "registered"), (allocated.count(), "allocated to pods")] {
            signs.extend((count > 0).then(|| format!("the kubelet lists GPUs as {words}")));
        }
    }
    signs
}

fn counts(node: &Node<'_>) -> Option<Draft> {
    // An integrated GPU is not on PCI, and not in NVML either with older software.
    if boards::is_integrated(node) {
        return None;
    }
    let on_pci = node.host().map(|host| host.pci_gpus.len());
    let in_nvml = node.inventory().map(|inventory| inventory.gpus.len());
    let known = u32::try_from(node.listed().count()).unwrap_or(u32::MAX);
    // Other sections can list GPUs that are not in the inventory.
    let none = in_nvml.unwrap_or(0) == 0 && on_pci.unwrap_or(0) == 0 && known == 0;
    let sections = &node.report.sections;
    let (nvml, host) = (sections.get(SectionName::Inventory).problems(), sections.get(SectionName::Host).problems());
    let counted = [
        count_of(("NVML", "NVML lists"), in_nvml, sections.inventory.is_some().then_some(nvml)),
        count_of(("the PCI bus", "PCI shows"), on_pci, sections.host.is_some().then_some(host)),
    ];
    let claims = expected(node, known);
    let Some(highest) = claims.first() else {
        // There is no finding if PCI was not read, because a failure of NVML does not show that hardware is missing.
        // There is also no finding if only the files and GPUs of a container were read, because a container may have no
        // GPU.
        if !none || on_pci.is_none() || !node.shows_whole_node() {
            return None;
        }
        let signs = signs(node);
        let rule = if signs.is_empty() { NOT_GPU_NODE } else { NONE_FOUND };
        return Some(Draft::on_node(rule).with_all_evidence(signs).with_all_evidence(counted));
    };
    // A separate finding reports GPUs that do not respond. A number shows that a GPU is missing only if no other source
    // contradicts it.
    let draft = match claims.iter().find(|claim| claim.doubt.is_none() && claim.count > known) {
        _ if none && (on_pci.is_some() || in_nvml.is_some()) => {
            Draft::on_node(NONE_FOUND).with_evidence(highest.told())
        }
        _ if known == 0 => return None,
        // Most GPUs of a machine do not vanish together: the label of the type is probably wrong.
        Some(claim) if claim.is_physical && known * 2 < claim.count && on_pci == in_nvml => Draft::on_node(FEWER)
            .with_severity(Severity::Warning)
            .with_evidence(claim.told())
            .with_action(ActionCode::Watch, OTHER_TYPE),
        Some(claim) => Draft::on_node(FEWER).with_evidence(claim.told()),
        None => contradicted(&claims, known)?,
    };
    Some(draft.with_all_evidence(counted))
}

impl Expected {
    fn told(&self) -> String {
        format!("Kubernetes {}: {}", self.source, self.count)
    }

    fn is_small(&self, known: u32) -> bool {
        self.is_physical && self.count < known
    }
}

/// Returns a finding about numbers that other sources contradict. A number that is too small does not affect programs.
fn contradicted(claims: &[Expected], known: u32) -> Option<Draft> {
    let wrong: Vec<&Expected> = claims.iter().filter(|claim| claim.doubt.is_some() || claim.is_small(known)).collect();
    let severity = match wrong.iter().any(|claim| claim.count > known) {
        true => Severity::Warning,
        false => Severity::Info,
    };
    let lines = wrong.iter().flat_map(|claim| std::iter::once(claim.told()).chain(claim.doubt.clone()));
    let draft = Draft::on_node(CONTRADICTED).with_severity(severity).with_all_evidence(lines);
    // Capacity and registered devices count only the GPUs that the plugin found at its start.
    let may_be_missing = wrong.iter().any(|claim| claim.count > known && !claim.is_physical);
    let draft = if may_be_missing && !claims.iter().any(|claim| claim.is_physical) {
        draft.with_action(ActionCode::Watch, COUNT_FIRST)
    } else {
        draft
    };
    (!wrong.is_empty()).then_some(draft)
}

/// The action if the instance type has many more GPUs than all other sources.
const OTHER_TYPE: &str = "Compare the label node.kubernetes.io/instance-type of {node} with the type of the machine at its provider. If the label is \
     right, have the provider check the machine. Work on the GPUs that NVML lists may continue.";

/// The action if only a label has the higher number: a GPU can have been lost before the last boot.
const COUNT_FIRST: &str = "Find out how many GPUs {node} should have (BMC, inventory of the machines). If a GPU is \
    missing, drain and power-cycle {node}, then check the seating and power of the GPU. If no GPU is missing, let GPU \
    feature discovery write nvidia.com/gpu.count again. All GPUs that NVML lists can be \
    used.";

/// Returns the number of GPUs in a source as a text, or the reason why there is no number.
fn count_of((source, lists): (&str, &str), count: Option<usize>, problems: Option<&[Problem]>) -> String {
    match (count, problems) {
        (Some(count), _) => format!("{lists} {}", evidence::count(count, "GPU")),
        (None, None) => format!("{source} was not read"),
        (None, Some(problems)) => {
            let why = problems.first().map(|problem| format!(": {}", clean(&problem.why, 160))).unwrap_or_default();
            format!("{source} could not be read{why}")
        }
    }
}

fn offers(node: &Node<'_>) -> Option<Draft> {
    let present = u32::try_from(node.answering().count()).unwrap_or(u32::MAX);
    if node.advertises_no_gpus() {
        return not_advertised(node, present);
    }
    let withheld = &node.kubernetes.other_gpus_withheld;
    if !withheld.is_empty() && node.kubernetes.gpu_allocatable.unwrap_or(0) == 0 && present > 0 {
        let lines = withheld.iter().map(|name| format!("Kubernetes capacity {}, allocatable 0", evidence::data(name)));
        return Some(Draft::on_node(UNALLOCATABLE).with_all_evidence(lines));
    }
    let capacity = node.kubernetes.gpu_capacity.filter(|capacity| *capacity > 0)?;
    let allocatable = node.kubernetes.gpu_allocatable?;
    let numbers = format!("Kubernetes capacity {capacity}, allocatable {allocatable}");
    // If the plugin is gone, the kubelet keeps the capacity for some minutes or until its restart.
    let is_plugin = |pod: &NvidiaPod| matches!(pod.component, Component::DevicePlugin | Component::DraDriver);
    let has_plugin = node.kubernetes.nvidia_pods.as_ref().is_none_or(|pods| pods.iter().any(is_plugin));
    let rule = if allocatable == 0 && !has_plugin && present > 0 { NOT_ADVERTISED } else { UNALLOCATABLE };
    (allocatable < capacity).then(|| Draft::on_node(rule).with_evidence(numbers))
}

/// Finds GPUs that are not advertised to Kubernetes, although they work, or although Kubernetes expects them on a node
/// that was not read.
fn not_advertised(node: &Node<'_>, present: u32) -> Option<Draft> {
    let cluster = node.kubernetes;
    // MIG devices are other resources.
    if has_mig(node) {
        return None;
    }
    let gpus = match present {
        0 if node.report.source != Source::Api => return None,
        0 => expected(node, 0).first()?.told(),
        present => format!("NVML lists {present}"),
    };
    let capacity = match cluster.gpu_capacity {
        Some(_) => "Kubernetes capacity: 0",
        None => "Kubernetes capacity: no such resource",
    };
    let draft = Draft::on_node(NOT_ADVERTISED).with_evidence(format!("{capacity}, {gpus}"));
    // After a device plugin is gone, the kubelet keeps its resource with the amount 0.
    let is_built_in = cluster.os_image.as_deref().is_some_and(platforms::has_device_plugin);
    if cluster.gpu_plugin_in_cluster == Some(false) && cluster.gpu_capacity.is_none() && !is_built_in {
        let advice = "No action if the GPUs are used outside of Kubernetes. Otherwise install the NVIDIA device plugin or the GPU \
                      Operator in the cluster of {node}.";
        let draft = draft.with_evidence("no node of the cluster advertises GPUs or runs the device plugin");
        // The taint keeps pods without a GPU off nodes whose GPUs Kubernetes gives to pods.
        let reserved = cluster.taints.iter().find(|taint| taint.starts_with("nvidia.com/gpu"));
        return Some(match reserved {
            Some(taint) => draft
                .with_evidence(format!("the taint {} reserves the node for pods with GPUs", evidence::name(taint)))
                .with_action(ActionCode::UpdateSoftware, NO_PLUGIN),
            None => draft.with_severity(Severity::Info).with_action(ActionCode::None, advice),
        });
    }
    let before =
        "a device plugin advertised GPUs on this node before, but no node of the cluster runs a device plugin now";
    let is_gone = cluster.gpu_plugin_in_cluster == Some(false) && cluster.gpu_capacity.is_some();
    let gone = is_gone.then(|| before.to_owned());
    let draft = draft.with_all_evidence(gone);
    let unknown_dra = cluster.gpu_dra.is_none().then_some("it is not known whether a DRA driver manages the GPUs");
    let draft = draft.with_all_evidence(unknown_dra.map(str::to_owned));
    // A ready DRA driver may publish the GPUs.
    let mut pods = cluster.nvidia_pods.iter().flatten();
    if unknown_dra.is_some() && pods.any(|pod| pod.component == Component::DraDriver && pod.ready) {
        let advice = "Check with `kubectl get resourceslices` whether the DRA driver offers the GPUs of {node}.";
        return Some(draft.with_severity(Severity::Info).with_action(ActionCode::Watch, advice));
    }
    Some(draft)
}

const NO_PLUGIN: &str =
    "Install the NVIDIA device plugin or the GPU Operator in the cluster of {node}: without it, no pod gets a GPU.";

/// Compares the allocations of the kubelet with the GPUs in NVML.
fn kubelet(node: &Node<'_>) -> Vec<Draft> {
    let Some(kubelet) = node.kubelet() else { return Vec::new() };
    let mut drafts = Vec::new();
    for allocation in &kubelet.allocations {
        let missing: Vec<&str> =
            allocation.devices.iter().map(String::as_str).filter(|device| is_missing(node, device)).collect();
        if !missing.is_empty() {
            let names = evidence::names(&missing, NAMED);
            let holder = format!(
                "pod {}, container {}: {names}",
                evidence::data(&allocation.holder()),
                evidence::data(&allocation.container)
            );
            let is_mig = missing.iter().all(|device| device.starts_with("MIG-"));
            let rule = if is_mig { ALLOCATED_MIG_MISSING } else { ALLOCATED_MISSING };
            let mut draft = Draft::on_node(rule).with_evidence(holder).with_evidence("NVML does not list the device");
            draft.scope.pod_uid = Some(allocation.pod_uid.clone()).filter(|uid| !uid.is_empty());
            draft.scope.uuid = missing.first().map(|name| evidence::data(name));
            drafts.push(draft);
        }
    }
    for registered in &kubelet.registered {
        let missing: Vec<String> = registered
            .devices
            .iter()
            .filter(|device| is_missing(node, device))
            .take(NAMED)
            .map(|name| evidence::data(name))
            .collect();
        if !missing.is_empty() {
            let resource = evidence::data(&registered.resource);
            drafts.push(Draft::on_node(STALE_DEVICES).with_evidence(format!("{resource}: {}", missing.join(", "))));
        }
    }
    if let Some(live) = node.kubernetes.live_pod_uids.as_ref().filter(|_| matching_fails(node).is_none()) {
        let known = kubelet.allocations.iter().filter(|allocation| !allocation.pod_uid.is_empty());
        // The kubelet releases the devices of ended pods when it admits the next pod with devices.
        let pods = || node.kubernetes.gpu_pods.iter().flatten();
        let has_ended = |uid: &String| pods().any(|pod| pod.uid == *uid);
        let gone = known.filter(|allocation| !live.contains(&allocation.pod_uid) && !has_ended(&allocation.pod_uid));
        let gone: Vec<String> = gone.map(|allocation| format!("pod {}", evidence::data(&allocation.pod_uid))).collect();
        if !gone.is_empty() {
            drafts.push(Draft::on_node(STALE_ALLOCATION).with_all_evidence(gone).with_severity(Severity::Info));
        }
    }
    drafts
}

/// Returns whether a device id belongs to a GPU or MIG device that NVML should list but does not.
fn is_missing(node: &Node<'_>, device: &str) -> bool {
    let id = without_share(device);
    // A separate finding reports a lost GPU, so its allocation is not reported again. If the UUID of the lost GPU is
    // not known, any unlisted device may be this GPU.
    let may_be = |uuid: Option<&str>| uuid.is_none_or(|uuid| uuid == id);
    if node.gpus.iter().any(|gpu| !gpu.answers && may_be(gpu.uuid.as_deref())) {
        return false;
    }
    let complete = node.inventory().filter(|inventory| !inventory.gpus.is_empty());
    if id.starts_with("GPU-") {
        return complete.is_some_and(|inventory| inventory.gpus.iter().all(|gpu| gpu.uuid.as_deref() != Some(id)));
    }
    let on = node.mig().filter(|mig| !mig.gpus.is_empty());
    id.starts_with("MIG-")
        && on.is_some_and(|mig| {
            let mut devices = mig.gpus.iter().flat_map(|gpu| &gpu.devices);
            devices.all(|device| device.uuid.as_deref() != Some(id))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::diagnose;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    #[test]
    fn shares_of_a_gpu_are_no_missing_gpus_whatever_their_resource_is_called() {
        let facts = KubernetesFacts { gpu_capacity: Some(3), ..KubernetesFacts::default() };
        let three = ["GPU-0", "GPU-1", "GPU-2"];
        for (resource, names, is_low) in [
            ("nvidia.com/gpu", &three[..1], false),
            ("nvidia.com/gpu.shared", &three[..1], false),
            ("nvidia.com/gpu", &["nvidia0/vgpu0", "nvidia0/vgpu1", "nvidia0/vgpu2"], false),
            ("nvidia.com/gpu", &three, true),
            ("nvidia.com/gpu.shared", &three, true),
        ] {
            let gpus = json!({"status": "ok", "data": {"gpus": [{"index": 0, "uuid": "GPU-0"}]}});
            let report: Report =
                serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "hostname": "n1", "sections": {
                "inventory": gpus, "telemetry": gpus,
                "kubelet": {"status": "ok", "data": {"registered": [{"resource": resource, "devices": names}]}}}}))
                .expect("a report");
            let diagnosis = diagnose(&report, &facts);
            let found = diagnosis.findings.iter().any(|finding| finding.id == "gpu-count-low");
            assert_eq!(found, is_low, "{resource} {names:?}: {diagnosis:#?}");
        }
    }
}
