//! A warehouse in an S3 bucket, or in one of the many stores that speak S3.
//!
//! `object_store` does the work: requests with time-outs, tried again with growing pauses and jitter; uploads in parts of one size (some
//! stores refuse unequal ones); listing; deleting a thousand objects in a request. Iceberg's storage interface is put over it here, so that
//! metadata, manifests and data files take one way. `iceberg-storage-opendal` was not taken: it uploads a row group as one part within ten
//! seconds, whatever its size, and does not list.
//!
//! An object appears when its upload is complete, and stays: nothing corresponds to a folder's or a file's `fsync`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::{FileMetadata, FileRead, FileWrite, InputFile, OutputFile, StorageConfig, StorageFactory};
use iceberg::{Error, ErrorKind, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::AsyncWriteExt;

use super::files::Found;
use crate::error::SinkError;

/// How long a request may take: the upload of a part of 10 MB over a slow line does within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request is tried again before the commit fails, which is tried again as a whole.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// How often at most within that time.
const RETRIES: usize = 10;
/// Bytes of a part of an upload. Smaller files are put in one request.
const PART_BYTES: usize = 10 << 20;
/// Parts of a file that are uploaded at a time.
const PARTS_AT_ONCE: usize = 4;

/// A bucket, and how to reach it. Cheap to clone.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Bucket {
    name: String,
    /// Absent only in one that was read from a text, which nobody does.
    #[serde(skip)]
    store: Option<Arc<AmazonS3>>,
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}", self.name)
    }
}

/// Without what it is opened with.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Bucket {
    /// The bucket called `name`. Where it is and who asks is said by the environment, as for Amazon's own tools (`AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_ACCESS_KEY_ID`, …), or by the machine's role.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub(crate) fn new(name: &str) -> std::result::Result<Bucket, SinkError> {
        let builder = AmazonS3Builder::from_env().with_bucket_name(name);
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
        let plain = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .iter()
            .find_map(|name| std::env::var(name).ok())
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let built = builder.with_client_options(client.with_allow_http(plain)).with_retry(retry).build();
        let store = built.map_err(|source| SinkError::Option(format!("s3://{name} cannot be used: {source}")))?;
        Ok(Bucket { name: name.to_owned(), store: Some(Arc::new(store)) })
    }

    fn store(&self) -> Result<&Arc<AmazonS3>> {
        self.store.as_ref().ok_or_else(|| Error::new(ErrorKind::Unexpected, "a bucket that was not opened"))
    }

    /// The key of a location within the bucket.
    fn key(&self, location: &str) -> Result<Path> {
        let wrong = |why: String| Error::new(ErrorKind::DataInvalid, format!("{location} {why}"));
        let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
        let key = rest.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let key = key.ok_or_else(|| wrong(format!("is not in the bucket {}", self.name)))?;
        Path::parse(key).map_err(|e| wrong(format!("is not a key: {e}")))
    }

    /// All objects below a location, with the time at which they were written.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn list(&self, location: &str) -> Result<Vec<Found>> {
        let (store, prefix) = (self.store()?, self.key(location)?);
        let found = store.list(Some(&prefix)).map_ok(|object| Found {
            location: format!("s3://{}/{}", self.name, object.location),
            bytes: object.size,
            changed: SystemTime::from(object.last_modified),
        });
        found.try_collect().await.map_err(failed("list", location))
    }

    /// The names directly below a location that have something below themselves.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn folders(&self, location: &str) -> Result<Vec<String>> {
        let (store, prefix) = (self.store()?, self.key(location)?);
        let listed = store.list_with_delimiter(Some(&prefix)).await.map_err(failed("list", location))?;
        Ok(listed.common_prefixes.iter().map(|prefix| format!("s3://{}/{prefix}", self.name)).collect())
    }

    /// Whether there is nothing below a location.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn is_empty(&self, location: &str) -> Result<bool> {
        let (store, prefix) = (self.store()?, self.key(location)?);
        let first = store.list(Some(&prefix)).next().await;
        first.transpose().map(|first| first.is_none()).map_err(failed("list", location))
    }

    /// Deletes objects; one that is not there is no error. Answers what could not be, with the reason.
    pub(crate) async fn remove(&self, locations: Vec<String>) -> Vec<(String, Error)> {
        let mut failures = Vec::new();
        let mut keys = Vec::with_capacity(locations.len());
        for location in locations {
            match self.key(&location) {
                Ok(key) => keys.push(key),
                Err(error) => failures.push((location, error)),
            }
        }
        match self.store() {
            Ok(store) => {
                let mut results = store.delete_stream(futures::stream::iter(keys.into_iter().map(Ok)).boxed());
                while let Some(result) = results.next().await {
                    match result {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        // of one object or of a whole request: the store says which
                        Err(error) => failures.push((self.to_string(), failed("delete objects of", &self.to_string())(error))),
                    }
                }
            }
            Err(error) => failures.push((self.to_string(), error)),
        }
        failures
    }
}

/// Turns what the store says into Iceberg's error.
fn failed(what: &'static str, location: &str) -> impl Fn(object_store::Error) -> Error {
    let location = location.to_owned();
    move |source| {
        let kind = match source {
            object_store::Error::NotFound { .. } => ErrorKind::DataInvalid,
            _ => ErrorKind::Unexpected,
        };
        Error::new(kind, format!("cannot {what} {location}")).with_source(source)
    }
}

#[async_trait]
#[typetag::serde]
impl iceberg::io::Storage for Bucket {
    async fn exists(&self, path: &str) -> Result<bool> {
        match self.store()?.head(&self.key(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("find", path)(error)),
        }
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let object = self.store()?.head(&self.key(path)?).await.map_err(failed("find", path))?;
        Ok(FileMetadata { size: object.size })
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let found = self.store()?.get(&self.key(path)?).await.map_err(failed("read", path))?;
        found.bytes().await.map_err(failed("read", path))
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        Ok(Box::new(ObjectReader { store: Arc::clone(self.store()?), key: self.key(path)? }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let mut writer = self.writer(path).await?;
        writer.write(bytes).await?;
        writer.close().await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let store: Arc<dyn ObjectStore> = Arc::clone(self.store()?) as _;
        let writer = BufWriter::with_capacity(store, self.key(path)?, PART_BYTES).with_max_concurrency(PARTS_AT_ONCE);
        Ok(Box::new(ObjectWriter { writer, location: path.to_owned() }))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        match self.store()?.delete(&self.key(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", path)(error)),
        }
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        let found = self.list(path).await?.into_iter().map(|found| found.location).collect();
        self.remove(found).await.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    async fn delete_stream(&self, paths: BoxStream<'static, String>) -> Result<()> {
        let paths = paths.collect().await;
        self.remove(paths).await.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

#[typetag::serde]
impl StorageFactory for Bucket {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn iceberg::io::Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

/// Reads parts of an object.
struct ObjectReader {
    store: Arc<AmazonS3>,
    key: Path,
}

#[async_trait]
impl FileRead for ObjectReader {
    async fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.key, range).await.map_err(failed("read", self.key.as_ref()))
    }
}

/// Uploads an object.
struct ObjectWriter {
    writer: BufWriter,
    location: String,
}

#[async_trait]
impl FileWrite for ObjectWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.writer.put(bytes).await.map_err(failed("write", &self.location))
    }

    async fn close(&mut self) -> Result<()> {
        let closed = self.writer.shutdown().await;
        closed.map_err(|e| Error::new(ErrorKind::Unexpected, format!("cannot write {}", self.location)).with_source(e))
    }
}
