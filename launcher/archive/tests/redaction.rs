//! Property tests of `redact`: no part of a name, UUID, serial number or address is left, and the structure is
//! unchanged. Names of NVIDIA's software and labels about the machine stay.

use archive::{Archive, ContainerLog, SavedNode, redact};
use proptest::prelude::*;
use serde_json::{Value, json};
use syringe_core::raw_file::RawFile;
use syringe_core::report::Report;

/// Texts that identify a site, with the field of a report or an object in which each occurs.
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
        let mut config = vec![0; 4096];
        config[0x100..0x10c].copy_from_slice(&[3, 0, 1, 0, 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef]);
        let information =
            vec![format!("GPU UUID:  GPU-{uuid}"), format!("Serial: {serial}"), namespace.clone(), text.clone()];
        let files = vec![
            RawFile { path: "/proc/driver/nvidia/gpus/0000:5d:00.0/information".into(), lines: information },
            RawFile::of_bytes("/sys/bus/pci/devices/0000:5d:00.0/config".into(), &config),
        ];
        let (report, kernel_log) = (report.to_string().into_bytes(), text.clone().into_bytes());
        let saved = SavedNode { report, kernel_log, files };
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
    for (name, SavedNode { report, kernel_log, files }) in nodes {
        all += &serde_json::to_string(files).expect("JSON");
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
        prop_assert!(before.contains("de ad be ef"));
        for secret in secrets.all() {
            prop_assert!(before.contains(secret), "{secret} was not planted");
        }
        redact(&mut archive).expect("valid JSON");
        let after = everything(&archive);
        for secret in secrets.all() {
            prop_assert!(!after.to_lowercase().contains(secret), "{secret} is in {after}");
        }
        prop_assert!(!after.contains("de ad be ef") && after.contains("100: 03 00 01 00 00"), "{}", after);
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

/// Returns the archive after `redact`, with these objects and a report with this text.
fn redacted_with(kind: &str, objects: &Value, text: &str) -> String {
    let report = json!({"schema_version": 3, "hostname": "rack-1", "sections": {
        "xid": {"status": "ok", "data": {"events": [{"raw": text}]}},
    }});
    let mut archive = Archive::default();
    archive.add_node("rack-1", SavedNode { report: report.to_string().into_bytes(), ..SavedNode::default() }, None);
    archive.objects.insert(kind.into(), objects.to_string().into_bytes());
    redact(&mut archive).expect("valid JSON");
    everything(&archive)
}

/// Returns a pod of a tenant with this change.
fn pod_with(pointer: &str, value: Value) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": {"name": "p-1", "namespace": "n-1", "labels": {}, "ownerReferences": [{}], "managedFields": [{}]},
        "spec": {"containers": [{"name": "c-1", "resources": {"claims": [{}]}}], "volumes": [{}], "tolerations": [{}],
            "resourceClaims": [{}], "nodeSelector": {}},
        "status": {"containerStatuses": [{}], "resourceClaimStatuses": [{}]},
    });
    if let Some(old) = pod.pointer_mut(pointer) {
        *old = value;
        return json!([pod]);
    }
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    pod.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").insert(field.replace("~1", "/"), value);
    json!([pod])
}

#[test]
fn a_name_that_stands_in_one_field_only_is_replaced() {
    for secret in ["zebra", "zebra-7x", "nvidia-zebra"] {
        for (pointer, value) in [
            ("/0/metadata/name", json!(secret)),
            ("/0/metadata/namespace", json!(secret)),
            ("/0/metadata/generateName", json!(secret)),
            ("/0/metadata/ownerReferences/0/name", json!(secret)),
            ("/0/metadata/labels/app", json!(if secret.starts_with("nvidia") { "zebra-x" } else { secret })),
            ("/0/metadata/labels/topology.kubernetes.io~1zone", json!(secret)),
            ("/0/metadata/labels/eks.amazonaws.com~1nodegroup", json!(secret)),
            ("/0/metadata/labels/zebra", json!("x")),
            (
                "/0/metadata/managedFields/0",
                json!({"manager": secret, "fieldsV1": {"f:metadata": {"f:labels": {"f:acme.com/zebra": {}}}}}),
            ),
            ("/0/spec/nodeName", json!(secret)),
            ("/0/spec/nodeSelector/node.kubernetes.io~1pool", json!(secret)),
            ("/0/spec/tolerations/0", json!({"key": "node.kubernetes.io/pool", "value": secret})),
            ("/0/spec/containers/0/name", json!(secret)),
            ("/0/spec/containers/0/resources/claims/0/name", json!(secret)),
            ("/0/spec/containers/0/image", json!(format!("{secret}.acme.com:5000/a/b:1"))),
            ("/0/spec/containers/0/image", json!(format!("docker.io/{secret}/k8s-device-plugin:v0.17.1"))),
            ("/0/spec/containers/0/image", json!(format!("docker.io/acme/{secret}-gpu:1.2"))),
            ("/0/spec/containers/0/image", json!(format!("docker.io/acme/cuda:{secret}"))),
            ("/0/spec/containers/0/image", json!(format!("public.ecr.aws/{secret}/cuda"))),
            ("/0/spec/volumes/0/name", json!(secret)),
            ("/0/spec/volumes/0", json!({"name": "v", "hostPath": {"path": format!("/srv/{secret}")}})),
            ("/0/spec/resourceClaims/0/name", json!(secret)),
            ("/0/spec/resourceClaims/0/resourceClaimName", json!(secret)),
            ("/0/spec/resourceClaims/0/resourceClaimTemplateName", json!(secret)),
            ("/0/status/containerStatuses/0/name", json!(secret)),
            ("/0/status/resourceClaimStatuses/0", json!({"name": secret, "resourceClaimName": secret})),
        ] {
            let pointer = pointer.strip_prefix("/0").expect("of the pod");
            let after = redacted_with("pods", &pod_with(pointer, value), "");
            assert!(!after.contains("zebra"), "{pointer} {secret}: {after}");
        }
    }
}

#[test]
fn a_pod_of_the_namespace_default_has_a_pseudonym_and_a_pod_of_nvidia_keeps_its_name() {
    let pods = |namespace: &str| json!([{"metadata": {"name": "zebra-0", "namespace": namespace, "ownerReferences": [{"name": "zebra"}]}}]);
    let text = "pod default/zebra-0 of zebra";
    assert!(!redacted_with("pods", &pods("default"), text).contains("zebra"));
    assert!(redacted_with("pods", &pods("gpu-operator"), text).contains("zebra-0"));
    let mut set = json!([{"metadata": {"name": "nvidia-zebra", "namespace": "acme"},
        "spec": {"template": {"spec": {"containers": [{"name": "x", "image": "nvcr.io/nvidia/k8s-device-plugin:v1"}]}}}}]);
    assert!(redacted_with("daemonsets", &set, "").contains("nvidia-zebra"));
    set[0]["spec"]["template"]["spec"]["containers"][0]["image"] = "acme/plugin:v1".into();
    assert!(!redacted_with("daemonsets", &set, "").contains("nvidia-zebra"));
}

#[test]
fn a_name_of_lower_case_letters_is_replaced_in_texts() {
    let pod = pod_with("/metadata/ownerReferences/0/name", json!("zebra"));
    assert!(!redacted_with("pods", &pod, "the job zebra ended").contains("zebra"));
    // The name of a container can be an ordinary word. It is replaced only where it is used as a name.
    let pod = pod_with("/spec/containers/0/name", json!("zebra"));
    for text in
        ["container \"zebra\" failed", "spec.containers{zebra}", "gone: p/zebra", "(zebra)", "container 'zebra'"]
    {
        assert!(!redacted_with("pods", &pod, text).contains("zebra"), "{text}");
    }
    assert!(redacted_with("pods", &pod, "a zebra is striped").contains("a zebra is"));
}

#[test]
fn names_that_only_texts_have_are_replaced_by_their_form() {
    for (text, secret) in [
        ("dial tcp: lookup login.zebra.acme.com on 10.0.0.1:53", "zebra"),
        ("mount /lustre/zebra/data failed", "zebra"),
        ("open \"/mnt/zebra\": no such file", "zebra"),
        ("cd /scratch/zebra;", "zebra"),
        ("/export/zebra", "zebra"),
        ("/data/zebra/x", "zebra"),
        ("/home/a/zebra", "zebra"),
        ("instance i-0a1b2c3d4e5f60718 was stopped", "0a1b2c3d4e5f60718"),
        ("node ip-10-1-2-3.ec2.internal", "10-1-2-3"),
    ] {
        let after = redacted_with("pods", &json!([]), text);
        assert!(!after.contains(secret), "{text}: {after}");
    }
}

#[test]
fn different_addresses_have_different_pseudonyms() {
    let addresses: Vec<_> = (0..600).map(|number| format!("10.7.{}.{}", number / 200, 1 + number % 200)).collect();
    let after = redacted_with("pods", &json!([]), &addresses.join(" "));
    let words: std::collections::BTreeSet<_> =
        after.split([' ', '"']).filter(|word| word.starts_with("198.18.")).collect();
    assert_eq!(words.len(), 600);
}

#[test]
fn values_of_labels_that_describe_the_machine_stay() {
    for (label, value) in [
        ("nvidia.com~1gpu.product", "NVIDIA-H100-80GB-HBM3"),
        ("kubernetes.io~1arch", "riscv"),
        ("node.kubernetes.io~1instance-type", "p5.48xlarge"),
        ("feature.node.kubernetes.io~1kernel-version.full", "5.15.0-1053-aws"),
        ("app", "nvidia-device-plugin-daemonset"),
    ] {
        let after = redacted_with("pods", &pod_with(&format!("/metadata/labels/{label}"), json!(value)), "");
        assert!(after.contains(value) && after.contains(&label.replace("~1", "/")), "{label}: {after}");
    }
}
