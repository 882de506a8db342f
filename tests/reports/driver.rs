//! Cases of public reports about nodes whose driver is not loaded, each with the finding that must name the reason.

use crate::case::Case;
use crate::cluster::scenario;

/// Findings that follow from a missing driver.
const BEHIND: [&str; 2] = ["gpus-not-advertised", "gpu-count-low"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of_node(26, scenario("module-of-no-kernel"))
            .finding("driver-not-loaded", &["lists no nvidia.ko"])
            .beside(&BEHIND)
            .twin(scenario("secure-boot-refuses-the-module")),
        Case::of_node(27, scenario("wrong-module-flavour"))
            .finding("driver-wrong-kernel-module-type", &["needs_proprietary_module", "proprietary kernel modules"])
            .beside(&BEHIND)
            .twin(scenario("module-of-no-kernel")),
        Case::of_node(28, scenario("secure-boot-refuses-the-module"))
            .finding("driver-refused-by-secure-boot", &["Secure Boot on", "unavailable key"])
            .beside(&BEHIND)
            .twin(scenario("secure-boot-and-no-refusal")),
        Case::of_node(29, scenario("selinux-refuses-the-module"))
            .finding("driver-refused-by-selinux", &["module_load", "SELinux is enforcing"])
            .beside(&BEHIND)
            .twin(scenario("selinux-is-permissive")),
        Case::of_node(31, scenario("module-of-the-kernel-before"))
            .finding("driver-not-built-for-kernel", &["no nvidia.ko for the running kernel", "6.8.0-86-generic"])
            .beside(&BEHIND)
            .twin(scenario("module-of-no-kernel")),
    ]
}
