//! A daemon's view of the files: what they say is in force soon after they say it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Tokens, TokensError, io_error, parse_keys, read_keys, text_of};
use crate::server::Credentials;

/// How often the files are looked at. All of it is read, as small as it is: that sees every change,
/// whatever the file system says of times, and however the file came there.
const LOOK: Duration = Duration::from_millis(900);

/// The files, and what they are for.
pub struct Files {
    tokens: PathBuf,
    /// Empty = none.
    keys: PathBuf,
    credentials: Credentials,
    /// What was taken last of each, for what is the same need not be taken.
    taken: [Option<String>; 2],
}

impl Files {
    /// Takes what the files say.
    ///
    /// # Errors
    /// When one of them cannot be read. A file of tokens that is not there says that nobody is known.
    pub fn take(
        tokens: PathBuf,
        keys: PathBuf,
        credentials: Credentials,
    ) -> Result<Files, TokensError> {
        let text = text_of(&tokens)?;
        if text.is_none() {
            tracing::warn!(
                file = %tokens.display(),
                "there is no file of tokens yet; `tailmark token create` makes one"
            );
        }
        Tokens::parse(&tokens, text.as_deref().unwrap_or_default())?.set(&credentials);
        credentials.set_keys(read_keys(&keys)?);
        let taken = [Some(text.unwrap_or_default()), None];
        Ok(Files { tokens, keys, credentials, taken })
    }

    /// Follows them for ever.
    pub async fn follow(self) {
        let mut files = self;
        loop {
            tokio::time::sleep(LOOK).await;
            // Off the runtime: they may lie anywhere.
            let look = tokio::task::spawn_blocking(move || {
                files.look();
                files
            });
            match look.await {
                Ok(back) => files = back,
                // The runtime ends.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    fn look(&mut self) {
        // Each by itself: a file that cannot be taken must not keep the keys of issuers in force.
        let outcomes = [self.look_at_tokens(), self.look_at_keys()];
        let troubles: Vec<_> = outcomes
            .into_iter()
            .filter_map(|outcome| outcome.err().map(|error| told(&error)))
            .collect();
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        if trouble != self.credentials.trouble() {
            match &trouble {
                Some(why) => tracing::error!(
                    why,
                    "the file cannot be taken; what was in force stays in force"
                ),
                None => tracing::info!("the files of tokens and keys are fine again"),
            }
            self.credentials.set_trouble(trouble);
        }
    }

    fn look_at_tokens(&mut self) -> Result<(), TokensError> {
        // One that is gone is no wish that nobody be known: it may be on its way.
        let absent = || io_error("read", &self.tokens, std::io::ErrorKind::NotFound.into());
        let is_first = self.taken[0].as_deref() == Some("");
        let text = match text_of(&self.tokens)? {
            None if is_first => return Ok(()),
            text => text.ok_or_else(absent)?,
        };
        if self.taken[0].as_ref() != Some(&text) {
            let tokens = Tokens::parse(&self.tokens, &text)?;
            let (count, certificates) = (tokens.tokens.len(), tokens.certificates.len());
            tokens.set(&self.credentials);
            tracing::info!(tokens = count, certificates, "took the file of tokens");
            self.taken[0] = Some(text);
        }
        Ok(())
    }

    fn look_at_keys(&mut self) -> Result<(), TokensError> {
        if self.keys.as_os_str().is_empty() {
            return Ok(());
        }
        let absent = || io_error("read", &self.keys, std::io::ErrorKind::NotFound.into());
        let text = text_of(&self.keys)?.ok_or_else(absent)?;
        if self.taken[1].as_ref() != Some(&text) {
            self.credentials.set_keys(parse_keys(&self.keys, &text)?);
            self.taken[1] = Some(text);
        }
        Ok(())
    }
}

fn told(error: &TokensError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
