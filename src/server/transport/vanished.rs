//! Clients of HTTP/1.1 that are gone without a word. The protocol has no probe of its own, and while
//! something is on its way to a client the system sends none either: it tries again for a quarter of an hour.
//!
//! So we look at what the system knows of its sockets. Who is there takes note of what is sent, or says
//! that it has no room: however slowly it reads, it is not gone.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What the system knows of its sockets, of IPv4 and of IPv6.
const FILES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// Looks in the time that a client may be away.
const LOOKS: u32 = 4;

/// The two ends of a connection: ours, the client's.
type Ends = (SocketAddr, SocketAddr);

/// The connections that are looked after; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vanished(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    /// How many there were.
    count: u64,
    known: HashMap<Ends, Looked>,
}

#[derive(Debug)]
struct Looked {
    number: u64,
    gone: CancellationToken,
    /// Since when nothing that was sent was taken note of.
    since: Option<Instant>,
    /// What the system said last.
    state: State,
}

/// What the system knows of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// Bytes that were sent and not taken note of.
    queue: u64,
    /// How often it was tried in vain since something was taken note of last.
    tries: u64,
}

impl State {
    /// Whether something was taken note of since: each try is one more, and bytes are only added.
    fn has_moved(self, before: State) -> bool {
        self.queue < before.queue || self.tries < before.tries
    }
}

/// One that is looked after, until it is dropped.
#[derive(Debug)]
pub(crate) struct Known {
    ends: Ends,
    number: u64,
    all: Vanished,
    /// Cancelled when the client is gone.
    pub(crate) gone: CancellationToken,
}

impl Vanished {
    /// Looks after a connection.
    pub(crate) fn look_after(&self, ours: SocketAddr, theirs: SocketAddr) -> Known {
        let ends = (canonical(ours), canonical(theirs));
        let gone = CancellationToken::new();
        let mut all = self.0.lock();
        all.count += 1;
        let number = all.count;
        let (since, state) = (None, State::default());
        all.known.insert(ends, Looked { number, gone: gone.clone(), since, state });
        Known { ends, number, all: self.clone(), gone }
    }

    /// Does so until the server stops: who takes note of nothing for `patience` is gone.
    pub(crate) async fn run(self, patience: Duration, stop: CancellationToken) {
        let mut look = interval((patience / LOOKS).max(Duration::from_millis(10)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let known: HashSet<Ends> = self.0.lock().known.keys().copied().collect();
            if known.is_empty() {
                continue;
            }
            // A machine may have very many sockets.
            let Ok(states) = tokio::task::spawn_blocking(move || states(&known)).await else {
                return;
            };
            self.take(&states, patience, Instant::now());
        }
    }

    fn take(&self, states: &HashMap<Ends, State>, patience: Duration, now: Instant) {
        for (ends, looked) in &mut self.0.lock().known {
            let state = states.get(ends).copied().unwrap_or_default();
            // A long way that loses much is not the end.
            if state.tries == 0 || state.has_moved(looked.state) {
                looked.since = None;
            }
            looked.state = state;
            if state.tries > 0 {
                let since = *looked.since.get_or_insert(now);
                if now.saturating_duration_since(since) >= patience {
                    looked.gone.cancel();
                }
            }
        }
    }
}

/// What the system says of these. Where it says nothing there is its own patience.
fn states(known: &HashSet<Ends>) -> HashMap<Ends, State> {
    let mut states = HashMap::new();
    for file in FILES {
        let table = std::fs::read_to_string(file).unwrap_or_default();
        states.extend(of_table(&table, known));
    }
    states
}

fn of_table(table: &str, known: &HashSet<Ends>) -> impl Iterator<Item = (Ends, State)> {
    table.lines().filter_map(|text| line(text, known))
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        // Another may have the same ends by now.
        if all.known.get(&self.ends).is_some_and(|looked| looked.number == self.number) {
            all.known.remove(&self.ends);
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A line of the table (proc(5), Linux' `net/ipv4/tcp_ipv4.c`): number, both ends, state, queues, timer,
/// retransmissions, user, probes that were not answered.
fn line(line: &str, known: &HashSet<Ends>) -> Option<(Ends, State)> {
    const ESTABLISHED: &str = "01";
    let mut words = line.split_ascii_whitespace().skip(1);
    let ends = (address(words.next()?)?, address(words.next()?)?);
    if !known.contains(&ends) || words.next()? != ESTABLISHED {
        return None;
    }
    let queue = u64::from_str_radix(words.next()?.split(':').next()?, 16).ok()?;
    let retransmitted = u64::from_str_radix(words.nth(1)?, 16).ok()?;
    let unanswered: u64 = words.nth(1)?.parse().ok()?;
    Some((ends, State { queue, tries: retransmitted + unanswered }))
}

/// Words of 32 bits as the machine has them, in hexadecimal digits, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1F90 0200007F:C350 01 00000010:00000000 01:00000020 00000003     0        0 2 2 0
   2: 0100007F:1F90 0200007F:C351 01 00000000:00000000 02:00000020 00000000     0        0 3 2 0
   3: 0100007F:1F90 0200007F:C352 01 00010000:00000000 04:00000020 00000000     0        5 4 2 0
   4: 0100007F:1F90 0200007F:C353 06 00000010:00000000 01:00000020 00000003     0        0 5 2 0
   5: 0000000000000000FFFF00000100007F:1F90 \
0000000000000000FFFF00000200007F:C354 01 00000010:00000000 01:00000020 00000001     0        0 6 2 0
garbage
";

    #[test]
    #[cfg(target_endian = "little")]
    fn who_takes_note_of_nothing_for_so_long_is_gone() {
        let vanished = Vanished::default();
        let ours: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let known: Vec<_> = (50_000..50_006)
            .map(|port| vanished.look_after(ours, SocketAddr::new([127, 0, 0, 2].into(), port)))
            .collect();
        let gone = || known.iter().map(|known| known.gone.is_cancelled()).collect::<Vec<_>>();
        let (patience, begun) = (Duration::from_secs(20), Instant::now());
        let ends: HashSet<Ends> = known.iter().map(|known| known.ends).collect();
        let look = |table: &str, after| {
            let states = of_table(table, &ends).collect();
            vanished.take(&states, patience, begun + Duration::from_secs(after));
        };
        look(TABLE, 0);
        look(TABLE, 19);
        assert_eq!(gone(), [false; 6]);
        // Something was taken note of meanwhile: it begins anew.
        look("", 19);
        look(TABLE, 25);
        look(TABLE, 44);
        assert_eq!(gone(), [false; 6]);
        look(TABLE, 45);
        assert_eq!(gone(), [true, false, true, false, true, false]);
        drop(known);
        assert!(vanished.0.lock().known.is_empty());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn who_takes_note_of_something_now_and_then_is_not_gone() {
        let vanished = Vanished::default();
        let [ours, theirs] = ["127.0.0.1:8080", "127.0.0.2:50000"].map(|it| it.parse().unwrap());
        let (known, gone) = (vanished.look_after(ours, theirs), CancellationToken::is_cancelled);
        let ends = HashSet::from([known.ends]);
        let (patience, begun) = (Duration::from_secs(20), Instant::now());
        let look = |queue: u64, tries: u64, after| {
            let line = format!(
                "0: 0100007F:1F90 0200007F:C350 01 {queue:08X}:00000000 01:00000020 {tries:08X} 0 0 2"
            );
            let states = of_table(&line, &ends).collect();
            vanished.take(&states, patience, begun + Duration::from_secs(after));
        };
        // Each time something is lost anew, and something came before.
        for at in 0..10 {
            look(90_000 - at * 1_000, 2, at * 5);
        }
        look(90_000, 3, 55);
        look(90_000, 1, 64);
        look(90_000, 2, 83);
        assert!(!gone(&known.gone));
        // What we send meanwhile is no sign of life.
        look(95_000, 2, 84);
        assert!(gone(&known.gone));
        // Of others nothing is looked at.
        assert!(line("0: 0100007F:1F90 0200007F:C351 01 0:0 01:20 3 0 0 2", &ends).is_none());
    }

    #[test]
    fn this_machine_has_a_table_in_which_our_sockets_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ends = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let table = std::fs::read_to_string(FILES[0]).unwrap();
        let found: Vec<_> = of_table(&table, &HashSet::from([ends])).collect();
        assert_eq!(found, [(ends, State::default())]);
    }
}
