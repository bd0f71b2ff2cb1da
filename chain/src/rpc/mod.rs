//! Reading from and talking to a chain through several endpoints.
//!
//! [`Rpc`] knows how every endpoint fares ([`board`]: circuit breaker, error budget, latency, slot lag, rate limits, cluster)
//! and asks the one that answers well; a second one as well if the first takes longer than it should ([`calls`]), and the
//! next one where another may do better: no connection, no answer in time, too many requests, a node that lags. A refusal
//! that every endpoint would repeat is returned at once. Every read is made at commitment `confirmed` and asks for a state no
//! older than any that was seen before ([`slots`]). No endpoint is believed before it has named its genesis hash, and the odd
//! one out is not used ([`cluster`], [`jobs`]).

mod board;
mod breaker;
mod calls;
mod classify;
mod cluster;
mod health;
mod hedge;
mod jobs;
mod latency;
mod probe;
mod reads;
mod retry_after;
mod slots;
pub(crate) mod transport;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use psyche_messages::{Backoff, Slot};
use solana_client::client_error::ClientError;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::RpcClientConfig;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_sender::RpcSender;
use solana_commitment_config::CommitmentConfig;
use tokio::sync::{OnceCell, broadcast, watch};

use crate::endpoint::{ENDPOINTS_MAX, EndpointError, EndpointPair};
use crate::error::ChainError;
use crate::program_error::ProgramIds;
use crate::transaction::Desk;
use board::Board;
pub use health::{Circuit, Cluster, EndpointEvent, EndpointHealth, PairTrust};
pub use probe::server_time;
pub(crate) use reads::token_amount;
pub use reads::{AccountRead, SignatureRecord};

/// Events that a listener may lag behind before it misses some.
const EVENTS_MAX: usize = 64;

/// How to talk to a chain.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// The providers, the preferred one first.
    pub endpoints: Vec<EndpointPair>,
    /// The programs' ids.
    pub programs: ProgramIds,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a whole answer of one endpoint may take.
    pub request_timeout: Duration,
    /// How long a call may take in all: every endpoint that it asks, and every pause.
    pub call_timeout: Duration,
    /// How long an endpoint rests when its circuit opens; doubles with every failed probe.
    pub cooldown: Duration,
    /// Longest such rest.
    pub cooldown_max: Duration,
    /// Shortest wait before a read is sent to a second endpoint as well: below this it costs more than it can win.
    pub hedge_after_min: Duration,
    /// Longest such wait.
    pub hedge_after_max: Duration,
    /// How often each of several endpoints is asked for its slot while calls are made; one that is on another cluster is
    /// asked again after three times as long.
    pub survey_every: Duration,
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
            call_timeout: Duration::from_secs(30),
            cooldown: Duration::from_secs(1),
            cooldown_max: Duration::from_secs(60),
            hedge_after_min: Duration::from_millis(100),
            hedge_after_max: Duration::from_secs(2),
            survey_every: Duration::from_secs(10),
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
    board: Mutex<Board>,
    /// Whether the endpoints were asked for their clusters.
    roll_call: OnceCell<()>,
    /// Goes up whenever a background job ends.
    jobs_ended: watch::Sender<u64>,
    trust: watch::Sender<Vec<PairTrust>>,
    events: broadcast::Sender<EndpointEvent>,
    desk: Desk,
}

/// One provider's client.
pub(crate) struct Endpoint {
    /// Scheme, host and port.
    pub(crate) name: String,
    /// Its place among the configured pairs.
    pub(crate) pair: usize,
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
        transport::choose_tls();
        let mut senders = Vec::new();
        for url in config.endpoints.iter().filter_map(|pair| pair.rpc.clone()) {
            let endpoint = url.to_string();
            let sender = transport::HttpTransport::new(url, config.connect_timeout, config.request_timeout);
            senders.push(sender.map_err(|source| ChainError::Unreachable { endpoint, source })?);
        }
        Self::with_senders(config, senders)
    }

    /// A client whose requests travel by `senders`, one for each pair that has a JSON-RPC server, in their order: another
    /// transport than HTTP, or one that a test has its hands in. Each is asked `getGenesisHash` before anything else.
    ///
    /// # Errors
    /// [`ChainError::Endpoint`] for no or too many endpoints.
    pub fn with_senders<S>(config: RpcConfig, senders: Vec<S>) -> Result<Self, ChainError>
    where
        S: RpcSender + Send + Sync + 'static,
    {
        let given = config.endpoints.len();
        if given == 0 || given > ENDPOINTS_MAX {
            return Err(EndpointError::Count { given }.into());
        }
        let pairs = config.endpoints.iter().enumerate();
        let named = pairs.filter_map(|(pair, endpoint)| Some((pair, endpoint.rpc.as_ref()?.to_string())));
        let endpoint = |((pair, name), sender)| {
            let commitment = RpcClientConfig::with_commitment(CommitmentConfig::confirmed());
            Endpoint { name, pair, client: RpcClient::new_sender(sender, commitment) }
        };
        let endpoints: Vec<Endpoint> = named.zip(senders).map(endpoint).collect();
        if endpoints.is_empty() {
            return Err(EndpointError::NoRpc.into());
        }
        let (first, cap) = (config.cooldown.max(Duration::from_millis(1)), config.cooldown_max);
        let cooldown = Backoff::new(first, cap.max(first), 200, 25);
        let cooldown = cooldown.map_err(|_| EndpointError::Count { given })?;
        let board = Board::new(endpoints.len(), cooldown, config.survey_every, config.request_timeout * 2);
        let trust = watch::Sender::new(vec![PairTrust::Unknown; given]);
        Ok(Self(Arc::new(Inner {
            config,
            endpoints,
            board: Mutex::new(board),
            roll_call: OnceCell::new(),
            jobs_ended: watch::Sender::new(0),
            trust,
            events: broadcast::Sender::new(EVENTS_MAX),
            desk: Desk::default(),
        })))
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

    /// Index of the endpoint that is asked first, among those that have a JSON-RPC server.
    #[must_use]
    pub fn current(&self) -> usize {
        self.board(|board| board.first(Instant::now()))
    }

    /// The slot that no read falls behind: the highest that any answer came from, or that was credibly heard of.
    #[must_use]
    pub fn seen_slot(&self) -> Slot {
        self.board(|board| board.slots.floor())
    }

    /// Notes a slot from which something was heard of. No later read will come from an older one, unless it proves to be
    /// one that no endpoint reaches.
    pub fn note_slot(&self, slot: Slot) {
        self.board(|board| board.slots.heard(slot, Instant::now()));
    }

    /// The JSON-RPC servers, in the order of their pairs; pairs without one are left out.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.0.endpoints
    }

    /// Indices into [`Rpc::endpoints`] of those that a transaction should be sent to and whose word counts about it: alive, on
    /// the right cluster, and not rate limited. May be none for a while; any call finds out who is back.
    pub(crate) fn healthy_endpoints(&self) -> Vec<usize> {
        self.board(|board| board.healthy(Instant::now()))
    }

    pub(crate) fn classify(&self, error: ClientError, endpoint: &Endpoint, request: RpcRequest) -> ChainError {
        let context = classify::Context { timeout: self.0.config.request_timeout, min_slot: self.seen_slot() };
        classify::classify(error, &endpoint.name, request, &context)
    }

    /// Works on what is known of the endpoints, and tells whoever should know what that changed.
    fn board<T>(&self, work: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = self.0.board.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut board);
        let notices = board.take_notices();
        drop(board);
        self.tell(notices);
        done
    }
}
