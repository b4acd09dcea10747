//! Cases of erasing.
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::cases::grow;
use super::support::{Subject, named, sent};
use super::{Factory, Reopen};
use crate::storage::{EraseOrder, ErasePhase, StoreError};
use tailmark_record::{Seq, Timestamp};

pub(super) fn shells<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 30);
    subject.check();
    // One, some, at the ends, and those that are shells.
    for ranges in [&[5..6][..], &[1..2, 8..12, 40..41], &[5..9, 100..121], &[40..41], &[1..121]] {
        subject.erase(ranges);
        subject.check();
        subject.erased();
        grow(&mut subject, 1);
        subject.check();
    }
    for how in [Reopen::Crash, Reopen::Clean] {
        subject.reopen(how);
        subject.check();
        assert_eq!(subject.store().erasing(), None);
        grow(&mut subject, 2);
    }
    let large = "x".repeat(subject.journal().max_commit_bytes() / 2);
    subject.append(&[named("c", &large[..200]), sent("a.x", &large)]);
    let last = subject.next().get();
    subject.erase(&[last - 1..last]);
    subject.erased();
    subject.check();
}

pub(super) fn kept<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 10);
    subject.erase(&[3..9]);
    let order = subject.store().erasing().expect("an order");
    // Another has to wait.
    let id = uuid::Uuid::from_u128(99);
    let other = Arc::new(EraseOrder { id, ..EraseOrder::clone(&order) });
    let refused = subject.store().erase(&other, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    for how in [Reopen::Crash, Reopen::Clean] {
        subject.reopen(how);
        assert_eq!(subject.store().erasing().as_ref(), Some(&order));
        subject.check();
        // Given again it goes on, and finds nothing left to do.
        subject.store().erase(&order, &mut |_| ControlFlow::Continue(())).expect("erased");
        subject.check();
    }
    subject.erased();
    subject.reopen(Reopen::Crash);
    assert_eq!(subject.store().erasing(), None);
    // One that was told to stop is kept too, and what it has done by then does no harm.
    let seqs = vec![Seq::new(20)..Seq::new(30)];
    let order = Arc::new(EraseOrder { id, seqs, ..EraseOrder::clone(&order) });
    let stopped = subject.store().erase(&order, &mut |now| match now.phase {
        ErasePhase::Sealing => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(stopped, Err(StoreError::Stopped { .. })), "{stopped:?}");
    subject.reopen(Reopen::Crash);
    assert_eq!(subject.store().erasing().as_ref(), Some(&order));
}

pub(super) fn no_repeats<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    for n in 0..8 {
        subject.append(&[named("a.x", &format!("{n}")), sent("b", ""), named("c", "same")]);
    }
    let known = |subject: &Subject<'_, F>, expected: &[u64]| {
        let mut found = Vec::new();
        let mut visit = |seq: Seq, _| {
            found.push(seq.get());
            true
        };
        subject.store().fingerprints(Seq::FIRST, &mut visit).expect("fingerprints");
        found.reverse();
        assert_eq!(found, expected);
    };
    // Of those that are trimmed, of those that are in part of what is trimmed, and of others.
    subject.trim(Seq::new(8));
    subject.erase(&[1..2, 6..8, 9..13, 24..25]);
    let expected = [3, 4, 13, 15, 16, 18, 19, 21, 22];
    known(&subject, &expected);
    for how in [Reopen::Crash, Reopen::Clean] {
        subject.reopen(how);
        known(&subject, &expected);
    }
    subject.erased();
    known(&subject, &expected);
    // Not even those that are trimmed after that.
    subject.trim(Seq::new(17));
    known(&subject, &expected);
    subject.reopen(Reopen::Crash);
    subject.store().reclaim().expect("reclaimed");
    known(&subject, &expected);
}

pub(super) fn gone_too<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 30);
    subject.lose(&[7..9, 30..40]);
    subject.erase(&[5..12, 25..35, 60..61]);
    subject.erased();
    subject.check();
    grow(&mut subject, 3);
    subject.trim(Seq::new(28));
    subject.erase(&[1..2, 20..50, 120..125]);
    subject.erased();
    subject.check();
    subject.reopen(Reopen::Crash);
    subject.check();
    subject.trim(subject.next());
    let last = subject.next().get();
    subject.erase(&[1..last]);
    subject.erased();
    subject.check();
    grow(&mut subject, 2);
    subject.reopen(Reopen::Clean);
    subject.check();
}

pub(super) fn refused<F: Factory>(factory: &mut F) {
    let mut subject = Subject::new(factory);
    grow(&mut subject, 2);
    let order = |ranges: &[Range<u64>], reason: &str| {
        let seqs = ranges.iter().map(|it| Seq::new(it.start)..Seq::new(it.end)).collect();
        let id = uuid::Uuid::from_u128(5);
        Arc::new(EraseOrder { id, reason: reason.to_owned(), at: Timestamp::EPOCH, seqs })
    };
    let long = "x".repeat(201);
    for bad in [order(&[], ""), order(&[1..10], ""), order(&[0..1], ""), order(&[1..2], &long)] {
        let refused = subject.store().erase(&bad, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
        assert_eq!(subject.store().erasing(), None);
    }
    subject.check();
    subject.reopen(Reopen::Crash);
    assert_eq!(subject.store().erasing(), None);
    subject.check();
}
