//! Re-exports of the names that most scenario modules use. No other code.

pub(crate) use syringe_core::classification::Severity::{Critical, Fatal, Info, Warning};
pub(crate) use syringe_core::facts::kubernetes::node::KubernetesFacts;
pub(crate) use syringe_core::report::Problem;

pub(crate) use crate::expectation::{ALARMS, ANY_WARNING, Scenario, alarms_and, any_warning_and};
pub(crate) use crate::expectation::{
    critical, critical_for_pods, fatal, finding, healthy, unknown, warning, warning_for_pods,
};
pub(crate) use crate::identity::{ago, days, hours, minutes, seconds, text, uuid};
pub(crate) use crate::kernel_lines::UNKNOWN;
pub(crate) use crate::kubernetes::{cluster, cluster_with_gpus};
pub(crate) use crate::load::MIB;
pub(crate) use crate::node::Node;
pub(crate) use crate::nvml_section::Part;
pub(crate) use crate::products::{a100, gb200, h100, l40s, t4};
pub(crate) use crate::unread::problem;
pub(crate) use crate::work::{on_gpu, process};
