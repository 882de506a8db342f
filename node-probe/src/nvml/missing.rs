//! What could not be had: collects, per GPU, the fields that are not offered and the calls that failed.
//!
//! A GPU that is lost says so at every call. It is reported once and not asked again: each further call could block.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use syringe_core::facts::{LostGpu, Unread, Unsupported};
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;

use super::errors::{Kind, Refusal};
use super::session::Identity;
use super::trace::Trace;

/// Fields that a problem names before it says "and n more", and functions.
const NAMED_FIELDS: usize = 6;
const NAMED_FUNCTIONS: usize = 2;

/// Asks one GPU and remembers what it would not say.
pub(super) struct Asker<'a> {
    gpu: u32,
    trace: &'a Trace,
    /// Set once the GPU answers nothing any more; shared by all sections.
    gone: &'a OnceLock<Refusal>,
    unsupported: Vec<&'static str>,
    failed: Vec<Failure>,
}

/// What one reason cost.
struct Failure {
    refusal: Refusal,
    functions: Vec<&'static str>,
    fields: Vec<&'static str>,
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
                self.note(function, &refusal, fields);
                None
            }
        }
    }

    /// The same, where GPUs of one kind offer some of several values and others not: only a failure is noted.
    pub(super) fn ask_if_offered<T, E: Into<Refusal>>(
        &mut self,
        function: &'static str,
        fields: &[&'static str],
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Refusal> {
        self.attempt(function, call).inspect_err(|refusal| {
            if refusal.kind() == Kind::Failed {
                self.fail(function, refusal, fields);
            }
        })
    }

    /// The value where it is possible; else `None` and a note that `field` made no sense.
    pub(super) fn within<T: PartialOrd + Copy + Display>(
        &mut self,
        function: &'static str,
        field: &'static str,
        value: Option<T>,
        possible: RangeInclusive<T>,
    ) -> Option<T> {
        let value = value?;
        if possible.contains(&value) {
            return Some(value);
        }
        self.fail(function, &Refusal::impossible(value), &[field]);
        None
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

    /// Notes that `fields` are missing because `function` answered with `refusal`.
    pub(super) fn note(&mut self, function: &'static str, refusal: &Refusal, fields: &[&'static str]) {
        match refusal.kind() {
            Kind::Gone => {}
            Kind::Absent => self.lack(fields),
            Kind::Failed => self.fail(function, refusal, fields),
        }
    }

    /// Notes that the hardware or the driver does not offer `fields`.
    pub(super) fn lack(&mut self, fields: &[&'static str]) {
        add(&mut self.unsupported, fields);
    }

    /// Notes that `fields` are missing, as a failure even where `refusal` only means that they are not offered.
    pub(super) fn fail(&mut self, function: &'static str, refusal: &Refusal, fields: &[&'static str]) {
        match self.failed.iter_mut().find(|known| known.refusal == *refusal) {
            Some(known) => {
                add(&mut known.functions, &[function]);
                add(&mut known.fields, fields);
            }
            None => {
                let (functions, fields) = (vec![function], fields.to_vec());
                self.failed.push(Failure { refusal: refusal.clone(), functions, fields });
            }
        }
    }

    /// Whether it was noted that `field` could not be read.
    pub(super) fn has_failed(&self, field: &str) -> bool {
        self.failed.iter().any(|failure| failure.fields.contains(&field))
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
    /// Fields that failed, GPUs that lack the same ones together.
    pub(super) unread: Vec<Unread>,
    /// GPUs that answer nothing, or nothing any more.
    pub(super) lost: Vec<LostGpu>,
    /// What failed, and why.
    pub(super) problems: Vec<Problem>,
}

impl Missing {
    /// Takes over what one GPU would not say.
    pub(super) fn take(&mut self, asker: Asker<'_>, identity: &Identity) {
        let Asker { gpu, gone, unsupported, failed, trace: _ } = asker;
        let mut unread = Vec::new();
        for Failure { refusal, functions, fields } in failed {
            let what = format!("{} ({})", names(&fields, NAMED_FIELDS), names(&functions, NAMED_FUNCTIONS));
            self.problems.push(refusal.problem(what, Some(gpu)));
            add(&mut unread, &fields);
        }
        match gone.get() {
            // What a GPU lacked before it vanished says nothing about the hardware.
            Some(refusal) => self.gone(identity, refusal),
            None if unsupported.is_empty() => {}
            None => self.lacks(gpu, unsupported.into_iter().map(str::to_owned).collect()),
        }
        let fields: Vec<String> = unread.into_iter().map(str::to_owned).collect();
        match self.unread.iter_mut().find(|group| group.fields == fields) {
            _ if fields.is_empty() => {}
            Some(group) => group.gpus.push(gpu),
            None => self.unread.push(Unread { gpus: vec![gpu], fields }),
        }
    }

    /// A GPU that answers nothing.
    pub(super) fn gone(&mut self, gpu: &Identity, refusal: &Refusal) {
        let Identity { index, uuid, pci_address } = gpu.clone();
        self.problems.push(refusal.problem(format!("GPU {index}"), Some(index)));
        let code = refusal.code().to_owned();
        self.lost.push(LostGpu { index: Some(index), uuid, pci_address, code, ..LostGpu::default() });
    }

    /// Names GPUs that share what should tell them apart. They stay apart by their index.
    fn twins<'g>(&mut self, what: &str, code: &str, gpus: impl Iterator<Item = (u32, Option<&'g str>)>) {
        let mut sharing: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (index, identity) in gpus {
            identity.into_iter().for_each(|identity| sharing.entry(identity).or_default().push(index));
        }
        for (identity, indices) in sharing.into_iter().filter(|(_, indices)| indices.len() > 1) {
            let indices: Vec<String> = indices.iter().map(u32::to_string).collect();
            self.problems.push(Problem {
                what: format!("{what} of GPUs {}", indices.join(", ")),
                why: format!("NVML gives all of them the same one, {identity}: it does not tell which is meant"),
                next_step:
                    "Compare with nvidia-smi -L; report it to whoever provides the driver or the virtual machine."
                        .to_owned(),
                gpu: None,
                code: code.to_owned(),
            });
        }
    }

    fn lacks(&mut self, gpu: u32, fields: Vec<String>) {
        match self.unsupported.iter_mut().find(|group| group.fields == fields) {
            Some(group) => group.gpus.push(gpu),
            None => self.unsupported.push(Unsupported { gpus: vec![gpu], fields }),
        }
    }
}

/// What is missing, with a problem for each UUID and each PCI address that several GPUs share.
pub(super) fn told_apart<G>(
    mut missing: Missing,
    gpus: &[G],
    identity: impl Fn(&G) -> (u32, Option<&str>, Option<&PciAddress>),
) -> Missing {
    let uuids = gpus.iter().map(|gpu| (identity(gpu).0, identity(gpu).1));
    missing.twins("UUID", "duplicate_uuid", uuids);
    let addresses = gpus.iter().map(|gpu| (identity(gpu).0, identity(gpu).2.map(PciAddress::as_str)));
    missing.twins("PCI address", "duplicate_pci_address", addresses);
    missing
}

/// Some by name, the rest as a number.
fn names(all: &[&'static str], most: usize) -> String {
    let named = all.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(most) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, Identity, Missing, OnceLock, Refusal, Trace};

    const LOST: Refusal = Refusal::Code(15);
    const UNKNOWN: Refusal = Refusal::Code(999);

    fn gpu(index: u32) -> Identity {
        Identity { index, ..Identity::default() }
    }

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
        missing.take(asker, &gpu(3));
        assert_eq!(missing.problems.len(), 1);
        assert_eq!((missing.problems[0].what.as_str(), missing.problems[0].code.as_str()), ("GPU 3", "gpu_lost"));
        assert_eq!((missing.lost[0].index, missing.lost[0].code.as_str()), (Some(3), "gpu_lost"));
        assert!(missing.unsupported.is_empty());
    }

    #[test]
    fn gpus_that_lack_the_same_fields_are_named_together() {
        let (trace, gone) = (Trace::default(), OnceLock::new());
        let mut missing = Missing::default();
        for index in 0..3 {
            let mut asker = Asker::new(index, &trace, &gone);
            asker.ask("a", &["fan_percent"], answer(Refusal::NOT_SUPPORTED));
            if index == 2 {
                asker.ask("b", &["module_id"], answer(Refusal::MissingFunction));
            }
            missing.take(asker, &gpu(index));
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
        missing.take(asker, &gpu(0));
        assert_eq!(missing.problems.len(), 1);
        assert_eq!(missing.problems[0].what, "a, b, c, d, e, f and 2 more (x)");
        assert_eq!((missing.unread[0].gpus.as_slice(), missing.unread[0].fields.len()), (&[0][..], 8), "all by name");
    }

    #[test]
    fn a_value_that_cannot_be_is_dropped_and_told_once_for_each_value() {
        let (trace, gone) = (Trace::default(), OnceLock::new());
        let mut asker = Asker::new(0, &trace, &gone);
        assert_eq!(asker.within("x", "a", Some(100), 0..=100), Some(100));
        assert_eq!(asker.within("x", "a", None, 0..=100), None);
        assert_eq!(asker.within("x", "a", Some(u32::MAX), 0..=100), None);
        assert_eq!(asker.within("y", "b", Some(u32::MAX), 0..=100), None);
        let mut missing = Missing::default();
        missing.take(asker, &gpu(0));
        let [problem] = missing.problems.as_slice() else { panic!("{:?}", missing.problems) };
        assert_eq!((problem.what.as_str(), problem.code.as_str()), ("a, b (x, y)", "unreadable"));
        assert!(problem.why.contains("4294967295"), "{}", problem.why);
    }

    #[test]
    fn gpus_that_share_a_uuid_are_named() {
        let mut missing = Missing::default();
        let uuids = [(0, Some("GPU-1")), (1, Some("GPU-2")), (2, None), (3, None), (4, Some("GPU-1"))];
        missing.twins("UUID", "duplicate_uuid", uuids.into_iter());
        let [problem] = missing.problems.as_slice() else { panic!("{:?}", missing.problems) };
        assert_eq!((problem.what.as_str(), problem.code.as_str()), ("UUID of GPUs 0, 4", "duplicate_uuid"));
    }
}
