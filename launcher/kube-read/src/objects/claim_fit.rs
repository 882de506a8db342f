//! `conditions`: parses a selector of a ResourceClaim. `unmet`: finds a condition that no published device meets.
//! `all_tainted`: finds out whether all devices that meet the conditions have a taint. `PublishedDevice`: such a
//! device.
//!
//! Only selectors of a simple form are compared: equality of an attribute, and a minimum of a capacity, joined by `&&`.
//! Other expressions of CEL are ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use syringe_core::text::clean;

use crate::objects::dra::is_gpu_driver;
use crate::objects::dra_objects::DeviceTaint;
use crate::objects::pod_requests::thousandths;

/// Maximum length of a value, and maximum number of values, in a text.
const MAX_VALUE: usize = 80;
const MAX_VALUES: usize = 4;
/// Maximum length of a device with its taint.
const MAX_TAINT: usize = 200;

/// A ResourceSlice, with the fields that selectors use.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PublishedSlice {
    pub spec: PublishedSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PublishedSpec {
    pub driver: String,
    pub pool: Value,
    pub node_name: Option<String>,
    pub devices: Option<Vec<PublishedDevice>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct PublishedDevice {
    pub name: String,
    pub taints: Vec<DeviceTaint>,
    pub attributes: BTreeMap<String, Value>,
    pub capacity: BTreeMap<String, Value>,
    /// In versions up to v1beta1, attributes and capacity are one level deeper.
    pub basic: Option<Box<PublishedDevice>>,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    driver: String,
    name: String,
    value: String,
    /// Whether the value is the minimum of a capacity, and not the value of an attribute.
    is_minimum: bool,
}

/// Returns the conditions of simple form in an expression of CEL. Empty if parts of it are alternatives or negations.
pub fn conditions(expression: &str) -> Vec<Condition> {
    if expression.contains("||") || expression.contains('!') || expression.contains('?') {
        return Vec::new();
    }
    expression.split("&&").filter_map(|part| equality(part).or_else(|| minimum(part))).collect()
}

/// Parses `device.attributes['DOMAIN'].NAME == 'VALUE'`.
fn equality(part: &str) -> Option<Condition> {
    let (left, right) = part.split_once("==")?;
    let (driver, name) = field(left.trim().strip_prefix("device.attributes")?)?;
    let value = right.trim().trim_end_matches(')');
    let text = quoted(value).map(|(text, _)| text);
    let literal = || value.chars().all(|one| one.is_ascii_alphanumeric() || ".-".contains(one)).then_some(value);
    Some(Condition { driver, name, value: text.or_else(literal)?.to_owned(), is_minimum: false })
}

/// Parses `device.capacity['DOMAIN'].NAME.compareTo(quantity('VALUE')) >= 0`.
fn minimum(part: &str) -> Option<Condition> {
    let (left, right) = part.split_once(".compareTo(quantity(")?;
    let (driver, name) = field(left.trim().strip_prefix("device.capacity")?)?;
    let (value, rest) = quoted(right)?;
    let comparison: String = rest.chars().filter(|one| !one.is_whitespace()).collect();
    comparison.starts_with("))>=0").then(|| Condition { driver, name, value: value.to_owned(), is_minimum: true })
}

/// Parses `['DOMAIN'].NAME` or `['DOMAIN']['NAME']`.
fn field(text: &str) -> Option<(String, String)> {
    let (domain, rest) = quoted(text.strip_prefix('[')?)?;
    let rest = rest.strip_prefix(']')?;
    let name = match rest.strip_prefix('.') {
        Some(name) => name,
        None => quoted(rest.strip_prefix('[')?).filter(|(_, rest)| *rest == "]")?.0,
    };
    let is_name = !name.is_empty() && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_');
    is_name.then(|| (domain.to_owned(), name.to_owned()))
}

/// Returns the text between quotation marks at the start, and the text after them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|mark| ['\'', '"'].contains(mark))?;
    text[1..].split_once(mark)
}

/// Returns the first condition that no device of its driver fulfils, in words. `None` if the driver publishes no
/// device.
pub fn unmet(conditions: &[Condition], slices: &[PublishedSpec]) -> Option<String> {
    conditions.iter().find_map(|condition| {
        let Condition { driver, name, value, is_minimum } = condition;
        let of_driver = slices.iter().filter(|slice| slice.driver == *driver);
        let devices: Vec<&PublishedDevice> = of_driver.flat_map(|slice| slice.devices.iter().flatten()).collect();
        let values: BTreeSet<String> =
            devices.iter().filter_map(|device| device.value_of(driver, name, *is_minimum)).collect();
        if devices.is_empty() || values.iter().any(|value| condition.is_met_by(value)) {
            return None;
        }
        let wanted = clean(value, MAX_VALUE);
        let wanted = if *is_minimum { format!("at least {wanted} {name}") } else { format!("{name} '{wanted}'") };
        let have: Vec<String> = values.iter().take(MAX_VALUES).map(|value| format!("'{value}'")).collect();
        let have = match have.as_slice() {
            [] => format!("they have no {name}"),
            have => format!("they have {}", have.join(", ")),
        };
        Some(format!("no device of {driver} has {wanted}: {have}"))
    })
}

/// Returns the number of GPUs that meet the conditions, with the taint of the first one, if each of them has a taint that
/// keeps pods away.
pub fn all_tainted(conditions: &[Condition], slices: &[PublishedSpec]) -> Option<String> {
    let fits = |driver: &str, device: &PublishedDevice| {
        conditions.iter().filter(|condition| condition.driver == driver).all(|condition| {
            let value = device.value_of(driver, &condition.name, condition.is_minimum);
            value.is_some_and(|value| condition.is_met_by(&value))
        })
    };
    let gpus = slices.iter().filter(|slice| is_gpu_driver(&slice.driver));
    let gpus = gpus.flat_map(|slice| slice.devices.iter().flatten().map(|device| (slice.driver.as_str(), device)));
    let taints: Vec<Option<String>> =
        gpus.filter(|(driver, device)| fits(driver, device)).map(|(_, device)| device.taint()).collect();
    let first = taints.iter().cloned().collect::<Option<Vec<String>>>()?.into_iter().next()?;
    Some(match taints.len() {
        1 => format!("the only GPU that fits has a taint: {first}"),
        count => format!("all {count} GPUs that fit have a taint, the first one: {first}"),
    })
}

impl Condition {
    fn is_met_by(&self, value: &str) -> bool {
        match (self.is_minimum, thousandths(value), thousandths(&self.value)) {
            (true, Some(value), Some(wanted)) => value >= wanted,
            (true, ..) => true,
            (false, ..) => value == self.value,
        }
    }
}

impl PublishedDevice {
    /// Returns the device with its first taint that keeps pods away.
    fn taint(&self) -> Option<String> {
        let device = self.basic.as_deref().unwrap_or(self);
        let taint = device.taints.iter().find(|taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()))?;
        Some(clean(&format!("{} ({})", self.name, taint.in_words()), MAX_TAINT))
    }

    /// Returns the value of an attribute or capacity. A name without a domain belongs to the domain of the driver.
    fn value_of(&self, driver: &str, name: &str, of_capacity: bool) -> Option<String> {
        let device = self.basic.as_deref().unwrap_or(self);
        let map = if of_capacity { &device.capacity } else { &device.attributes };
        let value = map.get(name).or_else(|| map.get(&format!("{driver}/{name}")))?;
        // An attribute is an object with one field, its type. A capacity has the field `value`, or is a quantity.
        let inner = match value {
            Value::Object(fields) => fields.get("value").or_else(|| fields.values().next())?,
            other => other,
        };
        Some(clean(&inner.as_str().map_or_else(|| inner.to_string(), str::to_owned), MAX_VALUE))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slices(devices: Value) -> Vec<PublishedSpec> {
        let slice = json!({"spec": {"driver": "gpu.nvidia.com", "devices": devices}});
        vec![serde_json::from_value::<PublishedSlice>(slice).expect("a slice").spec]
    }

    fn h100() -> Vec<PublishedSpec> {
        let attributes = json!({"productName": {"string": "NVIDIA H100 80GB HBM3"}, "index": {"int": 0}});
        slices(json!([{"attributes": attributes, "capacity": {"memory": {"value": "81559Mi"}}}]))
    }

    #[test]
    fn a_value_that_no_device_has_is_named_with_the_values_that_devices_have() {
        let told = |expression: &str| unmet(&conditions(expression), &h100());
        let wrong = told("device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100'");
        assert_eq!(
            wrong.as_deref(),
            Some("no device of gpu.nvidia.com has productName 'NVIDIA H100': they have 'NVIDIA H100 80GB HBM3'")
        );
        let small = told("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('140Gi')) >= 0");
        assert_eq!(
            small.as_deref(),
            Some("no device of gpu.nvidia.com has at least 140Gi memory: they have '81559Mi'")
        );
        assert!(
            told("device.attributes[\"gpu.nvidia.com\"][\"architecture\"] == \"Hopper\"")
                .is_some_and(|told| told.ends_with("no architecture"))
        );
    }

    #[test]
    fn taints_are_named_if_each_device_that_fits_has_one() {
        let device = |name: &str, product: &str, taints: Value| json!({"name": name, "taints": taints, "attributes": {"productName": {"string": product}}});
        let taint = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}]);
        let all = slices(json!([device("gpu-0", "A", taint.clone()), device("gpu-1", "B", json!([]))]));
        let selected = |product: &str| {
            let selector = format!("device.attributes['gpu.nvidia.com'].productName == '{product}'");
            all_tainted(&conditions(&selector), &all)
        };
        assert_eq!(
            selected("A").as_deref(),
            Some("the only GPU that fits has a taint: gpu-0 (gpu.nvidia.com/xid=79:NoSchedule)")
        );
        assert_eq!((selected("B"), selected("C"), all_tainted(&[], &all)), (None, None, None));
        let both = slices(json!([device("gpu-0", "A", taint.clone()), device("gpu-1", "B", taint)]));
        assert!(all_tainted(&[], &both).is_some_and(|told| told.starts_with("all 2 GPUs that fit")));
    }

    #[test]
    fn other_expressions_and_fulfilled_conditions_say_nothing() {
        for expression in [
            "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100 80GB HBM3'",
            "device.attributes['gpu.nvidia.com'].index == 0",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('140Gi')) < 0",
            "device.attributes['gpu.nvidia.com'].productName == 'A' || device.attributes['gpu.nvidia.com'].productName == 'B'",
            "!(device.attributes['gpu.nvidia.com'].productName == 'A')",
            "device.attributes['gpu.nvidia.com'].productName.matches('A')",
            "device.attributes['other.example.com'].model == 'x'",
            "device.driver == 'gpu.nvidia.com'",
        ] {
            assert_eq!(unmet(&conditions(expression), &h100()), None, "{expression}");
        }
    }
}
