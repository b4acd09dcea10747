//! What one address or one principal may have of what all share: counted things, and things a second.
//!
//! Invariants: a count goes down when its share is dropped, however the work ended; who has nothing
//! takes no memory; what is refused was not charged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::options::Rates;
use super::permits::OverLimit;

/// So many of something for each holder.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    what: &'static str,
    /// `None` = each may have what there is.
    limit: Option<usize>,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash> {
    holder: K,
    /// How many the holder had, this one included, when it was taken.
    count: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(crate) fn new(what: &'static str, limit: Option<usize>) -> Shares<K> {
        Shares { what, limit, held: Arc::default() }
    }

    /// One more for `holder`.
    pub(crate) fn take(&self, holder: &K) -> Result<Share<K>, OverLimit> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut held = self.held.lock();
        let count = held.entry(holder.clone()).or_default();
        let actual = count.saturating_add(1);
        if *count >= limit {
            if *count == 0 {
                held.remove(holder);
            }
            return Err(OverLimit { what: self.what, limit, actual });
        }
        *count = actual;
        Ok(Share { holder: holder.clone(), count: actual, held: Arc::clone(&self.held) })
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }
}

impl<K: Eq + Hash> Share<K> {
    /// How many the holder had, this one included, when it was taken.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn holder(&self) -> &K {
        &self.holder
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

/// What one holder has stored lately.
#[derive(Debug)]
pub(crate) struct Pace {
    events: Option<(Limit, &'static str)>,
    bytes: Option<(Limit, &'static str)>,
    spent: Mutex<Spent>,
}

/// Until when what was taken is paid for, at each rate; `None` = nothing was taken.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    events: Option<Instant>,
    bytes: Option<Instant>,
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

/// So much a second, and a second's worth at once: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug)]
struct Limit(NonZeroU32);

/// What may come at once.
const BURST: Duration = Duration::from_secs(1);

impl Limit {
    /// Until when all is paid for with `count` more, or how long they have to wait; `None` = for ever.
    fn take(
        self,
        paid: Option<Instant>,
        count: usize,
        now: Instant,
    ) -> Result<Instant, Option<Duration>> {
        let rate = self.0.get();
        let count = u32::try_from(count).ok().filter(|count| *count <= rate).ok_or(None)?;
        let until = paid.map_or(now, |paid| paid.max(now)) + BURST * count / rate;
        match until.duration_since(now).checked_sub(BURST) {
            Some(wait) if !wait.is_zero() => Err(Some(wait)),
            _ => Ok(until),
        }
    }
}

/// Charges so much to each of the paces, or to none of them.
pub(crate) fn charge(
    paces: [Option<&Pace>; 2],
    events: usize,
    bytes: usize,
) -> Result<(), TooFast> {
    let now = Instant::now();
    // Always in this order, so nobody waits for who waits.
    let mut held = paces.map(|pace| pace.map(|pace| (pace, pace.spent.lock())));
    let mut next = [Spent::default(); 2];
    for (next, held) in next.iter_mut().zip(&held) {
        let Some((pace, spent)) = held else { continue };
        let take = |limit: Option<(Limit, &'static str)>, paid, actual| {
            let Some((limit, what)) = limit else { return Ok(paid) };
            let too_fast = |wait| TooFast { what, limit: limit.0.get(), actual, wait };
            limit.take(paid, actual, now).map(Some).map_err(too_fast)
        };
        next.events = take(pace.events, spent.events, events)?;
        next.bytes = take(pace.bytes, spent.bytes, bytes)?;
    }
    for (next, held) in next.into_iter().zip(&mut held) {
        if let Some((_, spent)) = held {
            **spent = next;
        }
    }
    Ok(())
}

/// The paces of all holders of one kind who are here.
#[derive(Debug)]
pub(crate) struct Paces<K> {
    rates: Rates,
    /// By which names the limits go: of events, of bytes.
    names: [&'static str; 2],
    known: Mutex<Known<K>>,
}

#[derive(Debug)]
struct Known<K> {
    paces: HashMap<K, Weak<Pace>>,
    /// With so many those are let go of whom nobody has any more.
    sweep_at: usize,
}

/// Fewer are never looked through.
const LEAST_SWEEP: usize = 1_024;

impl<K: Eq + Hash> Paces<K> {
    pub(crate) fn new(rates: Rates, names: [&'static str; 2]) -> Paces<K> {
        let known = Known { paces: HashMap::new(), sweep_at: LEAST_SWEEP };
        Paces { rates, names, known: Mutex::new(known) }
    }

    fn pace(&self) -> Arc<Pace> {
        let [events, bytes] = self.names;
        let limit = |rate: Option<NonZeroU32>, name| rate.map(|rate| (Limit(rate), name));
        Arc::new(Pace {
            events: limit(self.rates.events, events),
            bytes: limit(self.rates.bytes, bytes),
            spent: Mutex::default(),
        })
    }

    /// The one of a holder, however often it is asked for; `None` without limits.
    pub(crate) fn of(&self, holder: K) -> Option<Arc<Pace>> {
        if self.rates == Rates::default() {
            return None;
        }
        let mut known = self.known.lock();
        if known.paces.len() >= known.sweep_at {
            known.paces.retain(|_, pace| pace.strong_count() > 0);
            known.sweep_at = LEAST_SWEEP.max(2 * known.paces.len());
        }
        Some(match known.paces.entry(holder) {
            Entry::Occupied(mut there) => there.get().upgrade().unwrap_or_else(|| {
                let pace = self.pace();
                there.insert(Arc::downgrade(&pace));
                pace
            }),
            Entry::Vacant(free) => {
                let pace = self.pace();
                free.insert(Arc::downgrade(&pace));
                pace
            }
        })
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
        assert_eq!(held.each_ref().map(Share::count), [1, 2]);
        let over = OverLimit { what: "watches_per_address", limit: 2, actual: 3 };
        assert_eq!(shares.take(&ann).unwrap_err(), over);
        let other = shares.take(&bob).unwrap();
        drop(held);
        assert!(shares.take(&ann).is_ok());
        drop(other);
        assert!(shares.held.lock().is_empty());
    }

    #[test]
    fn an_address_is_one_machine() {
        let one = |text: &str| holder(text.parse().unwrap());
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:192.0.2.1"), one("192.0.2.1"));
        assert_ne!(one("192.0.2.1"), one("192.0.2.2"));
    }

    const NAMES: [&str; 2] = ["events_per_principal", "bytes_per_principal"];

    fn takes(pace: &Pace, events: usize, bytes: usize) -> Result<(), TooFast> {
        charge([None, Some(pace)], events, bytes)
    }

    fn paces(events: u32, bytes: u32) -> Paces<&'static str> {
        let rate = NonZeroU32::new;
        Paces::new(Rates { events: rate(events), bytes: rate(bytes) }, NAMES)
    }

    #[test]
    fn a_second_has_so_much_and_no_more() {
        let paces = paces(10, 1_000);
        let ann = paces.of("ann").unwrap();
        assert!(takes(&ann, 10, 100).is_ok());
        let over = takes(&ann, 1, 1).unwrap_err();
        assert_eq!((over.what, over.limit, over.actual), ("events_per_principal", 10, 1));
        assert!(over.wait.is_some_and(|wait| wait <= Duration::from_millis(100)));
        // Another's are another's, and the same one's are the same.
        assert!(takes(&paces.of("bob").unwrap(), 10, 1_000).is_ok());
        assert!(takes(&paces.of("ann").unwrap(), 1, 1).is_err());
        let eve = paces.of("eve").unwrap();
        assert_eq!(takes(&eve, 11, 1).unwrap_err().wait, None);
        let bytes = takes(&eve, 1, 1_001).unwrap_err();
        assert_eq!((bytes.what, bytes.wait), ("bytes_per_principal", None));
        assert!(Paces::new(Rates::default(), NAMES).of("ann").is_none());
    }

    #[test]
    fn what_is_refused_was_not_charged() {
        // One byte too many each time: not one event was spent by it, nor anything of another pace.
        let (paces, others) = (paces(10, 1_000), paces(20, 1_000_000));
        let [ann, address] = [paces.of("ann").unwrap(), others.of("net").unwrap()];
        for _ in 0..1_000 {
            assert_eq!(takes(&ann, 1, 1_001).unwrap_err().what, "bytes_per_principal");
            let both = charge([Some(&*address), Some(&*ann)], 1, 1_001);
            assert_eq!(both.unwrap_err().what, "bytes_per_principal");
        }
        charge([Some(&*address), Some(&*ann)], 10, 1_000).unwrap();
        takes(&address, 10, 1).unwrap();
    }

    #[test]
    fn what_was_taken_is_paid_for_by_time() {
        let limit = Limit(NonZeroU32::new(10).unwrap());
        let (now, s) = (Instant::now(), Duration::from_secs);
        let paid = limit.take(None, 10, now).unwrap();
        assert_eq!(limit.take(Some(paid), 1, now), Err(Some(Duration::from_millis(100))));
        assert_eq!(limit.take(Some(paid), 5, now), Err(Some(Duration::from_millis(500))));
        let half = now + Duration::from_millis(500);
        assert!(limit.take(Some(paid), 5, half).is_ok());
        assert!(limit.take(Some(paid), 6, half).is_err());
        // Nothing is saved up beyond a second's worth.
        assert!(limit.take(Some(paid), 10, now + s(60)).is_ok());
        assert_eq!(limit.take(Some(paid), 11, now + s(60)), Err(None));
        assert!(limit.take(Some(paid), 0, now).is_ok());
    }
}
