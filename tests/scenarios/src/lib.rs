//! Scenarios: reports of nodes in one state each, with the diagnosis that is expected of them.
//!
//! ```text
//!   base/NAME.json ──▶ Node (a healthy node) ──▶ changes of a fault ──▶ Report ─┐
//!                                                                               ├─▶ diagnosis, compared by the tests
//!                                                            Expectation ───────┘
//! ```
//!
//! The modules of scenarios, by subject:
//!
//! | module | subject |
//! |---|---|
//! | `base` | the nodes of `base/*.json`, as they are |
//! | `benign` | nodes that look faulty but have no fault |
//! | `codes` | the meaning of single codes and log lines |
//! | `gpus` | faults of one GPU |
//! | `links` | NVLink, PCIe, temperature, power, other devices |
//! | `software` | driver, processes and configuration |
//! | `driver_load` | why the driver's module is not loaded |
//! | `runtime` | container runtime and CDI |
//! | `distributions` | nodes of different distributions |
//! | `usage` | what pods requested, were given and use |
//! | `reading` | values that could not be read, and faults that only threads show |
//!
//! All products are real. All identities and incidents are invented.

mod base;
mod benign;
mod codes;
mod distributions;
mod driver_load;
mod expectation;
mod gpus;
mod identity;
mod kernel_log;
mod kubernetes;
mod links;
mod load;
mod node;
mod nvml_section;
mod products;
mod reading;
mod runtime;
mod software;
mod stack;
mod unread;
mod usage;
mod work;

use std::sync::LazyLock;

use serde_json::Value;
use syringe_core::report::Report;

pub use expectation::{Expectation, Must, Scenario};

/// What most modules of scenarios use.
mod prelude {
    pub(crate) use syringe_core::classification::Severity::{Critical, Fatal, Info, Warning};
    pub(crate) use syringe_core::facts::kubernetes::node::KubernetesFacts;
    pub(crate) use syringe_core::report::Problem;

    pub(crate) use crate::expectation::{ALARMS, QUIET, Scenario, alarms_and, warnings_and};
    pub(crate) use crate::expectation::{
        critical, critical_for_pods, fatal, finding, healthy, unknown, warning, warning_for_pods,
    };
    pub(crate) use crate::identity::{ago, days, hours, minutes, seconds, text, uuid};
    pub(crate) use crate::kernel_log::UNKNOWN;
    pub(crate) use crate::kubernetes::{cluster, cluster_with_gpus};
    pub(crate) use crate::node::{MIB, Node};
    pub(crate) use crate::nvml_section::Part;
    pub(crate) use crate::products::{a100, gb200, h100, l40s, t4};
    pub(crate) use crate::unread::problem;
    pub(crate) use crate::work::{on_gpu, process};
}

static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
    let subjects = [
        base::scenarios(),
        benign::scenarios(),
        codes::scenarios(),
        gpus::scenarios(),
        links::scenarios(),
        software::scenarios(),
        driver_load::scenarios(),
        runtime::scenarios(),
        distributions::scenarios(),
        usage::scenarios(),
        reading::scenarios(),
    ];
    subjects.into_iter().flatten().collect()
});

/// Returns every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter()
}

/// Returns a report as JSON with all values of every GPU. A report is usually written with the common values of all GPUs once.
///
/// # Panics
/// Never: a report can be written.
pub fn in_full(report: &Report) -> Value {
    let mut report = serde_json::to_value(report).expect("a report");
    let sections = report.get_mut("sections").and_then(Value::as_object_mut);
    let data = sections.into_iter().flat_map(|sections| sections.values_mut()).filter_map(|one| one.get_mut("data"));
    data.for_each(syringe_core::common_values::restore);
    report
}

/// Returns the scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
