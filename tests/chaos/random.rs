//! The type `Random`: random numbers from a seed (SplitMix64), which are the same on every machine.

use std::time::Duration;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns the source for one step of a run. Its numbers do not depend on other steps.
    pub(crate) fn of_step(seed: u64, step: usize) -> Self {
        let mut random = Self(seed ^ (step as u64).wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Returns true in this percentage of calls.
    pub(crate) fn percent(&mut self, cases: usize) -> bool {
        self.below(100) < cases
    }

    /// Returns one of these values.
    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Returns a time up to `longest`. Short times are more frequent.
    pub(crate) fn time(&mut self, longest: Duration) -> Duration {
        let part = self.below(1000) as f64 / 1000.0;
        longest.mul_f64(part * part)
    }
}
