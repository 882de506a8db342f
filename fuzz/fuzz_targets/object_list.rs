#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_read::objects::object_lists::fuzzing::object_list(data));
