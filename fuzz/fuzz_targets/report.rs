//! The fuzz target `report`: diagnoses any report, with the body in `fuzz/checks/diagnosis.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| diagnosis::fuzzing::report(data));
