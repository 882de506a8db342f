//! The fuzz target `archive`: packs any file as node-probe, with the body in `fuzz/checks/archive.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gpu_syringe::fuzzing::archive(data));
