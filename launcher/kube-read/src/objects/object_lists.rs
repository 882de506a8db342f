//! Tests that lists of nodes and pods are the same in protobuf and JSON, complete or an error.
//! `fuzzing`: functions that decode such lists from bytes, for fuzz targets.

use k8s_openapi::api::core::v1::Node;
use prost::Message;

use crate::client::protobuf_list::{ListError, ListReader};
use crate::objects::api_objects::{node, pod};
use crate::objects::gpu_pod::Pod;

/// Decodes the nodes of a `NodeList`, with the fields that are used.
fn decode_node_list(bytes: &[u8]) -> Result<Vec<Node>, ListError> {
    Ok(decode::<node::Node>(bytes)?.into_iter().map(Node::from).collect())
}

/// Decodes the pods of a `PodList`, with their data about GPUs.
fn decode_pod_list(bytes: &[u8]) -> Result<Vec<Pod>, ListError> {
    Ok(decode::<pod::Pod>(bytes)?.into_iter().map(Pod::from).collect())
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Result<Vec<T>, ListError> {
    let (mut reader, mut items) = (ListReader::default(), Vec::new());
    reader.read(bytes, &mut |item| items.push(item))?;
    reader.finish()?;
    Ok(items)
}

/// Properties that must be true for any bytes.
#[path = "../../../../fuzz/checks/object_list.rs"]
pub mod fuzzing;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use bytes::Bytes;
    use demo_cluster::in_protobuf;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::api_objects::pod_requests::PodRequests;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kubernetes/core.v1.");

    /// Returns an object from the test data of Kubernetes, with a value in every field: as a protobuf list with this
    /// object only, and as JSON.
    fn golden(kind: &str) -> (Vec<u8>, Value) {
        let read = |end: &str| std::fs::read(format!("{GOLDEN}{kind}.{end}")).expect("a file");
        let object = Content::decode(&read("pb")[4..]).expect("an object").content;
        let list = Content { content: object }.encode_to_vec();
        let mut bytes = b"k8s\0".to_vec();
        bytes.extend(Content { content: list }.encode_to_vec());
        (bytes, serde_json::from_slice(&read("json")).expect("JSON"))
    }

    #[derive(Clone, PartialEq, Message)]
    struct Content {
        #[prost(bytes = "vec", tag = "2")]
        content: Vec<u8>,
    }

    fn same_in_both<T: Message + Default + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], json: &[Value]) {
        let expected: Vec<T> =
            json.iter().map(|object| serde_json::from_value(object.clone()).expect("an object")).collect();
        assert_eq!(decode::<T>(bytes).expect("a list"), expected);
        assert!(expected.iter().all(|object| *object != T::default()));
    }

    #[test]
    fn an_object_with_every_field_is_the_same_in_protobuf_and_json() {
        let (bytes, pod) = golden("Pod");
        same_in_both::<pod::Pod>(&bytes, std::slice::from_ref(&pod));
        same_in_both::<PodRequests>(&bytes, &[pod]);
        let (bytes, node) = golden("Node");
        same_in_both::<node::Node>(&bytes, std::slice::from_ref(&node));
        let whole: Node = serde_json::from_value(node).expect("a node");
        let slim = decode_node_list(&bytes).expect("a list").remove(0);
        let (slim_status, status) = (slim.status.expect("a status"), whole.status.expect("a status"));
        assert_eq!((slim.metadata.labels, slim.metadata.name), (whole.metadata.labels, whole.metadata.name));
        assert_eq!(slim_status.conditions, status.conditions);
        assert_eq!((slim_status.capacity, slim_status.allocatable), (status.capacity, status.allocatable));
        let (slim, whole) = (slim.spec.expect("a spec"), whole.spec.expect("a spec"));
        assert_eq!((slim.taints, slim.unschedulable), (whole.taints, whole.unschedulable));
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-z0-9./-]{0,12}"
    }

    fn words() -> impl Strategy<Value = Value> {
        btree_map(word(), word(), 0..4).prop_map(|map| json!(map))
    }

    fn quantities() -> impl Strategy<Value = Value> {
        let name = prop_oneof![Just("nvidia.com/gpu".to_owned()), Just("nvidia.com/mig-1g.10gb".to_owned()), word()];
        btree_map(name, "[0-9]{1,4}(m|k|Gi)?", 0..4).prop_map(|map| json!(map))
    }

    fn time() -> impl Strategy<Value = Value> {
        (0..4_000_000_000_i64).prop_map(|second| json!(jiff::Timestamp::from_second(second).expect("a time")))
    }

    /// Generates an object with some of these fields.
    fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
        let count = fields.len();
        let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        (values, vec(any::<bool>(), count))
            .prop_map(move |(values, is_there)| {
                let all = names.iter().zip(values).zip(is_there);
                all.filter(|(_, is_there)| *is_there).map(|((name, value), _)| ((*name).to_owned(), value)).collect()
            })
            .boxed()
    }

    fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
        vec(of, 0..3).prop_map(Value::from).boxed()
    }

    fn text() -> BoxedStrategy<Value> {
        word().prop_map(Value::from).boxed()
    }

    fn flag() -> BoxedStrategy<Value> {
        any::<bool>().prop_map(Value::from).boxed()
    }

    fn container() -> BoxedStrategy<Value> {
        let named = || list(some(vec![("name", text())]));
        let variable = some(vec![("name", Just(json!("NVIDIA_VISIBLE_DEVICES")).boxed()), ("value", text())]);
        some(vec![
            ("name", text()),
            ("image", text()),
            ("env", list(prop_oneof![variable, some(vec![("name", text()), ("value", text())])].boxed())),
            (
                "resources",
                some(vec![("requests", quantities().boxed()), ("limits", quantities().boxed()), ("claims", named())]),
            ),
            ("restartPolicy", Just(json!("Always")).boxed()),
            (
                "securityContext",
                some(vec![("privileged", flag()), ("runAsUser", any::<i32>().prop_map(Value::from).boxed())]),
            ),
            ("command", list(text())),
        ])
    }

    fn state() -> BoxedStrategy<Value> {
        some(vec![
            ("waiting", some(vec![("reason", text()), ("message", text())])),
            ("running", some(vec![("startedAt", time().boxed())])),
            (
                "terminated",
                some(vec![("exitCode", any::<i32>().prop_map(Value::from).boxed()), ("finishedAt", time().boxed())]),
            ),
        ])
    }

    fn pod_object() -> BoxedStrategy<Value> {
        let device = some(vec![("resourceID", text()), ("health", text())]);
        let status = some(vec![
            ("name", text()),
            ("containerID", text()),
            ("ready", flag()),
            ("restartCount", (0..9).prop_map(Value::from).boxed()),
            ("state", state()),
            ("lastState", state()),
            ("allocatedResourcesStatus", list(some(vec![("name", text()), ("resources", list(device))]))),
        ]);
        let owner = some(vec![("kind", text()), ("name", text()), ("controller", flag())]);
        let claim = || list(some(vec![("name", text()), ("resourceClaimName", text())]));
        some(vec![
            (
                "metadata",
                some(vec![
                    ("name", text()),
                    ("namespace", text()),
                    ("uid", text()),
                    ("creationTimestamp", time().boxed()),
                    ("deletionTimestamp", time().boxed()),
                    ("labels", words().boxed()),
                    ("annotations", words().boxed()),
                    ("ownerReferences", list(owner)),
                    ("finalizers", list(text())),
                ]),
            ),
            (
                "spec",
                some(vec![
                    ("nodeName", text()),
                    ("containers", list(container())),
                    ("initContainers", list(container())),
                    ("runtimeClassName", text()),
                    ("overhead", quantities().boxed()),
                    ("resourceClaims", claim()),
                    ("tolerations", list(some(vec![("key", text())]))),
                ]),
            ),
            (
                "status",
                some(vec![
                    ("phase", text()),
                    ("reason", text()),
                    ("startTime", time().boxed()),
                    ("conditions", list(some(vec![("type", text()), ("status", text())]))),
                    ("containerStatuses", list(status.clone())),
                    ("initContainerStatuses", list(status)),
                    ("resourceClaimStatuses", claim()),
                ]),
            ),
        ])
    }

    fn node_object() -> BoxedStrategy<Value> {
        let taint = some(vec![("key", text()), ("value", text()), ("effect", text()), ("timeAdded", time().boxed())]);
        let condition = some(vec![
            ("type", text()),
            ("status", text()),
            ("lastHeartbeatTime", time().boxed()),
            ("lastTransitionTime", time().boxed()),
            ("reason", text()),
            ("message", text()),
        ]);
        some(vec![
            ("metadata", some(vec![("name", text()), ("labels", words().boxed()), ("annotations", words().boxed())])),
            ("spec", some(vec![("unschedulable", flag()), ("taints", list(taint)), ("podCIDR", text())])),
            (
                "status",
                some(vec![
                    ("capacity", quantities().boxed()),
                    ("allocatable", quantities().boxed()),
                    ("conditions", list(condition)),
                    ("images", list(some(vec![("names", list(text()))]))),
                ]),
            ),
        ])
    }

    fn encoded(kind: &str, items: &[Value]) -> Vec<u8> {
        let metadata = json!({"resourceVersion": "7"});
        in_protobuf(&json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "items": items})).expect("a list")
    }

    proptest! {
        #[test]
        fn pods_are_the_same_in_protobuf_and_json(items in vec(pod_object(), 0..4)) {
            let bytes = encoded("PodList", &items);
            let from_json = |item: &Value| serde_json::from_value::<Pod>(item.clone()).expect("a pod");
            prop_assert_eq!(decode_pod_list(&bytes).expect("a list"), items.iter().map(from_json).collect::<Vec<_>>());
            let from_json = |item: &Value| serde_json::from_value::<PodRequests>(item.clone()).expect("a pod");
            prop_assert_eq!(decode::<PodRequests>(&bytes).expect("a list"), items.iter().map(from_json).collect::<Vec<_>>());
        }

        #[test]
        fn nodes_are_the_same_in_protobuf_and_json(items in vec(node_object(), 0..4)) {
            let bytes = encoded("NodeList", &items);
            let from_json = |item: &Value| Node::from(serde_json::from_value::<node::Node>(item.clone()).expect("a node"));
            prop_assert_eq!(decode_node_list(&bytes).expect("a list"), items.iter().map(from_json).collect::<Vec<_>>());
        }

        #[test]
        fn a_list_is_the_same_in_any_pieces_and_none_when_it_is_cut(
            items in vec(pod_object(), 0..4), sizes in vec(1..40_usize, 1..20), cut in any::<prop::sample::Index>(),
        ) {
            let bytes = Bytes::from(encoded("PodList", &items));
            let (mut reader, mut pods) = (ListReader::default(), Vec::new());
            let mut rest = bytes.clone();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let piece = rest.split_to((*size).min(rest.len()));
                reader.read(&piece, &mut |pod: pod::Pod| pods.push(Pod::from(pod))).expect("a list");
            }
            reader.finish().expect("a complete list");
            prop_assert_eq!(Ok(pods), decode_pod_list(&bytes));
            prop_assert_eq!(decode_pod_list(&bytes[..cut.index(bytes.len())]), Err(ListError::Cut));
        }

        #[test]
        fn any_bytes_are_a_list_or_an_error(
            items in vec(pod_object(), 0..3), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), noise in vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = encoded("PodList", &items);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = (decode_pod_list(&bytes), decode_node_list(&bytes), decode_pod_list(&noise));
            let _ = decode_node_list(&[b"k8s\0", noise.as_slice()].concat());
        }
    }

    #[test]
    fn an_object_that_claims_to_be_huge_is_refused_before_it_is_read() {
        let mut huge = b"k8s\0\x12".to_vec();
        prost::encoding::encode_varint(1 << 40, &mut huge);
        huge.push(0x12);
        prost::encoding::encode_varint(1 << 30, &mut huge);
        assert_eq!(decode_pod_list(&huge), Err(ListError::TooLarge(1 << 30)));
        assert_eq!(decode_pod_list(b"<html>no</html>"), Err(ListError::Magic));
        assert_eq!(decode_pod_list(b""), Err(ListError::Cut));
    }
}
