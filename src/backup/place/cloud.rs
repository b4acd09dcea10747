//! The store of a cloud: S3 and what speaks like it, Google's, Azure's.
//!
//! An object is there whole or not at all, and what the store took it keeps: nothing of it is read again
//! before it counts. There are no locks and no renaming; two that write at once never write over what
//! differs.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_core::Stream;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig, WriteMultipart,
};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;

use super::{Listed, Making, Place, UNKNOWN_SCHEME, failed};
use crate::backup::Error;
use tailmark_log::storage::StoreError;

/// How long one request is tried, while the store does not answer or says that it cannot just now.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// What is longer goes in parts of this length, of which so many are under way.
const PART_BYTES: usize = 8 << 20;
const PARTS: usize = 2;
/// For telling the store that an upload is given up.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A folder of a bucket.
#[derive(Debug)]
pub(super) struct Cloud {
    inner: Arc<Inner>,
    prefix: Key,
    url: PathBuf,
}

#[derive(Debug)]
struct Inner {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl Cloud {
    /// What a URL names. Who asks, and where, is read from the environment.
    pub(super) fn at(url: &Path) -> Result<Cloud, Error> {
        let text = url.to_string_lossy();
        let wrong = |what: String| Error::Address { path: url.to_owned(), what };
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let folder = rest.split_once('/').map_or("", |(_, folder)| folder);
        let prefix = Key::parse(folder.trim_matches('/')).map_err(|error| wrong(told(&error)))?;
        // What speaks TLS for the store is told by nobody else which library it is to use; a second
        // time there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let backoff = BackoffConfig { max_backoff: LONGEST_PAUSE, ..BackoffConfig::default() };
        // By time alone: ten attempts, as is the default, may be over in two seconds.
        let retry = RetryConfig { retry_timeout: PATIENCE, max_retries: usize::MAX, backoff };
        let bucket = format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
        let built: Result<Box<dyn ObjectStore>, _> = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_url(bucket).with_retry(retry);
                builder.build().map(|store| Box::new(store) as _)
            }
            "gs" => {
                let builder =
                    GoogleCloudStorageBuilder::from_env().with_url(bucket).with_retry(retry);
                builder.build().map(|store| Box::new(store) as _)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(bucket).with_retry(retry);
                builder.build().map(|store| Box::new(store) as _)
            }
            _ => return Err(wrong(UNKNOWN_SCHEME.to_owned())),
        };
        let store = built.map_err(|error| wrong(told(&error)))?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(failed("reach", url))?;
        Ok(Cloud { inner: Arc::new(Inner { store, runtime }), prefix, url: url.to_owned() })
    }

    fn key(&self, name: &str) -> Key {
        name.split('/').fold(self.prefix.clone(), |key, part| key.join(part))
    }

    fn list_all(&self, folder: &str, most: usize) -> Result<Vec<Listed>, StoreError> {
        let shown = self.shown(folder);
        let key = if folder.is_empty() { self.prefix.clone() } else { self.key(folder) };
        let above = self.prefix.parts().count();
        let mut all = Vec::new();
        self.inner.runtime.block_on(async {
            let mut objects = self.inner.store.list(Some(&key));
            while let Some(object) = objects.next().await {
                let object = object.map_err(refused("list", &shown))?;
                let parts = object.location.parts().skip(above);
                let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                let written_at = Some(object.last_modified.into());
                all.push(Listed { name, len: object.size, written_at });
                if all.len() == most {
                    break;
                }
            }
            Ok::<(), StoreError>(())
        })?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

impl Place for Cloud {
    fn shown(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.url.clone() } else { self.url.join(name) }
    }

    fn may_rot(&self) -> bool {
        false
    }

    fn has_locks(&self) -> bool {
        false
    }

    fn is_blank(&self) -> Result<bool, StoreError> {
        Ok(self.list_all("", 1)?.is_empty())
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.list_all(folder, usize::MAX)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let (key, shown) = (self.key(name), self.shown(name));
        let got = self.inner.runtime.block_on(self.inner.store.get(&key));
        let bytes = got.map_err(refused("read", &shown))?.into_stream();
        Ok(Box::new(Object { inner: Arc::clone(&self.inner), bytes, next: Bytes::new() }))
    }

    fn create(&self, name: &str) -> Result<Box<dyn Making>, StoreError> {
        let (key, shown) = (self.key(name), self.shown(name));
        let inner = Arc::clone(&self.inner);
        Ok(Box::new(ObjectMade { inner, key, shown, first: Vec::new(), upload: None }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        use object_store::Error as E;
        let (key, store) = (self.key(name), &self.inner.store);
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.inner.runtime.block_on(async {
            match store.put_opts(&key, payload.clone(), PutMode::Create.into()).await {
                // One that has no such thing, as its owner says: two at once may write over each other.
                Err(E::NotImplemented { .. } | E::NotSupported { .. }) => {
                    match store.head(&key).await {
                        Err(E::NotFound { .. }) => store.put(&key, payload).await.map(|_| true),
                        there => there.map(|_| false),
                    }
                }
                Err(E::AlreadyExists { .. }) => Ok(false),
                put => put.map(|_| true),
            }
        });
        put.map_err(refused("write", &self.shown(name)))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.inner.runtime.block_on(self.inner.store.delete(&self.key(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(refused("remove", &self.shown(name))(error)),
        }
    }
}

/// Wraps what a store answers, for `map_err`.
fn refused(action: &'static str, path: &Path) -> impl Fn(object_store::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { action, path: path.clone(), source: of_store(&error) }
}

fn of_store(error: &object_store::Error) -> io::Error {
    use object_store::Error as E;
    let kind = match error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, told(error))
}

/// All that it says, in one line.
fn told(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

type Stored = Pin<Box<dyn Stream<Item = object_store::Result<Bytes>> + Send>>;

/// An object that is read.
struct Object {
    inner: Arc<Inner>,
    bytes: Stored,
    next: Bytes,
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.next.is_empty() {
            match self.inner.runtime.block_on(self.bytes.next()) {
                Some(Ok(bytes)) => self.next = bytes,
                Some(Err(error)) => return Err(of_store(&error)),
                None => return Ok(0),
            }
        }
        let n = self.next.len().min(buffer.len());
        self.next.copy_to_slice(buffer.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// An object that is written.
struct ObjectMade {
    inner: Arc<Inner>,
    key: Key,
    shown: PathBuf,
    /// What may be all of it.
    first: Vec<u8>,
    /// In parts, if it is longer.
    upload: Option<WriteMultipart>,
}

impl Write for ObjectMade {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.upload.is_none() && self.first.len() + bytes.len() <= PART_BYTES {
            self.first.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let Inner { store, runtime } = &*self.inner;
        let ObjectMade { key, upload, first, .. } = self;
        let written = runtime.block_on(async {
            let upload = match upload {
                Some(upload) => upload,
                none => {
                    let begun = store.put_multipart(key).await?;
                    let upload =
                        none.insert(WriteMultipart::new_with_chunk_size(begun, PART_BYTES));
                    upload.write(&std::mem::take(first));
                    upload
                }
            };
            upload.wait_for_capacity(PARTS).await?;
            upload.write(bytes);
            Ok(())
        });
        written.map_err(|error: object_store::Error| of_store(&error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Making for ObjectMade {
    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let Inner { store, runtime } = &*self.inner;
        let put = match self.upload.take() {
            Some(upload) => runtime.block_on(upload.finish()),
            None => {
                let payload = PutPayload::from(std::mem::take(&mut self.first));
                runtime.block_on(store.put(&self.key, payload))
            }
        };
        put.map(drop).map_err(refused("write", &self.shown))
    }
}

impl Drop for ObjectMade {
    fn drop(&mut self) {
        // Its parts would lie there, and be paid for.
        if let Some(upload) = self.upload.take() {
            let given_up = async { tokio::time::timeout(LAST_WORDS, upload.abort()).await };
            let _ = self.inner.runtime.block_on(given_up);
        }
    }
}
