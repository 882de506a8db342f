//! The fuzz target `saved_archive`: reads any file as an archive for `--from`, with the body in `fuzz/checks/saved_archive.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| archive::fuzzing::saved_archive(data));
