//! Upper bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EVENT_BYTES, GIB, Invalid, KIB, MANY, MIB, at_least, bytes, count, time};
use tailmark_record::units;

section!(
    /// Upper bounds, all inclusive.
    Limits {
        /// One message on the wire.
        message_bytes: u64 as "units::size" = 10 << 20,
        /// One event as encoded.
        event_bytes: u64 as "units::size" = 1 << 20,
        /// Events in one batch.
        batch_events: u64 = 10_000,
        /// Bytes of one batch.
        batch_bytes: u64 as "units::size" = 4 << 20,
        /// A topic or pattern.
        topic_bytes: u64 as "units::size" = 255,
        /// Segments of a topic or pattern.
        topic_segments: u64 = 32,
        /// An id, a type or a key, each.
        name_bytes: u64 as "units::size" = 255,
        /// Headers of one event.
        headers: u64 = 32,
        /// All header names and values of one event together.
        header_bytes: u64 as "units::size" = 8 << 10,
        /// Patterns of one watch.
        patterns_per_watch: u64 = 64,
        /// Watches open at once on one connection.
        watches_per_connection: u64 = 1_000,
        /// Watches open at once in all.
        watches: u64 = 20_000,
        /// Connections open at once.
        connections: u64 = 4_096,
        /// Connections open at once from one address.
        connections_per_address: Option<u64> as "units::count_or_unlimited" = None,
        /// Watches open at once from one address.
        watches_per_address: Option<u64> as "units::count_or_unlimited" = None,
        /// Watches open at once of one principal.
        watches_per_principal: Option<u64> as "units::count_or_unlimited" = None,
        /// Connections open at once of one principal.
        connections_per_principal: Option<u64> as "units::count_or_unlimited" = None,
        /// Uploads and appends open at once on one connection.
        uploads_per_connection: u64 = 1_000,
        /// Uploads and appends open at once in all.
        uploads: u64 = 10_000,
        /// Uploads and appends open at once from one address.
        uploads_per_address: Option<u64> as "units::count_or_unlimited" = None,
        /// Uploads and appends open at once of one principal.
        uploads_per_principal: Option<u64> as "units::count_or_unlimited" = None,
        /// For the first message of an upload or an append.
        first_message_timeout: Option<Duration> as "units::duration_or_unlimited" =
            Some(Duration::from_secs(60)),
        /// How long an upload or an append may say nothing after that.
        stream_idle_timeout: Option<Duration> as "units::duration_or_unlimited" =
            Some(Duration::from_secs(3_600)),
        /// Events that a principal may store in a second.
        events_per_principal: Option<u64> as "units::count_or_unlimited" = None,
        /// Bytes of events that a principal may store in a second.
        bytes_per_principal: Option<u64> as "units::size_or_unlimited" = None,
        /// Events that may be stored from one address in a second.
        events_per_address: Option<u64> as "units::count_or_unlimited" = None,
        /// Bytes of events that may be stored from one address in a second.
        bytes_per_address: Option<u64> as "units::size_or_unlimited" = None,
        /// Bytes of one upload that may wait to become durable.
        stream_in_flight_bytes: u64 as "units::size" = 8 << 20,
        /// Bytes of chunks kept for watches whose clients do not take more.
        parked_bytes: u64 as "units::size" = 64 << 20,
        /// Bytes that clients of HTTP/2 may send before they are read, over all connections.
        unread_bytes: u64 as "units::size" = 1 << 30,
        /// Bytes that wait to be sent, over all connections.
        unsent_bytes: u64 as "units::size" = 128 << 20,
        /// For a call that is no stream, when its client set none.
        unary_deadline: Duration as "units::duration" = Duration::from_secs(30),
    }
);

impl Limits {
    /// Those of topics and patterns, as the log has them.
    pub(crate) fn of_topics(&self) -> tailmark_record::Limits {
        let size = |value| usize::try_from(value).unwrap_or(usize::MAX);
        tailmark_record::Limits {
            topic_bytes: size(self.topic_bytes),
            topic_segments: size(self.topic_segments),
            ..tailmark_record::Limits::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        let event = self.event_bytes;
        bytes(EVENT_BYTES, event, 1, 8 * MIB)?;
        bytes("limits.message_bytes", self.message_bytes, KIB, 64 * MIB)?;
        at_least("limits.message_bytes", self.message_bytes, event + 64 * KIB, EVENT_BYTES)?;
        count("limits.batch_events", self.batch_events, 1, 1_000_000)?;
        bytes("limits.batch_bytes", self.batch_bytes, 1, 16 * MIB)?;
        at_least("limits.batch_bytes", self.batch_bytes, event, EVENT_BYTES)?;
        bytes("limits.topic_bytes", self.topic_bytes, 1, 255)?;
        count("limits.topic_segments", self.topic_segments, 1, 128)?;
        bytes("limits.name_bytes", self.name_bytes, 36, 255)?;
        count("limits.headers", self.headers, 0, 1_000)?;
        bytes("limits.header_bytes", self.header_bytes, 0, MIB)?;
        count("limits.patterns_per_watch", self.patterns_per_watch, 1, 10_000)?;
        count("limits.watches_per_connection", self.watches_per_connection, 1, MANY - 1)?;
        count("limits.watches", self.watches, 1, MANY)?;
        count("limits.uploads_per_connection", self.uploads_per_connection, 1, MANY - 1)?;
        count("limits.uploads", self.uploads, 1, MANY)?;
        count("limits.connections", self.connections, 1, 1_000_000)?;
        let in_flight = self.stream_in_flight_bytes;
        bytes("limits.stream_in_flight_bytes", in_flight, 1, GIB)?;
        at_least("limits.stream_in_flight_bytes", in_flight, event, EVENT_BYTES)?;
        bytes("limits.parked_bytes", self.parked_bytes, 0, GIB)?;
        bytes("limits.unread_bytes", self.unread_bytes, MIB, 1024 * GIB)?;
        bytes("limits.unsent_bytes", self.unsent_bytes, 16 * MIB, 64 * GIB)?;
        self.check_shares()?;
        time("limits.unary_deadline", self.unary_deadline, 1, 3_600)
    }

    /// What one address or one principal may have of what all share.
    fn check_shares(&self) -> Result<(), Invalid> {
        for (key, value) in [
            ("limits.connections_per_address", self.connections_per_address),
            ("limits.watches_per_address", self.watches_per_address),
            ("limits.watches_per_principal", self.watches_per_principal),
            ("limits.connections_per_principal", self.connections_per_principal),
            ("limits.uploads_per_address", self.uploads_per_address),
            ("limits.uploads_per_principal", self.uploads_per_principal),
            ("limits.events_per_principal", self.events_per_principal),
            ("limits.events_per_address", self.events_per_address),
        ] {
            value.map_or(Ok(()), |value| count(key, value, 1, MANY))?;
        }
        for (key, rate) in [
            ("limits.bytes_per_principal", self.bytes_per_principal),
            ("limits.bytes_per_address", self.bytes_per_address),
        ] {
            let Some(rate) = rate else { continue };
            bytes(key, rate, 1, MANY)?;
            // Else there were events that can never be stored.
            at_least(key, rate, self.event_bytes, EVENT_BYTES)?;
        }
        for (key, limit) in [
            ("limits.first_message_timeout", self.first_message_timeout),
            ("limits.stream_idle_timeout", self.stream_idle_timeout),
        ] {
            limit.map_or(Ok(()), |limit| time(key, limit, 1, 366 * 86_400))?;
        }
        Ok(())
    }
}
