//! The fuzz target `cgroup`: parses any `/proc/PID/cgroup`, with the body in `fuzz/checks/node_probe.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::cgroup(data));
