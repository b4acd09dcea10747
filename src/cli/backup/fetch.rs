//! `tailmark backup --addr`: the log of a running daemon, over the network.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tailmark_client::{Backoff, Client};
use tokio::runtime::Runtime;

use super::super::address::Address;
use super::super::log::Interrupt;
use super::super::online::Identity;
use super::super::output::say;
use super::super::{Exit, Failure};
use super::NAP;
use crate::backup::{self, Filling, Progress, Reading, Taken};

/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 10;

/// Why an attempt ended.
enum Broken {
    Server(tailmark_client::Error),
    Here(backup::Error),
    Interrupted,
}

impl From<backup::Error> for Broken {
    fn from(error: backup::Error) -> Broken {
        Broken::Here(error)
    }
}

impl From<tailmark_client::Error> for Broken {
    fn from(error: tailmark_client::Error) -> Broken {
        Broken::Server(error)
    }
}

pub(super) fn take(
    address: &Address,
    identity: &Identity,
    to: &Path,
    watch: &mut dyn FnMut(Progress) -> io::Result<()>,
    interrupt: &Interrupt,
) -> Result<Taken, Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build()?;
    let client = {
        let _within = runtime.enter();
        identity.client(address)?
    };
    let mut filling = Filling::new(to, watch);
    let (mut backoff, mut in_vain, mut has_met) = (Backoff::default(), 0, false);
    let mut began_anew = false;
    loop {
        let before = filling.progress().done_bytes;
        let broken = match attempt(&runtime, &client, &mut filling, interrupt) {
            Ok(()) => break,
            Err(broken) => broken,
        };
        if filling.progress().done_bytes > before {
            (in_vain, has_met) = (0, true);
            backoff.reset();
        }
        in_vain += 1;
        match broken {
            Broken::Interrupted => {
                return Err(interrupt.failure(Failure::new(Exit::Interrupted, "interrupted")));
            }
            Broken::Server(cause) if has_met && cause.is_retryable() && in_vain < ATTEMPTS => {
                let wait = backoff.next_after(&cause);
                say(&format!("{cause}; going on in {:.1} s", wait.as_secs_f32()));
                sleep(wait, interrupt)?;
            }
            Broken::Server(cause) => {
                return Err(interrupt.failure(Failure::from(cause).of_server(address)));
            }
            // Of what was said to be there something went with what is not part of the log any more.
            Broken::Here(backup::Error::Senseless { .. }) if !began_anew => began_anew = true,
            Broken::Here(error) => return Err(interrupt.failure(error)),
        }
    }
    let nothing = || Failure::new(Exit::Failure, "the backup has no end");
    filling.taken().ok_or_else(nothing)
}

/// One stream, to its end.
fn attempt(
    runtime: &Runtime,
    client: &Client,
    filling: &mut Filling<'_>,
    interrupt: &Interrupt,
) -> Result<(), Broken> {
    let request = filling.request()?;
    let mut parts = runtime.block_on(unless(interrupt, client.backup(request)))??;
    let mut reading = Reading::default();
    while let Some(part) = runtime.block_on(unless(interrupt, parts.next()))?? {
        reading.take(part, filling)?;
    }
    match reading.is_over() {
        true => Ok(()),
        false => Err(backup::Error::Senseless { what: "it has no end" }.into()),
    }
}

/// What comes, unless a signal does.
async fn unless<T>(interrupt: &Interrupt, coming: impl Future<Output = T>) -> Result<T, Broken> {
    tokio::select! {
        come = coming => Ok(come),
        () = interrupt.wait() => Err(Broken::Interrupted),
    }
}

fn sleep(wait: Duration, interrupt: &Interrupt) -> Result<(), Failure> {
    let begun = Instant::now();
    while let Some(left) = wait.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(NAP));
        interrupt.check().map_err(|error| interrupt.failure(error))?;
    }
    Ok(())
}
