#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| syringe_core::fuzzing::kernel_lines(data));
