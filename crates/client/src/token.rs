//! Who asks: the token that goes with every call, from wherever there will be a newer one.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tonic::codegen::http::HeaderValue;

type BoxError = Box<dyn StdError + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Larger than any token.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Where a client gets the token that it sends. Asked at each call, and so whenever a watch, a producer
/// or a room connects again: a token that expires or is revoked meanwhile is followed by the next one,
/// and nothing is missed or repeated. Cheap to clone; never shows a token.
///
/// ```
/// use tailmark_client::{Client, Options, TokenProvider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = tailmark::testing::serve().await?;
/// # let address = server.url();
/// let mut options = Options::default();
/// // As who issues tokens wants to be asked; it should keep one as long as it is good.
/// options.token = Some(TokenProvider::new(|| async { Ok("tailmark_example".to_owned()) }));
/// let client = Client::with_options(&address, options)?;
/// client.log().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenProvider(Arc<Source>);

enum Source {
    Fixed(String),
    File(PathBuf),
    Asked(Box<dyn Fn() -> Asked + Send + Sync>),
}

impl TokenProvider {
    /// Asks `token` each time. It should answer at once as long as it has one that is good.
    pub fn new<F>(token: impl Fn() -> F + Send + Sync + 'static) -> TokenProvider
    where
        F: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        TokenProvider(Arc::new(Source::Asked(Box::new(move || Box::pin(token())))))
    }

    /// Always this one. What it is refused for is final.
    pub fn fixed(token: impl Into<String>) -> TokenProvider {
        TokenProvider(Arc::new(Source::Fixed(token.into())))
    }

    /// What stands in a file, which is read each time: whoever renews the token writes it there.
    pub fn file(path: impl AsRef<Path>) -> TokenProvider {
        TokenProvider(Arc::new(Source::File(path.as_ref().to_owned())))
    }

    /// Whether there may be another.
    pub(super) fn renews(&self) -> bool {
        !matches!(*self.0, Source::Fixed(_))
    }

    /// As a request carries it.
    pub(super) async fn header(&self) -> Result<HeaderValue, NoToken> {
        let token = match &*self.0 {
            Source::Fixed(token) => Ok(token.clone()),
            Source::File(path) => read(path.clone()).await,
            Source::Asked(ask) => ask().await,
        };
        let token = token.map_err(NoToken)?;
        let token = token.trim();
        let is_token = !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic());
        let value = Some(format!("Bearer {token}")).filter(|_| is_token);
        let value = value.and_then(|value| HeaderValue::try_from(value).ok());
        let mut value = value.ok_or_else(|| NoToken("what it gave is no token".into()))?;
        // Kept out of what shows headers, and out of HTTP/2's table of them.
        value.set_sensitive(true);
        Ok(value)
    }
}

async fn read(path: PathBuf) -> Result<String, BoxError> {
    // It may lie anywhere.
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(&path);
        let read = file.and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
        read.map(|_| text).map_err(|error| format!("{}: {error}", path.display()))
    });
    Ok(read.await??)
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Source::Fixed(_) => "TokenProvider::fixed",
            Source::File(_) => "TokenProvider::file",
            Source::Asked(_) => "TokenProvider::new",
        })
    }
}

/// There is no token to send.
#[derive(Debug)]
pub(super) struct NoToken(BoxError);

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no token to send: {}", self.0)
    }
}

impl StdError for NoToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_sent_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "tailmark_secret\n").unwrap();
        let asked = || TokenProvider::new(|| async { Ok("tailmark_secret".to_owned()) });
        for (provider, renews) in [
            (TokenProvider::fixed("tailmark_secret"), false),
            (TokenProvider::file(&path), true),
            (asked(), true),
        ] {
            let header = provider.header().await.unwrap();
            assert_eq!(header.as_bytes(), b"Bearer tailmark_secret");
            assert_eq!(provider.renews(), renews);
            let shown = format!("{provider:?} {header:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
        // The next one is in its place the next time.
        std::fs::write(&path, "other").unwrap();
        let provider = TokenProvider::file(&path);
        assert_eq!(provider.header().await.unwrap().as_bytes(), b"Bearer other");
        for bad in ["", " \n", "a b", "a\u{7}", "é"] {
            std::fs::write(&path, bad).unwrap();
            assert!(provider.header().await.is_err(), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = provider.header().await.unwrap_err().to_string();
        assert!(error.contains("token: ") && error.contains("No such file"), "{error}");
    }
}
