//! `StreamMetrics`: samples of the daemon's figures at an interval.
//!
//! Nothing is spawned, and nothing is queued but the rest of one sample. The next snapshot is taken
//! when the interval is over and the client has room for it, so a slow client gets fewer samples.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Request, Response, Status};

use crate::server::Shared;
use crate::server::figures::{OpenStream, Rates, Snapshot};
use crate::server::permits::StreamKind;
use crate::server::quotas::{Grant, Peer};
use crate::server::rpc::deadline;
use crate::server::rpc::status::{self, Failure};
use crate::server::rpc::{convert, trace};
use crate::server::transport::ending::Endings;
use tailmark_wire::chat as pb;

/// Between two samples, when the client does not say.
const DEFAULT_INTERVAL_S: u64 = 1;
const MAX_INTERVAL_S: u64 = 3_600;

type Look = Pin<Box<dyn Future<Output = Option<Snapshot>> + Send>>;

/// Begins a stream of metrics.
pub(super) fn stream_metrics(
    shared: &Arc<Shared>,
    request: Request<pb::MetricsRequest>,
) -> Result<Response<MetricsStream>, Status> {
    let (metadata, extensions, message) = request.into_parts();
    if shared.stop.is_cancelled() {
        return Err(status::stopping(shared.options.retry_delay).into());
    }
    let caller = shared.auth.caller(&extensions)?;
    caller.admin("stream metrics")?;
    let interval = interval(message.interval_seconds)?;
    let instance = &shared.options.instance;
    if !message.instance_id.is_empty() && message.instance_id != *instance {
        return Err(status::other_instance(&message.instance_id, instance).into());
    }
    let peer = extensions.get::<Peer>();
    let permit = shared.quotas.stream(StreamKind::Metrics, peer, caller.name());
    let permit = permit.map_err(status::too_many)?;
    let deadline = deadline::of(&extensions);
    if deadline.is_some_and(|at| at <= Instant::now()) {
        return Err(status::deadline().into());
    }
    let span = tracing::info_span!(
        "stream_metrics",
        peer = peer.map(|peer| tracing::field::display(peer.address)),
        interval_s = interval.as_secs(),
        reason = tracing::field::Empty,
    );
    trace::adopt(&span, &metadata);
    // The first look needs no tick.
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Response::new(MetricsStream {
        before: shared.figures.base(),
        look: Some(look(shared)),
        sample: Vec::new().into_iter(),
        samples: 0,
        ticks,
        endings: Endings::new(deadline, &shared.stop, caller),
        is_over: false,
        open: shared.figures.open("metrics", None, &span),
        span,
        shared: Arc::clone(shared),
        _permit: permit,
    }))
}

fn interval(seconds: i32) -> Result<Duration, Failure> {
    let problem = "must be 0 (one second) to 3600";
    let seconds = match u64::try_from(seconds) {
        Ok(0) => DEFAULT_INTERVAL_S,
        Ok(seconds) if seconds <= MAX_INTERVAL_S => seconds,
        _ => return Err(status::bad_field("interval_seconds", problem)),
    };
    Ok(Duration::from_secs(seconds))
}

fn look(shared: &Arc<Shared>) -> Look {
    let figures = Arc::clone(&shared.figures);
    Box::pin(async move { Snapshot::take(&figures).await })
}

/// One client's samples.
pub(crate) struct MetricsStream {
    shared: Arc<Shared>,
    /// What the next rates count from.
    before: Option<Arc<Snapshot>>,
    /// The look under way.
    look: Option<Look>,
    /// What is left of the sample that is being sent.
    sample: std::vec::IntoIter<pb::Metric>,
    samples: u64,
    ticks: Interval,
    endings: Endings,
    is_over: bool,
    open: OpenStream,
    span: tracing::Span,
    _permit: Grant,
}

impl MetricsStream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<pb::Metric, Status>> {
        loop {
            if self.endings.poll_stop(cx).is_ready() {
                return self.fail("stopping", status::stopping(self.shared.options.retry_delay));
            }
            if self.endings.poll_deadline(cx).is_ready() {
                return self.fail("deadline", status::deadline());
            }
            if let Poll::Ready(failure) = self.endings.poll_revoked(cx) {
                return self.fail("token ended", failure);
            }
            if let Some(metric) = self.sample.next() {
                return Poll::Ready(Ok(metric));
            }
            let Some(look) = &mut self.look else {
                std::task::ready!(self.ticks.poll_tick(cx));
                self.look = Some(self::look(&self.shared));
                continue;
            };
            let taken = std::task::ready!(look.as_mut().poll(cx));
            self.look = None;
            let Some(snapshot) = taken else {
                return self.fail("stopping", status::stopping(self.shared.options.retry_delay));
            };
            let snapshot = Arc::new(snapshot);
            let before = self.before.replace(Arc::clone(&snapshot));
            let before = before.unwrap_or_else(|| Arc::clone(&snapshot));
            self.sample = sample(&Rates::new(&snapshot, &before)).into_iter();
            self.samples += 1;
        }
    }

    fn fail(&mut self, reason: &'static str, failure: Failure) -> Poll<Result<pb::Metric, Status>> {
        self.is_over = true;
        self.open.ends(reason);
        Poll::Ready(Err(failure.into()))
    }
}

/// One sample: all of it of one moment.
fn sample(rates: &Rates<'_>) -> Vec<pb::Metric> {
    let timestamp = convert::timestamp(rates.at());
    let metric = |figure: crate::server::figures::Figure| pb::Metric {
        name: figure.name.to_owned(),
        value: figure.value,
        timestamp: Some(timestamp),
        labels: figure.labels.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
    };
    rates.figures().into_iter().map(metric).collect()
}

impl Stream for MetricsStream {
    type Item = Result<pb::Metric, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll(cx).map(Some)
    }
}

impl Drop for MetricsStream {
    fn drop(&mut self) {
        tracing::info!(
            parent: &self.span,
            samples = self.samples,
            seconds = self.open.age().as_secs_f64(),
            reason = self.open.reason(),
            "metrics stream ended"
        );
    }
}
