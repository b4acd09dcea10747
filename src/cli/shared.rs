//! A daemon's part in a journal that several of them share, where the settings say so and the program can.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::layer_options::{log_options, storage_options};
use super::{Exit, Failure};
use crate::cluster::{self, Cluster, JoinError, Joined, Login, Options, Secret, Settings};
use crate::config::{Config, Journal};
use tailmark_client::{Pem, Tls};

/// Joins the daemons of the log, and follows the journal up to its end. Blocks; `goes_on` may end it.
pub(super) fn join(
    config: &Config,
    addresses: &[SocketAddr],
    runtime: Handle,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<Joined>, Failure> {
    let options = options(config, addresses)?;
    cluster::join(options, runtime, goes_on).map_err(|error| unjoined(&error))
}

/// What is asked of the others, and told to them, for a server.
pub(super) fn peers(joined: Option<&Joined>) -> Option<Arc<dyn crate::server::Peers>> {
    let cluster: Option<Cluster> = joined.map(|joined| joined.cluster.clone());
    cluster.map(|cluster| Arc::new(cluster) as Arc<dyn crate::server::Peers>)
}

pub(super) fn unjoined(error: &JoinError) -> Failure {
    use tailmark_journal_nats::Error;
    let failure = |exit| Failure::new(exit, "cannot use the journal").because(error);
    match error {
        JoinError::Journal(Error::Setting(_)) => failure(Exit::Usage),
        JoinError::Journal(Error::Connect { .. }) => failure(Exit::Unavailable).hint(
            "check journal.servers and how the daemon logs in there; docs/cluster.md has servers to begin with",
        ),
        JoinError::Journal(Error::Stream { .. }) => failure(Exit::Unavailable)
            .hint("are its servers up, with JetStream, and most of them? `nats stream report` shows it"),
        JoinError::Journal(Error::Unusable { .. }) => failure(Exit::Usage)
            .hint("journal.name may be of something else; a stream that somebody changed is put right by hand"),
        JoinError::Journal(Error::Weaker { .. }) => failure(Exit::Usage).hint(
            "give the servers what it lacks, or say journal.allow_weaker_durability = true: acks then say what is true",
        ),
        JoinError::Deaf(_) => failure(Exit::Unavailable),
        JoinError::Store(_) => failure(Exit::Failure)
            .hint("the data directory of a daemon on a shared journal is a copy of it: an empty one is always right"),
    }
}

/// Where the journal is, and what the daemons know each other by.
pub(super) fn journal(config: &Config) -> Result<(Settings, Secret), Failure> {
    let journal = &config.journal;
    let secret = Secret::read(&journal.key_file).map_err(|error| {
        Failure::new(Exit::Usage, "cannot use journal.key_file")
            .because(&error)
            .hint("`openssl rand -hex 32 > FILE` makes one; all daemons of the log have the same")
    })?;
    let mut servers =
        Settings::new(journal.servers.clone(), &journal.name, secret.fingerprint_key());
    servers.login = login(journal)?;
    servers.authorities = given(&journal.ca_file).map(Path::to_owned);
    servers.certificate =
        given(&journal.cert_file).map(|cert| (cert.to_owned(), journal.cert_key_file.clone()));
    servers.replicas = journal.replicas;
    servers.monitors = journal.monitors.clone();
    servers.allow_weaker = journal.allow_weaker_durability;
    servers.create = journal.create;
    Ok((servers, secret))
}

fn options(config: &Config, addresses: &[SocketAddr]) -> Result<Options, Failure> {
    let (servers, secret) = journal(config)?;
    let journal = &config.journal;
    let mut tls = Tls::default();
    tls.ca = given(&journal.peers_ca_file).map(Pem::file);
    // Others may ask who comes.
    if config.tls.is_on() {
        tls.cert = Some(Pem::file(&config.tls.cert_file));
        tls.key = Some(Pem::file(&config.tls.key_file));
    }
    Ok(Options {
        daemon: config.server.instance_id.clone(),
        address: address(config, addresses)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        journal: servers,
        secret,
        tls,
        log: log_options(config),
        dir: config.storage.data_dir.clone(),
        storage: storage_options(config),
    })
}

fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

fn login(journal: &Journal) -> Result<Login, Failure> {
    let secret = |path: &Path, key: &str| {
        let failed =
            |error| Failure::new(Exit::Usage, format!("cannot read {key}")).because(&error);
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed)
    };
    if let Some(path) = given(&journal.credentials_file) {
        return Ok(Login::Credentials(path.to_owned()));
    }
    if let Some(path) = given(&journal.token_file) {
        return Ok(Login::Token(secret(path, "journal.token_file")?));
    }
    if journal.user.is_empty() {
        return Ok(Login::None);
    }
    let password = secret(&journal.password_file, "journal.password_file")?;
    Ok(Login::User(journal.user.clone(), password))
}

/// Where other daemons reach this one.
fn address(config: &Config, addresses: &[SocketAddr]) -> Result<String, Failure> {
    if !config.journal.advertise.is_empty() {
        return Ok(config.journal.advertise.clone());
    }
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    match addresses.first().filter(|address| !address.ip().is_unspecified()) {
        Some(address) => Ok(format!("{scheme}://{address}")),
        None => Err(Failure::new(Exit::Usage, "journal.advertise is missing")
            .hint("the daemon listens on every address: say under which one the others reach it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_where_it_listens_or_what_it_says() {
        let mut config = Config::default();
        let of = |config: &Config, listens: &str| address(config, &[listens.parse().unwrap()]).ok();
        assert_eq!(of(&config, "127.0.0.1:7").as_deref(), Some("http://127.0.0.1:7"));
        assert_eq!(of(&config, "[::]:7"), None);
        config.journal.advertise = "https://a.example:7".to_owned();
        assert_eq!(of(&config, "[::]:7").as_deref(), Some("https://a.example:7"));
    }
}
