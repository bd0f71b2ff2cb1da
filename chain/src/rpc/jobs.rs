//! What is found out beside the calls: clusters, probes of open circuits, slots and pace. Each is one small request to one
//! endpoint, one at a time for each, begun by the calls themselves: a client that nobody uses asks nothing.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use psyche_messages::Slot;
use serde_json::{Value, json};
use solana_client::client_error::ClientError;
use solana_client::rpc_request::RpcRequest;
use solana_hash::Hash;
use tokio::task::JoinHandle;

use super::Rpc;
use super::board::Job;
use super::breaker::Fault;
use super::classify::{Verdict, verdict};
use crate::error::ChainError;

/// How long a first call waits for the other endpoints' clusters once one has named its own.
const ROLL_CALL_GRACE: Duration = Duration::from_secs(1);
/// How long the small requests of this module may take: a call may be waiting for one, and whoever hung when it was sent may
/// have come back since.
const JOB_TIMEOUT: Duration = Duration::from_secs(4);
/// How long [`Rpc::check_clusters`] does.
const CHECK_GRACE: Duration = Duration::from_secs(3);

impl Rpc {
    /// Asks all endpoints which cluster they are on, and waits a moment for the slow ones.
    ///
    /// # Errors
    /// [`ChainError::WrongCluster`] if one is on another cluster than the others. Endpoints that do not answer are none.
    pub async fn check_clusters(&self) -> Result<(), ChainError> {
        self.roll_call(CHECK_GRACE).await;
        self.refusal().map_or(Ok(()), Err)
    }

    /// Asks every endpoint for its cluster, unless that was done already; why one of them did not answer.
    async fn roll_call(&self, grace: Duration) -> Option<ChainError> {
        let mut failure = None;
        let call = async {
            let jobs = self.board(|board| board.roll_call(Instant::now()));
            failure = self.wait_for(jobs, grace).await;
            self.publish_trust();
        };
        self.0.roll_call.get_or_init(|| call).await;
        failure
    }

    /// Endpoints to ask, in this order; there is one at least. Where none may be asked, those that rest are probed, and rate
    /// limits are waited for until `deadline`.
    pub(super) async fn ready(&self, deadline: Instant) -> Result<Vec<usize>, ChainError> {
        let mut failure = self.roll_call(ROLL_CALL_GRACE).await;
        let mut tried = failure.is_some();
        loop {
            let mut ended = self.0.jobs_ended.subscribe();
            let now = Instant::now();
            let (plan, jobs, probing) = self.board(|board| (board.plan(now), board.jobs(now), board.is_probing(now)));
            for job in jobs {
                self.start(job);
            }
            if !plan.ready.is_empty() {
                return Ok(plan.ready);
            }
            let probes = if tried { Vec::new() } else { self.board(|board| board.last_resort(now)) };
            if !probes.is_empty() {
                tried = true;
                failure = self.wait_for(probes, Duration::ZERO).await.or(failure);
            } else if probing && !tried {
                // Somebody else is about to know. The sender lives as long as this client, so this can't fail.
                let _ended = ended.changed().await;
                tried = !self.board(|board| board.is_probing(Instant::now()));
            } else if let Some((index, until)) = plan.limited {
                if until > deadline {
                    return Err(self.limited(index, until.saturating_duration_since(now)));
                }
                tokio::time::sleep_until(until.into()).await;
                tried = false;
            } else {
                let none = ChainError::NoneHealthy { endpoints: self.endpoints().len() };
                return Err(failure.or_else(|| self.refusal()).unwrap_or(none));
            }
        }
    }

    fn limited(&self, index: usize, rest: Duration) -> ChainError {
        let endpoint = self.endpoints().get(index).map(|endpoint| endpoint.name.clone()).unwrap_or_default();
        ChainError::Http { endpoint, status: 429, retry_after: Some(rest) }
    }

    /// Waits until all of `jobs` have ended, or until `grace` after the first good answer; the rest goes on by itself.
    /// Returns a failure, if there was one and nothing good.
    async fn wait_for(&self, jobs: Vec<Job>, grace: Duration) -> Option<ChainError> {
        let mut running: FuturesUnordered<_> = jobs.into_iter().map(|job| self.start(job)).collect();
        let mut failure = None;
        let mut until: Option<tokio::time::Instant> = None;
        loop {
            let ended = match until {
                None => running.next().await,
                Some(until) => tokio::time::timeout_at(until, running.next()).await.unwrap_or(None),
            };
            match ended {
                None => return failure.filter(|_| until.is_none()),
                Some(Ok(Ok(()))) => until = until.or(Some(tokio::time::Instant::now() + grace)),
                Some(Ok(Err(error))) => failure = Some(error),
                Some(Err(_panicked)) => {}
            }
        }
    }

    fn start(&self, job: Job) -> JoinHandle<Result<(), ChainError>> {
        let rpc = self.clone();
        tokio::spawn(async move {
            let done = rpc.carry_out(job).await;
            rpc.publish_trust();
            rpc.0.jobs_ended.send_modify(|ended| *ended = ended.wrapping_add(1));
            done
        })
    }

    async fn carry_out(&self, job: Job) -> Result<(), ChainError> {
        let (Job::Genesis(index) | Job::Pulse(index)) = job;
        let Some(endpoint) = self.endpoints().get(index) else { return Ok(()) };
        let started = Instant::now();
        let (request, params) = match job {
            Job::Genesis(_) => (RpcRequest::GetGenesisHash, json!([])),
            Job::Pulse(_) => (RpcRequest::GetSlot, json!([{"commitment": "confirmed"}])),
        };
        let within = self.0.config.request_timeout.min(JOB_TIMEOUT);
        let answer = tokio::time::timeout(within, endpoint.client.send::<Value>(request, params)).await;
        let (now, jitter) = (Instant::now(), rand::random());
        let Ok(answer) = answer else {
            self.board(|board| board.failed(index, Fault::Dead, now, jitter));
            return Err(ChainError::Timeout { endpoint: endpoint.name.clone(), after: within });
        };
        match answer {
            Ok(answer) => match (job, answer.as_u64(), answer.as_str().and_then(|text| text.parse::<Hash>().ok())) {
                (Job::Genesis(_), _, Some(genesis)) => self.board(|board| board.named(index, genesis)),
                (Job::Pulse(_), Some(slot), _) => {
                    self.board(|board| board.pulsed(index, Slot(slot), now - started, now));
                }
                _ => {
                    self.board(|board| board.failed(index, Fault::Bad, now, jitter));
                    return Err(ChainError::Malformed { endpoint: endpoint.name.clone(), method: request.as_str() });
                }
            },
            Err(error) => {
                self.note_failure(index, &error);
                self.board(|board| board.done(index));
                return Err(self.classify(error, endpoint, request));
            }
        }
        Ok(())
    }

    /// Notes what `error` says about endpoint `index`.
    pub(super) fn note_failure(&self, index: usize, error: &ClientError) {
        let (now, jitter) = (Instant::now(), rand::random());
        self.board(|board| match verdict(error) {
            Verdict::Fault(fault) => board.failed(index, fault, now, jitter),
            Verdict::Limited(rest) => board.limited(index, rest, now),
            Verdict::Answered | Verdict::Unfit => {}
        });
    }
}
