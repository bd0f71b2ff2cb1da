//! What happens next: mostly what moves the run on, often enough something else.

use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{Args, HealthCheckArgs, TickArgs, UpdateArgs};
use psyche_protocol::layout::{Committee, CommitteeProof, Config, FixedString, NodeIdentity, Progress, RunState, WitnessProof};
use psyche_protocol::model::{Checkpoint, GcsRepo, HubRepo, Model, Optimizer};
use psyche_protocol::select::{Selection, checkpointers, unhealthy_clients};

use super::super::chain::key;
use super::super::run::{config, configuration, hub, metadata, model, node, report};
use super::{Deed, Pair, Random};

/// The owner's place behind the four clients.
const OWNER: usize = 4;

/// Who does what.
pub(super) fn next(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    if random.chance(65) { sensible(pair, random) } else { anything(pair, random) }
}

fn wait(random: &mut Random, seconds: u64) -> Deed {
    Deed::Wait { seconds: random.below(seconds + 1) as i64, slots: random.below(5) }
}

fn sensible(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let anyone = random.below(5) as usize;
    let config = pair.native.state.coordinator.config;
    match pair.native.run_state() {
        RunState::Uninitialized | RunState::Paused if random.chance(40) => {
            (OWNER, Deed::Update(Box::new(configuration(quick_config(random)))))
        }
        RunState::Uninitialized | RunState::Paused => (OWNER, Deed::Paused(false)),
        RunState::WaitingForMembers if !pair.open => (OWNER, Deed::Authorize(true)),
        RunState::WaitingForMembers => match random.below(3) {
            0 => (anyone, wait(random, 3)),
            1 => (anyone, Deed::Tick),
            _ => join(pair, random),
        },
        RunState::Warmup => match random.below(3) {
            0 => (anyone, wait(random, config.warmup_time)),
            1 => (anyone, Deed::Tick),
            _ => ready(pair, random),
        },
        RunState::RoundTrain => match random.below(10) {
            0 => (anyone, wait(random, config.max_round_train_time)),
            1 => (anyone, Deed::Tick),
            2 => join(pair, random),
            3 => health_check(pair, random),
            _ => witness(pair, random),
        },
        RunState::RoundWitness | RunState::Cooldown if random.chance(50) => (anyone, wait(random, 6)),
        RunState::RoundWitness if random.chance(30) => witness(pair, random),
        RunState::Cooldown if random.chance(30) => checkpoint(pair, random),
        RunState::Finished if random.chance(50) => (OWNER, Deed::Free),
        RunState::RoundWitness | RunState::Cooldown | RunState::Finished => (anyone, Deed::Tick),
    }
}

fn anything(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let anyone = random.below(5) as usize;
    // Mostly the owner, so that the owner's instructions get past the first check.
    let owner = if random.chance(80) { OWNER } else { anyone };
    let number = |random: &mut Random| random.chance(70).then(|| random.below(1_000_000));
    match random.below(16) {
        0 | 1 => (anyone, wait(random, 45)),
        2 => (anyone, Deed::Tick),
        3 => join(pair, random),
        4 => (anyone, Deed::Join(strange_identity(pair, anyone, random))),
        5 => ready(pair, random),
        6 => (anyone, Deed::WarmupWitness(Box::new(report(strange_proof(random), &[])))),
        7 => witness(pair, random),
        8 => (anyone, Deed::Witness(Box::new(report(strange_proof(random), &[])))),
        9 => health_check(pair, random),
        10 => (anyone, Deed::Checkpoint(strange_checkpoint(random))),
        11 => (owner, Deed::Update(Box::new(strange_update(random)))),
        12 => (owner, Deed::Version("v".repeat(random.below(100) as usize))),
        13 => (owner, Deed::Rates(number(random), number(random))),
        14 if random.chance(30) => (owner, Deed::Authorize(random.chance(50))),
        14 => (anyone, Deed::Noise(noise(random))),
        _ if random.chance(50) => (owner, Deed::Paused(random.chance(40))),
        _ if random.chance(30) => (owner, Deed::Free),
        _ => (anyone, Deed::Tick),
    }
}

fn join(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let who = random.below(4) as usize;
    (who, Deed::Join(node(&key(pair.wallet(who)))))
}

fn strange_identity(pair: &Pair, who: usize, random: &mut Random) -> NodeIdentity {
    let mut identity = node(&key(pair.wallet(who)));
    match random.below(3) {
        0 => identity.signer[0] ^= 1,
        1 => identity.p2p_identity = [0; 32],
        _ => identity.p2p_identity[5] ^= random.next() as u8,
    }
    identity
}

/// Some client of the epoch says that it is ready.
fn ready(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let clients = pair.native.clients();
    let index = random.below(clients.len() as u64);
    let who = clients.get(index as usize).map_or(0, |client| pair.who(&client.id.signer));
    (who, Deed::WarmupWitness(Box::new(report(WitnessProof::new(0, index, true), &[]))))
}

/// Some client of the epoch reports, most often one that the seed chose, having heard most of the others.
fn witness(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let clients = pair.native.clients();
    let index = random.below(clients.len() as u64);
    let config = &pair.native.state.coordinator.config;
    let proof = Selection::of_round(pair.native.current_round(), config)
        .ok()
        .and_then(|selection| selection.witness_proof(index))
        .unwrap_or(WitnessProof::new(0, index, true));
    let who = clients.get(index as usize).map_or(0, |client| pair.who(&client.id.signer));
    let heard: Vec<Pubkey> = clients.iter().map(|client| client.id.signer).filter(|_| random.chance(60)).collect();
    (who, Deed::Witness(Box::new(report(proof, &heard))))
}

fn strange_proof(random: &mut Random) -> WitnessProof {
    let index = if random.chance(90) { random.below(6) } else { random.next() };
    WitnessProof::new(random.below(6), index, random.chance(70))
}

fn health_check(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let who = random.below(5) as usize;
    let unhealthy = unhealthy_clients(&pair.native.state.coordinator).next();
    if let Some((client, proof)) = unhealthy.filter(|_| random.chance(70)) {
        return (who, Deed::HealthCheck(HealthCheckArgs { client, proof }));
    }
    let index = random.below(5);
    let client = pair.native.clients().get(index as usize).map_or(node(&[9; 32]), |client| client.id);
    let config = &pair.native.state.coordinator.config;
    let honest = pair
        .native
        .previous_round()
        .and_then(|round| Selection::of_round(round, config).ok())
        .and_then(|selection| selection.committee(index));
    let strange = CommitteeProof { committee: Committee::ALL[random.below(3) as usize], position: random.below(5), index };
    let proof = honest.filter(|_| random.chance(80)).unwrap_or(strange);
    (who, Deed::HealthCheck(HealthCheckArgs { client, proof }))
}

/// Some client of the epoch names new weights, most often one that the seed elected.
fn checkpoint(pair: &Pair, random: &mut Random) -> (usize, Deed) {
    let elected = checkpointers(&pair.native)[random.below(3) as usize].filter(|_| random.chance(70));
    let who = elected.map_or(random.below(5) as usize, |signer| pair.who(&signer));
    (who, Deed::Checkpoint(strange_checkpoint(random)))
}

fn strange_checkpoint(random: &mut Random) -> Checkpoint {
    let revision = random.chance(50).then(|| FixedString::new("main").unwrap());
    let hub = HubRepo { repo_id: FixedString::new("someone/else").unwrap(), revision };
    let gcs = GcsRepo { bucket: FixedString::new("bucket").unwrap(), prefix: revision };
    match random.below(8) {
        7 => super::super::run::hub("../else"),
        0 => Checkpoint::Ephemeral,
        1 => Checkpoint::Dummy(hub),
        2 => Checkpoint::Hub(hub),
        3 => Checkpoint::P2P(hub),
        4 => Checkpoint::Gcs(gcs),
        5 => Checkpoint::P2PGcs(gcs),
        _ => super::super::run::hub(""),
    }
}

/// Short phases, few steps, so that sequences come round.
fn quick_config(random: &mut Random) -> Config {
    let min_clients = 1 + random.below(3) as u16;
    Config {
        epoch_time: 31 + random.below(60),
        total_steps: 4 + random.below(16) as u32,
        init_min_clients: min_clients + random.below(2) as u16,
        min_clients,
        witness_nodes: random.below(u64::from(min_clients) + 1) as u16,
        global_batch_size_warmup_tokens: random.below(20_000),
        global_batch_size_start: 5 + random.below(4) as u16,
        global_batch_size_end: 9 + random.below(9) as u16,
        verification_percent: if random.chance(15) { random.below(101) as u8 } else { 0 },
        ..config()
    }
}

fn strange_update(random: &mut Random) -> UpdateArgs {
    let mut config = quick_config(random);
    match random.below(6) {
        0 => config.min_clients = 0,
        1 => config.global_batch_size_start = 100,
        2 => config.witness_nodes = 33,
        3 => config.warmup_time = u64::MAX,
        _ => {}
    }
    let Model::Llm(mut llm) = model();
    match random.below(6) {
        0 => llm.optimizer = Optimizer::Dummy,
        1 => llm.max_seq_len = 0,
        2 => llm.cold_start_warmup_steps = random.below(10) as u32,
        3 => llm.checkpoint = strange_checkpoint(random),
        4 => llm.checkpoint = hub("third/place"),
        _ => {}
    }
    UpdateArgs {
        metadata: random.chance(50).then(metadata),
        config: random.chance(50).then_some(config),
        model: random.chance(50).then_some(Model::Llm(llm)),
        progress: random.chance(20).then(|| Progress::new(1, random.below(5) as u32, random.below(1_000))),
    }
}

fn noise(random: &mut Random) -> Vec<u8> {
    let mut data: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
    if random.chance(50) {
        data = [&TickArgs::DISCRIMINATOR[..], &data, &[1]].concat();
    }
    data
}
