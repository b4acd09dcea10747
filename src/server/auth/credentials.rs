//! The credentials in force, and the sessions that they stand for.
//!
//! Invariants: what a credential began ends when the credential goes, changes or expires; one that stays
//! as it is keeps its session, so that reading the same file again disturbs nobody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;

use super::jwt::{KeyId, Keys, Verified};
use super::token::{Certificate, PREFIX, Token, TokenHash};
use crate::server::options::{Jwt, Rates};
use crate::server::permits::OverLimit;
use crate::server::principal::{Ended, Rights, Session};
use crate::server::rpc::status::{self, Failure};
use crate::server::shares::Paces;
use tailmark_record::Timestamp;

/// How often the clock is looked at for what has expired.
const LOOK: Duration = Duration::from_secs(1);
/// Tokens of an issuer that are known at a time. One that is not in use makes room.
const MOST_JWTS: usize = 65_536;

/// Who is known, and by what. Clones are the same.
#[derive(Clone)]
pub struct Credentials(Arc<State>);

/// The key that signed a token, and what the token stands for.
type Issued = (KeyId, Arc<Session>);

/// The session of a name, and that of one certificate of it, which ends with both.
struct Shown {
    name: Arc<Session>,
    certificate: Arc<Session>,
}

struct State {
    known: RwLock<Known>,
    keys: RwLock<Arc<Keys>>,
    /// Tokens of issuers that were found good, by hash.
    jwts: Mutex<HashMap<[u8; 32], Issued>>,
    /// Certificates that were shown, by name and end. Taken under no other lock.
    shown: Mutex<HashMap<(String, Timestamp), Shown>>,
    rules: Jwt,
    paces: Paces<String>,
    trouble: Mutex<Option<String>>,
    is_in_trouble: Arc<AtomicBool>,
}

/// What a file of tokens says.
#[derive(Default)]
struct Known {
    /// By a part of the hash, so that what is compared as a whole is compared in constant time.
    tokens: HashMap<[u8; 8], Vec<(Token, Arc<Session>)>>,
    certificates: HashMap<String, (Certificate, Arc<Session>)>,
}

impl Known {
    fn token(&self, hash: &TokenHash) -> Option<&(Token, Arc<Session>)> {
        self.tokens.get(&part(hash))?.iter().find(|(token, _)| token.hash == *hash)
    }

    fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        let tokens = self.tokens.values().flatten().map(|(_, session)| session);
        tokens.chain(self.certificates.values().map(|(_, session)| session))
    }
}

fn part(hash: &TokenHash) -> [u8; 8] {
    let mut part = [0; 8];
    part.copy_from_slice(&hash.bytes()[..8]);
    part
}

impl Credentials {
    /// Nobody is known at first.
    pub fn with(rules: Jwt) -> Credentials {
        Credentials::new(rules, Rates::default())
    }

    pub(super) fn new(rules: Jwt, rates: Rates) -> Credentials {
        Credentials(Arc::new(State {
            known: RwLock::default(),
            keys: RwLock::default(),
            jwts: Mutex::default(),
            shown: Mutex::default(),
            rules,
            paces: Paces::new(rates, ["events_per_principal", "bytes_per_principal"]),
            trouble: Mutex::default(),
            is_in_trouble: Arc::default(),
        }))
    }

    /// Whom a token would be taken for now: the name, what they may and until when; else why it would
    /// not be taken.
    ///
    /// # Errors
    /// Why it would not be taken.
    pub fn check(&self, token: &str) -> Result<(String, Rights, Option<Timestamp>), String> {
        let session = self.of_token(token, Timestamp::now()).map_err(|why| why.to_string())?;
        Ok((session.name().to_string(), session.rights().clone(), session.expires()))
    }

    /// What keeps newer ones from coming into force, in words; `None` if nothing does. For whoever
    /// watches over the server.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.0.is_in_trouble.store(trouble.is_some(), Ordering::Relaxed);
        *self.0.trouble.lock() = trouble;
    }

    /// The same, as it was set last.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    /// Whether there is any, for the figures.
    pub(crate) fn is_in_trouble(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.is_in_trouble)
    }

    /// Puts these into force, and all others out of it.
    pub fn set_known(&self, tokens: Vec<Token>, certificates: Vec<Certificate>) {
        let mut known = self.0.known.write();
        let mut next = Known::default();
        for token in tokens {
            let session = match known.token(&token.hash) {
                Some((old, session)) if *old == token => Arc::clone(session),
                _ => self.session(&token.name, token.rights.clone(), token.expires),
            };
            next.tokens.entry(part(&token.hash)).or_default().push((token, session));
        }
        for certificate in certificates {
            let session = match known.certificates.get(&certificate.name) {
                Some((old, session)) if *old == certificate => Arc::clone(session),
                _ => self.session(&certificate.name, certificate.rights.clone(), None),
            };
            next.certificates.insert(certificate.name.clone(), (certificate, session));
        }
        let old = std::mem::replace(&mut *known, next);
        // Whoever asks meanwhile is answered.
        let known = RwLockWriteGuard::downgrade(known);
        let kept: HashSet<_> = known.sessions().map(Arc::as_ptr).collect();
        let gone: Vec<_> =
            old.sessions().filter(|it| !kept.contains(&Arc::as_ptr(it))).cloned().collect();
        drop(known);
        gone.iter().for_each(|session| session.end(Ended::Revoked));
        self.end_shown(Timestamp::now());
    }

    /// Ends what certificates began that have expired, or whose name has lost its rights.
    fn end_shown(&self, now: Timestamp) {
        self.0.shown.lock().retain(|_, shown| {
            let ended = match shown.certificate.is_expired(now) {
                true => Some(Ended::Expired),
                false => shown.name.over().is_cancelled().then_some(Ended::Revoked),
            };
            ended.map(|why| shown.certificate.end(why)).is_none()
        });
    }

    /// Believes these keys of issuers, and no others.
    pub fn set_keys(&self, keys: Keys) {
        let mut jwts = self.0.jwts.lock();
        jwts.retain(|_, (key, session)| {
            let stays = keys.has(key);
            if !stays {
                session.end(Ended::Revoked);
            }
            stays
        });
        *self.0.keys.write() = Arc::new(keys);
    }

    fn session(&self, name: &str, rights: Rights, expires: Option<Timestamp>) -> Arc<Session> {
        Arc::new(Session::new(name, rights, expires, self.0.paces.of(name.to_owned())))
    }

    /// Ends what has expired.
    fn expire(&self, now: Timestamp) {
        for session in self.0.known.read().sessions().filter(|session| session.is_expired(now)) {
            session.end(Ended::Expired);
        }
        self.end_shown(now);
        self.0.jwts.lock().retain(|_, (_, session)| {
            let is_over = session.is_expired(now);
            if is_over {
                session.end(Ended::Expired);
            }
            !is_over
        });
    }

    /// Does so until the server stops.
    pub(crate) async fn expire_in_time(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            self.expire(Timestamp::now());
        }
    }

    /// Who holds a certificate of this name, which is valid until then: what it begins ends with it.
    pub(super) fn of_certificate(
        &self,
        name: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Arc<Session>, Failure> {
        let found = {
            let known = self.0.known.read();
            known.certificates.get(name).map(|(_, session)| Arc::clone(session))
        };
        let found = found.ok_or_else(|| status::certificate_unknown(name))?;
        let own = in_time(self.session(name, found.rights().clone(), Some(until)), now)?;
        let mut shown = self.0.shown.lock();
        if shown.len() >= MOST_JWTS {
            // Nobody but the table has it.
            shown.retain(|_, shown| Arc::strong_count(&shown.certificate) > 1);
        }
        if shown.len() >= MOST_JWTS {
            let (limit, actual) = (MOST_JWTS, shown.len() + 1);
            return Err(status::too_many(OverLimit { what: "certificates", limit, actual }));
        }
        let key = (name.to_owned(), until);
        match shown.get(&key).filter(|known| Arc::ptr_eq(&known.name, &found)) {
            Some(known) => Ok(Arc::clone(&known.certificate)),
            None => {
                let certificate = Arc::clone(&own);
                if let Some(old) = shown.insert(key, Shown { name: found, certificate }) {
                    // Its name's rights are others by now.
                    old.certificate.end(Ended::Revoked);
                }
                Ok(own)
            }
        }
    }

    /// The session of a token that is good although its session has ended: the clock was ahead for a while.
    fn again(&self, hash: &TokenHash) -> Option<Arc<Session>> {
        let mut known = self.0.known.write();
        let tokens = known.tokens.get_mut(&part(hash))?;
        let (token, session) = tokens.iter_mut().find(|(token, _)| token.hash == *hash)?;
        if session.over().is_cancelled() {
            *session = self.session(&token.name, token.rights.clone(), token.expires);
        }
        Some(Arc::clone(session))
    }

    /// Who sends this token.
    pub(super) fn of_token(&self, token: &str, now: Timestamp) -> Result<Arc<Session>, Failure> {
        let hash = TokenHash::of(token);
        if token.starts_with(PREFIX) {
            let found = {
                let known = self.0.known.read();
                known.token(&hash).map(|(_, session)| Arc::clone(session))
            };
            let session = in_time(found.ok_or_else(status::token_invalid)?, now)?;
            return match session.over().is_cancelled() {
                true => self.again(&hash).ok_or_else(status::token_invalid),
                false => Ok(session),
            };
        }
        if let Some((_, session)) = self.0.jwts.lock().get(hash.bytes()) {
            return in_time(Arc::clone(session), now);
        }
        let keys = Arc::clone(&self.0.keys.read());
        let Verified { name, rights, expires, key } = keys.verify(token, &self.0.rules, now)?;
        let session = in_time(self.session(&name, rights, Some(expires)), now)?;
        let mut jwts = self.0.jwts.lock();
        // They may have been changed while we looked.
        if !self.0.keys.read().has(&key) {
            return Err(status::token_invalid());
        }
        if jwts.len() >= MOST_JWTS {
            // Nobody but the table has it.
            jwts.retain(|_, (_, session)| Arc::strong_count(session) > 1);
        }
        if jwts.len() >= MOST_JWTS {
            let (limit, actual) = (MOST_JWTS, jwts.len() + 1);
            return Err(status::too_many(OverLimit { what: "tokens", limit, actual }));
        }
        let (_, session) = jwts.entry(*hash.bytes()).or_insert((key, session));
        Ok(Arc::clone(session))
    }
}

fn in_time(session: Arc<Session>, now: Timestamp) -> Result<Arc<Session>, Failure> {
    if session.is_expired(now) {
        return Err(status::token_expired());
    }
    Ok(session)
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::new_token;
    use tailmark_record::Limits;
    use tailmark_record::topic::Pattern;
    use tonic_types::StatusExt;

    fn rights(pattern: &str) -> Rights {
        let pattern = Pattern::parse(pattern, &Limits::default()).unwrap();
        Rights::new(vec![pattern.clone()], vec![pattern], false)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn given(name: &str, secret: &str, expires: Option<i64>) -> Token {
        let (name, hash) = (name.to_owned(), TokenHash::of(secret));
        Token { name, hash, rights: rights("a.>"), expires: expires.map(at) }
    }

    fn why(refused: Result<Arc<Session>, Failure>) -> String {
        let status = tonic::Status::from(refused.unwrap_err());
        status.get_details_error_info().unwrap().reason
    }

    #[test]
    fn what_stays_is_not_disturbed_and_what_goes_or_changes_ends() {
        let credentials = Credentials::with(Jwt::default());
        let [stays, goes, changes] = [(); 3].map(|()| new_token().unwrap());
        let tokens = |more: Vec<Token>| [vec![given("stays", &stays, Some(100))], more].concat();
        let before = tokens(vec![given("goes", &goes, None), given("changes", &changes, None)]);
        credentials.set_known(before.clone(), vec![]);
        let session = |token: &str| credentials.of_token(token, at(50)).unwrap();
        let [one, two, three] = [&stays, &goes, &changes].map(|token| session(token));
        assert!(!Arc::ptr_eq(&one, &two));
        credentials.set_known(before, vec![]);
        assert!([&one, &two, &three].iter().all(|session| session.ended().is_none()));

        let mut other = given("changes", &changes, None);
        other.rights = rights("b");
        credentials.set_known(tokens(vec![other]), vec![]);
        assert!(one.ended().is_none() && two.ended().is_some() && three.ended().is_some());
        assert!(session(&changes).rights().may_see("b"));
        assert_eq!(why(credentials.of_token(&goes, at(50))), "TOKEN_INVALID");
        assert_eq!(why(two.ended().map_or(Ok(two), Err)), "TOKEN_REVOKED");

        // Its time is over at that time, and not before.
        assert!(credentials.of_token(&stays, at(99)).is_ok());
        credentials.expire(at(99));
        assert!(one.ended().is_none());
        assert_eq!(why(credentials.of_token(&stays, at(100))), "TOKEN_EXPIRED");
        credentials.expire(at(100));
        assert_eq!(why(one.ended().map_or(Ok(one.clone()), Err)), "TOKEN_EXPIRED");

        // The clock was ahead and is right again: what comes now is served, what it ended stays ended.
        let again = credentials.of_token(&stays, at(60)).unwrap();
        assert!(again.ended().is_none() && one.ended().is_some());
        assert!(Arc::ptr_eq(&again, &credentials.of_token(&stays, at(61)).unwrap()));
    }

    /// It took the square of their number, while nobody was answered.
    #[test]
    fn many_tokens_are_put_into_force_in_time_that_grows_with_their_number() {
        let all: Vec<_> = (0..50_000)
            .map(|at| given(&format!("n{at}"), &format!("tailmark_{at}"), None))
            .collect();
        let credentials = Credentials::with(Jwt::default());
        let begun = std::time::Instant::now();
        credentials.set_known(all.clone(), vec![]);
        let one = credentials.of_token("tailmark_7", at(1)).unwrap();
        credentials.set_known(all.clone(), vec![]);
        assert!(one.ended().is_none());
        credentials.set_known(all[8..].to_vec(), vec![]);
        assert!(one.ended().is_some());
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn what_is_no_token_of_ours_is_nobodys() {
        let credentials = Credentials::with(Jwt::default());
        let secret = new_token().unwrap();
        credentials.set_known(vec![given("a", &secret, None)], vec![]);
        assert!(credentials.of_token(&secret, at(1)).is_ok());
        let hash = TokenHash::of(&secret).to_string();
        for bad in ["", "tailmark_", &secret[..secret.len() - 1], &format!("{secret}A"), &hash, "a"]
        {
            assert_eq!(why(credentials.of_token(bad, at(1))), "TOKEN_INVALID", "{bad}");
        }
        assert_eq!(why(credentials.of_certificate("a", at(9), at(1))), "TOKEN_INVALID");
        let certificate = Certificate { name: "a".to_owned(), rights: rights("x") };
        credentials.set_known(vec![], vec![certificate]);
        let shown = credentials.of_certificate("a", at(9), at(1)).unwrap();
        assert!(shown.rights().may_see("x"));
        let again = credentials.of_certificate("a", at(9), at(2)).unwrap();
        assert!(Arc::ptr_eq(&shown, &again), "the same certificate");
        // What it began ends with it, and what another one of that name began does not.
        let newer = credentials.of_certificate("a", at(20), at(2)).unwrap();
        credentials.expire(at(9));
        assert!(shown.over().is_cancelled() && !newer.over().is_cancelled());
        assert_eq!(why(credentials.of_certificate("a", at(9), at(9))), "TOKEN_EXPIRED");
        assert_eq!(why(credentials.of_token(&secret, at(1))), "TOKEN_INVALID");
    }
}
