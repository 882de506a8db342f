//! `Table`: the results of the benchmark, one `Row` for each comparison, and whether a target was missed.

use std::fmt;
use std::time::Duration;

/// A comparison of two measurements.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: Duration,
    pub(crate) against: String,
    pub(crate) other: Duration,
    /// Maximum ratio of `measured` to `other`.
    pub(crate) target: Option<f64>,
    /// Peak resident memory in MiB. The next field is its limit.
    pub(crate) peak_mib: Option<u64>,
    pub(crate) max_mib: Option<u64>,
}

/// All comparisons.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.measured.as_secs_f64() / self.other.as_secs_f64()
    }

    fn is_missed(&self) -> bool {
        let too_large = |(peak, most): (u64, u64)| peak > most;
        self.target.is_some_and(|target| self.ratio() > target)
            || self.peak_mib.zip(self.max_mib).is_some_and(too_large)
    }
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        println!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn has_missed_target(&self) -> bool {
        self.rows.iter().any(Row::is_missed)
    }
}

/// Formats a long time in seconds and a short time in milliseconds.
fn time(time: Duration) -> String {
    if time >= Duration::from_secs(1) {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{} ms", time.as_millis())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (measured, other, ratio) = (time(self.measured), time(self.other), self.ratio());
        let target = self.target.map_or_else(|| "–".to_owned(), |target| format!("≤ {target:.2}"));
        let memory = self.peak_mib.map_or_else(|| "–".to_owned(), |mib| format!("{mib} MiB"));
        let missed = if self.is_missed() { " **missed**" } else { "" };
        write!(
            formatter,
            "| {} | {measured} | {} | {other} | {ratio:.2} | {target}{missed} | {memory} |",
            self.what, self.against
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "\n| gpu-syringe | time | compared with | time | ratio | target | memory |")?;
        writeln!(formatter, "|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(formatter, "{row}"))
    }
}
