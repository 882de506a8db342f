#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gpu_syringe::fuzzing::object_list(data));
