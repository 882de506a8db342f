#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gpu_syringe::fuzzing::tool_arguments(data));
