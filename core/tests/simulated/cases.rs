//! How many cases of a random test are run.

use proptest::test_runner::Config;

/// So many cases as take a few seconds without optimisation, or as many as `PROPTEST_CASES` in the
/// environment says, for whoever has the time.
pub(crate) fn config(cases: u32) -> Config {
    let asked = Config::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => asked,
        None => Config { cases, ..asked },
    }
}
