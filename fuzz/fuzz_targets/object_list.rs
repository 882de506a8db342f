//! The fuzz target `object_list`: decodes any list of objects, with the body in `fuzz/checks/object_list.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_read::objects::object_lists::fuzzing::object_list(data));
