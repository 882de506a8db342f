//! What could not be had: collects, per GPU, the fields that are not offered and the calls that failed.
//!
//! A GPU that is lost says so at every call. It is reported once and not asked again: each further call could block.

use std::sync::OnceLock;

use syringe_core::facts::Unsupported;
use syringe_core::report::Problem;

use super::errors::{Kind, Refusal};
use super::trace::Trace;

/// Fields that a problem names before it says "and n more".
const NAMED_FIELDS: usize = 6;

/// Asks one GPU and remembers what it would not say.
pub(super) struct Asker<'a> {
    gpu: u32,
    trace: &'a Trace,
    /// Set once the GPU answers nothing any more; shared by all sections.
    gone: &'a OnceLock<Refusal>,
    unsupported: Vec<&'static str>,
    failed: Vec<(Refusal, Vec<&'static str>)>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(gpu: u32, trace: &'a Trace, gone: &'a OnceLock<Refusal>) -> Self {
        Self { gpu, trace, gone, unsupported: Vec::new(), failed: Vec::new() }
    }

    /// NVML index of the GPU that is asked.
    pub(super) fn gpu(&self) -> u32 {
        self.gpu
    }

    /// The value of one NVML call, or `None` and a note that `fields` (paths inside the GPU's entry) are missing.
    pub(super) fn ask<T, E: Into<Refusal>>(
        &mut self,
        function: &'static str,
        fields: &[&'static str],
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        match self.attempt(function, call) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.note(&refusal, fields);
                None
            }
        }
    }

    /// The value of one NVML call where a refusal is no news, e.g. the far end of an NVLink that is down.
    pub(super) fn quietly<T, E: Into<Refusal>>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        self.attempt(function, call).ok()
    }

    /// One NVML call whose refusal the caller judges. A GPU that is gone is not asked.
    pub(super) fn attempt<T, E: Into<Refusal>>(
        &self,
        function: &'static str,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Refusal> {
        if let Some(refusal) = self.gone.get() {
            return Err(refusal.clone());
        }
        let result = {
            let _under_way = self.trace.enter(function, Some(self.gpu));
            call()
        };
        result.map_err(|error| {
            let refusal = error.into();
            if refusal.kind() == Kind::Gone {
                // Set already only if another call found out first: the same news.
                let _ = self.gone.set(refusal.clone());
            }
            refusal
        })
    }

    /// Notes that `fields` are missing because of `refusal`.
    pub(super) fn note(&mut self, refusal: &Refusal, fields: &[&'static str]) {
        match refusal.kind() {
            Kind::Gone => {}
            Kind::Absent => add(&mut self.unsupported, fields),
            Kind::Failed => self.fail(refusal, fields),
        }
    }

    /// Notes that `fields` are missing, as a failure even where `refusal` only means that they are not offered.
    pub(super) fn fail(&mut self, refusal: &Refusal, fields: &[&'static str]) {
        match self.failed.iter_mut().find(|(known, _)| known == refusal) {
            Some((_, list)) => add(list, fields),
            None => self.failed.push((refusal.clone(), fields.to_vec())),
        }
    }
}

fn add(list: &mut Vec<&'static str>, fields: &[&'static str]) {
    for field in fields {
        if !list.contains(field) {
            list.push(field);
        }
    }
}

/// What a whole section could not have.
#[derive(Default)]
pub(super) struct Missing {
    /// Fields that are not offered, GPUs that lack the same ones together.
    pub(super) unsupported: Vec<Unsupported>,
    /// What failed.
    pub(super) problems: Vec<Problem>,
}

impl Missing {
    /// Takes over what one GPU would not say.
    pub(super) fn take(&mut self, asker: Asker<'_>) {
        let Asker { gpu, gone, unsupported, failed, trace: _ } = asker;
        for (refusal, fields) in failed {
            self.problems.push(refusal.problem(names(&fields), Some(gpu)));
        }
        match gone.get() {
            // What a GPU lacked before it vanished says nothing about the hardware.
            Some(refusal) => self.gone(gpu, refusal),
            None if unsupported.is_empty() => {}
            None => self.lacks(gpu, unsupported.into_iter().map(str::to_owned).collect()),
        }
    }

    /// A GPU that answers nothing.
    pub(super) fn gone(&mut self, gpu: u32, refusal: &Refusal) {
        self.problems.push(refusal.problem(format!("GPU {gpu}"), Some(gpu)));
    }

    fn lacks(&mut self, gpu: u32, fields: Vec<String>) {
        match self.unsupported.iter_mut().find(|group| group.fields == fields) {
            Some(group) => group.gpus.push(gpu),
            None => self.unsupported.push(Unsupported { gpus: vec![gpu], fields }),
        }
    }
}

/// Some fields by name, the rest as a number.
fn names(fields: &[&'static str]) -> String {
    let named = fields.iter().take(NAMED_FIELDS).copied().collect::<Vec<_>>().join(", ");
    match fields.len().saturating_sub(NAMED_FIELDS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, Missing, OnceLock, Refusal, Trace};

    const LOST: Refusal = Refusal::Code(15);
    const UNKNOWN: Refusal = Refusal::Code(999);

    fn answer(refusal: Refusal) -> impl FnOnce() -> Result<u32, Refusal> {
        move || Err(refusal)
    }

    #[test]
    fn a_lost_gpu_is_one_problem_and_is_not_asked_again() {
        let (trace, gone) = (Trace::default(), OnceLock::new());
        let mut asker = Asker::new(3, &trace, &gone);
        assert_eq!(asker.ask("a", &["fan_percent"], answer(Refusal::NOT_SUPPORTED)), None);
        assert_eq!(asker.ask("b", &["power.draw_milliwatts"], answer(LOST)), None);
        let mut asked = false;
        asker.ask("c", &["clocks.sm_mhz"], || {
            asked = true;
            Ok::<u32, Refusal>(1)
        });
        assert!(!asked);
        let mut missing = Missing::default();
        missing.take(asker);
        assert_eq!(missing.problems.len(), 1);
        assert_eq!((missing.problems[0].what.as_str(), missing.problems[0].code.as_str()), ("GPU 3", "gpu_lost"));
        assert!(missing.unsupported.is_empty());
    }

    #[test]
    fn gpus_that_lack_the_same_fields_are_named_together() {
        let (trace, gone) = (Trace::default(), OnceLock::new());
        let mut missing = Missing::default();
        for gpu in 0..3 {
            let mut asker = Asker::new(gpu, &trace, &gone);
            asker.ask("a", &["fan_percent"], answer(Refusal::NOT_SUPPORTED));
            if gpu == 2 {
                asker.ask("b", &["module_id"], answer(Refusal::MissingFunction));
            }
            missing.take(asker);
        }
        let groups: Vec<_> = missing.unsupported.iter().map(|group| (group.gpus.clone(), group.fields.len())).collect();
        assert_eq!(groups, [(vec![0, 1], 1), (vec![2], 2)]);
        assert!(missing.problems.is_empty());
    }

    #[test]
    fn one_cause_is_one_problem_that_names_its_fields() {
        let (trace, gone) = (Trace::default(), OnceLock::new());
        let mut asker = Asker::new(0, &trace, &gone);
        for field in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            asker.ask("x", &[field], answer(UNKNOWN));
        }
        let mut missing = Missing::default();
        missing.take(asker);
        assert_eq!(missing.problems.len(), 1);
        assert_eq!(missing.problems[0].what, "a, b, c, d, e, f and 2 more");
    }
}
