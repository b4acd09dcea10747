//! When events were there, by the times of the files that hold them.
//!
//! A stamp that lies ahead of the clock says nothing of an event's age. The file it lies in was last
//! written after it came, and the file system's clock was not held up by that stamp. Such a time can
//! be wrong too, after a copy or an archive above all: one that cannot be is left out, and a stamp
//! that is not ahead always counts instead.

use super::LocalEngine;
use tailmark_record::{Seq, Timestamp};

impl LocalEngine {
    pub(super) fn seen(&self, wall: Timestamp) -> Vec<(Seq, Timestamp)> {
        let view = self.view();
        let segments = view.segments.iter().map(|segment| Unit {
            end: segment.end(),
            last_at: segment.last_at(),
            begun: None,
            written: segment.sealed_at(),
        });
        let slots = view.slots.iter().filter_map(|slot| {
            Some(Unit {
                end: slot.end(),
                last_at: slot.last_at()?,
                begun: Some(slot.header().created_at),
                written: slot.written_at(),
            })
        });
        let created = self.meta.lock().created_at;
        seen_of(segments.chain(slots), created, wall)
    }
}

/// Some events in a row, in one file.
struct Unit {
    end: Seq,
    /// The stamp of the last.
    last_at: Timestamp,
    /// When the file was begun, as it says itself.
    begun: Option<Timestamp>,
    /// When it was last written, as the file system says.
    written: Option<Timestamp>,
}

fn seen_of(
    units: impl Iterator<Item = Unit>,
    created: Timestamp,
    wall: Timestamp,
) -> Vec<(Seq, Timestamp)> {
    // No event is older than what was there before it.
    let mut least = Some(created).filter(|created| *created <= wall).unwrap_or_default();
    let mut seen = Vec::new();
    for unit in units {
        if unit.last_at <= wall {
            least = least.max(unit.last_at);
            continue;
        }
        let Some(written) = unit.written else { continue };
        let at = unit.begun.filter(|begun| *begun <= wall).map_or(written, |it| it.max(written));
        if (least..=wall).contains(&at) {
            least = at;
            seen.push((unit.end.prev(), at));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_are_left_out() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let unit = |end, last_at, begun: Option<i64>, written: Option<i64>| Unit {
            end: Seq::new(end),
            last_at: at(last_at),
            begun: begun.map(at),
            written: written.map(at),
        };
        let seen = |units: Vec<Unit>| {
            let seen = seen_of(units.into_iter(), at(1_000), at(2_000));
            seen.iter().map(|(head, at)| (head.get(), at.seconds)).collect::<Vec<_>>()
        };
        let ahead = 9_000;
        // Stamps that are not ahead count alone, whatever the files say.
        assert_eq!(seen(vec![unit(5, 1_500, None, Some(1_100))]), []);
        assert_eq!(seen(vec![unit(5, ahead, None, Some(1_100))]), [(4, 1_100)]);
        // Before the log was created, before what came before, after now; unknown.
        for wrong in [Some(0), Some(999), Some(2_001), None] {
            assert_eq!(seen(vec![unit(5, ahead, None, wrong)]), [], "{wrong:?}");
        }
        let before = || unit(5, 1_500, None, None);
        assert_eq!(seen(vec![before(), unit(9, ahead, None, Some(1_499))]), []);
        assert_eq!(seen(vec![before(), unit(9, ahead, None, Some(1_501))]), [(8, 1_501)]);
        // A slot's own time is later than that of a copy which keeps none; a clock ahead counts not.
        assert_eq!(seen(vec![unit(5, ahead, Some(1_700), Some(1_100))]), [(4, 1_700)]);
        assert_eq!(seen(vec![unit(5, ahead, Some(ahead), Some(1_100))]), [(4, 1_100)]);
        let later = vec![unit(5, ahead, None, Some(2_001)), unit(9, ahead, None, Some(1_900))];
        assert_eq!(seen(later), [(8, 1_900)], "what comes later stands for it");
    }
}
