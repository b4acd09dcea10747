//! The arithmetic of the figures.

use std::time::Duration;

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        1 => Some(*upper),
        _ => Some((sorted.get(sorted.len() / 2 - 1)? + upper) / 2.0),
    }
}

/// The smallest and the largest; `None` of nothing.
pub(crate) fn range(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    Some((*sorted.first()?, *sorted.last()?))
}

/// The nearest rank; `None` of nothing.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied()
}

/// `a / b`; `None` where that says nothing.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    let ratio = a / b;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// So many in so long, a second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Milliseconds.
pub(crate) fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// How often a value of the first is larger than one of the second, of all pairs; as often is half. NaN of
/// nothing.
pub(crate) fn longer(first: &[f64], second: &[f64]) -> f64 {
    let (first, second) = (sorted(first), sorted(second));
    let (mut below, mut same, mut wins) = (0, 0, 0.0);
    for value in &first {
        while second.get(below).is_some_and(|it| it < value) {
            below += 1;
        }
        same = same.max(below);
        while second.get(same).is_some_and(|it| it <= value) {
            same += 1;
        }
        wins += below as f64 + (same - below) as f64 / 2.0;
    }
    wins / (first.len() as f64 * second.len() as f64)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_one_is_counted_and_a_draw_is_half() {
        assert!((longer(&[2.0, 3.0], &[1.0, 1.5]) - 1.0).abs() < 1e-9);
        assert!(longer(&[1.0], &[2.0, 3.0]).abs() < 1e-9);
        assert!((longer(&[1.0, 2.0, 2.0], &[2.0, 1.0, 2.0]) - 0.5).abs() < 1e-9);
        assert!((longer(&[2.0, 5.0], &[1.0, 2.0]) - 0.875).abs() < 1e-9);
        assert!(longer(&[], &[1.0]).is_nan());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_range_has_both_ends() {
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_ratio_of_nothing_is_none() {
        assert_eq!(ratio(6.0, 3.0), Some(2.0));
        assert_eq!(ratio(6.0, 0.0), None);
        assert_eq!(ratio(0.0, 3.0), None);
        assert_eq!(ratio(f64::NAN, 3.0), None);
    }

    #[test]
    fn a_rate_is_a_second() {
        assert_eq!(rate(500, Duration::from_millis(250)), 2_000.0);
        assert_eq!(ms(Duration::from_micros(1_500)), 1.5);
    }
}
