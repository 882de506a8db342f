//! Test scenarios: reports of nodes, each in one state, with the diagnosis that is expected for them.
//! `all`, `named`: every scenario, or one scenario. `in_full`: a report as JSON with all values of every GPU.
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
//! | `base` | the nodes of `base/*.json`, unchanged |
//! | `benign` | nodes that look faulty but have no fault |
//! | `codes` | the meaning of single codes and log lines |
//! | `gpus` | faults of one GPU |
//! | `links` | NVLink, PCIe, temperature, power, other devices |
//! | `software` | driver, processes and configuration |
//! | `cuda` | the start of CUDA in a new process |
//! | `driver_load` | why the nvidia module is not loaded |
//! | `runtime` | container runtime and CDI |
//! | `distributions` | nodes of different distributions |
//! | `whole` | healthy nodes for which every source was read |
//! | `usage` | which GPUs pods requested, were allocated and use |
//! | `unusual` | healthy nodes that look unusual |
//! | `reading` | values that could not be read, and faults that only threads show |
//!
//! All products are real. All identities and incidents are fictitious.

mod base;
mod benign;
mod codes;
mod cuda;
mod distributions;
mod driver_load;
mod expectation;
mod gpus;
mod identity;
mod kernel_lines;
mod kernel_log;
mod kubernetes;
mod links;
mod load;
mod node;
mod nvml_section;
mod prelude;
mod products;
mod reading;
mod runtime;
mod software;
mod stack;
mod unread;
pub mod unusual;
mod usage;
mod whole;
mod work;

use std::sync::LazyLock;

use serde_json::Value;
use syringe_core::report::Report;

pub use expectation::{Expectation, Must, Scenario};

static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
    let subjects = [
        base::scenarios(),
        benign::scenarios(),
        codes::scenarios(),
        gpus::scenarios(),
        links::scenarios(),
        software::scenarios(),
        cuda::scenarios(),
        driver_load::scenarios(),
        runtime::scenarios(),
        distributions::scenarios(),
        usage::scenarios(),
        whole::scenarios(),
        reading::scenarios(),
    ];
    subjects.into_iter().flatten().collect()
});

/// Returns every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter()
}

/// Returns a report as JSON with all values of every GPU. Usually, the values that all GPUs share are written only once.
///
/// # Panics
/// Never: a report can always be serialized.
pub fn in_full(report: &Report) -> Value {
    let mut report = serde_json::to_value(report).expect("a report");
    let sections = report.get_mut("sections").and_then(Value::as_object_mut);
    let data = sections.into_iter().flat_map(|sections| sections.values_mut()).filter_map(|one| one.get_mut("data"));
    data.for_each(syringe_core::common_values::restore);
    report
}

/// Returns the scenario with this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
