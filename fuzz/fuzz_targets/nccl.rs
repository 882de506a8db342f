//! The fuzz target `nccl`: parses any two NCCL status answers, with the body in `fuzz/checks/nccl.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::nccl(data));
