//! What tests measure, beside the bound that it has to keep, for `docs/faults.md`.
//!
//! Each figure is printed, and kept as JSON in `faults` beside the test's binaries, a file to a
//! test: a run of one test replaces that test's figures and no others, and nothing of it
//! touches the sources. The program `faults-doc` makes the page of them.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contention;

/// One thing that a test measures, several times where it has rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// What it has to keep.
    pub bound: String,
    /// The worst that was measured.
    pub worst: String,
    /// How often it was measured.
    pub times: u64,
    /// Whether the bound was missed.
    pub missed: bool,
    /// By which the worst is found: milliseconds, or a count.
    rank: f64,
}

/// Figures of the tests of this process.
static FIGURES: Mutex<BTreeMap<String, Vec<Figure>>> = Mutex::new(BTreeMap::new());

/// How long ago a time that is compared with its bound may have begun, beyond its own length.
const AROUND: Duration = Duration::from_secs(2);

/// A time that must not be longer than `bound`, or on a machine with more work than processors
/// in as much longer; panics where it is. A `what` that begins with `round N: ` is the same thing
/// in each round.
#[track_caller]
pub fn within(what: &str, took: Duration, bound: Duration) {
    let factor = contention::during(took + AROUND);
    let missed = is_longer(took, bound, factor);
    let busy = match took > bound {
        true => format!(" on a machine with {factor:.1} times the work it can do"),
        false => String::new(),
    };
    eprintln!("{what}: {took:.3?}{busy} (bound {bound:?})");
    keep(Figure {
        what: without_round(what).to_owned(),
        bound: format!("{bound:.3?}"),
        worst: format!("{took:.3?}{busy}"),
        times: 1,
        missed,
        rank: took.as_secs_f64() * 1e3,
    });
    assert!(!missed, "{what}: {took:?}, more than {bound:?}{busy}");
}

/// Whether a time is longer than its bound on a machine where everything takes `factor` as long.
fn is_longer(took: Duration, bound: Duration, factor: f64) -> bool {
    took > bound.mul_f64(factor)
}

/// A number that must not be greater than `bound`; panics where it is.
#[track_caller]
pub fn at_most(what: &str, count: u64, bound: u64) {
    let missed = count > bound;
    number(what, count as f64, &bound.to_string(), count as f64, missed);
    assert!(!missed, "{what}: {count}, more than {bound}");
}

/// A number that must not be less than `bound`; panics where it is.
#[track_caller]
pub fn at_least(what: &str, count: u64, bound: u64) {
    aimed(what, count as f64, bound as f64);
    assert!(count >= bound, "{what}: {count}, less than {bound}");
}

/// A number that a machine of the reference's size is to reach. One that is smaller, or has other
/// work, misses it without having a fault: the page says so, and no test fails.
pub fn aimed(what: &str, value: f64, aim: f64) {
    let bound = format!("{aim:.0} or more");
    number(what, value, &bound, -value, value < aim);
}

/// Keeps a number, of which the one with the greatest rank is the worst.
fn number(what: &str, value: f64, bound: &str, rank: f64, missed: bool) {
    let short = if missed { ", missed" } else { "" };
    eprintln!("{what}: {value:.0} (bound {bound}{short})");
    keep(Figure {
        what: without_round(what).to_owned(),
        bound: bound.to_owned(),
        worst: format!("{value:.0}"),
        times: 1,
        missed,
        rank,
    });
}

/// Something that has no bound of its own but that a reader wants to know.
pub fn noted(what: &str, value: &str) {
    eprintln!("{what}: {value}");
    keep(Figure {
        what: without_round(what).to_owned(),
        bound: "–".to_owned(),
        worst: value.to_owned(),
        times: 1,
        missed: false,
        rank: 0.0,
    });
}

/// Where the figures are kept: beside the binaries of the profile that is tested.
///
/// # Errors
///
/// When the running program's place is not known.
pub fn directory() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where the running program is")?;
    let parent = own.parent().context("the running program is nowhere")?;
    let profile = match parent.file_name() {
        Some(name) if name == "deps" => parent.parent().unwrap_or(parent),
        _ => parent,
    };
    Ok(profile.join("faults"))
}

fn keep(figure: Figure) {
    let test = thread::current().name().unwrap_or("main").to_owned();
    let mut all = FIGURES.lock().unwrap_or_else(PoisonError::into_inner);
    let figures = all.entry(test.clone()).or_default();
    match figures.iter_mut().find(|known| known.what == figure.what) {
        Some(known) => known.merge(figure),
        None => figures.push(figure),
    }
    // A figure that is lost would look like a test that was not run.
    write(&test, figures).unwrap_or_else(|error| panic!("cannot keep a figure: {error}"));
}

fn write(test: &str, figures: &[Figure]) -> io::Result<()> {
    let directory = directory().map_err(io::Error::other)?;
    fs::create_dir_all(&directory)?;
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let rows: Vec<Value> = figures.iter().map(Figure::to_json).collect();
    let record = json!({ "test": test, "at": at.as_secs(), "figures": rows });
    let path = directory.join(format!("{}.json", test.replace("::", ".")));
    fs::write(path, record.to_string())
}

fn without_round(what: &str) -> &str {
    let rest = what.strip_prefix("round ").and_then(|rest| {
        let (number, rest) = rest.split_once(": ")?;
        number.parse::<u64>().ok().map(|_| rest)
    });
    rest.unwrap_or(what)
}

impl Figure {
    fn merge(&mut self, other: Self) {
        self.times += 1;
        self.missed |= other.missed;
        if other.rank >= self.rank {
            (self.rank, self.worst, self.bound) = (other.rank, other.worst, other.bound);
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what, "bound": self.bound, "worst": self.worst,
            "times": self.times, "missed": self.missed,
        })
    }

    /// Reads what a test has kept.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            what: text("what")?,
            bound: text("bound")?,
            worst: text("worst")?,
            times: value["times"].as_u64()?,
            missed: value["missed"].as_bool()?,
            rank: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_one_figure_and_the_worst_counts() {
        within(
            "round 1: there",
            Duration::from_millis(20),
            Duration::from_secs(1),
        );
        within(
            "round 2: there",
            Duration::from_millis(70),
            Duration::from_secs(1),
        );
        within(
            "round 3: there",
            Duration::from_millis(30),
            Duration::from_secs(1),
        );
        at_most("lost", 0, 0);
        aimed("round 1: rate", 12_000.0, 10_000.0);
        aimed("round 2: rate", 9_000.0, 10_000.0);
        aimed("round 3: rate", 11_000.0, 10_000.0);
        let name = thread::current().name().unwrap().replace("::", ".");
        let path = directory().unwrap().join(format!("{name}.json"));
        let record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        let figures: Vec<_> = record["figures"].as_array().unwrap().iter().collect();
        let [there, lost, rate] = [0, 1, 2].map(|at| Figure::from_json(figures[at]).unwrap());
        assert_eq!(
            (&*there.what, &*there.worst, there.times),
            ("there", "70.000ms", 3)
        );
        assert_eq!((&*lost.worst, &*lost.bound, lost.missed), ("0", "0", false));
        assert_eq!((&*rate.worst, rate.missed), ("9000", true));
    }

    #[test]
    fn a_busy_machine_has_as_much_longer_as_it_is_busy() {
        let [bound, took] = [1, 2].map(Duration::from_secs);
        assert!(!is_longer(bound, bound, 1.0));
        assert!(is_longer(took, bound, 1.0));
        assert!(is_longer(took, bound, 1.9));
        assert!(!is_longer(took, bound, 2.5));
    }
}
