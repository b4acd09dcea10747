//! Upper bounds: which values are allowed.

use super::{EVENT_BYTES, GIB, Invalid, KIB, Limits, MANY, MIB, at_least, bytes, count, time};

impl Limits {
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
        count("limits.connections", self.connections, 1, 1_000_000)?;
        let in_flight = self.stream_in_flight_bytes;
        bytes("limits.stream_in_flight_bytes", in_flight, 1, GIB)?;
        at_least("limits.stream_in_flight_bytes", in_flight, event, EVENT_BYTES)?;
        bytes("limits.parked_bytes", self.parked_bytes, 0, GIB)?;
        self.check_shares()?;
        time("limits.unary_deadline", self.unary_deadline, 1, 3_600)
    }

    /// What one address or one principal may have of what all share.
    fn check_shares(&self) -> Result<(), Invalid> {
        for (key, value) in [
            ("limits.connections_per_address", self.connections_per_address),
            ("limits.watches_per_address", self.watches_per_address),
            ("limits.watches_per_principal", self.watches_per_principal),
            ("limits.events_per_principal", self.events_per_principal),
        ] {
            value.map_or(Ok(()), |value| count(key, value, 1, MANY))?;
        }
        let Some(rate) = self.bytes_per_principal else { return Ok(()) };
        bytes("limits.bytes_per_principal", rate, 1, MANY)?;
        // Else there were events that can never be stored.
        at_least("limits.bytes_per_principal", rate, self.event_bytes, EVENT_BYTES)
    }
}
