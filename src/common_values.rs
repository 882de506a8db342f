//! `extract` and `restore`: write values that are equal in all entries of a JSON list only once, and copy them back.
//!
//! The GPUs of a node have many equal values, and so do the MIG devices of a GPU, the devices of a PCIe path, and the
//! network cards. In JSON, such a list contains only the values that differ. The common values are in a field next to
//! the list (`all_gpus` for `gpus`). Such a list is half as long and easier to read. Reading restores the full list, so
//! no other code is affected.
//!
//! ```text
//!   {"gpus": [{"index": 0, "name": "H100", "ecc": {"on": true, "errors": 0}},
//!             {"index": 1, "name": "H100", "ecc": {"on": true, "errors": 7}}]}
//!   {"all_gpus": {"name": "H100", "ecc": {"on": true}},
//!    "gpus": [{"index": 0, "ecc": {"errors": 0}}, {"index": 1, "ecc": {"errors": 7}}]}
//! ```

use serde_json::{Map, Value};

/// The lists whose common values are extracted, each with the name of the field for the common values.
const LISTS: [(&str, &str); 5] = [
    ("gpus", "all_gpus"),
    ("pci_gpus", "all_pci_gpus"),
    ("devices", "all_devices"),
    ("pcie_path", "all_pcie_path"),
    ("nics", "all_nics"),
];

/// Moves the values that are the same in all entries of a list to a field next to the list. Inner lists are processed
/// first, so their common values can also be common to all GPUs.
pub fn extract(data: &mut Value) {
    let Value::Object(object) = data else { return };
    for (each, common) in LISTS {
        let Some(Value::Array(list)) = object.get_mut(each) else { continue };
        list.iter_mut().for_each(extract);
        let mut entries: Vec<&mut Map<String, Value>> = list.iter_mut().filter_map(Value::as_object_mut).collect();
        let agreed = take_common(&mut entries);
        if !agreed.is_empty() {
            let rest = std::mem::take(object);
            object.insert(common.into(), Value::Object(agreed));
            object.extend(rest);
        }
    }
}

/// Reverts [`extract`]. Data without extracted values is not changed.
pub fn restore(data: &mut Value) {
    let Value::Object(object) = data else { return };
    for (each, common) in LISTS {
        if !object.get(each).is_some_and(Value::is_array) {
            continue;
        }
        let agreed = object.shift_remove(common);
        let Some(Value::Array(list)) = object.get_mut(each) else { continue };
        for entry in list.iter_mut() {
            if let (Value::Object(entry), Some(Value::Object(agreed))) = (&mut *entry, &agreed) {
                put_back(entry, agreed);
            }
            restore(entry);
        }
    }
}

/// Removes the values that are equal in all entries, and returns them. Objects with only some equal fields are split. A
/// list with one entry is not folded.
fn take_common(entries: &mut [&mut Map<String, Value>]) -> Map<String, Value> {
    let mut common = Map::new();
    let [first, others @ ..] = &*entries else { return common };
    if others.is_empty() {
        return common;
    }
    for key in first.keys().cloned().collect::<Vec<_>>() {
        let values: Option<Vec<&Value>> = entries.iter().map(|entry| entry.get(&key)).collect();
        let Some([value, rest @ ..]) = values.as_deref() else { continue };
        if rest.iter().all(|other| other == value) {
            let value = (*value).clone();
            for entry in entries.iter_mut() {
                entry.retain(|other, _| *other != key);
            }
            common.insert(key, value);
        } else if entries.iter().all(|entry| entry[&key].is_object()) {
            let mut inner: Vec<_> =
                entries.iter_mut().filter_map(|entry| entry.get_mut(&key).and_then(Value::as_object_mut)).collect();
            let inner = take_common(&mut inner);
            if !inner.is_empty() {
                for entry in entries.iter_mut() {
                    entry.retain(|other, value| *other != key || value.as_object().is_none_or(|own| !own.is_empty()));
                }
                common.insert(key, Value::Object(inner));
            }
        }
    }
    common
}

fn put_back(entry: &mut Map<String, Value>, common: &Map<String, Value>) {
    // Inserting values into a growing map would move them several times, so the map gets its full size first.
    let own = std::mem::replace(entry, Map::with_capacity(entry.len() + common.len()));
    entry.extend(own);
    for (key, value) in common {
        match (entry.get_mut(key), value) {
            (None, _) => {
                entry.insert(key.clone(), value.clone());
            }
            (Some(Value::Object(own)), Value::Object(value)) => put_back(own, value),
            // A value of the entry has priority over the common value.
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn common_values_of_all_gpus_are_written_once() {
        let plain = json!({"gpus": [
            {"index": 0, "name": "H100", "ecc": {"on": true, "errors": 0}, "links": [1, 2]},
            {"index": 1, "name": "H100", "ecc": {"on": true, "errors": 7}, "links": [1, 2]},
        ], "unsupported": []});
        let mut folded = plain.clone();
        extract(&mut folded);
        let expected = json!({
            "all_gpus": {"name": "H100", "ecc": {"on": true}, "links": [1, 2]},
            "gpus": [{"index": 0, "ecc": {"errors": 0}}, {"index": 1, "ecc": {"errors": 7}}],
            "unsupported": [],
        });
        assert_eq!(folded, expected);
        restore(&mut folded);
        assert_eq!(folded, plain);
    }

    #[test]
    fn common_values_of_all_devices_are_written_once() {
        let device = |uuid: &str, memory: u32| json!({"uuid": uuid, "profile": "1g.10gb", "memory": memory});
        let plain = json!({"gpus": [
            {"index": 0, "devices": [device("MIG-a", 9), device("MIG-b", 9)]},
            {"index": 1, "devices": [device("MIG-c", 9), device("MIG-d", 8)]},
        ]});
        let mut folded = plain.clone();
        extract(&mut folded);
        let expected = json!({
            "all_gpus": {"all_devices": {"profile": "1g.10gb"}},
            "gpus": [
                {"index": 0, "all_devices": {"memory": 9}, "devices": [{"uuid": "MIG-a"}, {"uuid": "MIG-b"}]},
                {"index": 1, "devices": [{"uuid": "MIG-c", "memory": 9}, {"uuid": "MIG-d", "memory": 8}]},
            ],
        });
        assert_eq!(folded, expected);
        restore(&mut folded);
        assert_eq!(folded, plain);
    }

    #[test]
    fn one_gpu_and_other_shapes_stay_as_they_are() {
        for plain in [json!({"gpus": [{"index": 0, "name": "T4"}]}), json!({"gpus": []}), json!([1]), json!(null)] {
            let mut folded = plain.clone();
            extract(&mut folded);
            assert_eq!(folded, plain);
            restore(&mut folded);
            assert_eq!(folded, plain);
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3_u8).prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn unfolding_restores_what_was_folded(gpus in prop::collection::vec(value(), 0..5)) {
            let plain = json!({ "gpus": gpus });
            let mut folded = plain.clone();
            extract(&mut folded);
            restore(&mut folded);
            prop_assert_eq!(folded, plain);
        }

        #[test]
        fn nested_lists_are_restored(
            gpus in prop::collection::vec(prop::collection::vec(value(), 0..4), 0..4),
        ) {
            let plain = json!({ "gpus": gpus.iter().map(|devices| json!({ "devices": devices })).collect::<Vec<_>>() });
            let mut folded = plain.clone();
            extract(&mut folded);
            restore(&mut folded);
            prop_assert_eq!(folded, plain);
        }
    }
}
