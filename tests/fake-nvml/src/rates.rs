//! `added`, `added_to_link`, `added_to_time`: let counters grow between two readings, by the numbers in the `sample` of
//! the facts.
//!
//! A counter grows after a pause of at least half the window of the sample.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use syringe_core::facts::rates::Sample;

use crate::facts::Gpu;

/// The last reading of each counter, by GPU and name, and whether the counter has grown.
static READ: Mutex<BTreeMap<(u32, String), (Instant, bool)>> = Mutex::new(BTreeMap::new());

/// Returns the number to add to a counter now. `growth` returns this number for a sample.
pub(crate) fn added(gpu: &Gpu<'_>, counter: &str, growth: impl FnOnce(&Sample) -> u64) -> u64 {
    let Some(sample) = gpu.telemetry().and_then(|gpu| gpu.sample.as_ref()) else { return 0 };
    let now = Instant::now();
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let (last, has_grown) = read.entry((gpu.index, counter.to_owned())).or_insert((now, false));
    *has_grown |= now - *last >= Duration::from_millis(sample.window_ms / 2);
    *last = now;
    if *has_grown { growth(sample) } else { 0 }
}

/// Returns the number to add to a counter of one link now.
pub(crate) fn added_to_link(gpu: &Gpu<'_>, link: u32, counter: &str) -> u64 {
    added(gpu, &format!("{counter} {link}"), |sample| {
        let of_link = sample.nvlink_errors.iter().filter(|one| one.counter == counter && one.links.contains(&link));
        of_link.map(|one| one.added).sum()
    })
}

/// Returns the nanoseconds to add to the time of a policy now.
pub(crate) fn added_to_time(gpu: &Gpu<'_>, policy: &str) -> u64 {
    added(gpu, policy, |sample| {
        sample.throttled.iter().filter(|one| one.policy == policy).map(|one| one.duration_ms * 1_000_000).sum()
    })
}
