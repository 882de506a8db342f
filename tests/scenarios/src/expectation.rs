//! `Scenario` and `Expectation`: a node in one state, and the diagnosis that is expected for it.

use syringe_core::classification::Severity;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::Report;

use crate::node::Node;

/// Classes and severities of findings that must not appear on a node without a hardware fault.
pub(crate) const ALARMS: [&str; 3] = ["class:hardware", "severity:critical", "severity:fatal"];

/// The values of [`ALARMS`], and warnings.
pub(crate) const ANY_WARNING: [&str; 4] = ["class:hardware", "severity:warning", "severity:critical", "severity:fatal"];

/// Returns [`ALARMS`] and further values.
pub(crate) fn alarms_and<const N: usize>(more: [&'static str; N]) -> impl Iterator<Item = &'static str> {
    ALARMS.into_iter().chain(more)
}

/// Returns [`ANY_WARNING`] and further values.
pub(crate) fn any_warning_and<const N: usize>(more: [&'static str; N]) -> impl Iterator<Item = &'static str> {
    ANY_WARNING.into_iter().chain(more)
}

/// One node in one state.
#[derive(Debug)]
pub struct Scenario {
    /// The name, in kebab case.
    pub name: &'static str,
    /// The state of the node, and what the diagnosis must conclude from it.
    pub about: &'static str,
    /// The expected diagnosis.
    pub expected: Expectation,
    build: Build,
}

#[derive(Debug)]
enum Build {
    /// A file of `base`, unchanged.
    Base(&'static str),
    Node(fn() -> Node),
}

/// The expected diagnosis of a scenario. Values are the names in JSON, because their types are in the diagnosis crate,
/// which this crate does not use.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// The verdict.
    pub verdict: &'static str,
    /// Findings that must appear.
    pub must: Vec<Must>,
    /// Ids, classes (`class:hardware`) and severities (`severity:critical`) of findings that must not appear.
    pub must_not: Vec<&'static str>,
    /// Whether other findings above `info` may appear.
    pub more: bool,
    /// The status of the node in the health section.
    pub health: &'static str,
    /// Parts of the summary.
    pub summary: Vec<&'static str>,
    /// Texts that the list of unread data must contain.
    pub unknown: Vec<&'static str>,
    /// Facts about the node from the Kubernetes API.
    pub cluster: KubernetesFacts,
}

/// A finding that must appear.
#[derive(Clone, Debug, Default)]
pub struct Must {
    /// Id of the rule.
    pub id: &'static str,
    /// NVML index of the GPU, if the finding must be about this GPU.
    pub gpu: Option<u32>,
    /// Severity, if the finding must have this severity.
    pub severity: Option<Severity>,
    /// Parts of the evidence.
    pub evidence: Vec<&'static str>,
}

impl Scenario {
    /// Creates the report of the node.
    ///
    /// # Panics
    /// Panics if the scenario changes a part that the node does not have.
    pub fn report(&self) -> Report {
        match self.build {
            Build::Base(name) => syringe_core::scenarios::named(name).expect("a base scenario").report(),
            Build::Node(build) => build().report(),
        }
    }

    /// Adds a finding that must appear: an id, an id with a GPU, or [`finding`].
    pub(crate) fn must(mut self, must: impl Into<Must>) -> Self {
        self.expected.must.push(must.into());
        self
    }

    pub(crate) fn must_not(mut self, words: impl IntoIterator<Item = &'static str>) -> Self {
        self.expected.must_not.extend(words);
        self
    }

    /// Allows other findings above `info`.
    pub(crate) fn more(mut self) -> Self {
        self.expected.more = true;
        self
    }

    pub(crate) fn summary<const N: usize>(mut self, words: [&'static str; N]) -> Self {
        self.expected.summary.extend(words);
        self
    }

    pub(crate) fn unknown(mut self, words: &'static str) -> Self {
        self.expected.unknown.push(words);
        self
    }

    pub(crate) fn cluster(mut self, cluster: KubernetesFacts) -> Self {
        self.expected.cluster = cluster;
        self
    }

    /// Sets the node. By default, the node is the file of `base` with the name of the scenario.
    pub(crate) fn node(mut self, build: fn() -> Node) -> Self {
        self.build = Build::Node(build);
        self
    }

    /// Sets the node to the file of another base scenario.
    pub(crate) fn base(mut self, name: &'static str) -> Self {
        self.build = Build::Base(name);
        self
    }
}

/// Defines the functions that create a scenario, one for each verdict.
macro_rules! verdicts {
    ($($(#[$doc:meta])* $function:ident: $verdict:literal, $health:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $function(name: &'static str, about: &'static str) -> Scenario {
            let expected = Expectation { verdict: $verdict, health: $health, ..Expectation::default() };
            Scenario { name, about, expected, build: Build::Base(name) }
        }
    )*};
}

verdicts! {
    /// No fault. The diagnosis may contain findings of severity `info`.
    healthy: "healthy", "healthy";
    /// Not enough was read.
    unknown: "unknown", "unknown";
    /// The worst finding is a warning about GPUs or the node.
    warning: "warning", "degraded";
    /// The worst finding is a warning about pods. The GPUs have no fault.
    warning_for_pods: "warning", "degraded";
    /// The worst finding is critical.
    critical: "critical", "unhealthy";
    /// The worst finding is critical and about pods. The GPUs have no fault.
    critical_for_pods: "critical", "unhealthy";
    /// The worst finding is fatal.
    fatal: "fatal", "unhealthy";
}

/// Creates a finding that must appear, if more than its id and GPU must be checked.
pub(crate) fn finding(id: &'static str) -> Must {
    Must { id, ..Must::default() }
}

impl Must {
    pub(crate) fn gpu(mut self, index: u32) -> Self {
        self.gpu = Some(index);
        self
    }

    pub(crate) fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    pub(crate) fn evidence<const N: usize>(mut self, parts: [&'static str; N]) -> Self {
        self.evidence.extend(parts);
        self
    }
}

impl From<&'static str> for Must {
    fn from(id: &'static str) -> Self {
        finding(id)
    }
}

impl From<(&'static str, u32)> for Must {
    fn from((id, gpu): (&'static str, u32)) -> Self {
        finding(id).gpu(gpu)
    }
}
