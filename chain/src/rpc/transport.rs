//! How requests travel: HTTP with time-outs and a bound on what comes back. Unlike the library's own transport it does not
//! sleep on "too many requests", since another endpoint may answer at once, and keeps URLs out of errors.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use solana_client::client_error::{ClientError, ClientErrorKind, reqwest};
use solana_client::rpc_request::{RpcError, RpcRequest, RpcResponseErrorData};
use solana_client::rpc_response::RpcSimulateTransactionResult;
use solana_client::rpc_sender::{RpcSender, RpcTransportStats};

use thiserror::Error;

use super::retry_after;
use crate::endpoint::RpcUrl;

/// Largest answer that is read: an account of 10 MiB in base64, with room to spare.
const ANSWER_LEN_MAX: usize = 32 * 1024 * 1024;
/// JSON-RPC code of a refused simulation before sending.
const PREFLIGHT_FAILURE: i64 = -32_002;

/// Chooses the TLS back end of this process, unless somebody has chosen one: without a choice the first wss:// connection
/// would panic, since dependencies compile in more than one.
pub(crate) fn choose_tls() {
    // An error means that one is chosen already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}

type Sent<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send + 'a>>;

/// One endpoint's connection pool.
pub(crate) struct HttpTransport {
    client: reqwest::Client,
    url: RpcUrl,
    next_id: AtomicU64,
}

impl HttpTransport {
    pub(crate) fn new(url: RpcUrl, connect_timeout: Duration, request_timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .timeout(request_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("psyche-solana-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(reqwest::Error::without_url)?;
        Ok(Self { client, url, next_id: AtomicU64::new(0) })
    }

    async fn exchange(&self, request: RpcRequest, params: Value) -> Result<Value, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": request.to_string(), "params": params});
        let sent = self.client.post(self.url.expose()).header("content-type", "application/json").body(body.to_string());
        let mut answer = sent.send().await.map_err(transport_error)?;
        if !answer.status().is_success() {
            return Err(refusal(&answer).into());
        }
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(transport_error)? {
            if text.len() + chunk.len() > ANSWER_LEN_MAX {
                return Err(RpcError::ParseError("an answer of bounded length".into()).into());
            }
            text.extend_from_slice(&chunk);
        }
        let mut json: Value = serde_json::from_slice(&text)?;
        match json.get("error") {
            Some(error) if !error.is_null() => Err(answered_error(error).into()),
            _ => json.get_mut("result").map(Value::take).ok_or_else(|| RpcError::ParseError("a result".into()).into()),
        }
    }
}

/// An HTTP status other than success. Travels through the library's errors as the source of an IO error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("be served: HTTP status {status}")]
pub(crate) struct HttpRefusal {
    pub(crate) status: u16,
    /// How long the server wants to be left alone, if it says so.
    pub(crate) retry_after: Option<Duration>,
}

impl From<HttpRefusal> for ClientError {
    fn from(refusal: HttpRefusal) -> Self {
        ClientErrorKind::Io(std::io::Error::other(refusal)).into()
    }
}

impl HttpRefusal {
    /// The refusal that `error` carries, if that is what it is.
    pub(crate) fn of(error: &ClientError) -> Option<Self> {
        match error.kind.as_ref() {
            ClientErrorKind::Io(error) => error.get_ref()?.downcast_ref().copied(),
            _ => None,
        }
    }
}

fn refusal(answer: &reqwest::Response) -> HttpRefusal {
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header("retry-after").and_then(|text| retry_after::parse(text, header("date"), SystemTime::now()));
    HttpRefusal { status: answer.status().as_u16(), retry_after }
}

fn transport_error(error: reqwest::Error) -> ClientError {
    ClientErrorKind::Reqwest(error.without_url()).into()
}

/// Reads an error object. What can't be read keeps its code, as only that is acted upon.
fn answered_error(error: &Value) -> RpcError {
    let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
    let data = error.get("data").cloned().unwrap_or(Value::Null);
    let data = match serde_json::from_value::<RpcSimulateTransactionResult>(data) {
        Ok(result) if code == PREFLIGHT_FAILURE => RpcResponseErrorData::SendTransactionPreflightFailure(result),
        _ => RpcResponseErrorData::Empty,
    };
    RpcError::RpcResponseError { code, message: String::new(), data }
}

impl RpcSender for HttpTransport {
    fn send<'a, 'b>(&'a self, request: RpcRequest, params: Value) -> Sent<'b, Value>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.exchange(request, params))
    }

    fn get_transport_stats(&self) -> RpcTransportStats {
        RpcTransportStats::default()
    }

    fn url(&self) -> String {
        self.url.to_string()
    }
}
