//! What is to say of stamps that lie ahead of the clock: whoever asks by time finds them later than any time.

use tailmark_record::Timestamp;
use tailmark_wire::feed_v1 as pb;
use tailmark_wire::values::from_timestamp;

/// Clocks of two machines differ by a little; beyond this it is worth a word.
const AHEAD: std::time::Duration = std::time::Duration::from_secs(60);

/// The time that the newest events are stamped with, if it lies ahead of this machine's clock. A stamp never
/// goes back, so that all later events get it too, and there is none ahead where the head's is not.
fn stamped_ahead(status: &pb::LogStatus) -> Option<Timestamp> {
    let head = from_timestamp(status.head_time?);
    (status.head_seq > 0 && head.before(AHEAD) > Timestamp::now()).then_some(head)
}

/// For `status`.
pub(super) fn of_head(status: &pb::LogStatus) -> Option<String> {
    stamped_ahead(status).map(|_| {
        "the head is stamped ahead of this machine's clock: the server's clock was wrong, or this one is"
            .to_owned()
    })
}

/// For a watch that begins at a time.
pub(super) fn of_start(status: &pb::LogStatus) -> Option<String> {
    stamped_ahead(status).map(|head| {
        format!(
            "the newest events are stamped ahead of this machine's clock, up to {head}: they count as later \
             than any time before that, so that this may begin with events that are older than was asked for"
        )
    })
}

/// For a trim of what lies before a time.
pub(super) fn of_trim(status: &pb::LogStatus) -> Option<String> {
    stamped_ahead(status).map(|head| {
        format!(
            "the newest events are stamped ahead of this machine's clock, up to {head}: they count as later \
             than any time before that and stay, however old they are; --before SEQ removes them"
        )
    })
}
