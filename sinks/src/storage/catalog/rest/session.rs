//! Talking to a REST catalog: its configuration, tokens, time-outs, asking again.
//!
//! A question that changes nothing is asked again for a while, with growing pauses and jitter. A commit is not: whether it was made is found
//! out by looking.

use std::collections::HashMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use iceberg::spec::TableMetadata;
use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::commit::CommitRequest;
use super::credentials;
use super::fault::RestFault;
use crate::storage::TableName;

/// How long an answer is waited for.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may take to come about.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How often a question is asked again.
const RETRIES: usize = 5;
/// What a server says that can commit several tables at once.
const TOGETHER: &str = "POST /v1/{prefix}/transactions/commit";

/// A server, and what it said about itself.
pub(super) struct Session {
    client: Client,
    /// Without a slash at its end.
    base: String,
    warehouse: Option<String>,
    prefix: Option<String>,
    /// Whether it commits several tables at once, or none.
    pub(super) together: bool,
    token: Mutex<Option<String>>,
}

/// A table, as the catalog has it.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Loaded {
    #[serde(rename = "metadata-location")]
    pub(super) location: String,
    pub(super) metadata: TableMetadata,
}

#[derive(serde::Deserialize)]
struct Config {
    #[serde(default)]
    defaults: HashMap<String, String>,
    #[serde(default)]
    overrides: HashMap<String, String>,
    #[serde(default)]
    endpoints: Vec<String>,
}

impl Session {
    /// Asks a server what it is like.
    pub(super) async fn open(url: &Url) -> Result<Session, RestFault> {
        let client = Client::builder()
            .timeout(ANSWER_WITHIN)
            .connect_timeout(CONNECT_WITHIN)
            .user_agent(concat!("livelake/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RestFault::unanswered(&error, ANSWER_WITHIN))?;
        let warehouse = url.query_pairs().find(|(key, _)| key == "warehouse").map(|(_, value)| value.into_owned());
        let mut base = url.clone();
        base.set_query(None);
        let base = base.as_str().trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut session = Session { client, base, warehouse, prefix: None, together: false, token: Mutex::default() };
        let token = credentials::token(&session.client, &session.base).await?;
        *session.token.lock().await = token;
        let query = session.warehouse.iter().map(|name| ("warehouse", name.clone())).collect::<Vec<_>>();
        let config: Option<Config> = session.get(&["v1", "config"], &query).await.map_err(|fault| match fault.status {
            // whoever answers does not know the question
            Some(400 | 405) => RestFault { status: Some(404), ..fault },
            _ => fault,
        })?;
        let config = config.ok_or_else(|| RestFault::answered(404, ""))?;
        session.prefix = config.overrides.get("prefix").or(config.defaults.get("prefix")).cloned();
        session.together = config.endpoints.iter().any(|endpoint| endpoint == TOGETHER);
        Ok(session)
    }

    /// The address of a part of the protocol.
    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, RestFault> {
        let mut url = Url::parse(&self.base).map_err(|e| RestFault::unreadable(format!("{}: {e}", self.base)))?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty();
            parts.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// As [`Session::url`], below the server's prefix.
    fn path<'a>(&'a self, path: &[&'a str]) -> Vec<&'a str> {
        let prefix = self.prefix.iter().flat_map(|prefix| prefix.split('/')).filter(|part| !part.is_empty());
        std::iter::once("v1").chain(prefix).chain(path.iter().copied()).collect()
    }

    /// One request. A token that is no longer good is replaced, once.
    async fn ask(&self, method: &Method, url: Url, body: Option<&Value>) -> Result<String, RestFault> {
        let unanswered = |error: reqwest::Error| RestFault::unanswered(&error, ANSWER_WITHIN);
        let mut is_renewed = false;
        loop {
            let shown = self.token.lock().await.clone();
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some(token) = &shown {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = request.send().await.map_err(unanswered)?;
            let (status, text) = (answer.status(), answer.text().await.map_err(unanswered)?);
            if status.is_success() {
                return Ok(text);
            }
            if !matches!(status.as_u16(), 401 | 419) || shown.is_none() || is_renewed {
                return Err(RestFault::answered(status.as_u16(), &text));
            }
            is_renewed = true;
            *self.token.lock().await = credentials::token(&self.client, &self.base).await?;
        }
    }

    /// A question that changes nothing; `None`: there is no such thing.
    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<Option<T>, RestFault> {
        let url = self.url(path, query)?;
        let asked = (|| self.ask(&Method::GET, url.clone(), None))
            .retry(ExponentialBuilder::default().with_min_delay(Duration::from_millis(50)).with_max_times(RETRIES).with_jitter())
            .when(RestFault::is_passing)
            .await;
        match asked {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(RestFault::unreadable),
            Err(fault) if fault.status == Some(404) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A table; `None` if there is none of the name.
    pub(super) async fn table(&self, table: &TableName) -> Result<Option<Loaded>, RestFault> {
        self.get(&self.path(&["namespaces", &table.namespace, "tables", &table.name]), &[]).await
    }

    /// Makes a namespace, if there is none of the name.
    pub(super) async fn make_namespace(&self, name: &str) -> Result<(), RestFault> {
        let path = self.path(&["namespaces"]);
        let body = json!({ "namespace": [name], "properties": {} });
        match self.ask(&Method::POST, self.url(&path, &[])?, Some(&body)).await {
            Err(fault) if fault.status != Some(409) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Commits one table.
    pub(super) async fn commit(&self, request: &CommitRequest) -> Result<Loaded, RestFault> {
        let table = request.table();
        let path = self.path(&["namespaces", &table.namespace, "tables", &table.name]);
        let body = serde_json::to_value(request).map_err(RestFault::unreadable)?;
        let text = self.ask(&Method::POST, self.url(&path, &[])?, Some(&body)).await?;
        serde_json::from_str(&text).map_err(RestFault::unreadable)
    }

    /// Commits several tables at once.
    pub(super) async fn commit_together(&self, requests: &[CommitRequest]) -> Result<(), RestFault> {
        let path = self.path(&["transactions", "commit"]);
        let body = json!({ "table-changes": requests });
        self.ask(&Method::POST, self.url(&path, &[])?, Some(&body)).await.map(drop)
    }

    /// Takes a table out of the catalog; its files stay. One that is not there is passed over.
    pub(super) async fn remove(&self, table: &TableName) -> Result<(), RestFault> {
        let path = self.path(&["namespaces", &table.namespace, "tables", &table.name]);
        let url = self.url(&path, &[("purgeRequested", "false".into())])?;
        match self.ask(&Method::DELETE, url, None).await {
            Err(fault) if fault.status != Some(404) => Err(fault),
            _ => Ok(()),
        }
    }
}
