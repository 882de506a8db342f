//! `encode`: writes pods, nodes, their lists, and `Status` in the protobuf format of Kubernetes.
//!
//! The field numbers are from `generated.proto` of k8s.io/api and k8s.io/apimachinery. The tables do not contain fields
//! that no
//! object of this cluster has.

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

/// A message type: JSON name, number and type of each field, ordered by number.
type Message = &'static [(&'static str, u32, Type)];

#[derive(Clone, Copy)]
enum Type {
    Text,
    Flag,
    Number,
    Time,
    Quantity,
    Object(Message),
    /// A list of messages.
    Objects(Message),
    Texts,
    TextMap,
    Quantities,
}

use Type::{Flag, Number, Object, Objects, Quantities, Quantity, Text, TextMap, Texts, Time};

const OWNER: Message =
    &[("kind", 1, Text), ("name", 3, Text), ("uid", 4, Text), ("apiVersion", 5, Text), ("controller", 6, Flag)];
const MANAGED: Message = &[
    ("manager", 1, Text),
    ("operation", 2, Text),
    ("apiVersion", 3, Text),
    ("time", 4, Time),
    ("fieldsType", 6, Text),
    ("subresource", 8, Text),
];
const METADATA: Message = &[
    ("name", 1, Text),
    ("generateName", 2, Text),
    ("namespace", 3, Text),
    ("uid", 5, Text),
    ("resourceVersion", 6, Text),
    ("generation", 7, Number),
    ("creationTimestamp", 8, Time),
    ("deletionTimestamp", 9, Time),
    ("deletionGracePeriodSeconds", 10, Number),
    ("labels", 11, TextMap),
    ("annotations", 12, TextMap),
    ("ownerReferences", 13, Objects(OWNER)),
    ("finalizers", 14, Texts),
    ("managedFields", 17, Objects(MANAGED)),
];
const LIST_METADATA: Message =
    &[("resourceVersion", 2, Text), ("continue", 3, Text), ("remainingItemCount", 4, Number)];

const TAINT: Message = &[("key", 1, Text), ("value", 2, Text), ("effect", 3, Text), ("timeAdded", 4, Time)];
const NODE_CONDITION: Message = &[
    ("type", 1, Text),
    ("status", 2, Text),
    ("lastHeartbeatTime", 3, Time),
    ("lastTransitionTime", 4, Time),
    ("reason", 5, Text),
    ("message", 6, Text),
];
const ADDRESS: Message = &[("type", 1, Text), ("address", 2, Text)];
const IMAGE: Message = &[("names", 1, Texts), ("sizeBytes", 2, Number)];
const NODE_INFO: Message = &[
    ("machineID", 1, Text),
    ("systemUUID", 2, Text),
    ("bootID", 3, Text),
    ("kernelVersion", 4, Text),
    ("osImage", 5, Text),
    ("containerRuntimeVersion", 6, Text),
    ("kubeletVersion", 7, Text),
    ("kubeProxyVersion", 8, Text),
    ("operatingSystem", 9, Text),
    ("architecture", 10, Text),
];
const NODE_SPEC: Message =
    &[("podCIDR", 1, Text), ("providerID", 3, Text), ("unschedulable", 4, Flag), ("taints", 5, Objects(TAINT))];
const NODE_STATUS: Message = &[
    ("capacity", 1, Quantities),
    ("allocatable", 2, Quantities),
    ("phase", 3, Text),
    ("conditions", 4, Objects(NODE_CONDITION)),
    ("addresses", 5, Objects(ADDRESS)),
    ("nodeInfo", 7, Object(NODE_INFO)),
    ("images", 8, Objects(IMAGE)),
];
const NODE: Message =
    &[("metadata", 1, Object(METADATA)), ("spec", 2, Object(NODE_SPEC)), ("status", 3, Object(NODE_STATUS))];
const NODE_LIST: Message = &[("metadata", 1, Object(LIST_METADATA)), ("items", 2, Objects(NODE))];

const VARIABLE: Message = &[("name", 1, Text), ("value", 2, Text)];
const CLAIM_OF_CONTAINER: Message = &[("name", 1, Text), ("request", 2, Text)];
const RESOURCES: Message =
    &[("limits", 1, Quantities), ("requests", 2, Quantities), ("claims", 3, Objects(CLAIM_OF_CONTAINER))];
const SECURITY: Message = &[
    ("privileged", 2, Flag),
    ("runAsUser", 4, Number),
    ("runAsNonRoot", 5, Flag),
    ("readOnlyRootFilesystem", 6, Flag),
    ("allowPrivilegeEscalation", 7, Flag),
];
const CONTAINER: Message = &[
    ("name", 1, Text),
    ("image", 2, Text),
    ("command", 3, Texts),
    ("args", 4, Texts),
    ("workingDir", 5, Text),
    ("env", 7, Objects(VARIABLE)),
    ("resources", 8, Object(RESOURCES)),
    ("terminationMessagePath", 13, Text),
    ("imagePullPolicy", 14, Text),
    ("securityContext", 15, Object(SECURITY)),
    ("stdin", 16, Flag),
    ("terminationMessagePolicy", 20, Text),
    ("restartPolicy", 24, Text),
];
const TOLERATION: Message = &[
    ("key", 1, Text),
    ("operator", 2, Text),
    ("value", 3, Text),
    ("effect", 4, Text),
    ("tolerationSeconds", 5, Number),
];
const POD_CLAIM: Message = &[("name", 1, Text), ("resourceClaimName", 3, Text), ("resourceClaimTemplateName", 4, Text)];
const POD_SPEC: Message = &[
    ("containers", 2, Objects(CONTAINER)),
    ("restartPolicy", 3, Text),
    ("terminationGracePeriodSeconds", 4, Number),
    ("activeDeadlineSeconds", 5, Number),
    ("dnsPolicy", 6, Text),
    ("nodeSelector", 7, TextMap),
    ("serviceAccountName", 8, Text),
    ("nodeName", 10, Text),
    ("hostNetwork", 11, Flag),
    ("hostPID", 12, Flag),
    ("schedulerName", 19, Text),
    ("initContainers", 20, Objects(CONTAINER)),
    ("automountServiceAccountToken", 21, Flag),
    ("tolerations", 22, Objects(TOLERATION)),
    ("priorityClassName", 24, Text),
    ("priority", 25, Number),
    ("runtimeClassName", 29, Text),
    ("enableServiceLinks", 30, Flag),
    ("preemptionPolicy", 31, Text),
    ("overhead", 32, Quantities),
    ("resourceClaims", 39, Objects(POD_CLAIM)),
];
const POD_CONDITION: Message = &[
    ("type", 1, Text),
    ("status", 2, Text),
    ("lastTransitionTime", 4, Time),
    ("reason", 5, Text),
    ("message", 6, Text),
];
const WAITING: Message = &[("reason", 1, Text), ("message", 2, Text)];
const RUNNING: Message = &[("startedAt", 1, Time)];
const TERMINATED: Message = &[
    ("exitCode", 1, Number),
    ("signal", 2, Number),
    ("reason", 3, Text),
    ("message", 4, Text),
    ("startedAt", 5, Time),
    ("finishedAt", 6, Time),
    ("containerID", 7, Text),
];
const STATE: Message =
    &[("waiting", 1, Object(WAITING)), ("running", 2, Object(RUNNING)), ("terminated", 3, Object(TERMINATED))];
const HEALTH: Message = &[("resourceID", 1, Text), ("health", 2, Text)];
const RESOURCE_STATUS: Message = &[("name", 1, Text), ("resources", 2, Objects(HEALTH))];
const CONTAINER_STATUS: Message = &[
    ("name", 1, Text),
    ("state", 2, Object(STATE)),
    ("lastState", 3, Object(STATE)),
    ("ready", 4, Flag),
    ("restartCount", 5, Number),
    ("image", 6, Text),
    ("imageID", 7, Text),
    ("containerID", 8, Text),
    ("started", 9, Flag),
    ("allocatedResourcesStatus", 14, Objects(RESOURCE_STATUS)),
];
const CLAIM_STATUS: Message = &[("name", 1, Text), ("resourceClaimName", 2, Text)];
const ADDRESS_OF_POD: Message = &[("ip", 1, Text)];
const POD_STATUS: Message = &[
    ("phase", 1, Text),
    ("conditions", 2, Objects(POD_CONDITION)),
    ("message", 3, Text),
    ("reason", 4, Text),
    ("hostIP", 5, Text),
    ("podIP", 6, Text),
    ("startTime", 7, Time),
    ("containerStatuses", 8, Objects(CONTAINER_STATUS)),
    ("qosClass", 9, Text),
    ("initContainerStatuses", 10, Objects(CONTAINER_STATUS)),
    ("nominatedNodeName", 11, Text),
    ("podIPs", 12, Objects(ADDRESS_OF_POD)),
    ("resourceClaimStatuses", 15, Objects(CLAIM_STATUS)),
];
const POD: Message =
    &[("metadata", 1, Object(METADATA)), ("spec", 2, Object(POD_SPEC)), ("status", 3, Object(POD_STATUS))];
const POD_LIST: Message = &[("metadata", 1, Object(LIST_METADATA)), ("items", 2, Objects(POD))];

const CAUSE: Message = &[("reason", 1, Text), ("message", 2, Text), ("field", 3, Text)];
const DETAILS: Message = &[
    ("name", 1, Text),
    ("group", 2, Text),
    ("kind", 3, Text),
    ("causes", 4, Objects(CAUSE)),
    ("retryAfterSeconds", 5, Number),
    ("uid", 6, Text),
];
const STATUS: Message = &[
    ("status", 2, Text),
    ("message", 3, Text),
    ("reason", 4, Text),
    ("details", 5, Object(DETAILS)),
    ("code", 6, Number),
];

/// `runtime.Unknown` without its content.
const ENVELOPE: Message = &[("typeMeta", 1, Object(&[("apiVersion", 1, Text), ("kind", 2, Text)]))];

/// Returns the object in protobuf, with the envelope; `None` for a kind that has no table.
pub(crate) fn encode(object: &Value) -> Option<Vec<u8>> {
    let message = match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("v1", "Pod") => POD,
        ("v1", "PodList") => POD_LIST,
        ("v1", "Node") => NODE,
        ("v1", "NodeList") => NODE_LIST,
        ("v1", "Status") => STATUS,
        _ => return None,
    };
    let mut into = BytesMut::from(&b"k8s\0"[..]);
    put_message(&mut into, ENVELOPE, &serde_json::json!({"typeMeta": object}));
    put(&mut into, 2, &bytes_of(|into| put_message(into, message, object)));
    Some(into.to_vec())
}

fn bytes_of(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    bytes
}

/// Writes a field with bytes.
fn put(into: &mut BytesMut, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(bytes.len() as u64, into);
    into.put_slice(bytes);
}

fn put_number(into: &mut BytesMut, number: u32, value: i64) {
    encode_key(number, WireType::Varint, into);
    // Negative numbers have ten bytes.
    encode_varint(value.cast_unsigned(), into);
}

fn put_message(into: &mut BytesMut, message: Message, object: &Value) {
    for (name, number, of) in message {
        if let Some(value) = object.get(name).filter(|value| !value.is_null()) {
            put_field(into, *number, *of, value);
        }
    }
}

fn put_field(into: &mut BytesMut, number: u32, of: Type, value: &Value) {
    let entries = || value.as_object().into_iter().flat_map(Map::iter);
    let items = || value.as_array().into_iter().flatten();
    match of {
        Text => put(into, number, value.as_str().unwrap_or_default().as_bytes()),
        Flag => put_number(into, number, value.as_bool().unwrap_or_default().into()),
        Number => put_number(into, number, value.as_i64().unwrap_or_default()),
        Time => put(into, number, &bytes_of(|into| put_time(into, value))),
        Quantity => put(into, number, &bytes_of(|into| put_field(into, 1, Text, value))),
        Object(message) => put(into, number, &bytes_of(|into| put_message(into, message, value))),
        Objects(message) => items().for_each(|item| put_field(into, number, Object(message), item)),
        Texts => items().for_each(|item| put_field(into, number, Text, item)),
        TextMap => entries().for_each(|(key, value)| put_entry(into, number, Text, key, value)),
        Quantities => entries().for_each(|(key, value)| put_entry(into, number, Quantity, key, value)),
    }
}

/// Writes an entry of a map, which is a message with a key and a value.
fn put_entry(into: &mut BytesMut, number: u32, of: Type, key: &str, value: &Value) {
    let entry = bytes_of(|into| {
        put(into, 1, key.as_bytes());
        put_field(into, 2, of, value);
    });
    put(into, number, &entry);
}

fn put_time(into: &mut BytesMut, value: &Value) {
    let time: Option<jiff::Timestamp> = value.as_str().and_then(|text| text.parse().ok());
    let Some(time) = time else { return };
    put_number(into, 1, time.as_second());
    put_number(into, 2, time.subsec_nanosecond().into());
}
