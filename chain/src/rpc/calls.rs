//! One call: whom it asks, when it asks a second one as well, and what it waits for.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use psyche_messages::Slot;
use serde::de::DeserializeOwned;
use serde_json::Value;
use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_request::RpcRequest;

use super::Rpc;
use super::breaker::Fault;
use super::hedge::hedge_after;
use crate::error::ChainError;

/// Pause before endpoints that are all behind are asked again.
const BEHIND_PAUSE: Duration = Duration::from_millis(150);

/// Requests that are under way, with the endpoint and its start.
struct Race<'a> {
    rpc: &'a Rpc,
    request: RpcRequest,
    params: &'a Value,
    running: FuturesUnordered<BoxFuture<'a, (usize, Result<Value, ClientError>)>>,
    started: Vec<(usize, Instant)>,
    /// When the next endpoint is asked as well.
    hedge_at: Option<Instant>,
    /// Who may be asked a second time: the only endpoint there is, as its connection may have broken without a word, or one
    /// that lagged by a moment.
    again: Option<usize>,
}

impl Rpc {
    /// What the healthiest endpoint answers, as `T`; see [`Rpc::call_with`].
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: RpcRequest, params: Value) -> Result<T, ChainError> {
        self.call_with(request, params, |answer, _floor| Ok(answer)).await.map(|(_index, answer)| answer)
    }

    /// Asks the endpoint that answers well, and others where that may help: the next one as well once the first takes longer
    /// than nineteen of twenty of its answers did, the next one instead where one fails. What `read` finds fault with, given
    /// the slot that was asked for, is no answer either. Where the only trouble is that all endpoints lag or are rate limited, that is waited for.
    ///
    /// # Errors
    /// The refusal that every endpoint would repeat, [`ChainError::Timeout`] after [`super::RpcConfig::call_timeout`], or
    /// what the last endpoint failed with.
    pub(crate) async fn call_with<T, U>(
        &self,
        request: RpcRequest,
        params: Value,
        read: impl Fn(T, Slot) -> Result<U, Fault> + Send + Sync,
    ) -> Result<(usize, U), ChainError>
    where
        T: DeserializeOwned,
    {
        let within = self.0.config.call_timeout;
        match tokio::time::timeout(within, self.settle(request, params, read, Instant::now() + within)).await {
            Ok(settled) => settled,
            Err(_elapsed) => Err(ChainError::Timeout { endpoint: self.current_name(), after: within }),
        }
    }

    async fn settle<T, U>(
        &self,
        request: RpcRequest,
        mut params: Value,
        read: impl Fn(T, Slot) -> Result<U, Fault> + Send + Sync,
        deadline: Instant,
    ) -> Result<(usize, U), ChainError>
    where
        T: DeserializeOwned,
    {
        loop {
            let ready = self.ready(deadline).await?;
            let floor = self.seen_slot();
            raise_to(&mut params, floor);
            match self.race(&ready, request, &params, |answer| read(answer, floor)).await {
                Err(ChainError::Behind { .. }) => {
                    self.lower_floor();
                    tokio::time::sleep(BEHIND_PAUSE).await;
                }
                // Whoever said so is not ready any more.
                Err(error) if error.is_rate_limit() => {}
                settled => return settled,
            }
        }
    }

    fn lower_floor(&self) {
        if let Some(lowered) = self.board(|board| board.slots.all_behind(Instant::now())) {
            tracing::warn!(slot = %lowered.from, reached = %lowered.to, "no endpoint reaches the slot that was heard of");
        }
    }

    /// Asks the endpoints in `ready` until one answers or refuses for good. The ones that did not answer first are not
    /// waited for.
    async fn race<T, U>(
        &self,
        ready: &[usize],
        request: RpcRequest,
        params: &Value,
        read: impl Fn(T) -> Result<U, Fault>,
    ) -> Result<(usize, U), ChainError>
    where
        T: DeserializeOwned,
    {
        let mut next = ready.iter().copied();
        let again = ready.first().copied().filter(|_| ready.len() == 1);
        let (running, started) = (FuturesUnordered::new(), Vec::new());
        let mut race = Race { rpc: self, request, params, running, started, hedge_at: None, again };
        self.board(|board| board.hedges.earn());
        next.next().into_iter().for_each(|index| race.start(index));
        let mut failure = None;
        while let Some((index, result)) = race.next_answer(&mut next).await {
            let elapsed = race.ended(index);
            let read = |answer: Value| serde_json::from_value(answer).map_err(|_other| Fault::Bad).and_then(&read);
            let error = match result.map(read) {
                Ok(Ok(answer)) => {
                    self.board(|board| board.answered(index, elapsed));
                    race.won(index);
                    return Ok((index, answer));
                }
                Ok(Err(fault)) => {
                    self.board(|board| board.failed(index, fault, Instant::now(), rand::random()));
                    let (endpoint, method) = (self.name(index), request.as_str());
                    match fault {
                        Fault::Behind => ChainError::Behind { endpoint, slot: self.seen_slot() },
                        _ => ChainError::Malformed { endpoint, method },
                    }
                }
                Err(error) => {
                    self.note_failure(index, &error);
                    let Some(endpoint) = self.endpoints().get(index) else { continue };
                    self.classify(error, endpoint, request)
                }
            };
            if !error.moves_on() {
                self.board(|board| board.answered(index, elapsed));
                return Err(error);
            }
            tracing::debug!(endpoint = self.name(index), method = request.as_str(), %error, "endpoint does not answer");
            if matches!(error, ChainError::Behind { .. }) {
                // It catches up in a moment: should the next one hang, this one is asked again beside it.
                race.again = Some(index);
            }
            failure = Some(worth_waiting(failure, error));
            if let Some(index) = next.next() {
                race.start(index);
            }
        }
        Err(failure.unwrap_or(ChainError::NoneHealthy { endpoints: ready.len() }))
    }

    /// Sends `request` to endpoint `index` alone, and notes how it fared.
    ///
    /// # Errors
    /// What the transport or the endpoint says; [`Rpc::classify`] makes it ours.
    pub(crate) async fn send_at<T: DeserializeOwned>(
        &self,
        index: usize,
        request: RpcRequest,
        params: Value,
    ) -> Result<T, ClientError> {
        let Some(endpoint) = self.endpoints().get(index) else {
            return Err(ClientErrorKind::Io(std::io::ErrorKind::NotFound.into()).into());
        };
        let started = Instant::now();
        let answer = endpoint.client.send(request, params).await;
        match &answer {
            Ok(_) => self.board(|board| board.answered(index, started.elapsed())),
            Err(error) => self.note_failure(index, error),
        }
        answer
    }

    fn name(&self, index: usize) -> String {
        self.endpoints().get(index).map(|endpoint| endpoint.name.clone()).unwrap_or_default()
    }

    /// The host that is asked first.
    pub(super) fn current_name(&self) -> String {
        self.name(self.current())
    }
}

impl Race<'_> {
    fn start(&mut self, index: usize) {
        let (rpc, request, params) = (self.rpc, self.request, self.params.clone());
        let Some(endpoint) = rpc.endpoints().get(index) else { return };
        self.running.push(async move { (index, endpoint.client.send(request, params).await) }.boxed());
        let now = Instant::now();
        self.started.push((index, now));
        let p95 = rpc.board(|board| board.members.get(index).and_then(|member| member.latency.p95()));
        // An airdrop that is asked for twice comes twice.
        let may_hedge = self.started.len() == 1 && request != RpcRequest::RequestAirdrop;
        let (min, max) = (rpc.config().hedge_after_min, rpc.config().hedge_after_max);
        let after = if self.again.is_some() { max } else { hedge_after(p95, min, max) };
        self.hedge_at = may_hedge.then(|| now + after);
    }

    /// The next answer; meanwhile, when the time has come and the budget allows it, the next endpoint is asked as well.
    async fn next_answer(&mut self, next: &mut impl Iterator<Item = usize>) -> Option<(usize, Result<Value, ClientError>)> {
        loop {
            let Some(hedge_at) = self.hedge_at else { return self.running.next().await };
            tokio::select! {
                biased;
                answer = self.running.next() => return answer,
                () = tokio::time::sleep_until(hedge_at.into()) => {
                    self.hedge_at = None;
                    if let Some(index) = next.next().or(self.again.take())
                        && self.rpc.board(|board| board.hedges.spend())
                    {
                        self.start(index);
                    }
                }
            }
        }
    }

    /// Notes that `index` is not under way any more; how long it was.
    fn ended(&mut self, index: usize) -> Duration {
        let position = self.started.iter().position(|(started, _)| *started == index);
        position.map_or(Duration::ZERO, |position| self.started.swap_remove(position).1.elapsed())
    }

    /// Notes that all others who are still under way were outrun by `winner`. Dropping the race cancels them.
    fn won(&mut self, winner: usize) {
        for (index, started) in self.started.drain(..).filter(|(index, _)| *index != winner) {
            let elapsed = started.elapsed();
            self.rpc.board(|board| board.outrun(index, elapsed, Instant::now(), rand::random()));
        }
    }
}

/// Of two failures the one that passes by itself: an endpoint that lags is about to catch up, one that is rate limited says
/// when it may be asked again.
fn worth_waiting(earlier: Option<ChainError>, later: ChainError) -> ChainError {
    let worth = |error: &ChainError| match error {
        ChainError::Behind { .. } => 2,
        error if error.is_rate_limit() => 1,
        _ => 0,
    };
    match earlier {
        Some(earlier) if worth(&earlier) > worth(&later) => earlier,
        _ => later,
    }
}

/// Puts the present floor into a request that asks for one; it may have moved since the request was built.
fn raise_to(params: &mut Value, floor: Slot) {
    let configs = params.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
    for config in configs {
        if let Some(slot) = config.get_mut("minContextSlot") {
            *slot = floor.0.into();
        }
    }
}
