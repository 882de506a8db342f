//! Rules that compare neighbouring layers (PCI, driver, NVML, CDI, kubelet, NVLink), and find things that a layer
//! lacks. `refine`: moves a difference into the finding that explains it. `unread`: the layers that were not read.
//!
//! Each difference is a finding. If a finding of another group gives the cause, the difference becomes evidence of that
//! finding.

use crate::evidence;
use crate::input::boards;
use crate::input::fields::{self, Fields};
use crate::input::layers::{Layer, Thing, things};
use crate::input::node::{Gpu, Node};
use crate::rule::{About, DEBUG_DOC, Draft, PLUGIN_DOC, Rule, Unread, rules};
use crate::rules::comparisons::agreement::DISAGREE;
use crate::rules::comparisons::boards::{GPU_MISSING, SWITCH_MISSING};
use crate::rules::comparisons::kubernetes;
use syringe_core::classification::{ActionCode, Class, Severity};
use syringe_core::facts::inventory::Inventory;
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

rules! {
    NOT_ON_PCI: "gpu-in-nvml-alone" Warning Driver DEBUG_DOC, "NVML lists a GPU that is not bound to the nvidia driver on the PCI bus",
        Watch "Run the diagnosis of {node} again. If the difference persists, reboot the node at the next maintenance.",
        means "NVML lists a GPU, but the PCI bus does not show it with the nvidia driver: one of the two readings is wrong.",
        reads "inventory.gpus, host.pci_gpus";
    FILE_MISSING: "gpu-device-file-missing" Warning Driver DEBUG_DOC, "The device file of a GPU is missing in /dev",
        UpdateSoftware "Create the device file on {node} (nvidia-modprobe -c NUMBER, with the number of the file and without -u), or restart the component that \
            creates it. Containers cannot get the GPU without the device file.",
        means "NVML lists a GPU whose device file /dev/nvidiaN does not exist on the node.",
        reads "inventory.minor_number, host.device_nodes";
    FILE_WITHOUT_GPU: "device-file-without-gpu" Info Driver DEBUG_DOC, "A device file belongs to no GPU",
        Watch "Compare the GPUs on the PCI bus of {node} with NVML: the GPU of the file was removed, was passed through to a virtual machine, or \
            is lost.",
        means "A file /dev/nvidiaN exists, but NVML lists no GPU with this number.",
        reads "inventory.minor_number, host.device_nodes";
    PART_MISSING: "driver-part-missing" Critical Driver DEBUG_DOC, "A part of the driver that CUDA needs is missing",
        UpdateSoftware "Load the module on {node} (nvidia-modprobe -c 0 -u creates its device files, too), or install the firmware of \
            the loaded driver. The first CUDA program does this itself only if nvidia-modprobe is installed.",
        means "NVML works, but a kernel module or device file that CUDA programs need does not exist: CUDA fails to initialize.",
        reads "host.modules, host.device_nodes, inventory.gpus";
    NOT_REGISTERED: "gpu-not-registered" Warning Driver PLUGIN_DOC, "A device plugin does not advertise a GPU or MIG device",
        Watch "Read the log of the NVIDIA device plugin on {node}: a plugin withdraws a GPU after an Xid. Restart the plugin only if \
            {gpu} is healthy: after a restart, the plugin offers the GPU to pods again.",
        means "NVML lists a GPU or MIG device, and device plugins registered other devices with the kubelet, but not this device.",
        reads "inventory.gpus, mig.gpus, kubelet.registered", about Unavailable, depth 3;
    NOT_PUBLISHED: "gpu-not-published" Warning Driver PLUGIN_DOC, "The DRA driver does not publish a GPU or MIG device",
        Watch "Read the log of the kubelet plugin of the DRA driver on {node}: it publishes the devices that it finds at its start. Restart \
            its pod only if {gpu} is healthy.",
        means "NVML lists a GPU or MIG device, and a ResourceSlice lists other devices of the node, but not this device. No device plugin \
            offers it either: no pod can get it.",
        reads "inventory.gpus, mig.gpus, kubernetes.dra_devices, kubelet.registered", about Unavailable, depth 3;
    PUBLISHED_WITHOUT_GPU: "published-device-without-gpu" Warning Driver PLUGIN_DOC, "A ResourceSlice has a device that NVML does not list",
        UpdateSoftware "Restart the pod of the DRA driver's kubelet plugin on {node}, so that it publishes the devices that exist. Until then, \
            pods that get the device do not start.",
        means "A ResourceSlice of the node lists a GPU or MIG device that NVML does not list.",
        reads "inventory.gpus, mig.gpus, kubernetes.dra_devices";
    NOT_IN_CDI: "gpu-not-in-cdi" Warning Driver PLUGIN_DOC, "A GPU or MIG device is missing from the CDI specification",
        UpdateSoftware "Generate the CDI specification on {node} again (`nvidia-ctk cdi generate`), or restart the component that \
            writes it. Containers that get the device by CDI do not start.",
        means "The CDI specification of the node lists other GPUs or MIG devices, but not this device.",
        reads "inventory.gpus, mig.gpus, host.cdi", about ContainerRuntime;
    CDI_WITHOUT_GPU: "cdi-device-without-gpu" Warning Driver PLUGIN_DOC, "The CDI specification has a device that does not exist",
        UpdateSoftware "Generate the CDI specification on {node} again (`nvidia-ctk cdi generate`), or restart the component that \
            writes it.",
        means "The CDI specification lists a GPU or MIG device that NVML does not list.",
        reads "inventory.gpus, mig.gpus, host.cdi", about ContainerRuntime;
    NOT_OFFERED: "allocated-device-not-registered" Warning Driver PLUGIN_DOC, "An allocated device is no longer registered",
        Watch "Check the log of the device plugin on {node}: the plugin withdrew a device that a pod uses.",
        means "The kubelet allocated a device to a container, but no device plugin registers the device any more.",
        reads "kubelet.allocations, kubelet.registered", about Unavailable, depth 3;
    SWITCH_UNUSED: "nvswitch-without-links" Warning Fabric DEBUG_DOC, "No NVLink leads to an NVSwitch",
        Watch "Check the Fabric Manager of {node} and the NVLinks of its GPUs.",
        means "An NVSwitch is on the PCI bus, but no GPU has an NVLink to it, although the other switches have links.",
        reads "topology.nvlinks, topology.nvswitches";
}

/// A comparison of two layers. Each thing of the first layer must be in the second layer.
struct Pair {
    from: Layer,
    to: Layer,
    missing: Rule,
    /// Whether an empty second layer shows that the layer was not read. If false, another rule reports the empty layer.
    never_empty: bool,
    /// Description of the second layer, in evidence.
    place: &'static str,
}

const PAIRS: &[Pair] = &[
    Pair { from: Layer::Nvml, to: Layer::Pci, missing: NOT_ON_PCI, never_empty: true, place: "the PCI bus" },
    Pair { from: Layer::Nvml, to: Layer::DeviceFiles, missing: FILE_MISSING, never_empty: true, place: "/dev" },
    Pair { from: Layer::DeviceFiles, to: Layer::Nvml, missing: FILE_WITHOUT_GPU, never_empty: false, place: "NVML" },
    Pair {
        from: Layer::Needed,
        to: Layer::Present,
        missing: PART_MISSING,
        never_empty: true,
        place: "the kernel or /dev",
    },
    Pair {
        from: Layer::Schedulable,
        to: Layer::Registered,
        missing: NOT_REGISTERED,
        never_empty: false,
        place: "the kubelet",
    },
    Pair {
        from: Layer::Schedulable,
        to: Layer::Published,
        missing: NOT_PUBLISHED,
        never_empty: false,
        place: "the ResourceSlices",
    },
    Pair {
        from: Layer::Published,
        to: Layer::Schedulable,
        missing: PUBLISHED_WITHOUT_GPU,
        never_empty: false,
        place: "NVML",
    },
    Pair { from: Layer::Schedulable, to: Layer::Cdi, missing: NOT_IN_CDI, never_empty: false, place: "CDI" },
    Pair { from: Layer::Cdi, to: Layer::Listed, missing: CDI_WITHOUT_GPU, never_empty: false, place: "NVML" },
    Pair {
        from: Layer::Allocated,
        to: Layer::Registered,
        missing: NOT_OFFERED,
        never_empty: false,
        place: "the kubelet",
    },
    Pair {
        from: Layer::LinkedSwitches,
        to: Layer::Switches,
        missing: SWITCH_MISSING,
        never_empty: false,
        place: "the PCI bus",
    },
    Pair {
        from: Layer::Switches,
        to: Layer::LinkedSwitches,
        missing: SWITCH_UNUSED,
        never_empty: false,
        place: "the NVLinks",
    },
];

/// Maximum number of things in one line.
const NAMED: usize = 4;

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    // If the driver does not work, its layers are empty for this reason.
    if node.driver.is_broken() || node.answering().next().is_none() {
        return Vec::new();
    }
    let mut drafts: Vec<Draft> = PAIRS.iter().flat_map(|pair| compare(node, pair)).collect();
    // The driver of integrated GPUs (Jetson) has other modules.
    drafts.retain(|draft| draft.rule.id != PART_MISSING.id || !boards::is_integrated(node));
    for draft in &mut drafts {
        let about_cdi = draft.rule.id == NOT_IN_CDI.id || draft.rule.id == CDI_WITHOUT_GPU.id;
        // It is not a problem if an unused specification is outdated.
        if about_cdi && !uses_cdi(node) {
            draft.severity = Severity::Info;
        }
        if draft.rule.id == PART_MISSING.id {
            *draft = graded(node, draft.clone());
        }
    }
    drafts
}

/// Lowers a finding about a part of the driver that is not needed now. If no GPU is in use, the CUDA module is not
/// needed, because the first program loads it. A host that gives virtual GPUs to virtual machines does not run CUDA.
/// The firmware is needed at the next driver load or reset.
fn graded(node: &Node<'_>, draft: Draft) -> Draft {
    let is_host = |gpu: &Gpu| {
        let mode = node.inventory_of(gpu).and_then(|gpu| gpu.virtualization_mode.as_deref());
        mode.is_some_and(|mode| mode.starts_with("host_"))
    };
    let stops_programs = draft.evidence.iter().any(|line| line.contains("kernel module ") || line.contains("/dev/"));
    match stops_programs {
        false => draft.with_severity(Severity::Warning).with_action(ActionCode::UpdateSoftware, FIRMWARE),
        true if !uses_gpus(node) || node.answering().any(is_host) => draft.with_severity(Severity::Info),
        true => draft,
    }
}

const FIRMWARE: &str = "Install the GSP firmware of the loaded driver on {node}, or reboot into the version that is on disk: the next load of \
                        the driver and the next reset of a GPU need the firmware. Do not reset a GPU before.";

/// Returns whether NVIDIA's runtime is in CDI mode.
fn uses_cdi(node: &Node<'_>) -> bool {
    let runtime = node.host().and_then(|host| host.container_runtime.as_ref());
    runtime.and_then(|runtime| runtime.toolkit.as_ref()).is_some_and(|toolkit| toolkit.mode.as_deref() == Some("cdi"))
}

/// Returns whether containers or processes use the GPUs.
fn uses_gpus(node: &Node<'_>) -> bool {
    let allocated = node.kubelet().is_some_and(|kubelet| !kubelet.allocations.is_empty());
    allocated || node.processes().is_some_and(|all| all.processes.iter().any(|process| !process.uses.is_empty()))
}

fn compare(node: &Node<'_>, pair: &Pair) -> Vec<Draft> {
    // Pods get a GPU from a device plugin or from a DRA driver. One of the two is sufficient.
    let other_offer = match (pair.from, pair.to) {
        (Layer::Schedulable, Layer::Registered) => Some(Layer::Published),
        (Layer::Schedulable, Layer::Published) => Some(Layer::Registered),
        _ => None,
    };
    let offered = other_offer.and_then(|layer| things(node, layer)).unwrap_or_default();
    let has_unknown_devices = node.kubernetes.gpu_dra == Some(true) && offered.is_empty();
    if pair.missing.id == NOT_REGISTERED.id && has_unknown_devices {
        return Vec::new();
    }
    // A GPU that is excluded from the driver or in the drain state has a device file and is not in NVML.
    let is_hidden = |inventory: &Inventory| !inventory.excluded.is_empty() || !inventory.draining.is_empty();
    if pair.missing.id == FILE_WITHOUT_GPU.id && node.inventory().is_some_and(is_hidden) {
        return Vec::new();
    }
    let (Some(from), Some(to)) = (things(node, pair.from), things(node, pair.to)) else { return Vec::new() };
    if to.is_empty() {
        return Vec::new();
    }
    // Names can be compared only if both layers use the same form: UUIDs with UUIDs, indices with indices. The kubelet
    // lists whole GPUs and MIG devices together.
    let form = |name: &str| match other_offer.is_some() && name.starts_with("uuid ") {
        true => "uuid".to_owned(),
        false => form(name),
    };
    let forms =
        |all: &[Thing]| -> Vec<String> { all.iter().flat_map(|thing| &thing.names).map(|name| form(name)).collect() };
    let (known, own) = (forms(&to), forms(&from));
    if !known.iter().any(|form| own.contains(form)) {
        return Vec::new();
    }
    let is_switch = matches!(pair.from, Layer::LinkedSwitches | Layer::Switches);
    let is_in = |thing: &Thing| thing.names.iter().any(|name| to.iter().any(|other| other.names.contains(name)));
    let comparable = |thing: &Thing| thing.names.iter().any(|name| known.contains(&form(name)));
    // In a virtual machine, the NVLinks can report addresses of the host.
    if is_switch && !from.iter().any(is_in) {
        return Vec::new();
    }
    // A separate finding reports a GPU in MIG mode that is advertised as a whole.
    let is_offered = |thing: &Thing| {
        let uuid = thing.gpu.as_ref().and_then(|gpu| gpu.uuid.as_ref()).map(|uuid| format!("uuid {uuid}"));
        uuid.is_some_and(|uuid| to.iter().any(|other| other.names.contains(&uuid)))
    };
    let is_offered_otherwise =
        |thing: &Thing| thing.names.iter().any(|name| offered.iter().any(|other| other.names.contains(name)));
    let is_missing =
        |thing: &&Thing| comparable(thing) && !is_in(thing) && !is_offered(thing) && !is_offered_otherwise(thing);
    let missing: Vec<&Thing> = from.iter().filter(is_missing).collect();
    let (with_gpu, without): (Vec<&Thing>, Vec<&Thing>) = missing.into_iter().partition(|thing| thing.gpu.is_some());
    let place = pair.place;
    let mut drafts: Vec<Draft> = Vec::new();
    for thing in with_gpu {
        let Some(gpu) = &thing.gpu else { continue };
        drafts.push(Draft::on_gpu(pair.missing, gpu).with_evidence(format!("{} is missing in {place}", thing.label)));
    }
    // If a thing works, it is not missing, and the layer that lacks it is wrong.
    let (working, without): (Vec<&Thing>, Vec<&Thing>) = without.into_iter().partition(|thing| thing.proof.is_some());
    if !working.is_empty() {
        let names: Vec<String> = working.iter().map(|thing| thing.label.clone()).collect();
        let proofs = working.iter().filter_map(|thing| thing.proof.clone()).take(NAMED);
        let line = format!("{}, missing in {place}: {}", pair.from.listed_in(), evidence::some(&names, NAMED));
        drafts.push(Draft::on_node(DISAGREE).with_evidence(line).with_all_evidence(proofs));
    }
    if !without.is_empty() {
        let names: Vec<String> = without.iter().map(|thing| thing.label.clone()).collect();
        let line = format!("{}, missing in {place}: {}", pair.from.listed_in(), evidence::some(&names, NAMED));
        drafts.push(Draft::on_node(pair.missing).with_evidence(line));
    }
    drafts
}

/// Returns the layers that count as not read: the layer is empty although the layer before it is not. Also returns the
/// missing facts that every node has.
pub(super) fn unread(node: &Node<'_>) -> Vec<Unread> {
    // The driver of an integrated GPU has other modules and device files, and has no PCI device.
    if node.driver.is_broken() || node.answering().next().is_none() || boards::is_integrated(node) {
        return Vec::new();
    }
    let empty = PAIRS.iter().filter(|pair| {
        let has = |layer| things(node, layer).map(|things| !things.is_empty());
        pair.never_empty && has(pair.from) == Some(true) && has(pair.to) == Some(false)
    });
    let why = |pair: &Pair| format!("NVML lists GPUs, but no part of the driver was found in {}", pair.place);
    let empty = empty.map(|pair| Unread { fact: Unknown::new(SectionName::Host, why(pair)), decides: false });
    let lacking = OF_EVERY_NODE.iter().filter_map(|(section, names)| {
        let mut fields = Fields::new();
        match section {
            SectionName::Host => {
                things(node, Layer::Present)?;
                fields::add(&mut fields, "", Some(node.host()?));
            }
            _ => {
                things(node, Layer::Nvml)?;
                fields::add(&mut fields, "", Some(node.inventory()?));
            }
        }
        let lacking: Vec<String> = names
            .iter()
            .filter(|name| !fields.contains_key(&format!(".{name}")))
            .map(|name| (*name).to_owned())
            .collect();
        // A facts file that was written by hand may omit values.
        let names = if lacking.len() * 2 > names.len() { Vec::new() } else { lacking };
        let why = format!(
            "every node with a driver has these facts, and they were not read: {}",
            evidence::some(&names, NAMED)
        );
        (!names.is_empty()).then(|| Unread { fact: Unknown::new(*section, why), decides: false })
    });
    empty.chain(lacking).collect()
}

/// Facts that are known for every node with a working driver.
const OF_EVERY_NODE: &[(SectionName, &[&str])] = &[
    (
        SectionName::Host,
        &[
            "uptime_seconds",
            "driver.loaded",
            "driver.flavor",
            "memory_total_bytes",
            "memory_available_bytes",
            "numa_nodes",
        ],
    ),
    (SectionName::Inventory, &["driver_version", "nvml_version", "cuda_version"]),
];

/// Returns the form of a name: `uuid GPU`, `uuid MIG`, `index`, `file`, `pci`.
fn form(name: &str) -> String {
    name.split(['-', ' ']).take(if name.starts_with("uuid") { 2 } else { 1 }).collect::<Vec<_>>().join(" ")
}

/// Moves a difference into the finding that explains it: a finding about the same GPU, about a GPU that is gone, or
/// about the driver or the devices of the node as a whole.
pub(super) fn refine(node: &Node<'_>, drafts: &mut Vec<Draft>) {
    let rules = || RULES.iter().chain(kubernetes::RULES).chain([&DISAGREE, &SWITCH_MISSING, &GPU_MISSING]);
    let is_difference = |draft: &Draft| rules().any(|rule| rule.id == draft.rule.id);
    let (differences, mut causes): (Vec<Draft>, Vec<Draft>) =
        std::mem::take(drafts).into_iter().partition(is_difference);
    for difference in differences {
        let explains = |cause: &&mut Draft| {
            let same_gpu = difference.names_gpu() && cause.names_gpu() && cause.scope.gpu == difference.scope.gpu;
            let is_lost = || node.gpus.iter().any(|gpu| !gpu.answers && cause.is_on(gpu));
            let gone = !difference.names_gpu()
                && cause.severity >= Severity::Critical
                && (cause.rule.class == Class::Hardware || is_lost());
            let is_whole = !cause.names_gpu() || cause.rule.about == About::Unavailable;
            let whole = is_whole && explained_by(difference.rule.about).contains(&cause.rule.about);
            let is_grave = cause.severity >= difference.severity && cause.severity > Severity::Info;
            is_grave && ((same_gpu && cause.rule.about == About::Gpus) || gone || whole)
        };
        match causes.iter_mut().find(explains) {
            Some(cause) => cause.evidence.extend(difference.evidence),
            None => drafts.push(difference),
        }
    }
    drafts.splice(0..0, causes);
}

/// Returns the subjects of findings about the whole node that explain a difference.
const fn explained_by(about: About) -> &'static [About] {
    match about {
        About::Unavailable => &[About::Driver, About::DriverAbsent, About::Unavailable],
        About::ContainerRuntime => &[About::Driver, About::DriverAbsent, About::ContainerRuntime],
        _ => &[About::Driver, About::DriverAbsent],
    }
}
