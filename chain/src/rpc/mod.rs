//! Reading from and talking to a chain through several endpoints.
//!
//! [`Rpc`] asks the endpoint that answered last and moves on where another may do better: no connection, no answer in time,
//! too many requests, a node that lags. A refusal that every endpoint would repeat is returned at once. Every read is made
//! at commitment `confirmed` and asks for a state no older than any that was seen before.

mod classify;
mod reads;
mod rotation;
pub(crate) mod transport;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use psyche_messages::Slot;
use serde::de::DeserializeOwned;
use serde_json::Value;
use solana_client::client_error::ClientError;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::RpcClientConfig;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_sender::RpcSender;
use solana_commitment_config::CommitmentConfig;

use crate::endpoint::{ENDPOINTS_MAX, EndpointError, EndpointPair, RpcUrl};
use crate::error::ChainError;
use crate::program_error::ProgramIds;
use crate::transaction::Desk;
pub(crate) use reads::token_amount;
pub use reads::{AccountRead, SignatureRecord};

/// How often, and how long each time, endpoints that lag are waited for: a few slots in all.
const BEHIND_WAITS: u32 = 10;
const BEHIND_PAUSE: Duration = Duration::from_millis(150);

/// How to talk to a chain.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// The providers, the preferred one first.
    pub endpoints: Vec<EndpointPair>,
    /// The programs' ids.
    pub programs: ProgramIds,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a whole answer may take.
    pub request_timeout: Duration,
    /// How long an endpoint rests after a failure.
    pub cooldown: Duration,
    /// Least price of a compute unit, in millionths of a lamport; used where the chain knows no recent fees.
    pub fee_floor_micro_lamports: u64,
    /// Highest price of a compute unit, in millionths of a lamport, whatever recent fees say.
    pub fee_ceiling_micro_lamports: u64,
    /// How long a transaction is seen through, its signing anew included.
    pub transaction_deadline: Duration,
}

impl RpcConfig {
    /// The defaults for `endpoints`.
    #[must_use]
    pub fn new(endpoints: Vec<EndpointPair>) -> Self {
        Self {
            endpoints,
            programs: ProgramIds::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            cooldown: Duration::from_secs(20),
            fee_floor_micro_lamports: 0,
            fee_ceiling_micro_lamports: 1_000_000,
            transaction_deadline: Duration::from_secs(300),
        }
    }
}

/// A chain, reached through all configured endpoints. Clones share everything.
#[derive(Clone)]
pub struct Rpc(Arc<Inner>);

struct Inner {
    config: RpcConfig,
    endpoints: Vec<Endpoint>,
    rotation: Mutex<Rotation>,
    seen_slot: AtomicU64,
    desk: Desk,
}

use rotation::Rotation;

/// One provider's client.
pub(crate) struct Endpoint {
    /// Scheme, host and port.
    pub(crate) name: String,
    pub(crate) client: RpcClient,
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("endpoints", &self.0.config.endpoints).field("current", &self.current()).finish()
    }
}

impl Rpc {
    /// A client for `config`; connects lazily.
    ///
    /// # Errors
    /// [`ChainError::Endpoint`] for no or too many endpoints, [`ChainError::Unreachable`] if the TLS set-up fails.
    pub fn new(config: RpcConfig) -> Result<Self, ChainError> {
        let given = config.endpoints.len();
        if given == 0 || given > ENDPOINTS_MAX {
            return Err(EndpointError::Count { given }.into());
        }
        transport::choose_tls();
        let sender = |url: &RpcUrl| {
            let transport = transport::HttpTransport::new(url.clone(), config.connect_timeout, config.request_timeout);
            transport.map_err(|source| ChainError::Unreachable { endpoint: url.to_string(), source })
        };
        let urls = config.endpoints.iter().filter_map(|pair| pair.rpc.as_ref());
        let senders = urls.map(sender).collect::<Result<Vec<_>, ChainError>>()?;
        Self::with_senders(config, senders)
    }

    /// A client whose requests travel by `senders`, one for each RPC server of `config`, in its order: another transport than
    /// HTTP, or one that a test has its hands in.
    ///
    /// # Errors
    /// [`ChainError::Endpoint`] for no endpoints.
    pub fn with_senders<S: RpcSender + Send + Sync + 'static>(config: RpcConfig, senders: Vec<S>) -> Result<Self, ChainError> {
        let names = config.endpoints.iter().filter_map(|pair| pair.rpc.as_ref()).map(RpcUrl::to_string);
        let endpoint = |(name, sender)| {
            let commitment = RpcClientConfig::with_commitment(CommitmentConfig::confirmed());
            Endpoint { name, client: RpcClient::new_sender(sender, commitment) }
        };
        let endpoints: Vec<Endpoint> = names.zip(senders).map(endpoint).collect();
        if endpoints.is_empty() {
            return Err(EndpointError::NoRpc.into());
        }
        let rotation = Mutex::new(Rotation::new(endpoints.len(), config.cooldown));
        let (seen_slot, desk) = (AtomicU64::new(0), Desk::default());
        Ok(Self(Arc::new(Inner { config, endpoints, rotation, seen_slot, desk })))
    }

    /// What all submissions share.
    pub(crate) fn desk(&self) -> &Desk {
        &self.0.desk
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RpcConfig {
        &self.0.config
    }

    /// The programs' ids.
    #[must_use]
    pub fn programs(&self) -> &ProgramIds {
        &self.0.config.programs
    }

    /// Index of the endpoint that is asked first.
    #[must_use]
    pub fn current(&self) -> usize {
        self.0.rotation.lock().unwrap_or_else(PoisonError::into_inner).current()
    }

    /// The highest slot that any answer came from.
    #[must_use]
    pub fn seen_slot(&self) -> Slot {
        Slot(self.0.seen_slot.load(Ordering::Relaxed))
    }

    /// Notes a slot from which something was seen: no later read will come from an older one.
    pub fn note_slot(&self, slot: Slot) {
        self.0.seen_slot.fetch_max(slot.0, Ordering::Relaxed);
    }

    /// The JSON-RPC servers, in the order of their pairs; pairs without one are left out.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.0.endpoints
    }

    /// Indices into [`Rpc::endpoints`] of those to which a transaction should be sent: every endpoint that does not rest, or
    /// all of them where all do.
    #[expect(dead_code, reason = "the life cycle of transactions is about to use it")]
    pub(crate) fn healthy_endpoints(&self) -> Vec<usize> {
        self.0.rotation.lock().unwrap_or_else(PoisonError::into_inner).awake(Instant::now())
    }

    /// Asks one endpoint after the other until one answers or refuses for good. Where the only trouble is that all of them
    /// lag by a moment, the moment is waited for.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: RpcRequest, params: Value) -> Result<T, ChainError> {
        for _ in 0..BEHIND_WAITS {
            match self.call_once(request, params.clone()).await {
                Err(ChainError::Behind { .. }) => tokio::time::sleep(BEHIND_PAUSE).await,
                settled => return settled,
            }
        }
        self.call_once(request, params).await
    }

    async fn call_once<T: DeserializeOwned>(&self, request: RpcRequest, params: Value) -> Result<T, ChainError> {
        let order = self.0.rotation.lock().unwrap_or_else(PoisonError::into_inner).order(Instant::now());
        let mut last = None;
        for index in order {
            let Some(endpoint) = self.0.endpoints.get(index) else { continue };
            match endpoint.client.send(request, params.clone()).await {
                Ok(answer) => {
                    self.0.rotation.lock().unwrap_or_else(PoisonError::into_inner).answered(index);
                    return Ok(answer);
                }
                Err(error) => {
                    let error = self.classify(error, endpoint, request);
                    if !error.moves_on() {
                        return Err(error);
                    }
                    tracing::debug!(endpoint = endpoint.name, method = request.as_str(), %error, "endpoint does not answer");
                    if error.blames_endpoint() {
                        let mut rotation = self.0.rotation.lock().unwrap_or_else(PoisonError::into_inner);
                        rotation.failed(index, Instant::now());
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| EndpointError::Count { given: 0 }.into()))
    }

    pub(crate) fn classify(&self, error: ClientError, endpoint: &Endpoint, request: RpcRequest) -> ChainError {
        let context = classify::Context { timeout: self.0.config.request_timeout, min_slot: self.seen_slot() };
        classify::classify(error, &endpoint.name, request, &context)
    }
}
