//! Connections and bytes: accepting, the handshake, the protocol's preface, who may ask, limits on
//! bodies, and how answers leave. Knows no event, and nobody who answers: `serving` has what it is given.

pub(crate) mod accept;
pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod arrivals;
pub(crate) mod body;
pub(crate) mod coders;
pub(crate) mod connection;
pub(crate) mod date;
pub(crate) mod drain;
pub(crate) mod ending;
pub(crate) mod exchange;
pub(crate) mod floods;
pub(crate) mod framing;
pub(crate) mod greeting;
pub(crate) mod http1;
pub(crate) mod linger;
pub(crate) mod maybe_tls;
pub(crate) mod outbox;
pub(crate) mod packed;
pub(crate) mod preface;
pub(crate) mod rarely;
pub(crate) mod refuse;
pub(crate) mod serving;
pub(crate) mod streams;
pub(crate) mod turns;
pub(crate) mod vanished;
pub(crate) mod windows;
