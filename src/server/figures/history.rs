//! The last minutes, a point a look: for who begins to look now.

use std::collections::VecDeque;

use tailmark_record::Timestamp;
use tailmark_record::json::Object;

use super::rates::Rates;

/// Points that are kept: five minutes of looks.
const POINTS: usize = 300;

/// What was at a look.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: Timestamp,
    head: u64,
    /// Events appended a second since the look before.
    appended: f64,
    /// Of the slowest stream, in events.
    lag: u64,
    /// Median and 99th percentile of the commits since the look before, in milliseconds.
    commit: Option<(f64, f64)>,
}

/// The newest points, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Point>);

impl History {
    /// Adds what lies between two looks.
    pub(super) fn add(&mut self, rates: &Rates<'_>) {
        if self.0.len() == POINTS {
            self.0.pop_front();
        }
        self.0.push_back(Point {
            at: rates.at(),
            head: rates.head(),
            appended: rates.appended(),
            lag: rates.lag(),
            commit: rates.commit_ms(0.5).zip(rates.commit_ms(0.99)),
        });
    }

    /// `{"points": [{at, head_seq, appended_per_second, lag_events, commit_p50_ms, commit_p99_ms}]}`.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        let points: Vec<_> = self.0.iter().copied().collect();
        object.objects("points", &points, |object, point| {
            object.time("at", Some(point.at));
            object.number("head_seq", point.head);
            object.raw("appended_per_second", &format!("{:.3}", point.appended));
            object.number("lag_events", point.lag);
            if let Some((median, high)) = point.commit {
                object.raw("commit_p50_ms", &format!("{median:.3}"));
                object.raw("commit_p99_ms", &format!("{high:.3}"));
            }
        });
        object.close();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut history = History::default();
        assert_eq!(history.json(), b"{}");
        let point =
            Point { at: Timestamp::default(), head: 1, appended: 2.5, lag: 0, commit: None };
        history.0.push_back(point);
        history.0.push_back(Point { head: 2, commit: Some((0.25, 1.0)), ..point });
        let json: serde_json::Value = serde_json::from_slice(&history.json()).unwrap();
        let points = json["points"].as_array().unwrap();
        assert_eq!((points.len(), &points[0]["head_seq"]), (2, &"1".into()));
        assert_eq!(points[0]["appended_per_second"], 2.5);
        assert!(points[0]["commit_p50_ms"].is_null());
        assert_eq!(
            (&points[1]["commit_p50_ms"], &points[1]["commit_p99_ms"]),
            (&0.25.into(), &1.0.into())
        );
    }
}
