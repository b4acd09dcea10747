//! `Watch` and `WatchBatches`: from a request to a stream. The order of the checks is that of the contract.

mod body;
mod request;
mod start;
mod stream;

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status};
use tracing::field::Empty;

pub(super) use body::Bodies;
pub(crate) use body::NoStream;
pub(super) use request::{after_cursor, two_cursors};
pub(super) use stream::{Item, WatchStream};

use crate::server::feed::machine::{Bundle, Machine, Plan, SKIPPED_PER_HEARTBEAT};
use crate::server::figures::{Reported, WatchName};
use crate::server::permits::StreamKind;
use crate::server::principal::Caller;
use crate::server::quotas::{Grant, Peer};
use crate::server::rpc::deadline;
use crate::server::rpc::frames::YIELD_BYTES;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::trace;
use crate::server::transport::ending::Endings;
use crate::server::unsent::Sending;
use crate::server::{Shared, report};
use body::Framing;
use start::Resolved;
use stream::{Floor, Settings, WatchParts};
use tailmark_record::topic::Filter;
use tailmark_record::{ChainTag, Cursor, OnLost, Seq, Start};
use tailmark_wire::feed_v1 as pb;

/// Response metadata and trailer: where to go on.
pub(super) const CURSOR: &str = "feed-cursor";
const OLDEST: &str = "feed-oldest";
const HEAD: &str = "feed-head";
const LOG_ID: &str = "feed-log-id";
/// Response metadata: what a watch that reports progress is called there.
const WATCH: &str = "feed-watch";

/// Entries of one batch, unless one event has more. What makes batches fast is gained long before
/// this, and a watch that is not read holds a few of them.
const BATCH_BYTES: usize = 64 << 10;

/// Begins a watch that answers with events.
pub(super) async fn watch(
    shared: &Shared,
    request: Request<pb::WatchRequest>,
) -> Result<Response<NoStream>, Status> {
    let (metadata, stream) = begin(shared, request, Bundle::Frames(YIELD_BYTES)).await?;
    Ok(answer(metadata, stream, Framing::Events))
}

/// Begins a watch that answers with batches of events.
pub(super) async fn watch_batches(
    shared: &Shared,
    request: Request<pb::WatchRequest>,
) -> Result<Response<NoStream>, Status> {
    let (metadata, stream) = begin(shared, request, Bundle::Batch(BATCH_BYTES)).await?;
    Ok(answer(metadata, stream, Framing::Batches))
}

/// Begins a watch that yields events one by one.
pub(super) async fn events(
    shared: &Shared,
    request: Request<pb::WatchRequest>,
) -> Result<(MetadataMap, WatchStream), Failure> {
    begin(shared, request, Bundle::One).await
}

/// What the client of a watch says of its work, for figures.
pub(super) fn report_progress(
    shared: &Shared,
    report: &pb::ReportProgressRequest,
) -> pb::ReportProgressResult {
    let reported = shared.figures.progress(&report.watch, report.done);
    pb::ReportProgressResult {
        known: reported == Reported::Taken,
        of_earlier_run: reported == Reported::OfEarlierRun,
    }
}

fn answer(metadata: MetadataMap, stream: WatchStream, framing: Framing) -> Response<NoStream> {
    let mut response = body::answer(stream, framing);
    *response.metadata_mut() = metadata;
    response
}

async fn begin(
    shared: &Shared,
    request: Request<pb::WatchRequest>,
    bundle: Bundle,
) -> Result<(MetadataMap, WatchStream), Failure> {
    let (metadata, extensions, message) = request.into_parts();
    let deadline = deadline::of(&extensions);
    let (log, options) = (&shared.log, &shared.options);
    if shared.stop.is_cancelled() {
        return Err(status::stopping(options.retry_delay));
    }
    let asked =
        request::Request::read(&message, &metadata, log.limits(), options.patterns_per_watch)?;
    let caller = shared.auth.caller(&extensions)?;
    caller.may_watch(&asked.filter)?;
    let peer = extensions.get::<Peer>();
    let permits = permits(shared, peer, &caller)?;
    // Read first: what is stored while the start is looked for comes after it.
    let (head, floor) = head_of(shared, &asked, deadline).await?;
    let resolved = resolve(shared, &asked, deadline).await?;
    let mut response_metadata = MetadataMap::new();
    describe(shared, resolved.start, resolved.tag, &mut response_metadata).await?;
    let consumer = asked.consumer();
    if let Some(id) = consumer.as_ref().and_then(|it| shared.figures.reported_as(it)) {
        insert(&mut response_metadata, WATCH, id)?;
    }
    let span = span(&message, peer, resolved.start);
    trace::adopt(&span, &metadata);
    let line = peer.map_or_else(|| shared.quotas.unsent().line(), |peer| peer.line().clone());
    let sending = line.sending();
    let watch = Admitted {
        asked,
        permits,
        sending,
        head,
        floor,
        resolved,
        deadline,
        caller,
        consumer,
        span,
    };
    Ok((response_metadata, watch.stream(shared, bundle)))
}

/// A watch that may begin.
struct Admitted {
    asked: request::Request,
    permits: Grant,
    sending: Sending,
    /// The head when it came.
    head: Seq,
    /// Below which it has not caught up, whatever the log here has.
    floor: Floor,
    resolved: Resolved,
    deadline: Option<Instant>,
    caller: Caller,
    /// Where it said what it is called.
    consumer: Option<WatchName>,
    span: tracing::Span,
}

impl Admitted {
    fn stream(self, shared: &Shared, bundle: Bundle) -> WatchStream {
        let Admitted {
            asked,
            permits,
            sending,
            head,
            floor,
            resolved,
            deadline,
            caller,
            consumer,
            span,
        } = self;
        let start = resolved.start;
        let reads = asked.reads();
        let machine = Machine::new(Plan {
            // Where that is everything that is left, all that is read is wanted.
            filter: asked.filter,
            start,
            limit: asked.limit,
            until: asked.until_caught_up.then_some(head),
            markers: asked.markers,
            gaps: resolved.gaps,
            bundle,
        });
        let settings = Settings {
            parking: shared.parking.clone(),
            shared_frames: Arc::clone(&shared.shared_frames),
            skip_lost: asked.on_lost == OnLost::Oldest,
            heartbeat: asked.markers.then_some(asked.heartbeat),
            retry_delay: shared.options.retry_delay,
            floor,
        };
        // Only one with markers tells how far it has looked.
        let report_every = if asked.markers { SKIPPED_PER_HEARTBEAT } else { 0 };
        let reader = shared.log.reader(start, reads).reports_every(report_every);
        let endings = Endings::new(deadline, &shared.stop, caller);
        let mut open = shared.figures.open("watch", Some(start), &span);
        if let Some(name) = &consumer {
            open.is_called(name);
        }
        let log = shared.log.clone();
        WatchStream::new(WatchParts {
            machine,
            log,
            reader,
            endings,
            settings,
            permits,
            sending,
            open,
            span,
        })
    }
}

/// The head that there is by whoever writes the log, as far as the watch depends on it; and below which seq it has not
/// caught up.
async fn head_of(
    shared: &Shared,
    asked: &request::Request,
    deadline: Option<Instant>,
) -> Result<(Seq, Floor), Failure> {
    let here = || shared.log.bounds().head;
    if shared.peers.is_none() || !(asked.until_caught_up || asked.markers) {
        return Ok((here(), Floor::NONE));
    }
    let confirm = shared.confirm();
    let confirmed = match deadline {
        None => confirm.await,
        Some(at) => timeout_at(at, confirm).await.unwrap_or_else(|_| Err(status::deadline())),
    };
    match confirmed {
        Ok(head) => Ok((head.unwrap_or_else(here), Floor::NONE)),
        Err(failure) if asked.until_caught_up => Err(failure),
        // What is here can be read all the same. It never says that this is all.
        Err(_) => Ok((here(), Floor::UNKNOWN)),
    }
}

/// Where it begins, if that is found in the client's time.
async fn resolve(
    shared: &Shared,
    asked: &request::Request,
    deadline: Option<Instant>,
) -> Result<Resolved, Failure> {
    let resolve = start::resolve(shared, asked);
    match deadline {
        None => resolve.await,
        Some(at) => match timeout_at(at, resolve).await {
            Ok(resolved) => resolved,
            Err(_) => Err(status::deadline()),
        },
    }
}

fn span(message: &pb::WatchRequest, peer: Option<&Peer>, start: Seq) -> tracing::Span {
    tracing::info_span!(
        "watch",
        peer = peer.map(|peer| tracing::field::display(peer.address)),
        patterns = patterns(message),
        start = start.get(),
        cursor = Empty,
        events = Empty,
        reason = Empty,
    )
}

/// The right to one more watch.
pub(super) fn permits(
    shared: &Shared,
    peer: Option<&Peer>,
    caller: &Caller,
) -> Result<Grant, Failure> {
    shared.quotas.stream(StreamKind::Watch, peer, caller.name()).map_err(status::too_many)
}

/// The first seq of what follows a cursor, or of what is live where there is none.
pub(super) async fn start_after(shared: &Shared, text: &str) -> Result<Seq, Failure> {
    let position = match text {
        "" => request::Position::At(Start::Latest),
        text => request::Position::After(
            Cursor::parse(text).map_err(|error| status::malformed_cursor("after_cursor", error))?,
        ),
    };
    let asked = request::Request::from(Filter::ALL, position);
    Ok(start::resolve(shared, &asked).await?.start)
}

/// What it watches, for the log: the first few of many.
fn patterns(message: &pb::WatchRequest) -> String {
    const SHOWN: usize = 4;
    let single = Some(&message.topic).filter(|topic| !topic.is_empty());
    let mut all = single.into_iter().chain(&message.topics).map(String::as_str);
    let mut shown = all.by_ref().take(SHOWN).collect::<Vec<_>>().join(" ");
    match all.count() {
        0 if shown.is_empty() => ">".to_owned(),
        0 => shown,
        more => {
            shown.push_str(&format!(" and {more} more"));
            shown
        }
    }
}

/// What a client learns at once, also on an idle topic. `tag` is of the chain before the start, if that is known: a
/// client that comes back costs no second read of the event that it named.
pub(super) async fn describe(
    shared: &Shared,
    start: Seq,
    tag: Option<ChainTag>,
    metadata: &mut MetadataMap,
) -> Result<(), Failure> {
    let bounds = shared.log.bounds();
    let cursor = match tag {
        Some(tag) => shared.log.cursor_with(start.prev(), tag),
        None => shared.log.cursor(start.prev()).await,
    };
    for (name, value) in [
        (CURSOR, cursor),
        (OLDEST, bounds.oldest.to_string()),
        (HEAD, bounds.head.to_string()),
        (LOG_ID, shared.log.id().to_string()),
    ] {
        insert(metadata, name, value)?;
    }
    Ok(())
}

fn insert(metadata: &mut MetadataMap, name: &'static str, value: String) -> Result<(), Failure> {
    let Ok(value) = AsciiMetadataValue::try_from(value) else {
        report::defect("a header that is not ASCII");
        return Err(status::internal());
    };
    metadata.insert(name, value);
    Ok(())
}
