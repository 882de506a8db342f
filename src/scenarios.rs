//! `Scenario`: the reports in `tests/scenarios/base`, compiled into the program for the demo and the tests.
//! `all`, `named`: return all scenarios, or one scenario by its name.
//!
//! The crate `scenarios` creates more reports from them.
//!
//! Each file is a facts file: a saved [`Report`].

use crate::report::Report;

/// One node in one state.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of the file without extension, e.g. `xid79-off-bus`.
    pub name: &'static str,
    pub json: &'static str,
}

impl Scenario {
    /// Returns the report of the node.
    ///
    /// # Panics
    ///
    /// Panics if the file is not a valid report. A test reads all scenarios.
    pub fn report(&self) -> Report {
        serde_json::from_str(self.json).unwrap_or_else(|error| panic!("scenario {}: {error}", self.name))
    }
}

macro_rules! scenarios {
    ($($name:literal)*) => {
        &[$(Scenario { name: $name, json: include_str!(concat!("../tests/scenarios/base/", $name, ".json")) }),*]
    };
}

pub fn all() -> &'static [Scenario] {
    scenarios! {
        "healthy-h100-8"
        "healthy-t4-1"
        "a100-mig-8"
        "gb200-4"
        "l40s-4-idle"
        "xid79-off-bus"
        "ecc-remap-pending"
        "no-driver"
        "driver-mismatch"
        "no-gpu"
    }
}

/// Returns the scenario with this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{all, named};

    /// Unknown fields are ignored when a report is read, so this test finds misspelled fields.
    #[test]
    fn every_scenario_is_a_complete_report() {
        for scenario in all() {
            let written: Value = serde_json::from_str(scenario.json).expect(scenario.name);
            let mut read = serde_json::to_value(scenario.report()).expect(scenario.name);
            // Written reports contain common values only once; scenarios contain them in each entry.
            for section in read["sections"].as_object_mut().into_iter().flat_map(|sections| sections.values_mut()) {
                crate::common_values::restore(&mut section["data"]);
            }
            assert_same(&written, &read, scenario.name);
        }
    }

    /// Compares two documents, and reports the first difference.
    fn assert_same(written: &Value, read: &Value, place: &str) {
        match (written, read) {
            (Value::Object(one), Value::Object(other)) => {
                for key in one.keys().chain(other.keys()) {
                    let (Some(one), Some(other)) = (one.get(key), other.get(key)) else {
                        let there = one.get(key).or(other.get(key));
                        // Zero and empty values may be omitted when a report is written.
                        assert!(there.is_some_and(is_nothing), "{place}.{key}: only one of the two has {there:?}");
                        continue;
                    };
                    assert_same(one, other, &format!("{place}.{key}"));
                }
            }
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                for (index, (one, other)) in one.iter().zip(other).enumerate() {
                    assert_same(one, other, &format!("{place}[{index}]"));
                }
            }
            _ => assert_eq!(written, read, "{place}"),
        }
    }

    fn is_nothing(value: &Value) -> bool {
        value.is_null() || value.as_u64() == Some(0)
    }

    #[test]
    fn every_scenario_has_the_fields_for_a_replay() {
        for scenario in all() {
            let report = scenario.report();
            let name = scenario.name;
            assert_eq!(report.schema_version, crate::report::SCHEMA_VERSION, "{name}");
            assert_eq!(report.source, crate::report::Source::File, "{name}");
            assert!(report.taken_at.is_some() && report.hostname.is_some() && report.boot_id.is_some(), "{name}");
            let host = report.sections.host.and_then(|section| section.data).expect(name);
            // Kernel log records contain the time since boot. A replay needs the uptime to compute the wall-clock time.
            assert!(host.uptime_seconds.is_some(), "{name}");
            assert!(report.kernel_log.len() > 15 && report.sections.xid.is_none(), "{name}");
        }
    }

    #[test]
    fn every_scenario_can_be_asked_for_by_its_name() {
        for scenario in all() {
            assert_eq!(named(scenario.name).map(|found| found.json), Some(scenario.json));
        }
        assert!(named("../healthy-h100-8").is_none());
    }
}
