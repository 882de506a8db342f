//! Rules about CDI specifications: missing, unreadable, outdated, in conflict, or without the requested kind or device
//! names.
//!
//! It is not a problem if an unused specification is outdated. Therefore the rules check whether NVIDIA's runtime is in
//! CDI mode, and to which component the specification belongs. If two specifications define a device, the later folder
//! is used.

use crate::evidence;
use crate::input::node::Node;
use crate::rule::{Draft, Unread, rules};
use crate::rules::containers::runtime;
use syringe_core::classification::{ActionCode, Severity};
use syringe_core::facts::cdi::{Cdi, CdiSpec, StaleDevice};
use syringe_core::facts::container_runtime::{ContainerRuntime, ToolkitConfig};
use syringe_core::section_name::SectionName;
use syringe_core::unknown::Unknown;

/// NVIDIA's documentation of CDI.
const CDI_DOC: Option<&str> =
    Some("https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html");

rules! {
    about ContainerRuntime;
    MISSING: "cdi-missing" Critical Driver CDI_DOC, "NVIDIA's runtime is in CDI mode, but there is no CDI specification",
        UpdateSoftware "Generate the specification on {node}: run `nvidia-ctk cdi generate \
            --output=/var/run/cdi/nvidia.yaml`, or restart nvidia-cdi-refresh.service or the container-toolkit pod of \
            the GPU Operator. Then find out why the specification was not generated at boot.",
        means "NVIDIA's runtime requests CDI devices, but no specification of NVIDIA devices exists: containers with \
            GPUs do not start, or have no device.",
        reads "host.cdi, host.container_runtime";
    STALE_SPEC: "cdi-stale" Critical Driver CDI_DOC, "A CDI specification names devices or libraries that are not on the node",
        UpdateSoftware "Regenerate the specification on {node} (`nvidia-ctk cdi generate --output=FILE`, or restart \
            the container-toolkit pod), then start the pods again. If only the pod is restarted, it gets the same wrong \
            devices.",
        means "A CDI specification contains device numbers, libraries or a driver version that do not match the node. \
            Containers that get the devices of this specification fail at start or at their first CUDA call.",
        reads "host.cdi, host.driver, host.container_runtime, host.nvidia_stack";
    NAMES_DIFFER: "cdi-names-differ" Critical Driver CDI_DOC,
        "The CDI specification does not have the requested device names",
        UpdateSoftware "Generate the specification on {node} with these names (`nvidia-ctk cdi generate \
            --device-name-strategy=uuid`). Or set the device plugin's deviceIDStrategy and the toolkit's CDI mode so \
            that they match the specification (GPU Operator: use the same version of toolkit and device plugin).",
        means "The CDI specification that NVIDIA's runtime uses has no device with the names that the device plugin \
            allocates: containers with GPUs do not start.",
        reads "host.cdi, host.container_runtime, kubelet.registered";
    CONFLICT: "cdi-conflict" Critical Driver CDI_DOC, "Two CDI specifications of one folder define the same devices",
        UpdateSoftware "Keep one of the two files on {node}, and remove the other file. A device that two \
            specifications in one folder define is not available to any container.",
        means "Two CDI specifications in one folder define the same device. No container gets this device, and \
            containers that request it do not start.",
        reads "host.cdi, host.container_runtime";
    KIND_UNKNOWN: "cdi-kind-missing" Critical Driver CDI_DOC, "NVIDIA's runtime requests a CDI kind that no specification has",
        UpdateSoftware "Set default-kind in the configuration of NVIDIA's runtime on {node} to the kind of an \
            existing specification (nvidia-ctk cdi list), or generate a specification of the requested kind. Until \
            then, containers with NVIDIA_VISIBLE_DEVICES do not start.",
        means "NVIDIA's runtime is in CDI mode and requests devices of a kind (default-kind) that no CDI specification of the node \
            defines: containers with GPUs do not start (unresolvable CDI devices).",
        reads "host.cdi, host.container_runtime";
    UNREADABLE: "cdi-unreadable" Warning Driver CDI_DOC, "The CDI specification that NVIDIA's runtime needs could not be read",
        UpdateSoftware "Check the file on {node} with `nvidia-ctk cdi list`. If the devices of the file are not in \
            the list, generate the file again (`nvidia-ctk cdi generate --output=FILE`).",
        means "NVIDIA's runtime asks for CDI devices, but no CDI specification could be read. Therefore, it is not known \
            whether containers with GPUs start.",
        reads "host.cdi, host.container_runtime";
}

/// Maximum number of names from one list.
const NAMED: usize = 3;

/// Returns findings about the CDI specifications. Names are compared only if there is no other finding.
pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let cdi = node.host().and_then(|host| host.cdi.as_ref());
    let Some(cdi) = cdi else { return Vec::new() };
    // Without a driver, no specification can be correct. Without GPU containers, no specification is needed.
    let driver_works = node.answering().next().is_some();
    if !driver_works || node.is_booting() {
        return Vec::new();
    }
    let Some(runtime) = runtime::of_node(node) else {
        // The files prove nothing if the probe sees only a container, or if they belong to another runtime than the
        // kubelet's.
        let is_unread = node.shows_whole_node() && node.host().is_some_and(|host| host.container_runtime.is_none());
        if !is_unread {
            return Vec::new();
        }
        return effective(cdi).iter().filter_map(|spec| stale(node, spec, None)).collect();
    };
    let by_cdi = runtime
        .toolkit
        .as_ref()
        .filter(|toolkit| toolkit.mode.as_deref() == Some("cdi") && runtime::uses_nvidia(node, runtime));
    let effective = effective(cdi);
    let missing = by_cdi.and_then(|toolkit| missing(cdi, runtime, toolkit));
    let mut drafts: Vec<Draft> = missing.into_iter().collect();
    drafts.extend(by_cdi.and_then(|toolkit| unreadable(cdi, toolkit)));
    drafts.extend(by_cdi.and_then(|toolkit| kind_unknown(cdi, toolkit)));
    drafts.extend(conflict(node, cdi, by_cdi));
    drafts.extend(effective.iter().filter_map(|spec| stale(node, spec, by_cdi)));
    if drafts.is_empty() {
        drafts.extend(by_cdi.and_then(|toolkit| names_differ(node, &effective, toolkit)));
    }
    drafts
}

/// Returns the files that could not be read. An unread file is not a fault, because its devices may be unused.
pub(super) fn unread_files(node: &Node<'_>) -> Vec<Unread> {
    let cdi = node.host().and_then(|host| host.cdi.as_ref()).filter(|_| runtime::of_node(node).is_some());
    let names: Vec<String> = cdi.iter().flat_map(|cdi| &cdi.unread).map(|file| evidence::path(file)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "{} could not be read, or is not a valid CDI specification: containers that request its devices do not start",
        evidence::some(&names, NAMED)
    );
    let decides = runtime::of_node(node).is_some_and(resolves_files);
    vec![Unread { fact: Unknown::new(SectionName::Host, why), decides }]
}

/// Modes in which NVIDIA's runtime reads no specification on the node.
const WITHOUT_FILES: [&str; 3] = ["legacy", "jit-cdi", "csv"];

/// Returns whether the runtime resolves the devices of CDI files, and no fact shows that containers get GPUs in another
/// way. CRI-O always resolves these devices.
fn resolves_files(runtime: &ContainerRuntime) -> bool {
    let mode = runtime.toolkit.as_ref().and_then(|toolkit| toolkit.mode.as_deref());
    (runtime.name == "cri-o" || runtime.cdi_enabled == Some(true))
        && !mode.is_some_and(|mode| WITHOUT_FILES.contains(&mode))
}

/// Returns the CDI kind that NVIDIA's runtime uses.
fn kind_of(toolkit: &ToolkitConfig) -> &str {
    toolkit.default_kind.as_deref().unwrap_or("nvidia.com/gpu")
}

/// Returns the specifications, except those whose devices a later specification redefines.
fn effective(cdi: &Cdi) -> Vec<&CdiSpec> {
    let shadowed = |at: usize, spec: &CdiSpec| {
        let later = cdi.specs.get(at + 1..).unwrap_or_default();
        let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        later.iter().any(|other| {
            other.kind == spec.kind
                && folder(&other.path) != folder(&spec.path)
                && spec.devices.iter().all(|device| other.devices.contains(device))
        })
    };
    cdi.specs.iter().enumerate().filter(|(at, spec)| !shadowed(*at, spec)).map(|(_, spec)| spec).collect()
}

/// Returns whether the facts show that devices of this kind are used. The device plugin and the DRA driver have their
/// own kinds. These count as used only while an NVIDIA plugin is registered with the kubelet.
fn is_used(node: &Node<'_>, kind: &str, by_cdi: Option<&ToolkitConfig>) -> bool {
    let stack = node.host().and_then(|host| host.nvidia_stack.as_ref());
    let sockets =
        stack.into_iter().flat_map(|stack| stack.plugin_sockets.iter().chain(&stack.registry_sockets).flatten());
    let registered = || sockets.clone().any(|socket| socket.name.contains("nvidia"));
    (kind.starts_with("k8s.") && registered()) || by_cdi.is_some_and(|toolkit| kind_of(toolkit) == kind)
}

/// Returns a finding if no readable specification contains the devices, and at least one file could not be read.
fn unreadable(cdi: &Cdi, toolkit: &ToolkitConfig) -> Option<Draft> {
    let known = cdi.specs.iter().any(|spec| spec.kind == kind_of(toolkit));
    let files: Vec<String> = cdi.unread.iter().take(NAMED).map(|file| evidence::path(file)).collect();
    (!known && !files.is_empty()).then(|| {
        let unread = format!("could not be read, or is not a valid specification: {}", files.join(", "));
        let requests =
            format!("{}: mode = \"cdi\", kind {}", evidence::data(&toolkit.path), evidence::data(kind_of(toolkit)));
        Draft::on_node(UNREADABLE).with_evidence(unread).with_evidence(requests)
    })
}

/// Finds a kind that the runtime requests and that no specification defines, although other kinds are defined.
fn kind_unknown(cdi: &Cdi, toolkit: &ToolkitConfig) -> Option<Draft> {
    let kind = kind_of(toolkit);
    let mut others: Vec<&str> = cdi.specs.iter().map(|spec| spec.kind.as_str()).collect();
    others.dedup();
    // A device plugin or a DRA driver writes its own specifications and requests their devices by full names.
    let by_name = toolkit.default_kind.is_none() && others.iter().any(|other| other.starts_with("k8s."));
    let is_known = others.is_empty() || others.contains(&kind) || !cdi.unread.is_empty() || by_name;
    (!is_known).then(|| {
        let others: Vec<String> = others.iter().map(|other| evidence::data(other)).collect();
        let requests =
            format!("{}: mode = \"cdi\", default-kind {}", evidence::data(&toolkit.path), evidence::data(kind));
        Draft::on_node(KIND_UNKNOWN)
            .with_evidence(requests)
            .with_evidence(format!("kinds of the specifications: {}", evidence::some(&others, NAMED)))
    })
}

/// Finds two files of the same folder and kind that define the same device. If the folders differ, the definition in
/// the later folder is used.
fn conflict(node: &Node<'_>, cdi: &Cdi, by_cdi: Option<&ToolkitConfig>) -> Option<Draft> {
    let folder = |spec: &CdiSpec| spec.path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let pairs = cdi.specs.iter().enumerate().flat_map(|(at, one)| {
        let rest = cdi.specs.get(at + 1..).unwrap_or_default();
        rest.iter().filter(move |other| other.kind == one.kind).map(move |other| (one, other))
    });
    let (one, other, device) = pairs.filter(|(one, other)| folder(one) == folder(other)).find_map(|(one, other)| {
        let common = one.devices.iter().find(|device| other.devices.contains(device))?;
        Some((one, other, common))
    })?;
    let named =
        (evidence::path(&one.path), evidence::path(&other.path), evidence::data(&one.kind), evidence::data(device));
    let draft = Draft::on_node(CONFLICT)
        .with_evidence(format!("{} and {} both have {}={}", named.0, named.1, named.2, named.3));
    // A definition in a later folder replaces both definitions.
    let redefined = cdi
        .specs
        .iter()
        .any(|spec| spec.kind == one.kind && folder(spec) != folder(one) && spec.devices.contains(device));
    let unused = redefined || !is_used(node, &one.kind, by_cdi);
    Some(if unused { draft.with_severity(Severity::Info).with_action(ActionCode::None, UNUSED) } else { draft })
}

/// Action for a specification that no known component uses.
const UNUSED: &str = "No action, unless containers on {node} request devices of this CDI kind. No such container was \
    found. Generate the \
                      specification again (`nvidia-ctk cdi generate`) before you use it.";

fn missing(cdi: &Cdi, runtime: &ContainerRuntime, toolkit: &ToolkitConfig) -> Option<Draft> {
    if !cdi.specs.is_empty() || cdi.claim_specs > 0 || !cdi.unread.is_empty() {
        return None;
    }
    let folders: Vec<String> = cdi.folders.iter().map(|folder| evidence::data(folder)).collect();
    let draft =
        Draft::on_node(MISSING).with_evidence(format!("no specification of NVIDIA devices in {}", folders.join(", ")));
    let mode = format!("{}: mode = \"cdi\", kind {}", evidence::data(&toolkit.path), evidence::data(kind_of(toolkit)));
    let handler = runtime.default_handler.as_deref().map(|name| format!("default handler {}", evidence::data(name)));
    Some(draft.with_evidence(mode).with_all_evidence(handler))
}

fn stale(node: &Node<'_>, spec: &CdiSpec, by_cdi: Option<&ToolkitConfig>) -> Option<Draft> {
    let loaded = node.host().and_then(|host| host.driver.loaded.as_deref());
    let version = spec.driver_version.as_deref().filter(|version| loaded.is_some_and(|loaded| loaded != *version));
    let missing = spec.missing_libraries.as_slice();
    if spec.stale_devices.is_empty() && missing.is_empty() && version.is_none() {
        return None;
    }
    let path = evidence::path(&spec.path);
    let devices: Vec<String> = spec.stale_devices.iter().take(NAMED).map(device).collect();
    let devices = (!devices.is_empty()).then(|| format!("{path}: {}", devices.join("; ")));
    let libraries = missing.first().map(|first| {
        let more = if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() };
        format!("{path} mounts {}{more}, which the node does not have", syringe_core::text::clean(first, 120))
    });
    let version = version.zip(loaded).map(|(version, loaded)| {
        format!("{path} is for driver {}, but {} is loaded", evidence::data(version), evidence::data(loaded))
    });
    let written = spec.changed_at.map(|at| format!("written {}", evidence::time(at)));
    let draft = Draft::on_node(STALE_SPEC)
        .with_all_evidence(devices)
        .with_all_evidence(libraries)
        .with_all_evidence(version)
        .with_all_evidence(written);
    if is_used(node, &spec.kind, by_cdi) {
        return Some(draft.with_evidence(format!("kind {}", evidence::data(&spec.kind))));
    }
    if runtime::of_node(node).is_none() {
        let unknown = "the container runtime was not read: it is not known whether containers use this specification";
        return Some(draft.with_severity(Severity::Warning).with_evidence(unknown));
    }
    let runtime = runtime::of_node(node).filter(|runtime| spec.kind == "nvidia.com/gpu" && resolves_files(runtime));
    if let Some(runtime) = runtime {
        let resolves = format!(
            "{} resolves CDI devices: containers that request them do not start",
            evidence::data(&runtime.name)
        );
        return Some(draft.with_severity(Severity::Warning).with_evidence(resolves));
    }
    Some(draft.with_severity(Severity::Info).with_action(ActionCode::None, UNUSED))
}

/// Formats the difference: `/dev/nvidia-uvm is 511:0 in the specification, 508:0 on the node`.
fn device(stale: &StaleDevice) -> String {
    let path = evidence::data(&stale.path);
    match (stale.in_spec.as_deref(), stale.on_node.as_deref()) {
        (Some(in_spec), Some(on_node)) => {
            format!(
                "{path} is {} in the specification, {} on the node",
                evidence::data(in_spec),
                evidence::data(on_node)
            )
        }
        _ => format!("{path} is not on the node"),
    }
}

/// Returns a finding if the device plugin allocates GPUs by UUID or index, but the specification defines only `all`.
fn names_differ(node: &Node<'_>, effective: &[&CdiSpec], toolkit: &ToolkitConfig) -> Option<Draft> {
    let kind = kind_of(toolkit);
    let specs: Vec<&&CdiSpec> = effective.iter().filter(|spec| spec.kind == kind).collect();
    let names: Vec<&str> = specs.iter().flat_map(|spec| &spec.devices).map(String::as_str).collect();
    let gives: Vec<&str> = node.kubelet()?.registered.iter().flat_map(|of| &of.devices).map(String::as_str).collect();
    let by_uuid = gives.iter().find(|device| device.starts_with("GPU-") || device.starts_with("MIG-"))?;
    // If a plugin writes its own specification, it requests the devices of this specification.
    let of_plugin = |spec: &&&CdiSpec| {
        spec.kind.starts_with("k8s.device-plugin.") && spec.devices.iter().any(|device| device == by_uuid)
    };
    if effective.iter().any(|spec| of_plugin(&spec)) {
        return None;
    }
    let fits = |name: &str| {
        name.starts_with("GPU-") || name.starts_with("MIG-") || name.bytes().any(|byte| byte.is_ascii_digit())
    };
    if names.is_empty() || names.iter().any(|name| fits(name)) || !node.host()?.cdi.as_ref()?.unread.is_empty() {
        return None;
    }
    let path = specs.first().map(|spec| evidence::path(&spec.path))?;
    let names: Vec<String> = names.iter().take(NAMED).map(|name| evidence::data(name)).collect();
    let draft = Draft::on_node(NAMES_DIFFER).with_evidence(format!("{path} has {} only", names.join(", ")));
    let request = format!(
        "the device plugin allocates {}, which the runtime requests as {}={}",
        evidence::data(by_uuid),
        evidence::data(kind),
        evidence::data(by_uuid)
    );
    Some(draft.with_evidence(request).with_evidence(format!("{}: mode = \"cdi\"", evidence::data(&toolkit.path))))
}
