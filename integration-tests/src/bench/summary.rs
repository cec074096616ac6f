//! Figures of repeated measurements.

use std::fmt;

use anyhow::{Result, ensure};

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Summary {
    /// None where there are no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }
}

impl fmt::Display for Summary {
    /// `1.23 (1.20-1.31)`, with as many digits as three figures of the median take.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = digits(self.median);
        write!(
            formatter,
            "{:.digits$} ({:.digits$}-{:.digits$})",
            self.median, self.least, self.greatest
        )
    }
}

/// With three figures, and more before the point.
#[must_use]
pub fn three_figures(value: f64) -> String {
    format!("{value:.*}", digits(value))
}

/// How many digits after the point three figures take.
fn digits(value: f64) -> usize {
    match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}

/// The quotients of values of the same round. Rounds in which one of the two is missing are
/// left out, for only what was measured together can be compared.
///
/// # Errors
///
/// When a quotient is zero or infinite: one of the two figures was not measured then, whatever it
/// says, and leaving it out would show the others as if they were all.
pub fn ratios(own: &[Option<f64>], other: &[Option<f64>]) -> Result<Vec<f64>> {
    let pairs = own.iter().zip(other).enumerate();
    let both = pairs.filter_map(|(round, (own, other))| Some((round + 1, (*own)?, (*other)?)));
    both.map(|(round, own, other)| {
        let ratio = own / other;
        ensure!(
            ratio.is_finite() && ratio > 0.0,
            "{own} beside {other} in round {round} is no ratio"
        );
        Ok(ratio)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let four = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((four.median, four.least, four.greatest), (2.5, 1.0, 4.0));
        assert_eq!(four.to_string(), "2.50 (1.00-4.00)");
        assert_eq!(
            Summary::of([14_000.4]).unwrap().to_string(),
            "14000 (14000-14000)"
        );
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let own = [Some(1.0), None, Some(3.0), Some(4.0)];
        let other = [Some(2.0), Some(2.0), None, Some(1.0)];
        assert_eq!(ratios(&own, &other).unwrap(), [0.5, 4.0]);
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let check = |own: f64, other: f64| {
            let own = [Some(1.0), Some(own)];
            let ratios = ratios(&own, &[Some(1.0), Some(other)]);
            let reason = ratios.unwrap_err().to_string();
            assert!(reason.contains("in round 2"), "{reason}");
        };
        check(0.0, 1.0);
        check(1.0, 0.0);
        check(0.0, 0.0);
        check(f64::NAN, 1.0);
        check(-1.0, 1.0);
    }
}
