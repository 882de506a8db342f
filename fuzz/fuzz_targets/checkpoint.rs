//! The fuzz target `checkpoint`: reads any checkpoint of the kubelet, with the body in `fuzz/checks/kubelet.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::checkpoint(data));
