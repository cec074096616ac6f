//! See `swarmlet_lb::fuzzing::proxy_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swarmlet_lb::fuzzing::proxy_header(data));
