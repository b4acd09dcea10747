//! The step machine, arm by arm.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::step::{Action, Input, Machine, Plan};
use crate::{Error, Kind};
use tailmark_record::OnLost;
use tailmark_record::{Gap, GapReason, Marker, MarkerKind, Seq};

fn plan() -> Plan {
    Plan {
        is_unfiltered: true,
        limit: 0,
        until_caught_up: false,
        on_lost: OnLost::Fail,
        waits_for_server: true,
    }
}

/// A machine whose first attempt stands and starts after `seq`.
fn opened(plan: Plan, seq: u64, head: u64) -> Machine {
    let mut machine = Machine::new(plan, None);
    assert!(matches!(machine.step(Input::Woke), Action::Open));
    open_at(&mut machine, seq, head);
    machine
}

fn open_at(machine: &mut Machine, seq: u64, head: u64) {
    let cursor = seq.to_string();
    let input = Input::Opened { cursor: Some(&cursor), head: Some(Seq::new(head)) };
    assert!(matches!(machine.step(input), Action::Read));
}

fn event(machine: &mut Machine, seq: u64) -> Action {
    machine.step(Input::Event { seq: Seq::new(seq), cursor: seq.to_string().as_bytes() })
}

fn marker(machine: &mut Machine, kind: MarkerKind, seq: u64) -> Action {
    machine.step(Input::Marker(&Marker::new(kind, seq.to_string())))
}

fn gap(machine: &mut Machine, from: u64, to: u64, cursor: u64) -> Action {
    let mut marker = Marker::new(MarkerKind::Gap, cursor.to_string());
    let reason = GapReason::Trimmed;
    marker.gap = Some(Gap { from: Seq::new(from), to: Seq::new(to), reason });
    machine.step(Input::Marker(&marker))
}

fn unavailable() -> Error {
    Error::new(Kind::Unavailable, "gone")
}

fn status(code: Code, reason: &str) -> Error {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "tailmark", [] as [(String, String); 0]);
    Error::from_status(Status::with_error_details(code, "", details))
}

fn reopen(machine: &mut Machine, head: u64) {
    assert!(matches!(machine.step(Input::Woke), Action::Open));
    let at = machine.position().unwrap().get();
    open_at(machine, at, head);
    assert!(matches!(marker(machine, MarkerKind::Resumed, at), Action::Deliver));
}

fn assert_violation(action: Action) {
    match action {
        Action::Fail(error) => assert_eq!(error.kind(), Kind::Protocol),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_resolved_start_is_the_first_cursor() {
    let machine = opened(plan(), 7, 9);
    assert_eq!(machine.cursor(), Some("7"));
    assert_eq!(machine.position(), Some(Seq::new(7)));
    // Also when the attempt ends before the first event.
    let mut machine = machine;
    assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Wait { .. }));
    assert_eq!(machine.cursor(), Some("7"));
}

#[test]
fn a_later_attempt_does_not_move_the_position() {
    let mut machine = opened(plan(), 7, 9);
    assert!(matches!(event(&mut machine, 8), Action::Deliver));
    machine.step(Input::Silent);
    machine.step(Input::Woke);
    open_at(&mut machine, 20, 20);
    assert_eq!(machine.cursor(), Some("8"));
    assert_violation(marker(&mut machine, MarkerKind::Resumed, 20));
}

#[test]
fn an_unfiltered_watch_is_contiguous() {
    for wrong in [7, 8, 10, 1] {
        let mut machine = opened(plan(), 7, 9);
        assert!(matches!(event(&mut machine, 8), Action::Deliver));
        assert_violation(event(&mut machine, wrong));
    }
    let mut machine = opened(plan(), 7, 9);
    for seq in 8..100 {
        assert!(matches!(event(&mut machine, seq), Action::Deliver));
        assert_eq!(machine.cursor(), Some(seq.to_string().as_str()));
    }
}

#[test]
fn a_filtered_watch_is_strictly_increasing() {
    let filtered = Plan { is_unfiltered: false, ..plan() };
    let mut machine = opened(filtered, 7, 9);
    assert!(matches!(event(&mut machine, 20), Action::Deliver));
    assert!(matches!(event(&mut machine, 21), Action::Deliver));
    assert_violation(event(&mut machine, 21));
}

#[test]
fn an_event_without_a_cursor_cannot_be_resumed_after() {
    let mut machine = opened(plan(), 7, 9);
    assert_violation(machine.step(Input::Event { seq: Seq::new(8), cursor: b"" }));
}

#[test]
fn heartbeats_move_a_filtered_watch_only() {
    let filtered = Plan { is_unfiltered: false, ..plan() };
    let mut machine = opened(filtered, 7, 9);
    for kind in [MarkerKind::Heartbeat, MarkerKind::CaughtUp, MarkerKind::FellBehind] {
        assert!(matches!(marker(&mut machine, kind, 50), Action::Deliver));
        assert_eq!(machine.cursor(), Some("50"));
    }
    // Never back.
    assert!(matches!(marker(&mut machine, MarkerKind::Heartbeat, 40), Action::Deliver));
    assert_eq!(machine.cursor(), Some("50"));

    let mut machine = opened(plan(), 7, 9);
    assert!(matches!(marker(&mut machine, MarkerKind::Heartbeat, 7), Action::Deliver));
    assert_violation(marker(&mut machine, MarkerKind::Heartbeat, 8));
}

#[test]
fn unknown_markers_are_passed_over() {
    let mut machine = opened(plan(), 7, 9);
    assert!(matches!(marker(&mut machine, MarkerKind::Other(99), 50), Action::Read));
    assert_eq!(machine.cursor(), Some("7"));
}

#[test]
fn a_gap_moves_the_position_and_is_delivered() {
    // Under way: from 8 to 11 are gone.
    let mut machine = opened(plan(), 7, 20);
    assert!(matches!(gap(&mut machine, 8, 11, 11), Action::Deliver));
    assert!(matches!(event(&mut machine, 12), Action::Deliver));
    // Of a gap without a cursor, the range counts.
    let mut blank = Marker::new(MarkerKind::Gap, "");
    let reason = GapReason::Damaged;
    blank.gap = Some(Gap { from: Seq::new(13), to: Seq::new(15), reason });
    assert!(matches!(machine.step(Input::Marker(&blank)), Action::Deliver));
    assert_eq!((machine.cursor(), machine.position()), (Some("12"), Some(Seq::new(15))));
    assert!(matches!(event(&mut machine, 16), Action::Deliver));
}

#[test]
fn a_gap_that_does_not_name_all_that_it_passes_is_a_hole() {
    let filtered = Plan { is_unfiltered: false, ..plan() };
    for (from, to, cursor, unfiltered, is_good_filtered) in [
        (8, 11, 11, true, true),
        // It reaches back into what was delivered: trimmed meanwhile.
        (3, 11, 11, true, true),
        (8, 8, 8, true, true),
        // 8 is neither delivered nor in the gap.
        (9, 11, 11, false, true),
        // 10 and 11 are passed by the cursor and not in the gap.
        (8, 9, 11, false, false),
        (8, 11, 9, false, false),
        // Backwards.
        (11, 8, 8, false, false),
        (3, 5, 5, false, false),
    ] {
        for (plan, is_good) in [(plan(), unfiltered), (filtered.clone(), is_good_filtered)] {
            let mut machine = opened(plan, 7, 20);
            let action = gap(&mut machine, from, to, cursor);
            if is_good {
                assert!(matches!(action, Action::Deliver), "{from} {to} {cursor}: {action:?}");
                assert_eq!(machine.position(), Some(Seq::new(to)));
                assert_eq!(machine.cursor(), Some(cursor.to_string().as_str()));
                // Nor does it open a way for what is not in it.
                assert_violation(marker(&mut machine, MarkerKind::Resumed, to + 1));
            } else {
                assert_violation(action);
                assert_eq!(machine.cursor(), Some("7"));
            }
        }
    }
}

#[test]
fn what_was_meant_to_go_is_a_gap_also_where_losses_are_to_fail() {
    assert_eq!(plan().on_lost, OnLost::Fail);
    let mut machine = opened(plan(), 7, 20);
    for (from, to, reason) in [(8, 9, GapReason::Expired), (11, 11, GapReason::Compacted)] {
        assert!(reason.is_intended());
        let mut marker = Marker::new(MarkerKind::Gap, to.to_string());
        marker.gap = Some(Gap { from: Seq::new(from), to: Seq::new(to), reason });
        assert!(matches!(machine.step(Input::Marker(&marker)), Action::Deliver));
        assert!(matches!(event(&mut machine, to + 1), Action::Deliver));
    }
    // What nobody announced is still a hole.
    assert_violation(event(&mut machine, 14));
}

#[test]
fn resumed_settles_a_jump_even_backwards() {
    let jumping = || Plan { on_lost: OnLost::LastCommon, ..plan() };
    let mut machine = Machine::new(jumping(), Some("100".to_owned()));
    machine.step(Input::Woke);
    open_at(&mut machine, 40, 60);
    assert!(matches!(gap(&mut machine, 0, 0, 40), Action::Deliver));
    assert!(matches!(marker(&mut machine, MarkerKind::Resumed, 40), Action::Deliver));
    assert!(matches!(event(&mut machine, 41), Action::Deliver));
    assert_eq!(machine.cursor(), Some("41"));

    // The histories part at 35, and what follows is trimmed up to 40.
    let mut machine = Machine::new(jumping(), Some("100".to_owned()));
    machine.step(Input::Woke);
    open_at(&mut machine, 40, 60);
    assert!(matches!(gap(&mut machine, 0, 0, 40), Action::Deliver));
    assert!(matches!(gap(&mut machine, 36, 40, 40), Action::Deliver));
    assert!(matches!(marker(&mut machine, MarkerKind::Resumed, 40), Action::Deliver));
    assert!(matches!(event(&mut machine, 41), Action::Deliver));
}

#[test]
fn after_a_gap_of_unknown_range_resumed_says_where_it_goes_on() {
    let mut machine = opened(Plan { on_lost: OnLost::Oldest, ..plan() }, 100, 120);
    let mut unknown = Marker::new(MarkerKind::Gap, "");
    let reason = GapReason::LogChanged;
    unknown.gap = Some(Gap { from: Seq::ZERO, to: Seq::ZERO, reason });
    assert!(matches!(machine.step(Input::Marker(&unknown)), Action::Deliver));
    assert_eq!(machine.cursor(), Some("100"));
    assert!(matches!(marker(&mut machine, MarkerKind::Resumed, 40), Action::Deliver));
    assert!(matches!(event(&mut machine, 41), Action::Deliver));
    // For this attempt alone.
    machine.step(Input::Failed(unavailable()));
    machine.step(Input::Woke);
    assert_violation(marker(&mut machine, MarkerKind::Resumed, 50));
}

#[test]
fn a_wrong_resume_is_found_out() {
    let mut machine = Machine::new(plan(), Some("100".to_owned()));
    machine.step(Input::Woke);
    open_at(&mut machine, 100, 120);
    assert_violation(marker(&mut machine, MarkerKind::Resumed, 101));
}

#[test]
fn a_cut_is_followed_by_one_wait_and_one_attempt() {
    let mut machine = opened(plan(), 7, 9);
    event(&mut machine, 8);
    assert!(machine.take_progress());
    assert!(!machine.take_progress());
    match machine.step(Input::Failed(unavailable())) {
        Action::Wait { at_least: None, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(!machine.take_progress(), "a failure is no progress");
    // A server that answers and says nothing has not shown that it works.
    reopen(&mut machine, 9);
    assert!(!machine.take_progress());
    marker(&mut machine, MarkerKind::Heartbeat, 8);
    assert!(machine.take_progress(), "a sign of life is some");
    machine.step(Input::Failed(unavailable()));
    reopen(&mut machine, 9);
    assert!(matches!(event(&mut machine, 9), Action::Deliver));
}

#[test]
fn retry_info_is_honoured() {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(Duration::from_secs(3)));
    let error = Error::from_status(Status::with_error_details(Code::Unavailable, "", details));
    let mut machine = opened(plan(), 7, 9);
    match machine.step(Input::Failed(error)) {
        Action::Wait { at_least, fresh_connection: false, .. } => {
            assert_eq!(at_least, Some(Duration::from_secs(3)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_connection_is_not_taken_again() {
    for (error, is_broken) in [
        (unavailable(), false),
        (unavailable().maybe_applied(), true),
        (Error::new(Kind::Connect, "refused"), true),
    ] {
        let mut machine = opened(plan(), 7, 9);
        match machine.step(Input::Failed(error)) {
            Action::Wait { fresh_connection, .. } => assert_eq!(fresh_connection, is_broken),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn closing_announces_a_planned_end() {
    let mut closing = Marker::new(MarkerKind::Closing, "7");
    closing.retry_delay = Some(Duration::from_secs(2));
    for end in [Input::Ended { cursor: Some("7") }, Input::Failed(unavailable())] {
        let mut machine = opened(Plan { until_caught_up: true, ..plan() }, 7, 9);
        assert!(matches!(machine.step(Input::Marker(&closing)), Action::Deliver));
        match machine.step(end) {
            Action::Wait { at_least, .. } => assert_eq!(at_least, Some(Duration::from_secs(2))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn silence_takes_a_fresh_connection() {
    let mut machine = opened(plan(), 7, 9);
    match machine.step(Input::Silent) {
        Action::Wait { fresh_connection: true, cause, .. } => {
            assert_eq!(cause.kind(), Kind::Timeout);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_will_not_pass_by_itself_is_final() {
    for error in [
        status(Code::InvalidArgument, "CURSOR_MALFORMED"),
        status(Code::OutOfRange, "CURSOR_TRIMMED"),
        status(Code::FailedPrecondition, "LOG_CHANGED"),
        status(Code::DataLoss, "DAMAGED"),
        status(Code::PermissionDenied, ""),
        status(Code::Internal, "STORE_STOPPED"),
        status(Code::Unimplemented, "NO_SUCH_CALL"),
    ] {
        let kind = error.kind();
        let mut machine = opened(plan(), 7, 9);
        match machine.step(Input::Failed(error)) {
            Action::Fail(error) => assert_eq!(error.kind(), kind),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[test]
fn a_proxy_that_knows_no_server_is_waited_for_by_who_has_met_the_server_there() {
    let unknown = || Input::Failed(Error::from_status(Status::unimplemented("no route")));
    let mut machine = opened(plan(), 7, 9);
    assert!(matches!(machine.step(unknown()), Action::Wait { .. }));
    let mut machine = Machine::new(plan(), None);
    machine.step(Input::Woke);
    assert!(matches!(machine.step(unknown()), Action::Fail(_)));
    // A head without the server's own header is no meeting.
    let mut machine = Machine::new(plan(), None);
    machine.step(Input::Woke);
    machine.step(Input::Opened { cursor: None, head: None });
    assert!(matches!(machine.step(unknown()), Action::Fail(_)));
}

#[test]
fn what_was_lost_under_way_is_jumped_over_when_asked() {
    let jumping = Plan { on_lost: OnLost::Latest, ..plan() };
    let gone = || status(Code::OutOfRange, "CURSOR_TRIMMED");
    let damaged = || status(Code::DataLoss, "DAMAGED");

    let mut machine = opened(jumping.clone(), 7, 9);
    marker(&mut machine, MarkerKind::Resumed, 7);
    assert!(matches!(machine.step(Input::Failed(gone())), Action::Wait { .. }));
    // Right at the start, the server has refused to jump.
    machine.step(Input::Woke);
    assert!(matches!(machine.step(Input::Failed(gone())), Action::Fail(_)));

    // Who did not ask for it hears of it.
    for error in [gone(), damaged()] {
        let mut machine = opened(plan(), 7, 9);
        marker(&mut machine, MarkerKind::Resumed, 7);
        event(&mut machine, 8);
        assert!(matches!(machine.step(Input::Failed(error)), Action::Fail(_)));
    }

    let mut machine = opened(jumping, 7, 9);
    marker(&mut machine, MarkerKind::Resumed, 7);
    event(&mut machine, 8);
    assert!(matches!(machine.step(Input::Failed(damaged())), Action::Wait { .. }));
    // The same damage again without an event between would go on for ever.
    reopen(&mut machine, 9);
    assert!(matches!(machine.step(Input::Failed(damaged())), Action::Fail(_)));
}

#[test]
fn an_absent_server_is_waited_for_when_asked() {
    for (waits_for_server, attempts) in [(true, 1), (false, 1), (false, 2)] {
        let mut machine = Machine::new(Plan { waits_for_server, ..plan() }, None);
        machine.step(Input::Woke);
        if attempts == 2 {
            open_at(&mut machine, 0, 0);
            machine.step(Input::Failed(unavailable()));
            machine.step(Input::Woke);
        }
        let action = machine.step(Input::Failed(Error::new(Kind::Connect, "refused")));
        let waits = matches!(action, Action::Wait { fresh_connection: true, .. });
        assert_eq!(waits, waits_for_server || attempts == 2, "{waits_for_server} {attempts}");
    }
}

#[test]
fn a_limit_spans_attempts() {
    let mut machine = opened(Plan { limit: 3, ..plan() }, 0, 9);
    event(&mut machine, 1);
    event(&mut machine, 2);
    machine.step(Input::Failed(unavailable()));
    assert_eq!(machine.remaining(), 1);
    reopen(&mut machine, 9);
    event(&mut machine, 3);
    let denied = Input::Failed(status(Code::PermissionDenied, ""));
    let cut = Input::Failed(unavailable());
    for end in [Input::Ended { cursor: Some("3") }, cut, denied, Input::Silent] {
        assert!(matches!(machine.step(end), Action::Finish));
    }
    assert!(matches!(event(&mut machine, 4), Action::Finish), "no more than asked for");
}

#[test]
fn until_caught_up_ends_with_the_marker_only() {
    let until = Plan { until_caught_up: true, ..plan() };
    let mut machine = opened(until.clone(), 7, 8);
    event(&mut machine, 8);
    assert!(matches!(marker(&mut machine, MarkerKind::CaughtUp, 8), Action::Deliver));
    assert!(matches!(machine.step(Input::Ended { cursor: Some("8") }), Action::Finish));

    // An orderly end without it is a cut that something on the way made look orderly.
    let mut machine = opened(until.clone(), 7, 9);
    event(&mut machine, 8);
    assert!(matches!(marker(&mut machine, MarkerKind::Heartbeat, 8), Action::Deliver));
    assert!(matches!(machine.step(Input::Ended { cursor: None }), Action::Wait { .. }));

    // At first the server alone knows where it stops; it says so.
    let mut machine = opened(until.clone(), 7, 8);
    event(&mut machine, 8);
    assert!(matches!(event(&mut machine, 9), Action::Deliver));
    let mut machine = opened(until, 7, 8);
    event(&mut machine, 8);
    assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Wait { .. }));
}

#[test]
fn until_caught_up_means_the_first_head_over_all_attempts() {
    let until = Plan { until_caught_up: true, ..plan() };
    let mut machine = opened(until.clone(), 7, 9);
    event(&mut machine, 8);
    machine.step(Input::Failed(unavailable()));
    reopen(&mut machine, 50);
    assert!(matches!(event(&mut machine, 9), Action::Deliver));
    assert!(matches!(event(&mut machine, 10), Action::Finish));

    // A cut behind the last one of them is an end.
    let mut machine = opened(until.clone(), 7, 9);
    event(&mut machine, 8);
    machine.step(Input::Failed(unavailable()));
    reopen(&mut machine, 50);
    event(&mut machine, 9);
    assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Finish));

    // Filtered: the first event beyond it ends the watch, and so does a failure behind it.
    let filtered = Plan { is_unfiltered: false, ..until };
    let mut machine = opened(filtered, 7, 9);
    machine.step(Input::Failed(unavailable()));
    reopen(&mut machine, 50);
    assert!(matches!(event(&mut machine, 30), Action::Finish));
    assert_eq!(machine.cursor(), Some("7"), "what was not delivered was not passed");
    marker(&mut machine, MarkerKind::Heartbeat, 20);
    assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Finish));
}

#[test]
fn the_trailer_tells_how_far_a_filtered_watch_has_looked() {
    let plan = Plan { is_unfiltered: false, until_caught_up: true, ..plan() };
    let mut machine = opened(plan, 7, 9);
    marker(&mut machine, MarkerKind::CaughtUp, 7);
    assert!(matches!(machine.step(Input::Ended { cursor: Some("9") }), Action::Finish));
    assert_eq!(machine.cursor(), Some("9"));
}

#[test]
fn a_trailer_beyond_the_last_event_of_an_unfiltered_watch_is_a_loss() {
    let mut machine = opened(Plan { until_caught_up: true, ..plan() }, 7, 9);
    marker(&mut machine, MarkerKind::CaughtUp, 7);
    assert_violation(machine.step(Input::Ended { cursor: Some("9") }));
}

#[test]
fn a_watch_without_bounds_never_ends_by_itself() {
    let mut machine = opened(plan(), 7, 9);
    marker(&mut machine, MarkerKind::CaughtUp, 7);
    assert!(matches!(machine.step(Input::Ended { cursor: Some("7") }), Action::Wait { .. }));
}

#[test]
fn a_bare_number_becomes_a_token() {
    use tailmark_record::{ChainTag, CursorMint, Generation, LogId};
    let generation = Generation { counter: 1, nonce: 5 };
    let mint = CursorMint::new(LogId::new(uuid::Uuid::from_u128(9)), generation);
    let token = mint.mint_string(Seq::new(7), ChainTag::new(3));
    let mut machine = Machine::new(plan(), Some("7".to_owned()));
    machine.step(Input::Woke);
    open_at(&mut machine, 7, 9);
    let resumed = Marker::new(MarkerKind::Resumed, token.clone());
    assert!(matches!(machine.step(Input::Marker(&resumed)), Action::Deliver));
    assert_eq!(machine.cursor(), Some(token.as_str()));
}

#[test]
fn an_event_that_cannot_be_read_is_given_up_in_the_end() {
    let unread = || Input::Failed(Error::from_status(Status::internal("cannot decode")));
    let fails = |machine: &mut Machine| {
        assert!(matches!(machine.step(unread()), Action::Wait { .. }));
        reopen(machine, 9);
    };
    let mut machine = opened(plan(), 7, 9);
    for _ in 0..9 {
        fails(&mut machine);
        // Is said at each beginning, and gets nowhere.
        marker(&mut machine, MarkerKind::FellBehind, 7);
    }
    match machine.step(unread()) {
        Action::Fail(error) => {
            assert_eq!((error.kind(), error.is_retryable()), (Kind::Internal, false))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.cursor(), Some("7"));
    // What gets further begins the count anew, and so does a stream that stands.
    let mut machine = opened(plan(), 7, 9);
    for seq in 8..30 {
        (0..9).for_each(|_| fails(&mut machine));
        assert!(matches!(event(&mut machine, seq), Action::Deliver));
        for kind in [MarkerKind::Heartbeat, MarkerKind::CaughtUp] {
            (0..9).for_each(|_| fails(&mut machine));
            assert!(matches!(marker(&mut machine, kind, seq), Action::Deliver));
        }
    }
    // The control: an outage lasts as long as it lasts.
    for _ in 0..1_000 {
        assert!(matches!(machine.step(Input::Failed(unavailable())), Action::Wait { .. }));
        reopen(&mut machine, 9);
    }
}
