//! A watch request, validated.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::server::figures::WatchName;
use crate::server::rpc::convert;
use crate::server::rpc::status::{self, Failure};
use tailmark_record::topic::Filter;
use tailmark_record::{Cursor, Limits, OnLost, Seq, Start, consumer};
use tailmark_wire::feed_v1 as pb;

/// Request metadata that does what the field `after_cursor` does, for clients without the field.
pub(super) const AFTER_CURSOR: &str = "feed-after-cursor";

const DEFAULT_HEARTBEAT: Duration = Duration::from_millis(15_000);
/// A heartbeat costs about as much as an event, and nobody asked for that many.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// A watch as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) filter: Filter,
    pub(super) position: Position,
    pub(super) limit: Option<u64>,
    pub(super) until_caught_up: bool,
    pub(super) markers: bool,
    pub(super) on_lost: OnLost,
    pub(super) heartbeat: Duration,
    /// What it calls itself; empty = nothing.
    pub(super) name: String,
    /// Its client says what is done.
    pub(super) reports_progress: bool,
    /// Ranges that were meant to go are passed over without a word.
    pub(super) compacted: bool,
}

/// Where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Position {
    After(Cursor),
    At(Start),
}

impl Request {
    /// The plainest request.
    pub(super) fn from(filter: Filter, position: Position) -> Request {
        Request {
            filter,
            position,
            limit: None,
            until_caught_up: false,
            markers: false,
            on_lost: OnLost::Fail,
            heartbeat: DEFAULT_HEARTBEAT,
            name: String::new(),
            reports_progress: false,
            compacted: false,
        }
    }

    /// What it is in figures, where it said what it is called.
    pub(super) fn consumer(&self) -> Option<WatchName> {
        (!self.name.is_empty()).then(|| WatchName::new(&self.name, self.reports_progress))
    }

    /// What it reads of: as what is asked for, but for ranges of which it is not to hear.
    pub(super) fn reads(&self) -> Filter {
        match self.compacted && self.filter.is_all() {
            true => Filter::all_that_is_left(),
            false => self.filter.clone(),
        }
    }

    pub(super) fn read(
        request: &pb::WatchRequest,
        metadata: &MetadataMap,
        limits: &Limits,
        max_patterns: usize,
    ) -> Result<Request, Failure> {
        let limit = u64::try_from(request.limit)
            .map_err(|_| status::bad_field("limit", "must not be negative"))?;
        let on_lost = on_lost(request.on_lost)?;
        if on_lost != OnLost::Fail && !request.markers {
            let problem = "a jump is told by a marker: set markers";
            return Err(status::bad_field("on_lost", problem));
        }
        if !request.name.is_empty() && !consumer::is_name(&request.name) {
            return Err(status::bad_field("name", consumer::RULE));
        }
        Ok(Request {
            filter: filter(request, limits, max_patterns)?,
            position: position(request, metadata)?,
            limit: (limit > 0).then_some(limit),
            until_caught_up: request.until_caught_up,
            markers: request.markers,
            on_lost,
            heartbeat: match request.heartbeat_ms {
                0 => DEFAULT_HEARTBEAT,
                ms => Duration::from_millis(u64::from(ms)).max(MIN_HEARTBEAT),
            },
            name: request.name.clone(),
            reports_progress: request.reports_progress,
            compacted: request.compacted,
        })
    }
}

fn on_lost(value: i32) -> Result<OnLost, Failure> {
    let known = pb::OnLost::try_from(value).map(OnLost::from);
    known.map_err(|_| status::bad_field("on_lost", "is not a value that this server knows"))
}

fn filter(
    request: &pb::WatchRequest,
    limits: &Limits,
    max_patterns: usize,
) -> Result<Filter, Failure> {
    let single = (!request.topic.is_empty()).then_some(&request.topic);
    let named = single.map(|text| ("topic".to_owned(), text.as_str()));
    let others = request.topics.iter().enumerate();
    let others = others.map(|(at, text)| (format!("topics[{at}]"), text.as_str()));
    let patterns: Vec<_> = named.into_iter().chain(others).collect();
    convert::filter(patterns.into_iter(), limits, max_patterns)
}

fn position(request: &pb::WatchRequest, metadata: &MetadataMap) -> Result<Position, Failure> {
    let text = after_cursor(&request.after_cursor, metadata)?;
    let named = if request.after_cursor.is_empty() { AFTER_CURSOR } else { "after_cursor" };
    match (text, &request.start) {
        ("", None | Some(pb::Start { at: None })) => Ok(Position::At(Start::Latest)),
        ("", Some(pb::Start { at: Some(at) })) => Ok(Position::At(start(at)?)),
        (_, Some(_)) => Err(status::bad_field("start", &format!("cannot stand beside {named}"))),
        (text, None) => match Cursor::parse(text) {
            Ok(cursor) => Ok(Position::After(cursor)),
            Err(error) => Err(status::malformed_cursor(named, error)),
        },
    }
}

/// The cursor of the field or of the metadata; empty = none.
pub(crate) fn after_cursor<'a>(
    field: &'a str,
    metadata: &'a MetadataMap,
) -> Result<&'a str, Failure> {
    let mut value = "";
    for list in metadata.get_all(AFTER_CURSOR).iter() {
        let Ok(list) = list.to_str() else {
            return Err(status::bad_field(AFTER_CURSOR, "must be printable ASCII"));
        };
        // What is given twice may come joined: a cursor has no comma.
        for one in list.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            if !value.is_empty() && one != value {
                return Err(status::bad_field(AFTER_CURSOR, "is given twice, with two values"));
            }
            value = one;
        }
    }
    match (field, value) {
        ("", value) => Ok(value),
        (field, "") => Ok(field),
        (field, value) if field == value => Ok(field),
        _ => Err(two_cursors()),
    }
}

/// Field and metadata say where to begin, and not the same.
pub(crate) fn two_cursors() -> Failure {
    status::bad_field("after_cursor", "differs from feed-after-cursor")
}

fn start(at: &pb::start::At) -> Result<Start, Failure> {
    let yes = |field, set: bool, start| {
        if set { Ok(start) } else { Err(status::bad_field(field, "must be true where it is set")) }
    };
    match at {
        pb::start::At::Oldest(set) => yes("start.oldest", *set, Start::Oldest),
        pb::start::At::Latest(set) => yes("start.latest", *set, Start::Latest),
        pb::start::At::Seq(0) => Err(status::bad_field("start.seq", "the first event has seq 1")),
        pb::start::At::Seq(seq) => Ok(Start::Seq(Seq::new(*seq))),
        pb::start::At::Last(0) => Ok(Start::Latest),
        pb::start::At::Last(count) => Ok(Start::Last(*count)),
        pb::start::At::Time(time) => {
            let time = convert::from_timestamp(*time);
            if !time.is_valid() {
                let problem = "outside the years 1 to 9999, or nanos out of range";
                return Err(status::bad_field("start.time", problem));
            }
            Ok(Start::Time(time))
        }
    }
}
