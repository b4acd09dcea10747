//! What may be open at once of each kind of stream, and of connections: in all, on one connection, from
//! one address, of one principal.
//!
//! Beyond what may be open in all there is a reserve for who has little: whoever takes all that there
//! is shuts out nobody but those who have much. Invariant: what was refused is not counted anywhere.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Options;
use super::permits::{Gauges, OverLimit, Permit, StreamKind};
use super::shares::{Pace, Paces, Share, Shares, holder};
use super::unsent::{Line, Unsent};

/// Of a limit, what there is beyond it for who has little.
const RESERVE: usize = 8;
/// Of a limit, what counts as little; at least one.
const LITTLE: usize = 64;
/// Connections over the limit that are told so at a time, in all and from one address; the others are
/// closed without a word.
const TURNED_AWAY: usize = 64;
const TURNED_AWAY_OF_ADDRESS: usize = 16;
/// Of health: clients of gRPC may watch it on each of their connections, and many may have one address.
const HEALTH: StreamLimits = StreamLimits {
    in_all: 10_000,
    of_connection: 100,
    of_address: Some(5_000),
    of_principal: Some(5_000),
};
/// Of reflection and metrics: for tools and people, of which each has one or a few.
const FEW: StreamLimits = StreamLimits {
    in_all: 1_000,
    of_connection: 100,
    of_address: Some(500),
    of_principal: Some(500),
};

/// Of backups: each reads the disk, and has a thread.
const BACKUPS: StreamLimits =
    StreamLimits { in_all: 4, of_connection: 4, of_address: Some(4), of_principal: Some(4) };

/// Of bodies and messages that come in gzip.
const DECODED: StreamLimits = StreamLimits {
    in_all: 512,
    of_connection: 128,
    of_address: Some(256),
    of_principal: Some(256),
};
/// Of those in zstd: each may hold a window of 8 MiB.
const DECODED_ZSTD: StreamLimits =
    StreamLimits { in_all: 8, of_connection: 4, of_address: Some(4), of_principal: Some(4) };
/// Of answers that are compressed: each holds a third of a mebibyte. Those beyond it go out as they are.
const CODED: StreamLimits =
    StreamLimits { in_all: 128, of_connection: 32, of_address: Some(64), of_principal: Some(64) };

struct StreamLimits {
    in_all: usize,
    of_connection: usize,
    of_address: Option<usize>,
    of_principal: Option<usize>,
}

/// Sockets that so many connections may have open at once, with those for who has little and those that
/// are told that they are too many.
pub fn sockets_of(connections: usize) -> usize {
    connections.saturating_add(connections / RESERVE).saturating_add(TURNED_AWAY)
}

/// All limits of one server.
#[derive(Debug)]
pub(crate) struct Quotas {
    streams: [Quota; StreamKind::ALL.len()],
    connections: Total,
    connections_of_address: Shares<IpAddr>,
    connections_of_principal: Shares<Arc<str>>,
    turned_away: Arc<AtomicUsize>,
    turned_away_of_address: Shares<IpAddr>,
    paces: Paces<IpAddr>,
    /// Floods that came from an address lately.
    floods: Mutex<HashMap<IpAddr, Floods>>,
    unsent: Unsent,
}

/// How long a flood is held against new connections from the same address.
const SUSPICION: Duration = Duration::from_secs(60);
/// What the next connection waits after the first flood; twice as long after each more, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Addresses that are kept in mind for it.
const SUSPECTS: usize = 4_096;

/// What came from one address.
#[derive(Clone, Copy, Debug)]
struct Floods {
    /// Of the last one that is held against it.
    at: Instant,
    /// Since it is suspect.
    count: u32,
}

impl Floods {
    fn wait(self) -> Duration {
        FIRST_WAIT.saturating_mul(1 << self.count.saturating_sub(1).min(16)).min(LONGEST_WAIT)
    }
}

/// So many in all, and a few more for who has little.
#[derive(Debug)]
struct Total {
    what: &'static str,
    open: Arc<AtomicUsize>,
    limit: usize,
}

impl Total {
    /// One more for who has `held` with it.
    fn take(&self, held: usize) -> Result<Permit, OverLimit> {
        let has_little = held <= (self.limit / LITTLE).max(1);
        let reserve = if has_little { self.limit / RESERVE } else { 0 };
        let taken = Permit::take(&self.open, self.limit.saturating_add(reserve), self.what);
        taken.map_err(|over| OverLimit { limit: self.limit, ..over })
    }
}

/// The limits of one kind of stream.
#[derive(Debug)]
struct Quota {
    total: Total,
    of_connection: usize,
    of_address: Shares<IpAddr>,
    of_principal: Shares<Arc<str>>,
}

/// The right to be one of the streams of a kind.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Absent for a request that came by no connection of ours.
    _of_connection: Option<(Permit, Share<IpAddr>)>,
    _of_principal: Option<Share<Arc<str>>>,
    _of_all: Permit,
}

/// The right to be one of the connections.
#[derive(Debug)]
pub(crate) struct ConnectionGrant {
    _of_address: Share<IpAddr>,
    _of_all: Permit,
}

impl Quotas {
    pub(crate) fn new(options: &Options, gauges: &Gauges) -> Quotas {
        let streams = StreamKind::ALL.map(|kind| {
            let limits = match kind {
                StreamKind::Watch => StreamLimits {
                    in_all: options.watches,
                    of_connection: options.watches_per_connection,
                    of_address: options.watches_per_address,
                    of_principal: options.watches_per_principal,
                },
                StreamKind::Upload => StreamLimits {
                    in_all: options.uploads,
                    of_connection: options.uploads_per_connection,
                    of_address: options.uploads_per_address,
                    of_principal: options.uploads_per_principal,
                },
                StreamKind::Health => HEALTH,
                StreamKind::Reflection | StreamKind::Metrics => FEW,
                StreamKind::Backup => BACKUPS,
                StreamKind::Coded => CODED,
                StreamKind::Decoded => DECODED,
                StreamKind::DecodedZstd => DECODED_ZSTD,
            };
            let [what, _, of_address, of_principal] = kind.limits();
            Quota {
                total: Total { what, open: Arc::clone(gauges.of(kind)), limit: limits.in_all },
                of_connection: limits.of_connection,
                of_address: Shares::new(of_address, limits.of_address),
                of_principal: Shares::new(of_principal, limits.of_principal),
            }
        });
        let (of_address, of_principal) =
            (options.connections_per_address, options.connections_per_principal);
        let open = Arc::clone(gauges.of_connections());
        Quotas {
            streams,
            connections: Total { what: "connections", open, limit: options.connections },
            connections_of_address: Shares::new("connections_per_address", of_address),
            connections_of_principal: Shares::new("connections_per_principal", of_principal),
            turned_away: Arc::clone(gauges.of_turned_away()),
            turned_away_of_address: Shares::new("connections", Some(TURNED_AWAY_OF_ADDRESS)),
            unsent: Unsent::new(options.unsent_bytes),
            paces: Paces::new(
                options.rates_per_address,
                ["events_per_address", "bytes_per_address"],
            ),
            floods: Mutex::default(),
        }
    }

    /// One more stream of a kind.
    pub(crate) fn stream(
        &self,
        kind: StreamKind,
        peer: Option<&Peer>,
        principal: Option<&Arc<str>>,
    ) -> Result<Grant, OverLimit> {
        let quota = &self.streams[kind as usize];
        // Of its own first: who has too many takes none of the others'.
        let of_connection = match peer {
            None => None,
            Some(peer) => {
                let [_, what, ..] = kind.limits();
                let count = &peer.connection.streams[kind as usize];
                let permit = Permit::take(count, quota.of_connection, what)?;
                Some((permit, quota.of_address.take(&peer.connection.holder)?))
            }
        };
        let of_principal = principal.map(|name| quota.of_principal.take(name)).transpose()?;
        let held = match (&of_principal, &of_connection) {
            (Some(share), _) => share.count(),
            (None, Some((_, share))) => share.count(),
            (None, None) => usize::MAX,
        };
        let of_all = quota.total.take(held)?;
        Ok(Grant { _of_connection: of_connection, _of_principal: of_principal, _of_all: of_all })
    }

    /// One more connection.
    pub(crate) fn connection(&self, address: SocketAddr) -> Result<ConnectionGrant, OverLimit> {
        let of_address = self.connections_of_address.take(&holder(address.ip()))?;
        let of_all = self.connections.take(of_address.count())?;
        Ok(ConnectionGrant { _of_address: of_address, _of_all: of_all })
    }

    /// To tell a connection that it is one too many; `None` when enough are being told.
    pub(crate) fn turned_away(&self, address: SocketAddr) -> Option<ConnectionGrant> {
        let of_address = self.turned_away_of_address.take(&holder(address.ip())).ok()?;
        let of_all = Permit::take(&self.turned_away, TURNED_AWAY, "connections").ok()?;
        Some(ConnectionGrant { _of_address: of_address, _of_all: of_all })
    }

    /// What waits to be sent, over all connections.
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// A connection from there.
    pub(crate) fn peer(&self, address: SocketAddr) -> Peer {
        let holder = holder(address.ip());
        let connection = Connection {
            holder,
            line: self.unsent.line(),
            streams: Default::default(),
            user: Mutex::default(),
            pace: self.paces.of(holder),
        };
        Peer { address, connection: Arc::new(connection) }
    }

    /// A connection was ended because there was too much on it. What is not held against its address
    /// makes it suspect no longer than it is.
    pub(crate) fn flooded(&self, peer: &Peer, is_held: bool) {
        let (mut floods, holder) = (self.floods.lock(), peer.connection.holder);
        if let Some(known) = floods.get_mut(&holder).filter(|known| known.at.elapsed() < SUSPICION)
        {
            known.count = known.count.saturating_add(1);
            if is_held {
                known.at = Instant::now();
            }
            return;
        }
        if floods.len() >= SUSPECTS {
            floods.retain(|_, known| known.at.elapsed() < SUSPICION);
        }
        // With so many there is nobody left to tell apart.
        if is_held && floods.len() < SUSPECTS {
            floods.insert(holder, Floods { at: Instant::now(), count: 1 });
        }
    }

    /// How long the next connection from the same address waits, where one was lately.
    pub(crate) fn suspicion(&self, peer: &Peer) -> Option<Duration> {
        let floods = self.floods.lock();
        let known = floods.get(&peer.connection.holder);
        known.filter(|known| known.at.elapsed() < SUSPICION).map(|known| known.wait())
    }

    /// Counts a connection to the principal that uses it now: one that many use, as a proxy's, to whoever
    /// came last.
    pub(crate) fn used_by(&self, peer: &Peer, principal: &Arc<str>) -> Result<(), OverLimit> {
        if !self.connections_of_principal.is_limited() {
            return Ok(());
        }
        let mut user = peer.connection.user.lock();
        if user.as_ref().is_none_or(|share| share.holder() != principal) {
            *user = Some(self.connections_of_principal.take(principal)?);
        }
        Ok(())
    }
}

/// What all requests of one connection share; travels as a request extension.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    connection: Arc<Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Who counts as its address.
    holder: IpAddr,
    /// What waits to be sent on it.
    line: Line,
    /// Open on it, by kind.
    streams: [Arc<AtomicUsize>; StreamKind::ALL.len()],
    /// The principal that used it last, where they are counted.
    user: Mutex<Option<Share<Arc<str>>>>,
    /// What its address has stored lately, where that is limited.
    pace: Option<Arc<Pace>>,
}

impl Peer {
    /// What waits to be sent on the connection.
    pub(crate) fn line(&self) -> &Line {
        &self.connection.line
    }

    /// Watches open on the connection.
    pub(crate) fn watches(&self) -> usize {
        self.connection.streams[StreamKind::Watch as usize].load(Ordering::Relaxed)
    }

    /// What its address has stored lately, where that is limited.
    pub(crate) fn pace(&self) -> Option<&Arc<Pace>> {
        self.connection.pace.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(options: &Options) -> (Quotas, Gauges) {
        let gauges = Gauges::default();
        (Quotas::new(options, &gauges), gauges)
    }

    fn at(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    /// Takes until it is refused.
    fn all(quotas: &Quotas, kind: StreamKind, peers: &[Peer]) -> (Vec<Grant>, OverLimit) {
        let mut held = Vec::new();
        for peer in peers.iter().cycle() {
            match quotas.stream(kind, Some(peer), None) {
                Ok(grant) => held.push(grant),
                Err(over) => return (held, over),
            }
        }
        panic!("no peers")
    }

    #[test]
    fn each_limit_of_a_kind_holds_at_it_and_one_over() {
        let limits = |in_all, of_connection, of_address, of_principal| Options {
            uploads: in_all,
            uploads_per_connection: of_connection,
            uploads_per_address: of_address,
            uploads_per_principal: of_principal,
            ..Options::default()
        };
        for (limits, what, limit) in [
            (limits(3, 9, None, None), "uploads", 3),
            (limits(9, 3, None, None), "uploads_per_connection", 3),
            (limits(9, 9, Some(3), None), "uploads_per_address", 3),
        ] {
            let (quotas, gauges) = quotas(&limits);
            let (held, over) = all(&quotas, StreamKind::Upload, &[quotas.peer(at("192.0.2.1"))]);
            assert_eq!(over, OverLimit { what, limit, actual: limit + 1 });
            assert_eq!((held.len(), gauges.uploads(), gauges.watches()), (limit, limit, 0));
            drop(held);
            assert_eq!(gauges.uploads(), 0);
        }
        let (quotas, _) = quotas(&limits(9, 9, None, Some(2)));
        let [ann, bob] = ["ann", "bob"].map(Arc::<str>::from);
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|it| quotas.peer(at(it)));
        let take = |peer, name| quotas.stream(StreamKind::Upload, Some(peer), Some(name));
        let held = [take(&peers[0], &ann).unwrap(), take(&peers[1], &ann).unwrap()];
        let over = take(&peers[2], &ann).unwrap_err();
        assert_eq!((over.what, over.actual), ("uploads_per_principal", 3));
        assert!(take(&peers[2], &bob).is_ok());
        drop(held);
    }

    #[test]
    fn who_has_all_shuts_out_nobody_who_has_little() {
        let options = Options::default();
        let (quotas, gauges) = quotas(&options);
        // One address over ten connections, each with its hundred.
        let greedy: Vec<_> = (0..20).map(|_| quotas.peer(at("192.0.2.1"))).collect();
        let (mut held, over) = all(&quotas, StreamKind::Reflection, &greedy);
        assert_eq!((over.what, held.len()), ("reflection_streams_per_address", 500));
        let (more, over) = all(&quotas, StreamKind::Reflection, &[quotas.peer(at("192.0.2.2"))]);
        assert_eq!((over.what, more.len()), ("reflection_streams_per_connection", 100));
        held.extend(more);
        let others: Vec<_> = (0..5).map(|_| quotas.peer(at("192.0.2.2"))).collect();
        let (more, over) = all(&quotas, StreamKind::Reflection, &others);
        assert_eq!((over.what, over.actual), ("reflection_streams_per_address", 501));
        held.extend(more);
        assert_eq!(gauges.reflection_streams(), 1_000);
        // A newcomer has a few, and not more than a few.
        let (few, over) = all(&quotas, StreamKind::Reflection, &[quotas.peer(at("192.0.2.3"))]);
        assert_eq!((few.len(), over.what, over.limit), (15, "reflection_streams", 1_000));
        // And not for ever: the reserve has an end.
        let mut rest = Vec::new();
        for net in 0..100 {
            let peer = quotas.peer(at(&format!("198.51.100.{net}")));
            rest.extend(quotas.stream(StreamKind::Reflection, Some(&peer), None));
            rest.extend(quotas.stream(StreamKind::Reflection, Some(&peer), None));
        }
        assert_eq!(gauges.reflection_streams(), 1_125);
    }

    #[test]
    fn a_network_behind_one_address_has_health_on_each_of_its_connections() {
        let (quotas, gauges) = quotas(&Options::default());
        let peers: Vec<_> = (0..5_001).map(|_| quotas.peer(at("192.0.2.1"))).collect();
        let (held, over) = all(&quotas, StreamKind::Health, &peers);
        assert_eq!((over.what, over.limit), ("health_watches_per_address", 5_000));
        assert_eq!((held.len(), gauges.health_watches()), (5_000, 5_000));
        drop(held);
        let each =
            peers[..5_000].iter().map(|it| quotas.stream(StreamKind::Health, Some(it), None));
        assert!(each.collect::<Result<Vec<_>, _>>().is_ok(), "one each");
    }

    #[test]
    fn connections_leave_a_reserve_and_an_address_has_no_more_words_than_its_share() {
        let (quotas, gauges) = quotas(&Options { connections: 640, ..Options::default() });
        let one = at("192.0.2.1");
        let held: Vec<_> = std::iter::from_fn(|| quotas.connection(one).ok()).collect();
        assert_eq!((held.len(), gauges.connections()), (640, 640));
        let other = at("192.0.2.2");
        let few: Vec<_> = std::iter::from_fn(|| quotas.connection(other).ok()).collect();
        assert_eq!(few.len(), 10);
        let told: Vec<_> = std::iter::from_fn(|| quotas.turned_away(one)).collect();
        assert_eq!(told.len(), TURNED_AWAY_OF_ADDRESS);
        assert!(quotas.turned_away(other).is_some());
    }

    #[test]
    fn a_connection_counts_to_whoever_used_it_last() {
        let options = Options { connections_per_principal: Some(2), ..Options::default() };
        let (quotas, _) = quotas(&options);
        let [ann, bob] = ["ann", "bob"].map(Arc::<str>::from);
        let peers = [(); 3].map(|()| quotas.peer(at("192.0.2.1")));
        for peer in &peers[..2] {
            quotas.used_by(peer, &ann).unwrap();
            quotas.used_by(peer, &ann).unwrap();
        }
        let over = quotas.used_by(&peers[2], &ann).unwrap_err();
        let expected = OverLimit { what: "connections_per_principal", limit: 2, actual: 3 };
        assert_eq!(over, expected);
        quotas.used_by(&peers[2], &bob).unwrap();
        // The connection goes, or another's call comes on it.
        quotas.used_by(&peers[0], &bob).unwrap();
        quotas.used_by(&peers[0].clone(), &bob).unwrap();
        quotas.used_by(&peers[2], &ann).unwrap();
        drop(peers);
        assert!(quotas.used_by(&quotas.peer(at("192.0.2.1")), &ann).is_ok());
    }

    #[test]
    fn who_floods_again_and_again_waits_longer_and_is_forgiven() {
        let (quotas, _) = quotas(&Options::default());
        let peer = |host| quotas.peer(SocketAddr::from(([10, 0, 0, host], 1)));
        let (calm, wild) = (peer(1), peer(2));
        quotas.flooded(&calm, false);
        assert_eq!(quotas.suspicion(&calm), None, "what is not held makes nobody suspect");
        quotas.flooded(&wild, true);
        let since = quotas.floods.lock()[&wild.connection.holder].at;
        assert_eq!(quotas.suspicion(&wild), Some(FIRST_WAIT));
        for _ in 0..3 {
            quotas.flooded(&wild, false);
        }
        assert_eq!(quotas.suspicion(&wild), Some(8 * FIRST_WAIT));
        assert_eq!(quotas.floods.lock()[&wild.connection.holder].at, since);
        for _ in 0..1_000 {
            quotas.flooded(&wild, true);
        }
        assert_eq!(quotas.suspicion(&wild), Some(LONGEST_WAIT));
        let long_ago = Instant::now().checked_sub(SUSPICION).unwrap();
        quotas.floods.lock().get_mut(&wild.connection.holder).unwrap().at = long_ago;
        assert_eq!(quotas.suspicion(&wild), None);
        quotas.flooded(&wild, true);
        assert_eq!(quotas.suspicion(&wild), Some(FIRST_WAIT), "it begins anew");
        assert_eq!(quotas.suspicion(&calm), None);
    }
}
