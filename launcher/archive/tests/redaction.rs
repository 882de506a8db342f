//! Property tests of `redact`: nothing of a name, UUID, serial number or address is left, and the structure is the same.

use archive::{Archive, ContainerLog, SavedNode, redact};
use proptest::prelude::*;
use serde_json::{Value, json};
use syringe_core::report::Report;

/// Texts that identify a site, in each place where a report or an object has one.
#[derive(Clone, Debug)]
struct Secrets {
    node: String,
    namespace: String,
    pod: String,
    user: String,
    serial: String,
    uuid: String,
    container_id: String,
    address: String,
    registry: String,
    label: String,
}

fn secrets() -> impl Strategy<Value = Secrets> {
    let name = || "[a-z]{6,10}-[a-z0-9]{4,8}".prop_filter("a public name", |name| !name.starts_with("nvidia"));
    let hex = |length: usize| proptest::string::string_regex(&format!("[0-9a-f]{{{length}}}")).expect("a pattern");
    let uuid = (hex(8), hex(4), hex(4), hex(4), hex(12)).prop_map(|(a, b, c, d, e)| format!("{a}-{b}-{c}-{d}-{e}"));
    let address = (11_u8..200, 1_u8..250, 1_u8..250, 1_u8..250).prop_map(|(a, b, c, d)| format!("{a}.{b}.{c}.{d}"));
    (
        (name(), name(), name(), name()),
        ("1[0-9]{12}", uuid, hex(64), address),
        (name().prop_map(|name| format!("registry.{name}.internal/team")), name()),
    )
        .prop_map(|((node, namespace, pod, user), (serial, uuid, container_id, address), (registry, label))| {
            Secrets { node, namespace, pod, user, serial, uuid, container_id, address, registry, label }
        })
}

impl Secrets {
    fn all(&self) -> [&str; 10] {
        let Self { node, namespace, pod, user, serial, uuid, container_id, address, registry, label } = self;
        [node, namespace, pod, user, serial, uuid, container_id, address, registry, label]
    }

    /// Returns an archive that contains each secret in its field and inside of texts.
    fn planted(&self) -> Archive {
        let Self { node, namespace, pod, user, serial, uuid, container_id, address, registry, label } = self;
        let text = format!(
            "{node} kernel: {pod}/{namespace} ({uuid}) at {address}:443, serial {serial}, cri-{container_id}.scope, {registry}/x, {label}"
        );
        let process = json!({
            "pid": 7, "name": user, "command": format!("/opt/{user}/train --host {address} --key {label}"), "user": user,
            "container_id": container_id, "pod_uid": uuid, "namespace": namespace, "pod": pod,
        });
        let report = json!({
            "schema_version": 3, "hostname": node, "boot_id": uuid, "taken_at": "2026-11-21T02:45:10Z",
            "kernel_log": [text],
            "sections": {
                "inventory": {"status": "partial", "data": {"driver_version": "580.95.05", "gpus": [
                    {"index": 0, "uuid": format!("GPU-{uuid}"), "serial": serial, "pci_address": "00000000:5d:00.0"},
                ]}, "problems": [{"what": "ecc", "why": text, "code": "timeout"}]},
                "processes": {"status": "ok", "data": {"processes": [process]}},
                "xid": {"status": "ok", "data": {"events": [{"raw": text, "process": user}]}},
            },
        });
        let labels = json!({"app": "nvidia-device-plugin", "acme.example/team": label, "owner": label});
        let container = json!({"name": user, "image": format!("{registry}/trainer:1"), "command": ["/bin/x", label]});
        let pods = json!([{
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace, "uid": uuid, "labels": labels,
                "ownerReferences": [{"kind": "Job", "name": label}]},
            "spec": {"nodeName": node, "serviceAccountName": user, "containers": [container],
                "nodeSelector": {"acme.example/team": label}},
            "status": {"message": text, "containerStatuses": [{"name": user, "containerID": format!("containerd://{container_id}")}]},
        }]);
        let events = json!([{
            "metadata": {"name": format!("{pod}.1"), "namespace": namespace}, "message": text,
            "involvedObject": {"kind": "Pod", "name": pod, "namespace": namespace, "uid": uuid},
            "source": {"component": "kubelet", "host": node},
        }]);
        let mut archive = Archive::default();
        archive.manifest.context = format!("{user}@{label}.example.com");
        let saved = SavedNode { report: report.to_string().into_bytes(), kernel_log: text.clone().into_bytes() };
        archive.add_node(node, saved, Some(text.clone()));
        archive.objects.insert("pods".into(), pods.to_string().into_bytes());
        archive.objects.insert("events".into(), events.to_string().into_bytes());
        let log = ContainerLog { namespace: namespace.clone(), pod: pod.clone(), container: user.clone(), text };
        archive.logs.push(log);
        archive
    }
}

/// Returns everything in an archive as one text.
fn everything(archive: &Archive) -> String {
    let Archive { manifest, nodes, objects, logs } = archive;
    let mut all = serde_json::to_string(&json!([manifest, logs])).expect("JSON");
    for (name, SavedNode { report, kernel_log }) in nodes {
        all += &format!("{name} {} {}", String::from_utf8_lossy(report), String::from_utf8_lossy(kernel_log));
    }
    objects.values().for_each(|list| all += &String::from_utf8_lossy(list));
    all
}

/// Returns the shape of a document: the same for two documents that differ only in texts.
fn shape(value: &Value) -> Value {
    match value {
        Value::String(_) => json!("text"),
        Value::Array(entries) => entries.iter().map(shape).collect(),
        Value::Object(fields) => fields.values().map(shape).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_uuid_address_or_serial_number_is_left(secrets in secrets()) {
        let mut archive = secrets.planted();
        let before = everything(&archive);
        for secret in secrets.all() {
            prop_assert!(before.contains(secret), "{secret} was not planted");
        }
        redact(&mut archive).expect("valid JSON");
        let after = everything(&archive);
        for secret in secrets.all() {
            prop_assert!(!after.to_lowercase().contains(secret), "{secret} is in {after}");
        }
        prop_assert!(after.contains("00000000:5d:00.0") && after.contains("580.95.05"), "{}", after);
        prop_assert!(archive.manifest.redacted);
    }
}

#[test]
fn a_redacted_report_has_the_same_shape_and_the_same_codes() {
    for scenario in syringe_core::scenarios::all() {
        let report: Value = serde_json::from_str(scenario.json).expect("JSON");
        let mut archive = Archive::default();
        archive.add_node("rack-1", SavedNode { report: report.to_string().into_bytes(), ..SavedNode::default() }, None);
        redact(&mut archive).expect("valid JSON");
        let redacted: Value =
            serde_json::from_slice(&archive.nodes.first_key_value().expect("a node").1.report).expect("JSON");
        assert_eq!(shape(&redacted["sections"]), shape(&report["sections"]), "{}", scenario.name);
        let parsed = |value: &Value| -> Report { serde_json::from_value(value.clone()).expect("a report") };
        let codes = |report: Report| -> Vec<_> {
            report.sections.problems().iter().map(|(section, problem)| (*section, problem.code.clone())).collect()
        };
        assert_eq!(codes(parsed(&redacted)), codes(parsed(&report)), "{}", scenario.name);
    }
}
