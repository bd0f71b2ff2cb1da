//! Brings together what the node's parts know, at the moment somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use psyche_chain::{Circuit, EndpointHealth, Rpc};
use psyche_messages::{Address, PeerKey, Phase, Points, RunId};
use psyche_net::NetHandle;

use super::catalogue as c;
use super::health::{Facts, Readiness, readiness};
use super::kinds::TxKind;
use super::pulse::Pulse;
use super::report::{ActorReport, EndpointReport, NodeReport, PeerReport};
use super::sheet::Sheet;
use super::tally::{Counts, Tally, TxCounts};
use crate::CLIENT_VERSION;
use crate::supervisor::Vitals;

/// How long an actor may take to answer before the node counts as stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const PHASES: [Phase; 8] = [
    Phase::Uninitialized,
    Phase::WaitingForMembers,
    Phase::Warmup,
    Phase::RoundTrain,
    Phase::RoundWitness,
    Phase::Cooldown,
    Phase::Finished,
    Phase::Paused,
];

/// The node's parts that know something. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    /// The run.
    pub run_id: RunId,
    /// The wallet's address.
    pub address: Address,
    /// What the events add up to.
    pub tally: Arc<Tally>,
    /// The chain.
    pub rpc: Rpc,
    /// The peers.
    pub net: NetHandle,
    /// Who must answer.
    pub(crate) pulse: Pulse,
    /// All actors.
    pub vitals: Arc<[Arc<Vitals>]>,
    /// When the node started.
    pub since: Instant,
}

impl Sources {
    /// Whether the actors answer: why not, in words, otherwise.
    pub(crate) async fn live(&self) -> Result<(), String> {
        if let Some(vitals) = self.vitals.iter().find(|vitals| vitals.given_up()) {
            return Err(format!("the {} actor died too often", vitals.name()));
        }
        let stuck = |actor| format!("the {actor} actor did not answer within {} s", ANSWER_TIMEOUT.as_secs());
        self.pulse.feel(ANSWER_TIMEOUT).await.map_err(stuck)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness_of(&self.tally.read())
    }

    fn readiness_of(&self, counts: &Counts) -> Readiness {
        let down: Vec<_> = self.vitals.iter().filter(|vitals| !vitals.is_up()).map(|vitals| vitals.name()).collect();
        readiness(&Facts {
            chain_silence: counts.chain.map(|(_, seen)| seen.elapsed()),
            phase: counts.stand.map(|stand| stand.phase),
            membership: counts.membership,
            has_model: counts.model.is_some(),
            down: &down,
        })
    }

    /// The actors by name; several of one name count as one.
    fn actors(&self) -> Vec<ActorReport> {
        let mut actors = BTreeMap::<&str, ActorReport>::new();
        for vitals in self.vitals.iter() {
            let fresh = || ActorReport { actor: vitals.name().to_owned(), up: 0, of: 0, restarts: 0, mailbox: 0 };
            let report = actors.entry(vitals.name()).or_insert_with(fresh);
            report.of += 1;
            report.up += u64::from(vitals.is_up());
            report.restarts += vitals.restarts();
            report.mailbox += vitals.waiting();
        }
        actors.into_values().collect()
    }

    /// Every peer that is connected, was compared with, or moved bytes.
    fn peers(&self, counts: &Counts) -> Vec<PeerReport> {
        let (presence, traffic) = (self.net.presence(), self.net.blob_traffic_by_peer());
        let known: BTreeSet<_> = presence.peers.iter().chain(traffic.keys()).chain(counts.digests_of.keys()).copied().collect();
        let is_in = |list: &[PeerKey], peer: &PeerKey| list.binary_search(peer).is_ok();
        let peers = known.into_iter().map(|peer| {
            let (compared, moved) = (counts.digests_of.get(&peer), traffic.get(&peer).copied().unwrap_or_default());
            PeerReport {
                connected: is_in(&presence.peers, &peer),
                member: is_in(&presence.members, &peer),
                relayed: is_in(&presence.relayed, &peer),
                compared_step: compared.map(|(step, _)| *step),
                agrees: compared.map(|(_, equal)| *equal),
                bytes_sent: moved.sent_bytes,
                bytes_received: moved.received_bytes,
                peer,
            }
        });
        peers.collect()
    }

    /// Everything as metrics.
    #[must_use]
    pub fn sheet(&self) -> Sheet {
        let (counts, mut sheet) = (self.tally.read(), Sheet::default());
        sheet.put_for(&c::BUILD_INFO, [CLIENT_VERSION], 1.0);
        let (address, peer) = (self.address.to_string(), self.net.peer_key().to_string());
        sheet.put_for(&c::NODE_INFO, [self.run_id.as_str(), &address, &peer], 1.0);
        sheet.put(&c::UPTIME, self.since.elapsed().as_secs_f64());
        sheet.put(&c::READY, truth(self.readiness_of(&counts).ready));
        run(&mut sheet, &counts);
        training(&mut sheet, &counts);
        let traffic = self.net.blob_traffic();
        sheet.put_for(&c::BLOB_BYTES, ["sent"], number(traffic.sent_bytes));
        sheet.put_for(&c::BLOB_BYTES, ["received"], number(traffic.received_bytes));
        sheet.put(&c::DIGESTS_COMPARED, number(counts.digests));
        sheet.put(&c::DESYNC, number(counts.desyncs));
        money(&mut sheet, &counts);
        endpoints(&mut sheet, &self.rpc.health());
        actors(&mut sheet, &self.actors());
        sheet.put(&c::WARNINGS, number(counts.warnings));
        sheet
    }

    /// Everything as one object.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let counts = self.tally.read();
        let (stand, traffic) = (counts.stand, self.net.blob_traffic());
        NodeReport {
            version: CLIENT_VERSION.to_owned(),
            run_id: self.run_id.to_string(),
            address: self.address,
            peer: self.net.peer_key(),
            uptime_seconds: self.since.elapsed().as_secs(),
            readiness: self.readiness_of(&counts),
            phase: stand.map(|stand| stand.phase),
            epoch: stand.map(|stand| stand.epoch),
            step: stand.map(|stand| stand.step),
            total_steps: stand.map(|stand| stand.total_steps),
            clients: stand.map(|stand| stand.clients),
            slot: counts.chain.map(|(slot, _)| slot),
            model_step: counts.model.map(|model| model.step),
            digest: counts.model.map(|model| model.digest),
            loss: counts.loss,
            tokens_per_second: counts.tokens_per_second,
            steps_trained: counts.trained,
            steps_skipped: counts.skipped,
            steps_applied: counts.applied,
            desyncs: counts.desyncs,
            peers: counts.peers,
            blob_bytes_sent: traffic.sent_bytes,
            blob_bytes_received: traffic.received_bytes,
            earned: counts.earned,
            claimed: counts.claimed,
            claimable: claimable(&counts),
            lamports: counts.lamports,
            endpoints: self.rpc.health().into_iter().map(EndpointReport::from).collect(),
            actors: self.actors(),
            round: counts.schedule.round,
            phase_left_seconds: left(&counts),
            peer_list: self.peers(&counts),
            history: counts.history.into(),
            devices: counts.devices,
            events: counts.latest.into(),
        }
    }
}

/// Seconds until the phase ends.
fn left(counts: &Counts) -> Option<u64> {
    Some(counts.clock?.until(counts.schedule.ends?, Instant::now()))
}

fn claimable(counts: &Counts) -> Points {
    Points(counts.earned.0.saturating_sub(counts.slashed.0).saturating_sub(counts.claimed.0))
}

fn run(sheet: &mut Sheet, counts: &Counts) {
    let phase = counts.stand.map(|stand| stand.phase);
    for other in PHASES {
        sheet.put_for(&c::RUN_STATE, [&other.to_string()], truth(phase == Some(other)));
    }
    sheet.put_known(&c::EPOCH, counts.stand.map(|stand| f64::from(stand.epoch.0)));
    sheet.put_known(&c::STEP, counts.stand.map(|stand| f64::from(stand.step.0)));
    sheet.put_known(&c::TOTAL_STEPS, counts.stand.map(|stand| f64::from(stand.total_steps)));
    sheet.put_known(&c::CLIENTS, counts.stand.map(|stand| f64::from(stand.clients)));
    sheet.put(&c::PEERS, f64::from(counts.peers));
    sheet.put_known(&c::CHAIN_SLOT, counts.chain.map(|(slot, _)| number(slot.0)));
    sheet.put_known(&c::CHAIN_SILENCE, counts.chain.map(|(_, seen)| seen.elapsed().as_secs_f64()));
}

fn training(sheet: &mut Sheet, counts: &Counts) {
    sheet.put(&c::MODEL_READY, truth(counts.model.is_some()));
    sheet.put_durations(&c::ROUND_DURATION, &counts.rounds);
    sheet.put(&c::STEPS_TRAINED, number(counts.trained));
    sheet.put(&c::STEPS_SKIPPED, number(counts.skipped));
    sheet.put(&c::STEPS_APPLIED, number(counts.applied));
    sheet.put(&c::RESULTS_APPLIED, number(counts.results));
    sheet.put(&c::SAMPLES_TRAINED, number(counts.samples));
    sheet.put_known(&c::LOSS, counts.loss.map(f64::from));
    sheet.put_known(&c::TOKENS_PER_SECOND, counts.tokens_per_second.map(f64::from));
    sheet.put(&c::PAYLOAD_BYTES, number(counts.payload_bytes));
}

fn money(sheet: &mut Sheet, counts: &Counts) {
    sheet.put(&c::POINTS_EARNED, number(counts.earned.0));
    sheet.put(&c::POINTS_CLAIMED, number(counts.claimed.0));
    sheet.put(&c::POINTS_CLAIMABLE, number(claimable(counts).0));
    sheet.put_known(&c::WALLET_LAMPORTS, counts.lamports.map(number));
    // All of their series are there from the start.
    let mut put = |metric, value: fn(TxCounts) -> u64| {
        for kind in TxKind::ALL {
            let of_kind = counts.transactions.get(kind).copied().unwrap_or_default();
            sheet.put_for(metric, [kind.name()], number(value(of_kind)));
        }
    };
    put(&c::TX_LANDED, |counts| counts.landed);
    put(&c::TX_EXPIRED, |counts| counts.expired);
    put(&c::TX_FAILED, |counts| counts.failed);
}

fn endpoints(sheet: &mut Sheet, endpoints: &[EndpointHealth]) {
    let pairs: Vec<String> = endpoints.iter().map(|health| (health.pair + 1).to_string()).collect();
    let mut put = |metric, value: &dyn Fn(&EndpointHealth) -> Option<f64>| {
        for (health, pair) in endpoints.iter().zip(&pairs) {
            if let Some(value) = value(health) {
                sheet.put_for(metric, [&health.endpoint, pair], value);
            }
        }
    };
    put(&c::RPC_UP, &|health| Some(truth(health.circuit == Circuit::Closed)));
    put(&c::RPC_REQUESTS, &|health| Some(number(health.requests)));
    put(&c::RPC_ERRORS, &|health| Some(number(health.failures)));
    put(&c::RPC_SLOT_LAG, &|health| health.slot_lag.map(number));
    put(&c::RPC_LATENCY, &|health| health.latency_ms.map(|ms| number(ms) / 1000.0));
}

fn actors(sheet: &mut Sheet, actors: &[ActorReport]) {
    actors.iter().for_each(|actor| sheet.put_for(&c::ACTOR_RESTARTS, [&actor.actor], number(actor.restarts)));
    actors.iter().for_each(|actor| sheet.put_for(&c::ACTOR_UP, [&actor.actor], number(actor.up)));
    actors.iter().for_each(|actor| sheet.put_for(&c::MAILBOX_DEPTH, [&actor.actor], number(actor.mailbox)));
}

const fn truth(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers; beyond 2^53 the last digits do not matter")]
const fn number(count: u64) -> f64 {
    count as f64
}
