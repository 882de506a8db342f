//! `redact`: replaces names, identifiers, network addresses and command lines in an archive with pseudonyms.
//!
//! A text has the same pseudonym in the whole archive. A pseudonym has the form of the original: a UUID is replaced by
//! a UUID, a name by a valid name, and names keep their order. So the answers are the same, apart from the pseudonyms.
//!
//! There are two steps. First, the names are collected from the fields that contain names (see `FIELDS`), and from the
//! metadata and labels of objects. Then the collected names are replaced in every text, wherever they occur as a word.
//! UUIDs, long hexadecimal identifiers, network addresses and mail addresses are recognized by their form, and are also
//! replaced. PCI addresses, models, versions and times are not replaced. The texts in the files of a node are replaced
//! in the same way, and serial numbers in configuration spaces become zeros. The raw kernel log is removed, because
//! lines of other drivers and programs contain names in unknown forms.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};
use syringe_core::raw_file::RawFile;

use crate::redact_config_space::without_serial;
use crate::{Archive, ArchiveError};

/// Fields of reports and objects that contain a name, and the prefix of its pseudonym.
const FIELDS: [(&str, &str); 28] = [
    ("hostname", "node"),
    ("nodeName", "node"),
    ("host", "node"),
    ("holderIdentity", "node"),
    ("nominatedNodeName", "node"),
    ("serial", "serial"),
    ("chassis_serial", "serial"),
    ("board_serial", "serial"),
    ("guid", "guid"),
    ("node_guid", "guid"),
    ("port_guid", "guid"),
    ("system_guid", "guid"),
    ("pod", "pod"),
    ("namespace", "namespace"),
    ("claim", "claim"),
    ("user", "user"),
    ("container", "container"),
    ("cgroup", "cgroup"),
    ("providerID", "provider"),
    ("reportingInstance", "node"),
    ("schedulerName", "scheduler"),
    ("priorityClassName", "priority-class"),
    ("serviceAccountName", "account"),
    ("workload", "workload"),
    ("cluster", "cluster"),
    ("resourceClaimName", "claim"),
    ("resourceClaimTemplateName", "claim-template"),
    ("generateName", "object"),
];

/// Names that are not replaced: names of Kubernetes, of NVIDIA's software and of common programs. Some rules use them.
const PUBLIC: [&str; 42] = [
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "gpu-operator",
    "gpu-syringe",
    "kubelet",
    "containerd",
    "crio",
    "default-scheduler",
    "system-node-critical",
    "system-cluster-critical",
    "root",
    "nobody",
    "main",
    "app",
    "python",
    "python3",
    "java",
    "node",
    "bash",
    "sh",
    "sleep",
    "systemd",
    "dockerd",
    "Xorg",
    "true",
    "false",
    "none",
    "all",
    "linux",
    "amd64",
    "arm64",
    "dcgm",
    "dcgm-exporter",
    "nv-hostengine",
    "nv-fabricmanager",
    "nvsm_core",
    "data",
    "server",
    "worker",
    "gpu",
];

/// Namespaces whose pods are the same in all clusters. In other namespaces, only the names of NVIDIA's DaemonSets are
/// kept.
const PUBLIC_NAMESPACES: [&str; 11] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "gpu-operator",
    "gpu-operator-resources",
    "gpu-syringe",
    "nvidia",
    "nvidia-device-plugin",
    "nvidia-dra-driver-gpu",
    "nvidia-gpu-operator",
    "nvidia-network-operator",
];

/// Prefixes of the names of NVIDIA's software.
const PUBLIC_STARTS: [&str; 4] = ["nvidia", "gpu-feature-discovery", "gpu-operator", "k8s-device-plugin"];

/// Prefixes of images that are not replaced.
const PUBLIC_IMAGES: [&str; 7] = [
    "nvcr.io/nvidia/",
    "registry.k8s.io/",
    "ghcr.io/gpu-syringe/",
    "public.ecr.aws/nvidia/",
    "public.ecr.aws/eks/",
    "gcr.io/gke-release/",
    "gke.gcr.io/",
];

/// The last parts of images that are not replaced, without the tag.
const PUBLIC_PROGRAMS: [&str; 16] = [
    "busybox",
    "container-toolkit",
    "cuda",
    "dcgm",
    "dcgm-exporter",
    "driver",
    "gpu-feature-discovery",
    "gpu-operator",
    "gpu-operator-validator",
    "k8s-device-plugin",
    "k8s-dra-driver-gpu",
    "k8s-driver-manager",
    "k8s-mig-manager",
    "nvidia-driver",
    "pause",
    "ubuntu",
];

/// Labels outside of NVIDIA's domains whose values are kept, because they describe public machine types and software.
const PUBLIC_VALUES: [&str; 11] = [
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
    "cloud.google.com/gke-accelerator",
];

/// The ends of domains that are not replaced in texts.
const PUBLIC_HOSTS: [&str; 13] = [
    "kubernetes.io",
    "k8s.io",
    "x-k8s.io",
    "nvidia.com",
    "nvcr.io",
    "gcr.io",
    "gke.io",
    "openshift.io",
    "kubeflow.org",
    "cloud.google.com",
    "eks.amazonaws.com",
    "k8s.amazonaws.com",
    "example.com",
];

/// The last parts of host names, except those with two letters.
const TOP_LEVEL: [&str; 22] = [
    "com", "net", "org", "edu", "gov", "mil", "info", "cloud", "dev", "local", "internal", "lan", "corp", "intra",
    "intranet", "home", "private", "example", "test", "tech", "site", "cluster",
];

/// File name extensions with two letters.
const FILE_ENDS: [&str; 9] = ["so", "py", "sh", "ko", "gz", "go", "rs", "md", "js"];

/// Folders that contain folders with names of the site.
const FOLDERS: [&str; 6] = ["/data/", "/mnt/", "/lustre/", "/scratch/", "/export/", "/home/"];

/// Prefixes of host paths that are not replaced.
const PUBLIC_PATHS: [&str; 18] = [
    "/dev",
    "/proc",
    "/sys",
    "/run/nvidia",
    "/run/containerd",
    "/run/cdi",
    "/var/run/nvidia",
    "/var/run/cdi",
    "/var/run/dcgm",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/nvidia",
    "/etc/cdi",
    "/usr/bin",
    "/usr/local/nvidia",
    "/home/kubernetes/bin/nvidia",
    "/lib/modules",
];

/// The ends of label domains that are not replaced.
const PUBLIC_DOMAINS: [&str; 6] =
    ["kubernetes.io", "k8s.io", "nvidia.com", "karpenter.sh", "amazonaws.com", "cloud.google.com"];

/// Labels without a domain that are not replaced.
const PUBLIC_LABELS: [&str; 10] = [
    "app",
    "name",
    "component",
    "k8s-app",
    "tier",
    "role",
    "controller-revision-hash",
    "pod-template-hash",
    "pod-template-generation",
    "job-name",
];

/// Minimum length of a hexadecimal identifier. Registers and memory addresses are shorter.
const MIN_HEX: usize = 20;
/// Maximum length of a name that is searched for in texts.
const MAX_NAME: usize = 512;

/// Replaces names, identifiers, network addresses and command lines in the whole archive.
///
/// # Errors
/// Fails if a document of the archive is not valid JSON.
pub fn redact(archive: &mut Archive) -> Result<(), ArchiveError> {
    let parse = |content: &[u8], path: &str| -> Result<Value, ArchiveError> {
        serde_json::from_slice(content)
            .map_err(|error| ArchiveError::Invalid { path: path.to_owned(), why: error.to_string() })
    };
    let mut reports = BTreeMap::new();
    for (name, node) in &archive.nodes {
        reports.insert(name.clone(), parse(&node.report, name)?);
    }
    let mut objects = BTreeMap::new();
    for (kind, list) in &archive.objects {
        objects.insert(kind.clone(), parse(list, kind)?);
    }
    let mut found = Found::default();
    archive.manifest.nodes.iter().for_each(|entry| found.add("node", &entry.name));
    found.add("context", &archive.manifest.context);
    reports.values().for_each(|report| found.collect(report));
    for (kind, list) in &objects {
        list.as_array().into_iter().flatten().for_each(|object| found.collect_object(kind, object));
    }
    for log in &archive.logs {
        [("namespace", &log.namespace), ("pod", &log.pod), ("container", &log.container)]
            .into_iter()
            .for_each(|(kind, name)| found.add(kind, name));
    }
    let mut pseudonyms = Pseudonyms::of(found);
    let text = |value: &mut String, pseudonyms: &mut Pseudonyms| *value = pseudonyms.value("name", value);
    let mut nodes = BTreeMap::new();
    let mut saved = std::mem::take(&mut archive.nodes);
    for (name, mut report) in reports {
        pseudonyms.apply("", &mut report);
        let mut files = saved.remove(&name).map(|node| node.files).unwrap_or_default();
        files.iter_mut().for_each(|file| pseudonyms.file(file));
        let node = crate::SavedNode { report: to_json(&report), kernel_log: Vec::new(), files };
        nodes.insert(pseudonyms.value("name", &name), node);
    }
    archive.nodes = nodes;
    for (kind, mut list) in objects {
        pseudonyms.apply("", &mut list);
        archive.objects.insert(kind, to_json(&list));
    }
    for log in &mut archive.logs {
        [&mut log.namespace, &mut log.pod, &mut log.container, &mut log.text]
            .into_iter()
            .for_each(|value| text(value, &mut pseudonyms));
    }
    let manifest = &mut archive.manifest;
    for entry in &mut manifest.nodes {
        text(&mut entry.name, &mut pseudonyms);
        entry.folder = entry.folder.as_ref().map(|_| entry.name.clone());
        entry.unread = entry.unread.take().map(|why| pseudonyms.replace(&why));
    }
    text(&mut manifest.context, &mut pseudonyms);
    manifest.unread.values_mut().for_each(|why| text(why, &mut pseudonyms));
    manifest.redacted = true;
    Ok(())
}

fn to_json(value: &Value) -> Vec<u8> {
    // A value has only string keys, so writing it to memory cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

fn is_public(name: &str) -> bool {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_number && name.len() < 6 || PUBLIC.contains(&name)
}

fn is_of_nvidia(name: &str) -> bool {
    PUBLIC_STARTS.iter().any(|start| name.starts_with(start))
}

fn is_public_namespace(name: &str) -> bool {
    PUBLIC_NAMESPACES.contains(&name)
}

/// Returns whether the value of a label is kept. For example, the labels of feature discovery describe the machine.
fn is_public_value(key: &str, value: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_of_machine = |known: &str| domain == known || domain.ends_with(&format!(".{known}"));
    let is_version = value.strip_prefix('v').unwrap_or(value).bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_name_of_software = (domain.is_empty() || domain == "app.kubernetes.io") && is_public_label(key);
    is_of_machine("nvidia.com")
        || domain == "feature.node.kubernetes.io"
        || PUBLIC_VALUES.contains(&key)
        || is_version && value.len() < 16
        || is_name_of_software && is_of_nvidia(value)
}

/// Returns whether an object belongs to public software, by its namespace, or as a DaemonSet or DaemonSet pod of
/// NVIDIA's software.
fn is_public_object(kind: &str, object: &Value) -> bool {
    let metadata = &object["metadata"];
    if metadata["namespace"].as_str().is_some_and(is_public_namespace) {
        return true;
    }
    let of_set = kind == "daemonsets" || metadata["ownerReferences"][0]["kind"] == "DaemonSet";
    let spec = if kind == "daemonsets" { &object["spec"]["template"]["spec"] } else { &object["spec"] };
    let mut containers = spec["containers"].as_array().into_iter().flatten();
    let is_image = |image: &str| image.starts_with("nvcr.io/nvidia/");
    of_set
        && metadata["name"].as_str().is_some_and(is_of_nvidia)
        && containers.any(|container| container["image"].as_str().is_some_and(is_image))
}

fn is_public_label(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, _)) => {
            PUBLIC_DOMAINS.iter().any(|known| domain == *known || domain.ends_with(&format!(".{known}")))
        }
        None => PUBLIC_LABELS.contains(&key),
    }
}

/// The names in an archive, each with the prefix of its pseudonym. If a name occurs as several kinds, the first kind is
/// used.
#[derive(Default)]
struct Found(BTreeMap<String, &'static str>);

impl Found {
    fn add(&mut self, kind: &'static str, name: &str) {
        if !name.is_empty() && name.len() <= MAX_NAME && !is_public(name) {
            self.0.entry(name.to_owned()).or_insert(kind);
        }
    }

    /// Collects the names in a report, or in a part of an object.
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Array(entries) => entries.iter().for_each(|entry| self.collect(entry)),
            Value::Object(fields) => {
                // The pods of NVIDIA's software in its own namespace, and their containers, are public.
                let is_public_pod = fields.get("namespace").and_then(Value::as_str).is_some_and(is_public_namespace);
                for (field, value) in fields {
                    match (FIELDS.iter().find(|(known, _)| known == field), value) {
                        (Some(("pod" | "container", _)), Value::String(_)) if is_public_pod => {}
                        (Some(("namespace", _)), Value::String(name)) if is_public_namespace(name) => {}
                        (Some((_, kind)), Value::String(name)) => self.add(kind, name),
                        _ => self.collect(value),
                    }
                }
                // An entry with a PID is a process, and its name is the name of a program.
                if let (true, Some(Value::String(name))) = (fields.contains_key("pid"), fields.get("name")) {
                    self.add("program", name);
                }
                if let Some(Value::String(process)) = fields.get("process") {
                    self.add("program", process);
                }
            }
            _ => {}
        }
    }

    fn collect_object(&mut self, kind: &str, object: &Value) {
        let metadata = &object["metadata"];
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = name(&metadata["namespace"]);
        let singular = match kind {
            "nodes" | "leases" => "node",
            "pods" => "pod",
            "daemonsets" => "daemon-set",
            "resourceclaims" => "claim",
            _ => "object",
        };
        // The pods of the system belong to public software.
        let is_public = is_public_object(kind, object) && kind != "leases";
        if !is_public_namespace(&namespace) {
            self.add("namespace", &namespace);
        }
        if !is_public {
            self.add(singular, &name(&metadata["name"]));
            self.parts(object);
            for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
                self.add("owner", &name(&owner["name"]));
            }
        }
        for consumer in object["status"]["reservedFor"].as_array().into_iter().flatten() {
            self.add("pod", &name(&consumer["name"]));
        }
        if kind == "events" && !is_public_namespace(&name(&object["involvedObject"]["namespace"])) {
            self.add("object", &name(&object["involvedObject"]["name"]));
        }
        self.labels(object);
        self.collect(object);
    }

    /// Collects the names of containers, volumes and claims, and the paths on the host.
    fn parts(&mut self, object: &Value) {
        const PARTS: [(&str, &str); 9] = [
            ("containers", "container"),
            ("initContainers", "container"),
            ("ephemeralContainers", "container"),
            ("containerStatuses", "container"),
            ("initContainerStatuses", "container"),
            ("ephemeralContainerStatuses", "container"),
            ("volumes", "volume"),
            ("resourceClaims", "claim-name"),
            ("claims", "claim-name"),
        ];
        match object {
            Value::Array(entries) => entries.iter().for_each(|entry| self.parts(entry)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    if let Some((_, kind)) = PARTS.iter().find(|(known, _)| known == field) {
                        let names = value.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str());
                        names.for_each(|name| self.add(kind, name));
                    }
                    if field == "hostPath"
                        && let Some(path) = value["path"].as_str()
                        && path.len() > 1
                        && !PUBLIC_PATHS.iter().any(|known| path == *known || path.starts_with(&format!("{known}/")))
                    {
                        self.add("path", path);
                    }
                    self.parts(value);
                }
            }
            _ => {}
        }
    }

    /// Collects labels, selectors and images anywhere in an object.
    fn labels(&mut self, value: &Value) {
        match value {
            Value::Array(entries) => entries.iter().for_each(|entry| self.labels(entry)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    match (field.as_str(), value) {
                        (map, Value::Object(labels)) if LABEL_MAPS.contains(&map) => self.label_map(labels),
                        // The key of a taint, of a toleration or of an expression is a label.
                        ("key", Value::String(key)) => {
                            let values = fields.get("values").and_then(Value::as_array).into_iter().flatten();
                            let own = values.chain(fields.get("value")).filter_map(Value::as_str);
                            own.for_each(|text| self.label(key, text));
                            self.label(key, "");
                        }
                        ("image" | "imageID", Value::String(image)) => self.image(image),
                        _ => self.labels(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn label_map(&mut self, labels: &Map<String, Value>) {
        labels.iter().for_each(|(key, value)| self.label(key, value.as_str().unwrap_or_default()));
    }

    /// Collects a label and its value.
    fn label(&mut self, key: &str, value: &str) {
        if !is_public_label(key) {
            self.add("label", key);
        }
        if value.len() > 2 && !is_public_value(key, value) {
            self.add("value", value);
        }
    }

    /// Collects the registry, the folders, the last part and the tag of an image, except those of known programs.
    fn image(&mut self, image: &str) {
        if is_public_image(image) {
            return;
        }
        for (is_last, part, tag) in image_parts(image) {
            if !is_last {
                self.add(if part.contains('.') { "registry" } else { "folder" }, part);
            } else if !PUBLIC_PROGRAMS.contains(&part) {
                self.add("image", part);
            }
            let tag = tag.strip_prefix(':').unwrap_or_default().split('@').next().unwrap_or_default();
            let is_version = tag.trim_start_matches('v').bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            if is_last && tag.len() > 2 && tag != "latest" && !is_version {
                self.add("tag", tag);
            }
        }
    }
}

fn is_public_image(image: &str) -> bool {
    let image = image.split_once("://").map_or(image, |(_, image)| image);
    PUBLIC_IMAGES.iter().any(|start| image.starts_with(start))
}

/// Returns for each part of an image between slashes: whether it is the last part, its name, and its port, tag or
/// digest.
fn image_parts(image: &str) -> impl Iterator<Item = (bool, &str, &str)> {
    let image = image.split_once("://").map_or(image, |(_, image)| image);
    let count = image.split('/').count();
    image.split('/').enumerate().map(move |(place, part)| {
        let (name, tag) = part.split_at(part.find([':', '@']).unwrap_or(part.len()));
        (place + 1 == count, name, tag)
    })
}

/// Returns whether names of this kind are replaced in texts. A label or a program can have the name of an ordinary
/// word, so these names are replaced only in quotation marks, in brackets and after a slash.
fn is_in_texts(kind: &str, name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase());
    match kind {
        "label" | "value" | "program" | "container" | "volume" | "claim-name" | "folder" | "image" | "tag" => {
            name.len() > 4 && !is_word
        }
        "object" | "owner" => name.len() > 4,
        _ => true,
    }
}

/// Returns whether a text looks like a value of an enum, such as `ok` or `drain_and_reset`.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Fields of objects in which the whole value can be a name or a label.
const NAMING: [&str; 8] = ["name", "key", "value", "values", "image", "imageID", "process", "component"];

/// Fields that map labels to values.
const LABEL_MAPS: [&str; 4] = ["labels", "annotations", "nodeSelector", "matchLabels"];

/// The pseudonyms of the collected names, and of the identifiers that are found by their form.
struct Pseudonyms {
    names: HashMap<String, String>,
    /// The names that are replaced in texts.
    in_texts: HashMap<String, String>,
    /// The lengths of the names in texts, longest first.
    lengths: Vec<usize>,
    /// Number of pseudonyms for each form.
    counts: HashMap<&'static str, usize>,
    identifiers: HashMap<String, String>,
    commands: HashMap<String, String>,
}

impl Pseudonyms {
    fn of(found: Found) -> Self {
        let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
        found.0.values().for_each(|kind| *totals.entry(kind).or_default() += 1);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut names, mut in_texts) = (HashMap::new(), HashMap::new());
        // The names are sorted and the numbers have the same width, so the pseudonyms have the same order as the names.
        for (name, kind) in found.0 {
            let count = counts.entry(kind).or_default();
            *count += 1;
            let width = totals[kind].to_string().len();
            let pseudonym = match kind {
                // A serial number is replaced by a number, because lines of the kernel log contain it as a number.
                "serial" => format!("{:0>1$}", count, name.len().max(width)),
                "guid" => format!("0x{count:016x}"),
                "path" => format!("/path-{count:0width$}"),
                _ => format!("{kind}-{count:0width$}"),
            };
            if is_in_texts(kind, &name) {
                in_texts.insert(name.clone(), pseudonym.clone());
            }
            names.insert(name, pseudonym);
        }
        let lengths: BTreeSet<_> = in_texts.keys().map(String::len).collect();
        let lengths = lengths.into_iter().rev().collect();
        let (counts, identifiers, commands) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { names, in_texts, lengths, counts, identifiers, commands }
    }

    /// Replaces every text of a document in the field `of`, and removes the raw kernel log.
    fn apply(&mut self, of: &str, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.value(of, text),
            Value::Array(entries) => entries.iter_mut().for_each(|entry| self.apply(of, entry)),
            Value::Object(fields) => {
                fields.remove("kernel_log");
                fields.remove("raw_files");
                // The times at which public labels were written are kept.
                if let Some(labels) = fields.get_mut("f:labels").and_then(Value::as_object_mut) {
                    labels.retain(|key, _| key.strip_prefix("f:").is_some_and(is_public_label));
                }
                if let (true, Some(manager)) = (fields.contains_key("fieldsV1"), fields.get_mut("manager")) {
                    *manager = "manager".into();
                }
                for (field, mut value) in std::mem::take(fields) {
                    match &mut value {
                        Value::String(command) if field == "command" => *command = self.command(command),
                        Value::String(image)
                            if matches!(field.as_str(), "image" | "imageID") && !LABEL_MAPS.contains(&of) =>
                        {
                            *image = self.image(image);
                        }
                        // The command of a container is a list.
                        Value::Array(_) if matches!(field.as_str(), "command" | "args") => self.words(&mut value),
                        value => self.apply(if LABEL_MAPS.contains(&of) { of } else { &field }, value),
                    }
                    let field = if LABEL_MAPS.contains(&of) { self.value(of, &field) } else { field };
                    fields.insert(field, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces the texts of a file. A configuration space that cannot be parsed is removed.
    fn file(&mut self, file: &mut RawFile) {
        match without_serial(file) {
            Some(dump) => *file = dump,
            None if file.path.ends_with("/config") => file.lines.clear(),
            None => file.lines.iter_mut().for_each(|line| *line = self.replace(line)),
        }
    }

    /// Replaces the value of a field, which is a name, a value of an enum, or a text.
    fn value(&mut self, field: &str, text: &str) -> String {
        let is_naming =
            FIELDS.iter().any(|(known, _)| *known == field) || NAMING.contains(&field) || LABEL_MAPS.contains(&field);
        match self.names.get(text) {
            Some(pseudonym) if is_naming => pseudonym.clone(),
            _ if is_naming && text.contains('/') && is_public_label(text) => text.to_owned(),
            _ if !is_naming && is_word(text) => text.to_owned(),
            _ => self.replace(text),
        }
    }

    /// Replaces the parts of an image name.
    fn image(&mut self, image: &str) -> String {
        if is_public_image(image) {
            return self.replace(image);
        }
        let parts = image_parts(image).map(|(_, name, tag)| {
            let known = |text: &str| self.names.get(text).cloned().unwrap_or_else(|| text.to_owned());
            let (tag, digest) = tag.split_at(tag.find('@').unwrap_or(tag.len()));
            let tag = tag.strip_prefix(':').map_or_else(String::new, |tag| format!(":{}", known(tag)));
            format!("{}{tag}{digest}", known(name))
        });
        let parts: Vec<_> = parts.collect();
        let scheme = image.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://"));
        self.replace(&(scheme + &parts.join("/")))
    }

    /// Returns the pseudonym of a command line. The name of a public program is kept.
    fn command(&mut self, command: &str) -> String {
        let next = self.commands.len() + 1;
        let program = command.split_whitespace().next().unwrap_or_default();
        let base = program.rsplit('/').next().unwrap_or_default();
        let start = if is_public(base) { format!("{base} ") } else { String::new() };
        self.commands.entry(command.to_owned()).or_insert_with(|| format!("{start}command-{next}")).clone()
    }

    /// Keeps only the words of a command that are names of GPU software.
    fn words(&mut self, command: &mut Value) {
        const WORDS: [&str; 9] = ["nvidia", "gpu", "cuda", "amd", "rocm", "intel", "habana", "gaudi", "neuron"];
        let text = command.to_string().to_lowercase();
        *command = WORDS.into_iter().filter(|word| text.contains(word)).collect();
    }

    /// Replaces the names and identifiers in a text.
    fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let bytes = text.as_bytes();
        let is_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        let mut at = 0;
        while at < text.len() {
            let starts = at == 0 || !is_word(at - 1) || !is_word(at);
            if starts && let Some((length, pseudonym)) = self.found_at(text, at) {
                replaced.push_str(&pseudonym);
                at += length;
                continue;
            }
            let character = text[at..].chars().next().unwrap_or_default();
            replaced.push(character);
            at += character.len_utf8();
        }
        replaced
    }

    /// Returns the length of the name or identifier at this position, and its pseudonym.
    fn found_at(&mut self, text: &str, at: usize) -> Option<(usize, String)> {
        let bytes = text.as_bytes();
        let ends = |end: usize| {
            !(bytes.get(end).is_some_and(u8::is_ascii_alphanumeric) && bytes[end - 1].is_ascii_alphanumeric())
        };
        for length in &self.lengths {
            if let Some(name) = text.get(at..at + length)
                && ends(at + length)
                && let Some(pseudonym) = self.in_texts.get(name)
            {
                return Some((*length, pseudonym.clone()));
            }
        }
        let rest = &text[at..];
        if at > 0 && matches!(bytes[at - 1], b'"' | b'\'' | b'`' | b'/' | b'(' | b'[' | b'{' | b'=') {
            let length = rest.bytes().take_while(|byte| is_name(*byte)).count();
            let closes = |end: usize| bytes.get(end).is_none_or(|byte| b"\"'`/)]}:@, ".contains(byte));
            if length > 2
                && closes(at + length)
                && let Some(pseudonym) = self.names.get(&rest[..length])
            {
                return Some((length, pseudonym.clone()));
            }
        }
        let (form, length) = form_of(rest, at.checked_sub(1).and_then(|before| bytes.get(before)).copied())?;
        ends(at + length).then(|| (length, self.identifier(form, &rest[..length])))
    }

    fn identifier(&mut self, form: Form, text: &str) -> String {
        // Some systems write a UUID in upper case, others in lower case.
        let key = text.to_ascii_lowercase();
        if let Some(known) = self.identifiers.get(&key) {
            return known.clone();
        }
        let count = self.counts.entry(form.name()).or_default();
        *count += 1;
        let pseudonym = match form {
            Form::Uuid => format!("{count:08x}-0000-4000-8000-{count:012x}"),
            Form::Hex => format!("{count:0>width$x}", width = text.len()),
            // The network for benchmarks (198.18.0.0/15) has 131,072 addresses.
            Form::Ip4 => format!("198.{}.{}.{}", 18 + (*count >> 16 & 1), *count >> 8 & 0xff, *count & 0xff),
            Form::IpName => format!("ip-198-{}-{}-{}", 18 + (*count >> 16 & 1), *count >> 8 & 0xff, *count & 0xff),
            Form::Instance => format!("i-{count:0>width$x}", width = text.len() - 2),
            Form::Host => format!("host-{count}.example.com"),
            Form::Path => format!("{}path-{count}", &text[..text[1..].find('/').map_or(0, |at| at + 2)]),
            Form::Ip6 => format!("2001:db8::{count:x}"),
            Form::Mac => format!("02:00:00:00:{:02x}:{:02x}", *count >> 8 & 0xff, *count & 0xff),
            Form::Mail => format!("user-{count}@example.com"),
            Form::Home => format!("/home/user-{count}"),
        };
        self.identifiers.insert(key, pseudonym.clone());
        pseudonym
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Uuid,
    Hex,
    Ip4,
    Ip6,
    Mac,
    Mail,
    Home,
    IpName,
    Instance,
    Host,
    Path,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Hex => "hex",
            Self::Ip4 => "ip4",
            Self::Ip6 => "ip6",
            Self::Mac => "mac",
            Self::Mail => "mail",
            Self::Home => "home",
            Self::IpName => "ip-name",
            Self::Instance => "instance",
            Self::Host => "host",
            Self::Path => "path",
        }
    }
}

/// Returns the form and the length of an identifier at the start of a text.
fn form_of(text: &str, before: Option<u8>) -> Option<(Form, usize)> {
    const UUID: usize = 36;
    let run = |part: fn(&u8) -> bool| text.bytes().take_while(part).count();
    let is_uuid = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    if text.len() >= UUID && text.bytes().take(UUID).enumerate().all(is_uuid) {
        return Some((Form::Uuid, UUID));
    }
    if FOLDERS.iter().any(|folder| text.starts_with(folder)) && !before.is_some_and(is_name) {
        let path = text[..run(|byte| is_name(*byte) || *byte == b'/')].trim_end_matches(['/', '.']);
        let form = if path.starts_with("/home/") { Form::Home } else { Form::Path };
        return path[1..].contains('/').then_some((form, path.len()));
    }
    let word =
        text[..run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))].trim_end_matches(['.', '-']);
    if let Some(length) = cloud_name(word) {
        return Some((if word.starts_with("ip-") { Form::IpName } else { Form::Instance }, length));
    }
    let hex = run(u8::is_ascii_hexdigit);
    if hex >= MIN_HEX {
        return Some((Form::Hex, hex));
    }
    let colons = run(|byte| byte.is_ascii_hexdigit() || *byte == b':');
    let groups: Vec<&str> = text[..colons].trim_end_matches(':').split(':').collect();
    if groups.len() == 6 && groups.iter().all(|group| group.len() == 2) {
        return Some((Form::Mac, 17));
    }
    let is_ip6 = text[..colons].contains("::") && groups.len() > 2 || groups.len() == 8;
    if is_ip6 && before != Some(b':') && groups.iter().all(|group| group.len() <= 4) {
        return Some((Form::Ip6, text[..colons].trim_end_matches(':').len()));
    }
    let dots = run(|byte| byte.is_ascii_digit() || *byte == b'.');
    let octets: Vec<&str> = text[..dots].trim_end_matches('.').split('.').collect();
    // A version can have zeros at the start of a group, or more groups than an address.
    let is_octet = |octet: &&str| octet.parse::<u8>().is_ok() && (octet.len() == 1 || !octet.starts_with('0'));
    if octets.len() == 4 && octets.iter().all(is_octet) && before != Some(b'.') {
        return Some((Form::Ip4, text[..dots].trim_end_matches('.').len()));
    }
    let name = text.bytes().take_while(|byte| is_name(*byte)).count();
    let domain = text[name..].strip_prefix('@').map(|rest| rest.bytes().take_while(|byte| is_name(*byte)).count());
    // The digest of an image also follows an at sign.
    let is_mail = name > 0 && domain.is_some_and(|length| length > 3) && !text[name..].starts_with("@sha256");
    if is_mail {
        return Some((Form::Mail, name + 1 + domain.unwrap_or_default()));
    }
    (before != Some(b'.') && is_host(word)).then_some((Form::Host, word.len()))
}

/// Returns the length of a cloud machine's name: `i-0123456789abcdef0`, or `ip-10-0-0-1` with or without a domain.
fn cloud_name(word: &str) -> Option<usize> {
    if let Some(id) = word.strip_prefix("i-") {
        return ((8..=17).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(word.len());
    }
    let first = word.split('.').next().unwrap_or_default();
    let octets: Vec<_> = first.strip_prefix("ip-")?.split('-').collect();
    (octets.len() == 4 && octets.iter().all(|octet| octet.parse::<u8>().is_ok())).then_some(first.len())
}

/// Returns whether a word is a host name in a domain that is not public.
fn is_host(word: &str) -> bool {
    let parts: Vec<_> = word.split('.').collect();
    let Some(last) = parts.last().filter(|_| parts.len() > 2) else { return false };
    let is_top = TOP_LEVEL.contains(last)
        || last.len() == 2 && last.bytes().all(|byte| byte.is_ascii_lowercase()) && !FILE_ENDS.contains(last);
    let is_public = PUBLIC_HOSTS.iter().any(|known| word == *known || word.ends_with(&format!(".{known}")));
    is_top && !is_public && parts.iter().all(|part| !part.is_empty())
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(names: &[(&'static str, &str)], text: &str) -> String {
        let mut found = Found::default();
        names.iter().for_each(|(kind, name)| found.add(kind, name));
        Pseudonyms::of(found).replace(text)
    }

    #[test]
    fn a_name_is_replaced_as_a_word_and_the_longest_name_first() {
        let names = [("node", "gpu-1"), ("pod", "gpu-1-trainer-0"), ("namespace", "ml")];
        assert_eq!(
            replaced(&names, "gpu-1-trainer-0 of ml on gpu-1.example, html, gpu-12"),
            "pod-1 of namespace-1 on node-1.example, html, gpu-12"
        );
    }

    #[test]
    fn identifiers_are_replaced_by_their_form() {
        for (text, expected) in [
            ("GPU-5b0e3c11-3f0c-4a3e-9f8e-0123456789ab", "GPU-00000001-0000-4000-8000-000000000001"),
            ("dial tcp 10.1.2.3:6443", "dial tcp 198.18.0.1:6443"),
            ("mac aa:bb:cc:dd:ee:0f", "mac 02:00:00:00:00:01"),
            ("from fe80::1 to x", "from 2001:db8::1 to x"),
            ("mail a.b@acme.example now", "mail user-1@example.com now"),
            ("in /home/alice/x", "in /home/user-1"),
            ("open /lustre/acme/run.7: no such file", "open /lustre/path-1: no such file"),
            ("at login.hpc.acme.example,", "at host-1.example.com,"),
            ("i-0a1b2c3d4e5f60718 of ip-10-0-12-7.", "i-00000000000000001 of ip-198-18-0-1."),
        ] {
            assert_eq!(replaced(&[], text), expected);
        }
        for same in [
            "570.124.06",
            "92.00.45.00.03",
            "00000000:5d:00.0",
            "2026-11-21T02:45:10Z",
            "12:30:01",
            "G183.0200.00.02",
            "docs.nvidia.com",
            "libnvidia-ml.so.1",
            "spec.containers.x",
            "/data",
            "resource.k8s.io/v1",
        ] {
            assert_eq!(replaced(&[], same), same);
        }
    }

    #[test]
    fn pseudonyms_have_the_order_of_the_names() {
        let names: Vec<String> = (0..30).map(|number| format!("rack{number:02}-gpu")).collect();
        let named: Vec<_> = names.iter().map(|name| ("node", name.as_str())).collect();
        let text = replaced(&named, &names.join(" "));
        let words: Vec<_> = text.split(' ').collect();
        assert!(words.is_sorted() && words.len() == 30 && words[29] == "node-30", "{text}");
    }
}
