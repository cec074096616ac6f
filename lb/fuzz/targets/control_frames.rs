//! See `swarmlet_lb::fuzzing::control_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swarmlet_lb::fuzzing::control_frames(data));
