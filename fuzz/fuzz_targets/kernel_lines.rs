//! The fuzz target `kernel_lines`: parses the lines of any kernel log, with the body in `fuzz/checks/core.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| syringe_core::fuzzing::kernel_lines(data));
