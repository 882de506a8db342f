#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_read::objects::api_objects::list::fuzzing::object_list(data));
