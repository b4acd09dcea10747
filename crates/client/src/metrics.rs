//! A server's own figures, sample after sample, over lost connections.

use std::time::Duration;

use tonic::{Request, Streaming};

use super::channel::Channel;
use super::{Backoff, Client, Error, Kind};
use pb::chat_service_client::ChatServiceClient;
use tailmark_wire::chat as pb;

/// The figure that every sample ends with.
const LAST_OF_SAMPLE: &str = "uptime_seconds";
/// Silence beyond the interval after which the connection counts as lost.
const SLACK: Duration = Duration::from_secs(10);

/// What a stream of metrics yields.
#[derive(Debug)]
pub enum MetricsItem {
    /// All figures of one moment.
    Sample(Vec<pb::Metric>),
    /// The connection was lost; another attempt follows after this time.
    Interrupted {
        /// Why.
        cause: Error,
        /// When.
        retry_in: Duration,
    },
}

/// Samples of one server. Reconnects by itself once it has been connected.
#[derive(Debug)]
pub struct Metrics {
    client: Client,
    interval_s: u32,
    channel: Channel,
    stream: Option<Streaming<pb::Metric>>,
    sample: Vec<pb::Metric>,
    backoff: Backoff,
    /// Waits so long before the next attempt.
    pause: Option<Duration>,
    has_met: bool,
}

impl Client {
    /// The server's figures every `interval_s` seconds (0 = 1, at most 3600), the first at once.
    pub fn metrics(&self, interval_s: u32) -> Metrics {
        Metrics {
            client: self.clone(),
            interval_s,
            channel: self.channel(),
            stream: None,
            sample: Vec::new(),
            backoff: Backoff::default(),
            pause: None,
            has_met: false,
        }
    }
}

impl Metrics {
    /// The next sample, or the news that the connection was lost.
    ///
    /// # Errors
    /// When the server cannot be reached at the very beginning, or refuses for good.
    pub async fn next(&mut self) -> Result<MetricsItem, Error> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        match self.sample().await {
            Ok(sample) => {
                self.has_met = true;
                self.backoff.reset();
                Ok(MetricsItem::Sample(sample))
            }
            Err(cause)
                if self.has_met && self.client.weigh(cause.duplicate()).passes_once_met() =>
            {
                let retry_in = self.backoff.next(cause.retry_delay());
                self.pause = Some(retry_in);
                self.stream = None;
                self.sample.clear();
                // Whatever went silent is not asked again.
                self.channel = self.client.fresh_channel();
                Ok(MetricsItem::Interrupted { cause, retry_in })
            }
            Err(error) => Err(error),
        }
    }

    async fn sample(&mut self) -> Result<Vec<pb::Metric>, Error> {
        let patience = Duration::from_secs(self.interval_s.max(1).into()) + SLACK;
        let late =
            || Error::new(Kind::Timeout, format!("no sample within {} s", patience.as_secs()));
        let collect = async {
            loop {
                let stream = match &mut self.stream {
                    Some(stream) => stream,
                    none => none.insert(
                        open(self.client.chat(self.channel.clone()), self.interval_s).await?,
                    ),
                };
                let metric = stream
                    .message()
                    .await
                    .map_err(|status| Error::from_status(status).of_read())?;
                let Some(metric) = metric else {
                    return Err(Error::new(Kind::Unavailable, "the server ended the stream"));
                };
                let is_last = metric.name == LAST_OF_SAMPLE;
                self.sample.push(metric);
                if is_last {
                    return Ok(std::mem::take(&mut self.sample));
                }
            }
        };
        tokio::time::timeout(patience, collect).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn open(
    mut chat: ChatServiceClient<Channel>,
    interval_s: u32,
) -> Result<Streaming<pb::Metric>, Error> {
    let request = pb::MetricsRequest {
        instance_id: String::new(),
        interval_seconds: i32::try_from(interval_s).unwrap_or(i32::MAX),
    };
    let answer = chat.stream_metrics(Request::new(request)).await;
    Ok(answer.map_err(|status| Error::from_status(status).of_read())?.into_inner())
}
