//! The fuzz target `pod_resources`: reads any response of the kubelet, with the body in `fuzz/checks/kubelet.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::pod_resources(data));
