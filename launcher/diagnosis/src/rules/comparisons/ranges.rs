//! Rule about implausible values: values outside the range of their unit, and values that contradict each other.

use serde_json::Value;

use crate::input::fields::{self, Fields};
use crate::input::gpu::POSSIBLE_CELSIUS;
use crate::input::node::Node;
use crate::rule::{Draft, NVML_DOC, rules};

rules! {
    IMPOSSIBLE: "sensor-value-implausible" Warning Driver NVML_DOC, "NVML returns implausible values",
        UpdateSoftware "Do not rely on the NVML values of {gpu} on {node}. Check that the NVML library matches the \
            driver, then run the diagnosis again.",
        means "NVML returned values that are physically impossible. These values are not used.",
        reads "telemetry, ecc, topology, inventory, mig, host";
}

/// Upper limits of values, selected by the suffix of the field's name. The first matching row is used.
const LARGEST: &[(&str, f64)] = &[
    ("replays", 1e12),
    // The speed of a fan can exceed its nominal speed.
    ("fan_percent", 400.0),
    ("percent", 100.0),
    // The limit is 10 kW, because no board draws more power.
    ("milliwatts", 1e7),
    ("millijoules", 1e15),
    ("mhz", 20_000.0),
    // The limits are 16 TiB for the memory of a GPU, and 1 PiB for the memory of a node.
    ("memory_available_bytes", 1e15),
    ("host.memory_total_bytes", 1e15),
    ("bytes", 1.8e13),
    ("duration_ms", 1e12),
    ("generation", 16.0),
    ("width", 32.0),
    ("version", 64.0),
    ("speed_megabytes_per_second", 1e6),
    ("rate_gigabits_per_second", 1e4),
    ("uptime_seconds", 3.2e9),
    ("numa_node", 65_536.0),
    ("numa_nodes", 65_536.0),
    ("iommu_group", 1e6),
    ("minor_number", 1024.0),
    ("module_id", 1024.0),
    ("cores", 1e7),
    ("performance_state", 15.0),
    ("slices", 64.0),
    ("instance", 64.0),
    ("multiprocessors", 10_000.0),
    ("max_devices", 64.0),
    ("slot", 1024.0),
    ("tray", 1024.0),
    ("host_id", 1024.0),
    // The limits are below the maximum of a 32-bit counter (4 294 967 295). No board counts more errors in its
    // lifetime.
    ("uncorrected", 1e6),
    ("corrected", 1e9),
    ("uncorrectable", 1e6),
    ("remapped_rows.correctable", 1e6),
    ("single_bit", 1e6),
    ("double_bit", 1e6),
    ("histogram.max", 1e5),
    ("rollovers", 1e6),
];

/// Values that are never zero on a GPU that responds.
const NEVER_ZERO: &[&str] = &[
    "clocks.sm_mhz",
    "clocks.memory_mhz",
    "clocks.graphics_mhz",
    "draw_milliwatts",
    "numa_nodes",
    "memory_available_bytes",
    "memory_total_bytes",
    "memory.total_bytes",
    "bar1_total_bytes",
    "pcie_max_generation",
    "pcie_max_width",
    "pcie.max_generation",
    "pcie.max_width",
    "pcie.generation",
    "pcie.width",
    "cores",
    "power.default_limit_milliwatts",
    "power.max_limit_milliwatts",
];

pub(super) fn check(node: &Node<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for gpu in node.answering() {
        let mut values = impossible(node.fields_of(gpu));
        values.extend(contradictions(node, gpu));
        if !values.is_empty() {
            drafts.push(Draft::on_gpu(IMPOSSIBLE, gpu).with_all_evidence(values));
        }
    }
    let mut host = Fields::new();
    fields::add(&mut host, "host", node.host());
    let values = impossible(&host);
    if !values.is_empty() {
        let advice = "Do not rely on these values of {node}. Check that /proc and /sys of the host are mounted where the \
            probe runs.";
        let draft = Draft::on_node(IMPOSSIBLE).with_all_evidence(values);
        drafts.push(draft.with_action(syringe_core::classification::ActionCode::UpdateSoftware, advice));
    }
    drafts
}

/// Formats each value: `telemetry.utilization.gpu_percent is 4294967295`.
fn impossible(fields: &Fields) -> Vec<String> {
    let odd = fields.iter().filter(|(path, value)| value.as_f64().is_some_and(|number| !is_possible(path, number)));
    odd.map(|(path, value)| format!("{path} is {value}")).collect()
}

fn is_possible(path: &str, value: f64) -> bool {
    if path.ends_with("celsius") {
        if value == 0.0 && path.ends_with("temperature.gpu_celsius") {
            return false;
        }
        // Margins, and thresholds on the T.Limit scale, can be negative.
        let range = if path.contains("margin") || path.contains("tlimit") { -200..=200 } else { POSSIBLE_CELSIUS };
        return value >= f64::from(*range.start()) && value <= f64::from(*range.end());
    }
    if value == 0.0 && NEVER_ZERO.iter().any(|field| path.ends_with(field)) {
        return false;
    }
    let largest = LARGEST.iter().find(|(end, _)| path.ends_with(end));
    largest.is_none_or(|(_, largest)| value <= *largest)
}

/// Pairs of values. The first value must not be greater than the second value.
const ORDERED: &[(&str, &str)] = &[
    ("telemetry.memory.used_bytes", "telemetry.memory.total_bytes"),
    ("telemetry.memory.free_bytes", "telemetry.memory.total_bytes"),
    ("telemetry.memory.reserved_bytes", "telemetry.memory.total_bytes"),
    ("telemetry.memory.bar1_used_bytes", "telemetry.memory.bar1_total_bytes"),
    ("inventory.memory_reserved_bytes", "inventory.memory_total_bytes"),
    ("telemetry.power.min_limit_milliwatts", "telemetry.power.max_limit_milliwatts"),
    ("telemetry.power.enforced_limit_milliwatts", "telemetry.power.max_limit_milliwatts"),
    ("telemetry.power.default_limit_milliwatts", "telemetry.power.max_limit_milliwatts"),
    ("telemetry.pcie.width", "telemetry.pcie.max_width"),
    ("telemetry.pcie.generation", "telemetry.pcie.max_generation"),
    ("telemetry.clocks.application_graphics_mhz", "telemetry.clocks.max_graphics_mhz"),
    ("telemetry.clocks.application_memory_mhz", "telemetry.clocks.max_memory_mhz"),
    ("telemetry.temperature.slowdown_celsius", "telemetry.temperature.shutdown_celsius"),
    ("telemetry.temperature.gpu_max_celsius", "telemetry.temperature.shutdown_celsius"),
];

/// Returns the pairs of values that contradict each other.
fn contradictions(node: &Node<'_>, gpu: &crate::input::node::Gpu) -> Vec<String> {
    let fields = node.fields_of(gpu);
    let number = |path: &str| fields.get(path).and_then(Value::as_f64);
    let mut found = Vec::new();
    for (less, more) in ORDERED {
        if let (Some(left), Some(right)) = (number(less), number(more))
            && left > right
        {
            found.push(format!("{less} is {left}, more than {more}, which is {right}"));
        }
    }
    // The memory of the GPU is the sum of its parts, except for rounding by the driver.
    let memory = |name: &str| number(&format!("telemetry.memory.{name}_bytes"));
    if let (Some(total), Some(used), Some(free)) = (memory("total"), memory("used"), memory("free")) {
        let sum = used + free + memory("reserved").unwrap_or(0.0);
        if (sum - total).abs() > total * 0.02 {
            let bytes = |value: f64| format!("{value:.0}");
            found.push(format!(
                "used, free and reserved memory are {} bytes together, but the total is {} bytes",
                bytes(sum),
                bytes(total)
            ));
        }
    }
    let power = |name: &str| number(&format!("telemetry.power.{name}_milliwatts"));
    if let (Some(draw), Some(0.0)) = (power("draw").filter(|draw| *draw > 0.0), power("instant")) {
        found.push(format!("telemetry.power.instant_milliwatts is 0, and draw_milliwatts is {draw}"));
    }
    let mut lines = found;
    lines.dedup();
    lines
}
