//! `encode`: writes pods, nodes, their lists, and `Status` in the protobuf format of Kubernetes.
//!
//! The messages are in `data/protobuf.tsv`.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};
use syringe_core::tsv::rows;

/// The fields of a message, in the order of their numbers.
type Message = Vec<(&'static str, u32, Type)>;

#[derive(Clone, Copy)]
enum Type {
    Text,
    Flag,
    Number,
    Time,
    Quantity,
    /// The message with this name.
    Object(&'static str),
    /// A list of messages.
    Objects(&'static str),
    Texts,
    TextMap,
    Quantities,
}

use Type::{Flag, Number, Object, Objects, Quantities, Quantity, Text, TextMap, Texts, Time};

static MESSAGES: LazyLock<HashMap<&str, Message>> = LazyLock::new(|| {
    let mut messages = HashMap::<_, Message>::new();
    for row in rows(include_str!("data/protobuf.tsv")) {
        if let [message, field, number, of] = row[..] {
            let number = number.parse().expect("a field number");
            messages.entry(message).or_default().push((field, number, type_of(of)));
        }
    }
    messages
});

fn type_of(name: &'static str) -> Type {
    match name {
        "text" => Text,
        "flag" => Flag,
        "number" => Number,
        "time" => Time,
        "quantity" => Quantity,
        "texts" => Texts,
        "text map" => TextMap,
        "quantities" => Quantities,
        name => name.strip_prefix("list of ").map_or(Object(name), Objects),
    }
}

/// Returns the object in protobuf, with the envelope; `None` for a kind without a table of fields.
pub(crate) fn encode(object: &Value) -> Option<Vec<u8>> {
    let message = match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("v1", "Pod") => "Pod",
        ("v1", "PodList") => "PodList",
        ("v1", "Node") => "Node",
        ("v1", "NodeList") => "NodeList",
        ("v1", "Status") => "Status",
        _ => return None,
    };
    let mut into = BytesMut::from(&b"k8s\0"[..]);
    put_message(&mut into, "Envelope", &serde_json::json!({"typeMeta": object}));
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

fn put_message(into: &mut BytesMut, message: &str, object: &Value) {
    for (name, number, of) in &MESSAGES[message] {
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

#[cfg(test)]
mod tests {
    use super::{MESSAGES, Object, Objects};

    #[test]
    fn every_message_that_a_field_names_is_in_the_table() {
        for (field, _, of) in MESSAGES.values().flatten() {
            if let Object(name) | Objects(name) = of {
                assert!(MESSAGES.contains_key(name), "{field}: {name}");
            }
        }
    }
}
