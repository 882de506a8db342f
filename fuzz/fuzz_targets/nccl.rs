//! The fuzz target `nccl`: reads any two answers of a pod in place of NCCL, with the body in `fuzz/checks/nccl.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::nccl(data));
