//! What one address or one principal may have of what all share: counted things, and things a second.
//!
//! Without a limit nothing is counted. Invariants: a count goes down when its share is dropped, however
//! the work ended; who has nothing takes no memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::options::Rates;
use super::permits::OverLimit;

/// So many of something for each holder.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    what: &'static str,
    /// `None` = nothing is counted.
    limit: Option<usize>,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Shares { what: self.what, limit: self.limit, held: Arc::clone(&self.held) }
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(crate) fn new(what: &'static str, limit: Option<usize>) -> Shares<K> {
        Shares { what, limit, held: Arc::default() }
    }

    /// One more for `holder`; `None` where there is no limit.
    pub(crate) fn take(&self, holder: &K) -> Result<Option<Share<K>>, OverLimit> {
        let Some(limit) = self.limit else { return Ok(None) };
        let mut held = self.held.lock();
        let count = held.entry(holder.clone()).or_default();
        if *count >= limit {
            let actual = count.saturating_add(1);
            if *count == 0 {
                held.remove(holder);
            }
            return Err(OverLimit { what: self.what, limit, actual });
        }
        *count += 1;
        Ok(Some(Share { holder: holder.clone(), held: Arc::clone(&self.held) }))
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// Who counts as one address: of IPv6 a network of 64 bits, for every machine has that many by itself.
pub(crate) fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

type Limiter =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// What one principal has stored lately.
pub(crate) struct Pace {
    events: Option<(Limiter, NonZeroU32)>,
    bytes: Option<(Limiter, NonZeroU32)>,
}

/// More in a second than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) what: &'static str,
    pub(crate) limit: u32,
    pub(crate) actual: usize,
    /// When as much may come; `None` = never, at once.
    pub(crate) wait: Option<Duration>,
}

impl Pace {
    fn new(rates: Rates) -> Pace {
        let limiter = |rate: NonZeroU32| {
            (RateLimiter::direct_with_clock(Quota::per_second(rate), MonotonicClock), rate)
        };
        Pace { events: rates.events.map(limiter), bytes: rates.bytes.map(limiter) }
    }

    /// So much is about to be stored.
    pub(crate) fn takes(&self, events: usize, bytes: usize) -> Result<(), TooFast> {
        for (limiter, what, actual) in [
            (&self.events, "events_per_principal", events),
            (&self.bytes, "bytes_per_principal", bytes),
        ] {
            let Some((limiter, rate)) = limiter else { continue };
            let Some(count) = u32::try_from(actual).ok().map(NonZeroU32::new) else {
                return Err(TooFast { what, limit: rate.get(), actual, wait: None });
            };
            let Some(count) = count else { continue };
            let wait = match limiter.check_n(count) {
                Ok(Ok(())) => continue,
                Ok(Err(until)) => Some(until.wait_time_from(MonotonicClock.now())),
                Err(_) => None,
            };
            return Err(TooFast { what, limit: rate.get(), actual, wait });
        }
        Ok(())
    }
}

/// The paces of all principals who have a session.
#[derive(Default)]
pub(crate) struct Paces {
    rates: Rates,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    paces: HashMap<String, Weak<Pace>>,
    /// With so many those are let go of who have no session any more.
    sweep_at: usize,
}

/// Fewer are never looked through.
const LEAST_SWEEP: usize = 1_024;

impl Paces {
    pub(crate) fn new(rates: Rates) -> Paces {
        Paces { rates, known: Mutex::default() }
    }

    /// The one of a principal, however many sessions there are of the same; `None` without limits.
    pub(crate) fn of(&self, name: &str) -> Option<Arc<Pace>> {
        if self.rates == Rates::default() {
            return None;
        }
        let mut known = self.known.lock();
        if known.paces.len() >= known.sweep_at {
            known.paces.retain(|_, pace| pace.strong_count() > 0);
            known.sweep_at = LEAST_SWEEP.max(2 * known.paces.len());
        }
        match known.paces.entry(name.to_owned()) {
            Entry::Occupied(mut there) => Some(match there.get().upgrade() {
                Some(pace) => pace,
                None => {
                    let pace = Arc::new(Pace::new(self.rates));
                    there.insert(Arc::downgrade(&pace));
                    pace
                }
            }),
            Entry::Vacant(free) => {
                let pace = Arc::new(Pace::new(self.rates));
                free.insert(Arc::downgrade(&pace));
                Some(pace)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_a_share_and_gives_it_back() {
        let shares = Shares::new("watches_per_address", Some(2));
        let [ann, bob] = ["ann", "bob"];
        let held = [shares.take(&ann).unwrap(), shares.take(&ann).unwrap()];
        let over = OverLimit { what: "watches_per_address", limit: 2, actual: 3 };
        assert_eq!(shares.take(&ann).unwrap_err(), over);
        let other = shares.take(&bob).unwrap();
        assert!(other.is_some());
        drop(held);
        assert!(shares.take(&ann).is_ok());
        drop(other);
        assert!(shares.held.lock().is_empty());
        assert!(Shares::new("x", None).take(&ann).unwrap().is_none());
    }

    #[test]
    fn an_address_is_one_machine() {
        let one = |text: &str| holder(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:192.0.2.1"), one("192.0.2.1"));
        assert_ne!(one("192.0.2.1"), one("192.0.2.2"));
    }

    #[test]
    fn a_second_has_so_much_and_no_more() {
        let rate = |n| NonZeroU32::new(n);
        let paces = Paces::new(Rates { events: rate(10), bytes: rate(1_000) });
        let ann = paces.of("ann").unwrap();
        assert!(ann.takes(10, 100).is_ok());
        let over = ann.takes(1, 1).unwrap_err();
        assert_eq!((over.what, over.limit, over.actual), ("events_per_principal", 10, 1));
        assert!(over.wait.is_some_and(|wait| wait <= Duration::from_millis(100)));
        // Another's are another's, and the same one's are the same.
        assert!(paces.of("bob").unwrap().takes(10, 1_000).is_ok());
        assert!(paces.of("ann").unwrap().takes(1, 1).is_err());
        let never = paces.of("eve").unwrap().takes(11, 1).unwrap_err();
        assert_eq!(never.wait, None);
        let bytes = paces.of("eve").unwrap().takes(1, 1_001).unwrap_err();
        assert_eq!((bytes.what, bytes.wait), ("bytes_per_principal", None));
        assert!(Paces::default().of("ann").is_none());
    }
}
