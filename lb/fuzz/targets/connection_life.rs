//! See `swarmlet_lb::fuzzing::connection_life`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swarmlet_lb::fuzzing::connection_life(data));
