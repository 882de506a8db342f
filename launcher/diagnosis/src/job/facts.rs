//! `FACTS`: the table of the values (`Fact`) by which the pods of a job are compared: source (`Read`), margin, and
//! meaning of a difference (`Worse`).

use syringe_core::facts::clock_events::{FAULTS, REASONS, load_percent, mask_of};
use syringe_core::facts::inventory::GpuInventory;
use syringe_core::facts::kubernetes::PodFacts;
use syringe_core::facts::processes::GpuProcess;
use syringe_core::facts::telemetry::GpuTelemetry;
use syringe_core::facts::topology::{GpuTopology, NicPort};
use syringe_core::report::{Report, Section};

use crate::evidence;
use crate::job::Suspicion;

/// A GPU with at least this utilization is under load. An idle GPU reduces its clocks and its PCIe generation.
pub(super) const LOADED_PERCENT: u32 = 50;

/// The value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Text(String),
}

/// The values that are worse than the value of the majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worse {
    Lower,
    Higher,
    /// Any other value.
    Other,
    /// Any text except this one.
    Not(&'static str),
}

/// The entries of one GPU in three sections of the report.
pub(super) struct GpuOnNode<'a> {
    pub(super) telemetry: Option<&'a GpuTelemetry>,
    pub(super) inventory: Option<&'a GpuInventory>,
    pub(super) topology: Option<&'a GpuTopology>,
}

/// The source of a fact. Values of GPUs and processes belong to one pod. Values of ports and of the node belong to all
/// pods of the node.
pub(super) enum Read {
    Gpu(fn(&GpuOnNode<'_>) -> Option<Value>),
    Process(fn(&GpuProcess) -> Option<Value>),
    Port(fn(&NicPort) -> Option<Value>),
    Node(fn(&Report) -> Option<Value>),
    Pod(fn(&PodFacts) -> Option<Value>),
    /// The number of GPU processes of the pod.
    ProcessCount,
}

/// A value by which the pods of a job are compared.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) read: Read,
    /// The usual difference from the median, absolute and as a share of the median. The larger of the two applies.
    pub(super) margin: (f64, f64),
    pub(super) worse: Worse,
    /// The suspicion that follows from a difference. `None` if the difference is shown only with another difference.
    pub(super) suspicion: Option<Suspicion>,
}

const fn number(name: &'static str, unit: &'static str, margin: (f64, f64), worse: Worse, read: Read) -> Fact {
    Fact { name, unit, read, margin, worse, suspicion: None }
}

const fn text(name: &'static str, worse: Worse, suspicion: Suspicion, read: Read) -> Fact {
    Fact { name, unit: "", read, margin: (0.0, 0.0), worse, suspicion: Some(suspicion) }
}

impl Fact {
    const fn means(self, suspicion: Suspicion) -> Self {
        Self { suspicion: Some(suspicion), ..self }
    }
}

/// All facts, in the order in which differences are shown.
pub(super) static FACTS: [Fact; 27] = {
    use Suspicion::{Differs, Fault, ProcessStopped, Slower, WorksDifferently};
    use Worse::{Higher, Lower, Not, Other};
    [
        text("process state", Not(RUNS), ProcessStopped, Read::Process(|process| Some(process_state(process)))),
        number("GPU processes", "", (0.5, 0.0), Lower, Read::ProcessCount).means(ProcessStopped),
        text("fabric registration", Not("completed, healthy"), Fault, Read::Gpu(fabric)),
        text("clocks reduced by", Not("no fault"), Slower, Read::Gpu(throttling)),
        number("SM clock", " MHz", (0.0, 0.15), Lower, Read::Gpu(|gpu| of_number(loaded(gpu)?.clocks.sm_mhz)))
            .means(Slower),
        number(
            "maximum SM clock",
            " MHz",
            (0.0, 0.03),
            Lower,
            Read::Gpu(|gpu| of_number(gpu.telemetry?.clocks.max_sm_mhz)),
        )
        .means(Slower),
        number(
            "application clock",
            " MHz",
            (0.0, 0.03),
            Lower,
            Read::Gpu(|gpu| of_number(gpu.telemetry?.clocks.application_graphics_mhz)),
        )
        .means(Slower),
        number(
            "power limit",
            " W",
            (0.0, 0.05),
            Lower,
            Read::Gpu(|gpu| watts(gpu.telemetry?.power.enforced_limit_milliwatts)),
        )
        .means(Slower),
        number("PCIe width", " lanes", (0.5, 0.0), Lower, Read::Gpu(|gpu| of_number(gpu.telemetry?.pcie.width)))
            .means(Slower),
        number("PCIe generation", "", (0.5, 0.0), Lower, Read::Gpu(|gpu| of_number(loaded(gpu)?.pcie.generation)))
            .means(Slower),
        number("NVLinks up", "", (0.5, 0.0), Lower, Read::Gpu(links_up)).means(Slower),
        number("NVLink errors", "", (100.0, 10.0), Higher, Read::Gpu(link_errors)).means(Slower),
        text("port state", Not("ACTIVE"), Slower, Read::Port(|port| port.state.clone().map(Value::Text))),
        number(
            "port rate",
            " Gbit/s",
            (0.0, 0.1),
            Lower,
            Read::Port(|port| port.rate_gigabits_per_second.map(Value::Number)),
        )
        .means(Slower),
        number(
            "utilization",
            " %",
            (60.0, 0.0),
            Other,
            Read::Gpu(|gpu| of_number(gpu.telemetry?.utilization.gpu_percent)),
        )
        .means(WorksDifferently),
        number("power", " W", (150.0, 0.5), Other, Read::Gpu(|gpu| watts(gpu.telemetry?.power.draw_milliwatts)))
            .means(WorksDifferently),
        number(
            "memory activity",
            " %",
            (30.0, 0.0),
            Other,
            Read::Gpu(|gpu| of_number(gpu.telemetry?.utilization.memory_percent)),
        ),
        number("memory used", " GiB", (4.0, 0.5), Other, Read::Gpu(|gpu| gibibytes(gpu.telemetry?.memory.used_bytes))),
        number(
            "temperature",
            " °C",
            (15.0, 0.0),
            Higher,
            Read::Gpu(|gpu| of_number(gpu.telemetry?.temperature.gpu_celsius)),
        ),
        number(
            "restarts",
            "",
            (0.5, 0.0),
            Higher,
            Read::Pod(|pod| {
                pod.containers.iter().map(|one| one.restarts).max().map(|count| Value::Number(count.into()))
            }),
        ),
        text("GPU model", Other, Differs, Read::Gpu(|gpu| gpu.inventory?.name.clone().map(Value::Text))),
        text("VBIOS", Other, Differs, Read::Gpu(|gpu| gpu.inventory?.vbios_version.clone().map(Value::Text))),
        text("driver", Other, Differs, Read::Node(driver)),
        text("kernel", Other, Differs, Read::Node(|report| report.kernel.clone().map(Value::Text))),
        text(
            "operating system",
            Other,
            Differs,
            Read::Node(|report| Section::data_of(&report.sections.host)?.operating_system.clone().map(Value::Text)),
        ),
        text("nvidia_peermem", Other, Differs, Read::Node(peermem)),
        text("image", Other, Differs, Read::Pod(image)),
    ]
};

/// Prefix of the state of a process that a signal or a debugger stopped.
pub(super) const STOPPED: &str = "stopped by";

/// The state of a process that is running or in an interruptible sleep.
pub(super) const RUNS: &str = "runs or sleeps";

fn process_state(process: &GpuProcess) -> Value {
    let waits = process.threads.as_ref().filter(|threads| threads.uninterruptible > 0);
    let text = match (process.state.as_deref(), waits) {
        (Some("T"), _) => format!("{STOPPED} a signal (T)"),
        (Some("t"), _) => format!("{STOPPED} a debugger (t)"),
        (Some("Z"), _) => "ended, a zombie (Z)".to_owned(),
        (Some("X"), _) => "ended (X)".to_owned(),
        // The first thread can be in this state for a moment. Only two readings show that it stays in this state.
        (_, Some(threads)) => {
            let channel = threads.examples.iter().find_map(|thread| thread.waits_in.as_deref());
            let channel = channel.map(|channel| format!(" in {}", evidence::data(channel))).unwrap_or_default();
            format!("uninterruptible (D){channel}")
        }
        _ => RUNS.to_owned(),
    };
    Value::Text(text)
}

fn of_number<N: Into<f64>>(number: Option<N>) -> Option<Value> {
    number.map(|number| Value::Number(number.into()))
}

fn watts(milliwatts: Option<u32>) -> Option<Value> {
    milliwatts.map(|milliwatts| Value::Number(f64::from(milliwatts) / 1000.0))
}

fn gibibytes(bytes: Option<u64>) -> Option<Value> {
    bytes.map(|bytes| Value::Number((bytes >> 20) as f64 / 1024.0))
}

fn loaded<'a>(gpu: &GpuOnNode<'a>) -> Option<&'a GpuTelemetry> {
    gpu.telemetry.filter(|gpu| load_percent(gpu).is_some_and(|percent| percent >= LOADED_PERCENT))
}

fn throttling(gpu: &GpuOnNode<'_>) -> Option<Value> {
    let throttling = &gpu.telemetry?.throttling;
    throttling.active?;
    let mask = mask_of(throttling) & FAULTS;
    let labels: Vec<_> = REASONS.iter().filter(|reason| mask & reason.bit != 0).map(|reason| reason.label).collect();
    Some(Value::Text(if labels.is_empty() { "no fault".to_owned() } else { labels.join(", ") }))
}

fn fabric(gpu: &GpuOnNode<'_>) -> Option<Value> {
    let fabric = gpu.topology?.fabric.as_ref().filter(|fabric| fabric.state != "not_supported")?;
    let health = fabric.health.as_deref().filter(|health| *health != "not_supported").unwrap_or("healthy");
    Some(Value::Text(format!("{}, {health}", fabric.state)))
}

fn links_up(gpu: &GpuOnNode<'_>) -> Option<Value> {
    let links = &gpu.topology?.nvlinks;
    let up = links.iter().filter(|group| group.active == Some(true)).map(|group| group.links.len()).sum::<usize>();
    links.iter().any(|group| group.active.is_some()).then_some(Value::Number(up as f64))
}

fn link_errors(gpu: &GpuOnNode<'_>) -> Option<Value> {
    let links = &gpu.topology?.nvlinks;
    let errors = links.iter().flat_map(|group| group.errors.values().map(|count| *count * group.links.len() as u64));
    (!links.is_empty()).then(|| Value::Number(errors.sum::<u64>() as f64))
}

fn driver(report: &Report) -> Option<Value> {
    let host = Section::data_of(&report.sections.host).and_then(|host| host.driver.loaded.clone());
    let nvml = || Section::data_of(&report.sections.inventory)?.driver_version.clone();
    host.or_else(nvml).map(Value::Text)
}

fn peermem(report: &Report) -> Option<Value> {
    let modules = &Section::data_of(&report.sections.host)?.modules;
    let is_loaded = modules.iter().any(|module| module == "nvidia_peermem");
    (!modules.is_empty()).then(|| Value::Text(if is_loaded { "loaded" } else { "not loaded" }.to_owned()))
}

fn image(pod: &PodFacts) -> Option<Value> {
    pod.specs.iter().find(|spec| spec.requests_gpus).map(|spec| Value::Text(spec.image.clone()))
}
