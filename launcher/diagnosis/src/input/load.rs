//! `Load`, `Node::load`: the load of a GPU at the time of the reading. All rules of a node about values under load use
//! this type.

use std::fmt;

use crate::input::node::{Gpu, Node};
use crate::input::processes::is_service;
use syringe_core::facts::clock_events::{IDLE, load_percent, mask_of};
use syringe_core::facts::processes::GpuProcess;
use syringe_core::facts::telemetry::GpuTelemetry;

/// The load of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// The utilization in percent.
    Percent(u32),
    /// NVML reports no utilization (MIG mode), but a program uses the GPU, the GPU is in its fastest performance state,
    /// and the driver does not report it as idle.
    Computes,
}

impl Load {
    /// Returns whether the utilization is at least this value.
    pub(crate) fn reaches(self, percent: u32) -> bool {
        match self {
            Self::Percent(own) => own >= percent,
            Self::Computes => true,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(formatter, "at {percent} % load"),
            Self::Computes => write!(formatter, "while a program computes"),
        }
    }
}

impl Node<'_> {
    /// Returns the load of a GPU. `None` if the GPU is idle or its load is not known.
    pub(crate) fn load(&self, gpu: &Gpu) -> Option<Load> {
        let now = self.telemetry_of(gpu)?;
        match now.utilization.gpu_percent {
            Some(_) => load_percent(now).map(Load::Percent),
            None => (self.computes(gpu) && is_fast(now)).then_some(Load::Computes),
        }
    }

    /// Returns whether a program other than the services of the node runs on the GPU.
    fn computes(&self, gpu: &Gpu) -> bool {
        let all = self.processes().into_iter().flat_map(|section| &section.processes);
        let on_gpu =
            |process: &GpuProcess| process.uses.iter().any(|of| Some(of.gpu) == gpu.index && of.kind == "compute");
        all.filter(|process| !is_service(process)).any(on_gpu)
    }
}

/// Returns whether the GPU is in its fastest performance state and the driver does not report it as idle.
fn is_fast(now: &GpuTelemetry) -> bool {
    let is_told = now.throttling.reasons_mask.is_some();
    now.performance_state == Some(0) && is_told && mask_of(&now.throttling) & IDLE == 0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::diagnose;
    use crate::finding::Diagnosis;
    use syringe_core::facts::kubernetes::node::KubernetesFacts;
    use syringe_core::report::Report;

    /// Returns the diagnosis of a GPU at PCIe generation 1 of 4 and in state P0, whose utilization NVML does not
    /// report.
    fn judged(reasons: Option<u64>, kind: &str) -> Diagnosis {
        let of = |more: Value| {
            let mut gpu = json!({"index": 0, "uuid": "GPU-0", "pci_address": "00000000:5d:00.0"});
            gpu.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            json!({"status": "ok", "data": {"gpus": [gpu]}})
        };
        let program = json!({"pid": 7, "name": "python3", "uses": [{"gpu": 0, "kind": kind}]});
        let report: Report = serde_json::from_value(json!({"taken_at": "2026-11-21T02:45:10Z", "sections": {
            "inventory": of(json!({})),
            "telemetry": of(json!({"temperature": {"gpu_celsius": 40}, "performance_state": 0,
                "pcie": {"generation": 1, "max_generation": 4, "width": 16, "max_width": 16},
                "throttling": {"reasons": [], "reasons_mask": reasons}})),
            "processes": {"status": "ok", "data": {"host_pid_namespace": true, "processes": [program]}}}}))
        .expect("a report");
        diagnose(&report, &KubernetesFacts::default())
    }

    #[test]
    fn a_gpu_without_utilization_is_judged_under_load_if_a_program_computes() {
        let slow = |diagnosis: &Diagnosis| diagnosis.findings.iter().any(|finding| finding.id == "pcie-generation-low");
        let says = |diagnosis: &Diagnosis| {
            diagnosis.not_checked.iter().any(|entry| entry.contains("no utilization of 1 GPU "))
        };
        let computes = judged(Some(0), "compute");
        assert!(slow(&computes) && !says(&computes), "{computes:#?}");
        for unknown in [judged(Some(1), "compute"), judged(None, "compute"), judged(Some(0), "graphics")] {
            assert!(!slow(&unknown) && says(&unknown), "{unknown:#?}");
        }
    }
}
