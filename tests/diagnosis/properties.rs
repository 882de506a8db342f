//! Property tests of `diagnose`: any subset of sections is accepted, and the order of kernel events does not matter.
//! `library`: all scenarios. `without`, `log_of`: a report without some sections, and its kernel log.

use diagnosis::diagnose;
use proptest::prelude::*;
use syringe_core::facts::kernel_log::KernelLog;
use syringe_core::facts::kubernetes::node::KubernetesFacts;
use syringe_core::report::Report;

use super::{assert_consistent, scenarios};

pub(super) fn without(report: &Report, mask: u16) -> Report {
    let mut report = report.clone();
    let sections = &mut report.sections;
    let keep = |bit: u16| mask >> bit & 1 == 1;
    sections.inventory = sections.inventory.take().filter(|_| keep(0));
    sections.telemetry = sections.telemetry.take().filter(|_| keep(1));
    sections.topology = sections.topology.take().filter(|_| keep(2));
    sections.ecc = sections.ecc.take().filter(|_| keep(3));
    sections.processes = sections.processes.take().filter(|_| keep(4));
    sections.mig = sections.mig.take().filter(|_| keep(5));
    sections.kubelet = sections.kubelet.take().filter(|_| keep(6));
    sections.host = sections.host.take().filter(|_| keep(7));
    sections.xid = sections.xid.take().filter(|_| keep(8));
    report
}

pub(super) fn library() -> &'static [(Report, KubernetesFacts)] {
    static LIBRARY: std::sync::OnceLock<Vec<(Report, KubernetesFacts)>> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| scenarios().into_values().map(|(report, expected)| (report, expected.cluster)).collect())
}

pub(super) fn log_of(report: &mut Report) -> Option<&mut KernelLog> {
    report.sections.xid.as_mut()?.data.as_mut()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_subset_of_sections_can_be_judged(at in any::<prop::sample::Index>(), mask in any::<u16>()) {
        let (report, cluster) = at.get(library());
        let report = without(report, mask);
        assert_consistent("subset", &diagnose(&report, cluster));
        let _ = diagnose(&report, &KubernetesFacts::default()).health;
    }

    #[test]
    fn the_order_of_events_does_not_matter(
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
        instant in any::<bool>(),
    ) {
        let (report, cluster) = at.get(library());
        let mut report = report.clone();
        let moment = report.taken_at;
        if let (true, Some(log)) = (instant, log_of(&mut report)) {
            for event in &mut log.events {
                (event.first, event.last) = (moment, moment);
            }
        }
        let straight = diagnose(&report, cluster);
        if let Some(log) = log_of(&mut report) {
            // Shuffle without a random generator: sort by a hash of the text and the seed.
            let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let key = |raw: &str| raw.bytes().fold(seed, mix);
            log.events.sort_by_key(|event| key(&event.raw));
        }
        prop_assert_eq!(straight, diagnose(&report, cluster));
    }
}
