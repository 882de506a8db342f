//! `Session::sample`: reads the counters of GPUs twice, to distinguish current errors from old errors.
//! `Counted`: the GPUs whose counters are not zero.
//!
//! Only counters that are not zero are read again, unless the caller requests a second reading. On a healthy node, all
//! counters are read only once. Only if the caller requests it, the activity of the GPUs between the readings is read, too.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use syringe_core::facts::rates::{LinkGrowth, Sample};
use syringe_core::facts::telemetry::Violation;

use super::device_reader::DeviceReader;
use super::session::{Gpu, Session};
use super::throttled_time::times;
use super::{activity, c2c, nvlink, value_ranges};
use crate::nvml::answer::{Answer, Part};

/// Time between two readings if the caller does not specify a time. With the time for reading, it is about one second.
const WINDOW: Duration = Duration::from_millis(950);
/// Time that the second reading may need before the deadline. Without this time, there is no second reading.
const RESERVE: Duration = Duration::from_millis(500);
/// Policies that do not reduce the clocks in normal operation. If the time under such a policy is not short, the time
/// is read again.
const UNUSUAL_POLICIES: [&str; 6] =
    ["thermal", "board_limit", "reliability", "software_thermal", "hardware_thermal", "power_brake"];
const NOTABLE_MS: u64 = 1000;
const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// The GPUs whose counters are not zero, by NVML index.
#[derive(Default)]
pub(in crate::nvml) struct Counted(BTreeSet<u32>);

impl Counted {
    /// Notes the GPU of an answer if one of its counters is not zero.
    pub(in crate::nvml) fn note(&mut self, answer: &Answer) {
        let counts = match answer {
            Answer::Telemetry(Part { gpu, entry: Some(entry), .. }) => {
                let is_notable =
                    |one: &Violation| UNUSUAL_POLICIES.contains(&one.policy.as_str()) && one.duration_ms >= NOTABLE_MS;
                let counts = entry.pcie.replays > Some(0) || entry.throttling.violations.iter().any(is_notable);
                counts.then_some(*gpu)
            }
            Answer::Ecc(Part { gpu, entry: Some(entry), .. }) => (entry.volatile.corrected > Some(0)).then_some(*gpu),
            Answer::Topology(Part { gpu, entry: Some(entry), .. }) => {
                let mut names = entry.nvlinks.iter().flat_map(|group| group.errors.keys());
                let counts_c2c = entry.c2c.as_ref().is_some_and(|links| !links.errors.is_empty());
                (counts_c2c || names.any(|name| counts_errors(name))).then_some(*gpu)
            }
            _ => None,
        };
        self.0.extend(counts);
    }
}

/// Returns whether this NVLink counter counts faults. Other counters also count on healthy links.
fn counts_errors(name: &str) -> bool {
    !name.starts_with("fec") && !name.contains("symbol") && !name.ends_with("successful")
}

/// The counters of one GPU at one time.
struct Counters {
    at: Instant,
    replays: Option<u64>,
    corrected: Option<u64>,
    /// Counters that are not zero, by name and link.
    links: BTreeMap<(String, u32), u64>,
    /// Errors of the C2C links.
    c2c: Option<u64>,
    /// Nanoseconds by policy.
    throttled: Vec<(&'static str, u64)>,
}

impl Counters {
    fn read(device: &Device<'_>, reader: &mut DeviceReader<'_>) -> Self {
        let at = Instant::now();
        let replays = reader.call_ignoring_errors("nvmlDeviceGetPcieReplayCounter", || device.pcie_replay_counter());
        let corrected = reader.call_ignoring_errors("nvmlDeviceGetTotalEccErrors", || {
            device.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile)
        });
        let links = nvlink::counters_now(device, reader).into_iter().filter(|((name, _), _)| counts_errors(name));
        Self {
            at,
            replays: replays.filter(|count| value_ranges::SMALL_COUNT.contains(count)).map(u64::from),
            corrected: corrected.filter(|count| value_ranges::COUNT.contains(count)),
            links: links.collect(),
            c2c: c2c::error_count(device, reader),
            throttled: times(device, reader),
        }
    }

    /// Returns the growth since an earlier reading. If a counter has decreased, it was restarted or wrapped, and its
    /// growth is not known.
    fn since(&self, first: &Self) -> Sample {
        let window_ms = u64::try_from((self.at - first.at).as_millis()).unwrap_or(u64::MAX);
        let grown = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        let time = |(policy, now): &(&str, u64)| {
            let (_, before) = first.throttled.iter().find(|(known, _)| known == policy)?;
            // The driver updates the times in steps, so a time can be slightly longer than the window. A much larger
            // number is invalid.
            let duration_ms = now.checked_sub(*before)? / NANOSECONDS_PER_MILLISECOND;
            let is_time = duration_ms > 0 && duration_ms <= window_ms.saturating_mul(2);
            is_time.then(|| Violation { policy: (*policy).to_owned(), duration_ms: duration_ms.min(window_ms) })
        };
        Sample {
            window_ms,
            pcie_replays: grown(self.replays, first.replays),
            corrected_memory_errors: grown(self.corrected, first.corrected),
            nvlink_errors: self.links_since(first),
            c2c_errors: grown(self.c2c, first.c2c),
            throttled: self.throttled.iter().filter_map(time).collect(),
            activity: None,
        }
    }

    /// Returns the growth of the counters of links. Links with equal growth form one entry.
    fn links_since(&self, first: &Self) -> Vec<LinkGrowth> {
        let mut grown: Vec<LinkGrowth> = Vec::new();
        for (key @ (counter, link), now) in &self.links {
            let added = now.saturating_sub(first.links.get(key).copied().unwrap_or(0));
            let same = |one: &&mut LinkGrowth| one.counter == *counter && one.added == added;
            match grown.iter_mut().find(same) {
                _ if added == 0 => {}
                Some(one) => one.links.push(*link),
                None => grown.push(LinkGrowth { links: vec![*link], counter: counter.clone(), added }),
            }
        }
        grown
    }
}

impl Session {
    /// Reads the counters of the GPUs in `counted` twice, with `window` in between. Reads the counters of all GPUs if
    /// the caller requests a window. Reads nothing if there is not enough time.
    pub(in crate::nvml) fn sample(&self, window: Option<Duration>, counted: &Counted, mut send: impl FnMut(Answer)) {
        let asked = window.is_some();
        let window = window.unwrap_or(WINDOW);
        let is_meant = |gpu: &&Gpu| gpu.is_open() && (asked || counted.0.contains(&gpu.identity.index));
        let gpus: Vec<&Gpu> = self.gpus.iter().filter(is_meant).collect();
        if gpus.is_empty() || window.is_zero() || self.time_left() < window + RESERVE {
            return;
        }
        let read = |gpu: &Gpu| {
            let (device, mut reader) = (gpu.device()?, self.reader(gpu));
            let counters = Counters::read(device, &mut reader);
            Some((counters, asked.then(|| activity::start(device, &reader))))
        };
        let first: Vec<(&Gpu, Option<_>)> = gpus.into_iter().map(|gpu| (gpu, read(gpu))).collect();
        thread::sleep(window.min(self.time_left().saturating_sub(RESERVE)));
        for (gpu, first) in first {
            let Some((first, start)) = first else { continue };
            let mut part = self.part(gpu, |device, reader, sample: &mut Sample| {
                *sample = Counters::read(device, reader).since(&first);
                // Counters that are missing here are also missing in the other sections.
                (reader.unsupported, reader.failed) = (Vec::new(), Vec::new());
                let activity = start.and_then(|start| activity::since(start, device, reader));
                sample.activity = activity.map(Box::new);
            });
            let is_lost = part.missing.lost.is_some();
            part.entry = part.entry.filter(|_| part.complete && !is_lost);
            send(Answer::Sample(part));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counters, LinkGrowth, Violation};

    fn counters(at: Instant, replays: u64, links: &[(&str, u32, u64)], thermal_ms: u64) -> Counters {
        Counters {
            at,
            replays: Some(replays),
            corrected: None,
            c2c: None,
            links: links.iter().map(|(name, link, count)| (((*name).to_owned(), *link), *count)).collect(),
            throttled: vec![("thermal", thermal_ms * 1_000_000)],
        }
    }

    #[test]
    fn growth_is_the_difference_and_a_restarted_counter_has_none() {
        let start = Instant::now();
        let first = counters(start, 7, &[("replay", 0, 5), ("replay", 1, 6), ("crc_flit", 2, 4)], 500);
        let later = start + Duration::from_millis(1000);
        let links = [("replay", 0, 8), ("replay", 1, 9), ("crc_flit", 2, 4), ("recovery", 3, 1)];
        let sample = counters(later, 9, &links, 750).since(&first);
        assert_eq!((sample.window_ms, sample.pcie_replays, sample.corrected_memory_errors), (1000, Some(2), None));
        let growth =
            |links: &[u32], counter: &str, added| LinkGrowth { links: links.into(), counter: counter.into(), added };
        assert_eq!(sample.nvlink_errors, [growth(&[3], "recovery", 1), growth(&[0, 1], "replay", 3)]);
        assert_eq!(sample.throttled, [Violation { policy: "thermal".into(), duration_ms: 250 }]);

        let restarted = counters(later, 0, &[("replay", 0, 1)], 0).since(&first);
        assert_eq!((restarted.pcie_replays, restarted.nvlink_errors, restarted.throttled), (None, vec![], vec![]));
    }

    #[test]
    fn a_number_that_is_no_time_is_left_out() {
        let start = Instant::now();
        let (first, later) = (counters(start, 0, &[], 0), start + Duration::from_millis(1000));
        assert_eq!(counters(later, 0, &[], 60_000).since(&first).throttled, []);
        assert_eq!(counters(later, 0, &[], 1200).since(&first).throttled[0].duration_ms, 1000);
    }
}
