//! How the endpoints fare, for operators: a snapshot, a stream of changes, and what each pair's websocket may be used for.

use std::time::Instant;

use psyche_messages::EndpointState;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::Rpc;
use super::board::{Board, Member, Notice};
use crate::error::{ChainError, ClusterMismatch};

/// Whether requests flow to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// They do.
    Closed,
    /// It rests after failures.
    Open,
    /// A single probe is under way.
    HalfOpen,
}

/// What is known of an endpoint's cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cluster {
    /// It has not named its genesis hash yet.
    Unknown,
    /// It is on the cluster of the majority.
    Ours,
    /// It is on another one, and not used.
    Other,
}

/// How one JSON-RPC endpoint fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointHealth {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Its place among the configured pairs.
    pub pair: usize,
    /// Whether it is the one that is asked first.
    pub is_first: bool,
    /// Whether requests flow.
    pub circuit: Circuit,
    /// Moving average of its answers.
    pub latency_ms: Option<u64>,
    /// What nineteen of twenty answers stay below; known after a few of them.
    pub p95_ms: Option<u64>,
    /// Share of failures among the latest requests, 0 to 1.
    pub error_rate: f32,
    /// Requests that were answered or failed, since the client began.
    pub requests: u64,
    /// Those that failed; one that the endpoint was not far enough for did not.
    pub failures: u64,
    /// Slots behind the best endpoint.
    pub slot_lag: Option<u64>,
    /// Whether it lost its place since it lags.
    pub is_lagging: bool,
    /// Whether it lost its place since others are several times as fast.
    pub is_slow: bool,
    /// How long it still wants to be left alone.
    pub rate_limited_ms: Option<u64>,
    /// Its cluster.
    pub cluster: Cluster,
}

/// An endpoint was given up for a while, or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointEvent {
    /// Scheme, host and port.
    pub endpoint: String,
    /// What it is now.
    pub state: EndpointState,
}

/// Whether what a pair says may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairTrust {
    /// Its JSON-RPC server has not been asked for its cluster yet.
    Unknown,
    /// It could not be asked: there is none, or it does not answer.
    Unverifiable,
    /// It is on the cluster of the majority.
    Trusted,
    /// It is on another one: its websocket must not be used either.
    Refused,
}

impl Rpc {
    /// How every JSON-RPC endpoint fares, in the order of configuration.
    #[must_use]
    pub fn health(&self) -> Vec<EndpointHealth> {
        let now = Instant::now();
        self.board(|board| {
            let first = board.first(now);
            let endpoints = self.endpoints().iter().zip(&board.members).enumerate();
            endpoints
                .map(|(index, (endpoint, member))| EndpointHealth {
                    endpoint: endpoint.name.clone(),
                    pair: endpoint.pair,
                    is_first: index == first,
                    slot_lag: board.slots.lag(index, now),
                    ..of_member(member, now)
                })
                .collect()
        })
    }

    /// The changes of endpoints from now on. A listener that lags behind by more than 64 misses some.
    #[must_use]
    pub fn endpoint_events(&self) -> broadcast::Receiver<EndpointEvent> {
        self.0.events.subscribe()
    }

    /// Whether what each configured pair says may be believed, in their order; follows what is found out later.
    #[must_use]
    pub fn pair_trust(&self) -> watch::Receiver<Vec<PairTrust>> {
        self.0.trust.subscribe()
    }

    /// Whether the websocket of the configured pair number `pair` may be used: its JSON-RPC server is on the right cluster,
    /// or there is none that could be asked.
    #[must_use]
    pub fn pair_trusted(&self, pair: usize) -> bool {
        let trust = self.0.trust.borrow();
        trust.get(pair).is_some_and(|trust| matches!(trust, PairTrust::Trusted | PairTrust::Unverifiable))
    }

    /// Brings [`Rpc::pair_trust`] up to date.
    pub(super) fn publish_trust(&self) {
        let now = Instant::now();
        let found = self.board(|board| {
            let mut trust = vec![PairTrust::Unverifiable; self.0.config.endpoints.len()];
            for (endpoint, member) in self.endpoints().iter().zip(&board.members) {
                if let Some(trust) = trust.get_mut(endpoint.pair) {
                    *trust = trust_of(board, member, now);
                }
            }
            trust
        });
        self.0.trust.send_if_modified(|trust| {
            let changed = *trust != found;
            *trust = found;
            changed
        });
    }

    /// Logs `notices`, and hands them on as events.
    pub(super) fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            let (index, state) = match &notice {
                Notice::Opened { index, .. } => (*index, Some(EndpointState::Resting)),
                Notice::Closed { index } => (*index, Some(EndpointState::InUse)),
                Notice::Refused { index, .. } => (*index, Some(EndpointState::WrongCluster)),
                Notice::Readmitted { index } => (*index, Some(EndpointState::InUse)),
                Notice::Absurd { index, .. } => (*index, None),
            };
            let Some(endpoint) = self.endpoints().get(index).map(|endpoint| endpoint.name.as_str()) else { continue };
            match &notice {
                Notice::Opened { rest, .. } => {
                    tracing::warn!(endpoint, delay_ms = rest.as_millis(), "endpoint rests after failures");
                }
                Notice::Closed { .. } => tracing::info!(endpoint, "endpoint answers again"),
                Notice::Refused { genesis, home, others, .. } => {
                    let others = self.names(others);
                    tracing::error!(endpoint, %genesis, others, expected = %home, "endpoint is on another cluster and not used");
                }
                Notice::Readmitted { .. } => tracing::warn!(endpoint, "endpoint is on the right cluster again"),
                Notice::Absurd { slot, .. } => {
                    tracing::warn!(endpoint, %slot, "endpoint claims a slot far beyond what the others say");
                }
            }
            if let Some(state) = state {
                // An error only says that nobody listens.
                let _listeners = self.0.events.send(EndpointEvent { endpoint: endpoint.to_owned(), state });
            }
        }
    }

    /// The hosts of `indices`.
    fn names(&self, indices: &[usize]) -> String {
        let names = indices.iter().filter_map(|index| self.endpoints().get(*index)).map(|endpoint| endpoint.name.as_str());
        let names: Vec<&str> = names.collect();
        if names.is_empty() { "earlier answers".to_owned() } else { names.join(", ") }
    }

    /// Why the first endpoint that is refused is, if any is.
    pub(super) fn refusal(&self) -> Option<ChainError> {
        let (index, genesis, home, others) = self.board(|board| {
            let (index, member) = board.members.iter().enumerate().find(|(_, member)| member.refused)?;
            let (genesis, home) = (member.genesis?, board.home()?);
            let names_home = |index: &usize| board.members.get(*index).is_some_and(|member| member.genesis == Some(home));
            Some((index, genesis, home, (0..board.members.len()).filter(names_home).collect::<Vec<_>>()))
        })?;
        let endpoint = self.endpoints().get(index)?;
        Some(ChainError::WrongCluster(Box::new(ClusterMismatch {
            endpoint: endpoint.name.clone(),
            pair: endpoint.pair,
            genesis: genesis.to_string(),
            others: self.names(&others),
            other_pairs: others.iter().filter_map(|index| self.endpoints().get(*index)).map(|other| other.pair).collect(),
            expected: home.to_string(),
        })))
    }
}

fn of_member(member: &Member, now: Instant) -> EndpointHealth {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    EndpointHealth {
        endpoint: String::new(),
        pair: 0,
        is_first: false,
        circuit: match (member.breaker.is_closed(), member.breaker.is_half_open()) {
            (true, _) => Circuit::Closed,
            (false, true) => Circuit::HalfOpen,
            (false, false) => Circuit::Open,
        },
        latency_ms: member.latency.average().map(ms),
        p95_ms: member.latency.p95().map(ms),
        error_rate: member.latency.error_rate(),
        requests: member.latency.totals().0,
        failures: member.latency.totals().1,
        slot_lag: None,
        is_lagging: member.lagging,
        is_slow: member.slow,
        rate_limited_ms: member.limited_until.and_then(|until| until.checked_duration_since(now)).map(ms).filter(|ms| *ms > 0),
        cluster: match (member.genesis, member.refused) {
            (None, _) => Cluster::Unknown,
            (Some(_), false) => Cluster::Ours,
            (Some(_), true) => Cluster::Other,
        },
    }
}

fn trust_of(board: &Board, member: &Member, now: Instant) -> PairTrust {
    match (member.refused, member.genesis) {
        (true, _) => PairTrust::Refused,
        (false, Some(_)) => PairTrust::Trusted,
        (false, None) if board.is_waiting_for(member, now) => PairTrust::Unknown,
        (false, None) => PairTrust::Unverifiable,
    }
}
