//! The fuzz target `tool_arguments`: calls tools with any arguments, with the body in `fuzz/checks/launcher.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gpu_syringe::fuzzing::tool_arguments(data));
