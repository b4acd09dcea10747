//! Who makes a call. Handlers ask here whether they may answer it; nowhere else is decided what rights
//! mean.

use std::sync::Arc;

use super::Session;
use crate::server::quotas::Peer;
use crate::server::report;
use crate::server::rpc::status::{self, Failure};
use crate::server::shares::{self, Pace};
use tailmark_record::topic::Filter;
use tailmark_record::{Event, room};

/// Who makes a call; travels as a request extension where somebody must be named.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Somebody with a credential in force. Without one nobody is asked who they are, and everybody may
    /// do everything.
    session: Option<Arc<Session>>,
    /// What the address that the call comes from has stored lately, where that is limited.
    pace: Option<Arc<Pace>>,
}

impl Caller {
    /// Whoever it is.
    pub(crate) fn anyone() -> Caller {
        Caller { session: None, pace: None }
    }

    /// Somebody with a credential in force.
    pub(crate) fn of(session: Arc<Session>) -> Caller {
        Caller { session: Some(session), pace: None }
    }

    /// The same, over this connection.
    pub(crate) fn from(self, peer: Option<&Peer>) -> Caller {
        Caller { pace: peer.and_then(Peer::pace).cloned(), ..self }
    }

    /// Whose credential it is, where there is one.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// What its streams end with, besides their own ends.
    pub(crate) fn into_session(self) -> Option<Arc<Session>> {
        self.session
    }

    /// The name of the principal, where there is one.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.session().map(|session| session.name())
    }

    /// Whether an event of this topic may be stored.
    pub(crate) fn may_publish(&self, topic: &str) -> Result<(), Failure> {
        match self.session() {
            Some(session) if !session.rights().may_publish(topic) => {
                Err(self.lacks("publish", &session.rights().publish()))
            }
            _ => Ok(()),
        }
    }

    /// Whether all that a filter selects may be seen.
    pub(crate) fn may_watch(&self, filter: &Filter) -> Result<(), Failure> {
        match self.session() {
            Some(session) if !session.rights().may_watch(filter) => {
                let failure = self.lacks("watch", &session.rights().watch());
                // Whoever names no pattern asks for everything, and may not know that.
                Err(if filter.is_all() { failure.hint_patterns() } else { failure })
            }
            _ => Ok(()),
        }
    }

    /// Whether the events of this topic, where they end and whether there are any, may be known.
    pub(crate) fn may_watch_topic(&self, topic: &str) -> Result<(), Failure> {
        match self.session() {
            Some(session) if !session.rights().may_see(topic) => {
                Err(self.lacks("watch", &session.rights().watch()))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything may be stored at all; what may be is for [`Caller::admit`].
    pub(crate) fn may_publish_something(&self) -> Result<(), Failure> {
        match self.session() {
            Some(session) if !session.rights().publishes_something() => {
                Err(self.lacks("publish", &[]))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything may be seen at all; what may be is for [`Caller::may_see`].
    pub(crate) fn may_watch_something(&self) -> Result<(), Failure> {
        match self.session() {
            Some(session) if !session.rights().watches_something() => Err(self.lacks("watch", &[])),
            _ => Ok(()),
        }
    }

    /// Whether events of this topic may be seen.
    pub(crate) fn may_see(&self, topic: &str) -> bool {
        self.session().is_none_or(|session| session.rights().may_see(topic))
    }

    /// What may be seen, where that is not everything.
    pub(crate) fn sees_part(&self) -> Option<&Filter> {
        let session = self.session().filter(|session| !session.rights().watches_all())?;
        session.rights().watch_filter()
    }

    /// Whether everything may be seen.
    pub(crate) fn sees_all(&self) -> bool {
        self.session().is_none_or(|session| session.rights().watches_all())
    }

    /// Whether what concerns the log as a whole may be known and changed.
    pub(crate) fn is_admin(&self) -> bool {
        self.session().is_none_or(|session| session.rights().is_admin())
    }

    /// The same as a question; the answer leaves a trace, as `act`.
    pub(crate) fn admin(&self, act: &'static str) -> Result<(), Failure> {
        let Some(session) = self.session() else { return Ok(()) };
        if !session.rights().is_admin() {
            return Err(self.lacks("admin", &[]));
        }
        report::acted(session.name(), act);
        Ok(())
    }

    fn lacks(&self, right: &'static str, granted: &[&str]) -> Failure {
        if let Some(name) = self.name() {
            report::refused(name, right);
        }
        status::right_missing(right, granted)
    }

    /// By which name somebody speaks who calls themselves `claimed`.
    pub(crate) fn speaks_as<'a>(&'a self, claimed: &'a str) -> &'a str {
        self.name().map_or(claimed, |name| name)
    }

    /// By which name somebody listens; unnamed they stay unnamed.
    pub(crate) fn listens_as<'a>(&'a self, claimed: &'a str) -> &'a str {
        if claimed.is_empty() { claimed } else { self.speaks_as(claimed) }
    }

    /// An event as it may be stored: in a room nobody speaks by another's name.
    pub(crate) fn admit<'a>(&'a self, mut event: Event<'a>) -> Result<Event<'a>, Failure> {
        self.may_publish(event.topic)?;
        if let Some(name) = self.name()
            && room::is_topic(event.topic)
        {
            let from = event.headers.iter_mut().filter(|(header, _)| *header == room::FROM);
            if from.map(|(_, value)| *value = name).count() == 0 {
                event.headers.push((room::FROM, name));
            }
        }
        Ok(event)
    }

    /// Whether so much may be stored now: events, and bytes of them. A batch that is stored as a whole is
    /// asked for as a whole.
    pub(crate) fn may_store(&self, events: usize, bytes: usize) -> Result<(), Failure> {
        let of_principal = self.session().and_then(|session| session.pace());
        match [self.pace.as_deref(), of_principal] {
            [None, None] => Ok(()),
            paces => shares::charge(paces, events, bytes).map_err(status::too_fast),
        }
    }

    /// A producer's id as the log knows it: each principal has ids of its own, so that nobody can take
    /// over another's, or learn where it is.
    pub(crate) fn producer_id(&self, id: &str) -> String {
        match self.name() {
            // No name has this in it.
            Some(name) => format!("{name}\u{1f}{id}"),
            None => id.to_owned(),
        }
    }
}
