//! The machine under random happenings: its invariants, its promise that an error changes nothing, and that nodes
//! predict what it does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod common;

use common::{Run, config, identity, invariants, report};
use proptest::collection::vec;
use proptest::prelude::*;
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, CoordinatorError, would_tick};
use psyche_protocol::model::{Checkpoint, GcsRepo, HubRepo};
use psyche_protocol::select::{Selection, unhealthy_clients};

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (0..6, "[a-z]{0,8}").prop_map(|(kind, name)| {
        let name = FixedString::new(&name).unwrap();
        let hub = HubRepo { repo_id: name, revision: None };
        let gcs = GcsRepo { bucket: name, prefix: None };
        match kind {
            0 => Checkpoint::Ephemeral,
            1 => Checkpoint::Dummy(hub),
            2 => Checkpoint::Hub(hub),
            3 => Checkpoint::P2P(hub),
            4 => Checkpoint::Gcs(gcs),
            _ => Checkpoint::P2PGcs(gcs),
        }
    })
}

/// One thing that happens to a run.
#[derive(Clone, Debug)]
enum Happening {
    Wait(i64),
    Tick,
    Join(u8),
    Ready(u8, Option<u64>),
    Witness(u8, u8),
    RawWitness(u8, u64, u64),
    HealthChecks(u8),
    RawHealthCheck(u8, u8, u64, u64),
    Checkpoint(u8, Box<Checkpoint>),
    Pause(bool),
    Rates(Option<u64>, Option<u64>),
    Configure(u16),
    Version(usize),
    Free,
}

fn happening() -> impl Strategy<Value = Happening> {
    let client = 1..9u8;
    let rate = || proptest::option::of(0..100u64);
    prop_oneof![
        4 => (0..40i64).prop_map(Happening::Wait),
        4 => Just(Happening::Tick),
        6 => client.clone().prop_map(Happening::Join),
        3 => (client.clone(), proptest::option::of(0..300u64)).prop_map(|(who, index)| Happening::Ready(who, index)),
        16 => (client.clone(), prop_oneof![2 => Just(0xff), 1 => any::<u8>()]).prop_map(|(who, heard)| Happening::Witness(who, heard)),
        1 => (client.clone(), 0..10u64, any::<u64>()).prop_map(|(who, index, at)| Happening::RawWitness(who, index, at)),
        3 => client.clone().prop_map(Happening::HealthChecks),
        1 => (client.clone(), client.clone(), any::<u64>(), 0..10u64)
            .prop_map(|(who, whom, at, index)| Happening::RawHealthCheck(who, whom, at, index)),
        1 => (client, checkpoint()).prop_map(|(who, checkpoint)| Happening::Checkpoint(who, Box::new(checkpoint))),
        2 => proptest::bool::weighted(0.15).prop_map(Happening::Pause),
        1 => (rate(), rate()).prop_map(|(earning, slashing)| Happening::Rates(earning, slashing)),
        1 => (1..6u16).prop_map(Happening::Configure),
        1 => (0..100usize).prop_map(Happening::Version),
        1 => Just(Happening::Free),
    ]
}

/// Lets it happen; `None` where nothing was sent to the chain.
fn apply(run: &mut Run, happening: &Happening) -> Option<Result<(), CoordinatorError>> {
    let clock = run.clock;
    match *happening {
        Happening::Wait(seconds) => {
            run.wait(seconds);
            None
        }
        Happening::Tick => Some(machine::tick(&mut run.account, &clock)),
        Happening::Join(client) => Some(run.join(client)),
        Happening::Ready(client, index) => {
            let index = index.or_else(|| run.index(client)).unwrap_or(u64::MAX);
            let claim = report(WitnessProof::new(0, index, true), &[]);
            Some(machine::warmup_witness(&mut run.account, &[client; 32], &claim, &clock))
        }
        Happening::Witness(client, heard) => {
            run.index(client)?;
            let heard: Vec<u8> = (1..9).filter(|other| (heard >> (other - 1)) & 1 == 1).collect();
            let index = run.index(client)?;
            let selection = Selection::of_round(run.account.current_round(), &run.account.state.coordinator.config).ok()?;
            let claim = report(selection.witness_proof(index)?, &heard);
            Some(machine::witness(&mut run.account, &[client; 32], &claim, &clock))
        }
        Happening::RawWitness(client, index, position) => {
            let claim = report(WitnessProof::new(position, index, true), &[]);
            Some(machine::witness(&mut run.account, &[client; 32], &claim, &clock))
        }
        Happening::HealthChecks(client) => {
            let (id, proof) = unhealthy_clients(&run.account.state.coordinator).next()?;
            Some(machine::health_check(&mut run.account, &[client; 32], &HealthCheckArgs { client: id, proof }, &clock))
        }
        Happening::RawHealthCheck(client, target, position, index) => {
            let proof = CommitteeProof { committee: Committee::Trainer, position, index };
            let args = HealthCheckArgs { client: identity(target), proof };
            Some(machine::health_check(&mut run.account, &[client; 32], &args, &clock))
        }
        Happening::Checkpoint(client, ref checkpoint) => {
            Some(machine::checkpoint(&mut run.account, &[client; 32], checkpoint, &clock))
        }
        Happening::Pause(paused) => Some(run.set_paused(paused)),
        Happening::Rates(earning, slashing) => Some(machine::set_future_epoch_rates(&mut run.account, earning, slashing)),
        Happening::Version(len) => Some(machine::update_client_version(&mut run.account, &"v".repeat(len))),
        Happening::Free => {
            // Closing is the shell's; the rule only looks.
            let halted = run.account.halted();
            assert_eq!(machine::check_free(&run.account).is_ok(), halted);
            None
        }
        Happening::Configure(min_clients) => {
            let config = Config { min_clients, init_min_clients: min_clients, witness_nodes: min_clients / 2, ..config() };
            Some(machine::update(&mut run.account, &UpdateArgs { config: Some(config), ..UpdateArgs::default() }))
        }
    }
}

/// A run whose roster is full of wallets that will not come back, some of them with points.
fn crowded() -> Run {
    let mut run = Run::new(Config { total_steps: 60, epoch_time: 60, ..config() });
    for number in 0..MAX_CLIENTS as u64 - 4 {
        let mut signer = [0xee; 32];
        signer[..8].copy_from_slice(&number.to_le_bytes());
        let mut gone = RosterClient::new(NodeIdentity { signer, p2p_identity: [1; 32] }, 0);
        gone.earned = u64::from(number % 3 == 0);
        gone.slashed = u64::from(number % 5 == 0);
        assert!(run.account.state.clients_state.clients.push(&gone));
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn prop_the_machine_keeps_its_invariants(happenings in vec(happening(), 1..500), full: bool) {
        let mut run = if full { crowded() } else { Run::new(Config { total_steps: 30, epoch_time: 60, ..config() }) };
        machine::set_future_epoch_rates(&mut run.account, Some(77), Some(5)).unwrap();
        for happening in &happenings {
            let before = run.account.clone();
            let predicted = would_tick(&run.account, run.clock.unix_timestamp);
            let outcome = apply(&mut run, happening);
            invariants::check(&before, &run.account);
            prop_assert!(run.step() >= before.state.coordinator.progress.step);
            let untouched = run.account.as_bytes() == before.as_bytes();
            match (outcome, happening) {
                (None | Some(Err(_)), _) => prop_assert!(untouched, "an error changed the account"),
                (Some(Ok(())), Happening::Version(_)) => prop_assert_eq!(run.account.nonce, before.nonce),
                // What owners and witnesses do always counts, what changes nothing never does.
                (Some(Ok(())), _) => prop_assert_eq!(run.account.nonce, before.nonce + u64::from(!untouched)),
            }
            if matches!((happening, outcome), (Happening::Tick, Some(Ok(())))) {
                prop_assert_eq!(run.state(), predicted.unwrap_or(before.run_state()));
            }
        }
    }

    #[test]
    fn prop_corrupted_accounts_are_refused_or_handled(
        flips in vec((0..CoordinatorAccount::SIZE, any::<u8>()), 1..20),
        happenings in vec(happening(), 1..20),
    ) {
        let mut run = Run::new(config());
        run.train(&[1, 2, 3]);
        run.round(&[1, 2, 3]);
        let bytes = bytemuck::bytes_of_mut(&mut *run.account);
        for (at, value) in flips {
            bytes[at] = value;
        }
        if run.account.validate().is_ok() {
            for happening in &happenings {
                apply(&mut run, happening);
                prop_assert!(run.account.validate().is_ok());
            }
        }
    }
}
