//! Whether every replica of the stream holds the same bytes. JetStream does not look: a replica whose peers were put
//! back to an older state keeps what it had, is told as current, and serves it, now and then or as their leader.

use crate::client::Connected;
use crate::journal::direct;
use crate::{Error, Settings};
use tailmark_log::storage::shared::{FrameChain, Slot};
use tailmark_record::LogId;

/// One server of the stream, asked by itself: whoever is connected to a server that has a replica is answered by that.
pub struct Witness {
    connected: Connected,
    stream: String,
    log: LogId,
    server: String,
}

/// A replica that does not have what the others have.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Its server.
    pub server: String,
    /// Where.
    pub slot: u64,
    /// What it has there.
    pub has: Slot,
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stray { server, slot, .. } = self;
        write!(
            f,
            "{server} holds other bytes than its peers at slot {slot}; empty its store directory, and it fetches them"
        )
    }
}

impl Witness {
    /// Connects to the `nth` server of the settings, and to no other.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn connect(settings: &Settings, nth: usize, log: LogId) -> Result<Witness, Error> {
        let server = settings.servers.get(nth).cloned();
        let servers = server.ok_or_else(|| Error::Setting("no such server".to_owned()))?;
        let settings = Settings { servers: vec![servers], ..settings.clone() };
        let connected = Connected::new(&settings)?;
        let server = connected.server();
        Ok(Witness { connected, stream: settings.stream(), log, server })
    }

    /// The server's name.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What its replica has at a slot; `None` where it does not say, or has nothing there.
    pub fn read(&self, slot: u64) -> Option<Slot> {
        let message = direct(&self.connected, &self.stream, slot).ok()??;
        Some(Slot::of(&message, self.log))
    }

    /// Whether it has these chains at these slots. What it does not say, or has not yet, is no difference.
    pub fn strays(&self, known: impl IntoIterator<Item = (u64, FrameChain)>) -> Vec<Stray> {
        let mut strays = Vec::new();
        for (slot, chain) in known {
            match self.read(slot) {
                None | Some(Slot::Gone) => {}
                Some(Slot::Frame(frame)) if frame.chain() == chain => {}
                Some(has) => strays.push(Stray { server: self.server.clone(), slot, has }),
            }
        }
        strays
    }
}
