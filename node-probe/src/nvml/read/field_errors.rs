//! `FieldErrors`: combines the missing fields of all GPUs of a section. `Missing::of`: the missing fields of one GPU.
//! `with_duplicate_identities`: adds a problem for each UUID and PCI address that several GPUs share.
//!
//! GPUs with the same missing fields form one entry. `DeviceReader` notes the missing fields of one GPU.

use std::collections::BTreeMap;

use syringe_core::facts::{LostGpu, Unread, Unsupported};
use syringe_core::pci::PciAddress;
use syringe_core::report::Problem;

use super::device_reader::{DeviceReader, Failure, add};
use super::identity::Identity;
use crate::nvml::answer::Missing;
use crate::nvml::errors::NvmlError;

/// Maximum number of fields that a problem lists; the rest is "and n more".
const NAMED_FIELDS: usize = 6;
const NAMED_FUNCTIONS: usize = 2;

/// The missing fields of a section.
#[derive(Default)]
pub(in crate::nvml) struct FieldErrors {
    /// Fields that are not supported; GPUs with the same fields are grouped.
    pub(in crate::nvml) unsupported: Vec<Unsupported>,
    /// Fields that failed; GPUs with the same fields are grouped.
    pub(in crate::nvml) unread: Vec<Unread>,
    /// GPUs that do not respond, or no longer respond.
    pub(in crate::nvml) lost: Vec<LostGpu>,
    /// The failures, with their causes.
    pub(in crate::nvml) problems: Vec<Problem>,
}

impl Missing {
    /// Returns the fields that a reader could not read.
    pub(in crate::nvml) fn of(reader: DeviceReader<'_>, identity: &Identity) -> Self {
        let gpu = reader.gpu();
        let DeviceReader { context, unsupported, failed, .. } = reader;
        let (mut unread, mut problems) = (Vec::new(), Vec::new());
        for Failure { error, functions, fields } in failed {
            let what = format!("{} ({})", names(&fields, NAMED_FIELDS), names(&functions, NAMED_FUNCTIONS));
            problems.push(error.problem(what, Some(gpu)));
            add(&mut unread, &fields);
        }
        let words = |fields: Vec<&str>| fields.into_iter().map(str::to_owned).collect();
        let missing = Self { unread: words(unread), problems, ..Self::default() };
        match context.gone.get() {
            // A GPU that is being lost may reject fields that the hardware supports.
            Some(error) => missing.with_lost(identity, error),
            None => Self { unsupported: words(unsupported), ..missing },
        }
    }

    /// Returns the errors of a GPU without a handle.
    pub(in crate::nvml) fn all(gpu: &Identity, error: &NvmlError) -> Self {
        if error.is_not_reached() {
            let problem = error.problem(format!("GPU {}", gpu.index), Some(gpu.index));
            return Self { problems: vec![problem], ..Self::default() };
        }
        Self::default().with_lost(gpu, error)
    }

    fn with_lost(mut self, gpu: &Identity, error: &NvmlError) -> Self {
        let Identity { index, uuid, pci_address } = gpu.clone();
        self.problems.push(error.problem(format!("GPU {index}"), Some(index)));
        let code = error.code().to_owned();
        self.lost = Some(LostGpu { index: Some(index), uuid, pci_address, code, ..LostGpu::default() });
        self
    }
}

impl FieldErrors {
    /// Adds the missing fields of one GPU.
    pub(in crate::nvml) fn add(&mut self, gpu: u32, missing: Missing) {
        let Missing { unsupported, unread, lost, problems } = missing;
        self.problems.extend(problems);
        self.lost.extend(lost);
        match self.unsupported.iter_mut().find(|group| group.fields == unsupported) {
            _ if unsupported.is_empty() => {}
            Some(group) => group.gpus.push(gpu),
            None => self.unsupported.push(Unsupported { gpus: vec![gpu], fields: unsupported }),
        }
        match self.unread.iter_mut().find(|group| group.fields == unread) {
            _ if unread.is_empty() => {}
            Some(group) => group.gpus.push(gpu),
            None => self.unread.push(Unread { gpus: vec![gpu], fields: unread }),
        }
    }

    /// Adds a problem for GPUs with the same identity. Only their indices differ.
    fn add_duplicates<'g>(&mut self, what: &str, code: &str, gpus: impl Iterator<Item = (u32, Option<&'g str>)>) {
        let mut sharing: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (index, identity) in gpus {
            identity.into_iter().for_each(|identity| sharing.entry(identity).or_default().push(index));
        }
        for (identity, indices) in sharing.into_iter().filter(|(_, indices)| indices.len() > 1) {
            let indices: Vec<String> = indices.iter().map(u32::to_string).collect();
            self.problems.push(Problem {
                what: format!("{what} of GPUs {}", indices.join(", ")),
                why: format!("NVML returns the same value {identity} for all these GPUs, so the value does not identify a GPU"),
                next_step:
                    "Compare with nvidia-smi -L, and report the duplicate to the provider of the driver or the virtual machine."
                        .to_owned(),
                gpu: None,
                code: code.to_owned(),
            });
        }
    }
}

/// Returns the missing fields, with a problem for each UUID and each PCI address that several GPUs share.
pub(in crate::nvml) fn with_duplicate_identities<'g, G>(mut field_errors: FieldErrors, gpus: &'g [G]) -> FieldErrors
where
    Identity: From<&'g G>,
{
    let gpus: Vec<Identity> = gpus.iter().map(Identity::from).collect();
    field_errors.add_duplicates("UUID", "duplicate_uuid", gpus.iter().map(|gpu| (gpu.index, gpu.uuid.as_deref())));
    let addresses = gpus.iter().map(|gpu| (gpu.index, gpu.pci_address.as_ref().map(PciAddress::as_str)));
    field_errors.add_duplicates("PCI address", "duplicate_pci_address", addresses);
    field_errors
}

/// Returns the first names, and the number of the remaining names.
fn names(all: &[&'static str], most: usize) -> String {
    let named = all.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(most) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;
    use std::time::{Duration, Instant};

    use super::{DeviceReader, FieldErrors, Identity, Missing, NvmlError};
    use crate::nvml::current_call::CallRecorder;
    use crate::nvml::read::cache::Cache;
    use crate::nvml::read::device_reader::Context;

    const LOST: NvmlError = NvmlError::Code(15);
    const UNKNOWN: NvmlError = NvmlError::Code(999);

    /// The values to which a reader has references.
    #[derive(Default)]
    struct Parts {
        recorder: CallRecorder,
        gone: OnceCell<NvmlError>,
        cache: Cache,
    }

    impl Parts {
        fn reader(&self, gpu: u32) -> DeviceReader<'_> {
            let Self { recorder, gone, cache } = self;
            let deadline = Instant::now() + Duration::from_secs(600);
            DeviceReader::new(Context { gpu: Some(gpu), recorder, gone, cache, of_product: None, deadline })
        }
    }

    fn gpu(index: u32) -> Identity {
        Identity { index, ..Identity::default() }
    }

    fn answer(error: NvmlError) -> impl FnOnce() -> Result<u32, NvmlError> {
        move || Err(error)
    }

    #[test]
    fn a_lost_gpu_is_one_problem_and_is_not_asked_again() {
        let parts = Parts::default();
        let mut reader = parts.reader(3);
        assert_eq!(reader.call("a", &["fan_percent"], answer(NvmlError::NOT_SUPPORTED)), None);
        assert_eq!(reader.call("b", &["power.draw_milliwatts"], answer(LOST)), None);
        let mut asked = false;
        reader.call("c", &["clocks.sm_mhz"], || {
            asked = true;
            Ok::<u32, NvmlError>(1)
        });
        assert!(!asked);
        let mut field_errors = FieldErrors::default();
        field_errors.add(3, Missing::of(reader, &gpu(3)));
        assert_eq!(field_errors.problems.len(), 1);
        assert_eq!(
            (field_errors.problems[0].what.as_str(), field_errors.problems[0].code.as_str()),
            ("GPU 3", "gpu_lost")
        );
        assert_eq!((field_errors.lost[0].index, field_errors.lost[0].code.as_str()), (Some(3), "gpu_lost"));
        assert!(field_errors.unsupported.is_empty());
    }

    #[test]
    fn gpus_that_lack_the_same_fields_are_named_together() {
        let parts = Parts::default();
        let mut field_errors = FieldErrors::default();
        for index in 0..3 {
            let mut reader = parts.reader(index);
            reader.call("a", &["fan_percent"], answer(NvmlError::NOT_SUPPORTED));
            if index == 2 {
                reader.call("b", &["module_id"], answer(NvmlError::MissingFunction));
            }
            field_errors.add(index, Missing::of(reader, &gpu(index)));
        }
        let groups: Vec<_> =
            field_errors.unsupported.iter().map(|group| (group.gpus.clone(), group.fields.len())).collect();
        assert_eq!(groups, [(vec![0, 1], 1), (vec![2], 2)]);
        assert!(field_errors.problems.is_empty());
    }

    #[test]
    fn one_cause_is_one_problem_that_names_its_fields() {
        let parts = Parts::default();
        let mut reader = parts.reader(0);
        for field in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            reader.call("x", &[field], answer(UNKNOWN));
        }
        let mut field_errors = FieldErrors::default();
        field_errors.add(0, Missing::of(reader, &gpu(0)));
        assert_eq!(field_errors.problems.len(), 1);
        assert_eq!(field_errors.problems[0].what, "a, b, c, d, e, f and 2 more (x)");
        assert_eq!(
            (field_errors.unread[0].gpus.as_slice(), field_errors.unread[0].fields.len()),
            (&[0][..], 8),
            "all by name"
        );
    }

    #[test]
    fn an_impossible_value_is_dropped_and_reported_once_for_each_value() {
        let parts = Parts::default();
        let mut reader = parts.reader(0);
        assert_eq!(reader.check_range("x", "a", Some(100), 0..=100), Some(100));
        assert_eq!(reader.check_range("x", "a", None, 0..=100), None);
        assert_eq!(reader.check_range("x", "a", Some(u32::MAX), 0..=100), None);
        assert_eq!(reader.check_range("y", "b", Some(u32::MAX), 0..=100), None);
        let mut field_errors = FieldErrors::default();
        field_errors.add(0, Missing::of(reader, &gpu(0)));
        let [problem] = field_errors.problems.as_slice() else { panic!("{:?}", field_errors.problems) };
        assert_eq!((problem.what.as_str(), problem.code.as_str()), ("a, b (x, y)", "unreadable"));
        assert!(problem.why.contains("4294967295"), "{}", problem.why);
    }

    #[test]
    fn gpus_that_share_a_uuid_are_named() {
        let mut field_errors = FieldErrors::default();
        let uuids = [(0, Some("GPU-1")), (1, Some("GPU-2")), (2, None), (3, None), (4, Some("GPU-1"))];
        field_errors.add_duplicates("UUID", "duplicate_uuid", uuids.into_iter());
        let [problem] = field_errors.problems.as_slice() else { panic!("{:?}", field_errors.problems) };
        assert_eq!((problem.what.as_str(), problem.code.as_str()), ("UUID of GPUs 0, 4", "duplicate_uuid"));
    }
}
