//! What instructions cost at worst: 256 clients, 32 witnesses. Every one must fit into the compute budget that a client
//! gets without asking.

use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{HealthCheckArgs, RunUpdateArgs, SetFutureEpochRatesArgs, UpdateClientVersionArgs};
use psyche_protocol::layout::{Config, CoordinatorAccount, MAX_CLIENTS, RunState, WitnessProof};
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::select::{Selection, checkpointers, unhealthy_clients};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer;
use super::chain::{Chain, GENESIS_UNIX_TIME_S, key};
use super::run::{Owned, configuration, hub, node, report};
use super::tokens::{create_associated, mint_to};
use super::treasury::Treasury;

/// The budget of one instruction unless its transaction asks for more.
const DEFAULT_COMPUTE_UNITS: u64 = 200_000;

/// Costs by name, for the report that a failing (or `--nocapture`) run prints.
#[derive(Default)]
struct Costs(Vec<(String, u64)>);

impl Costs {
    fn note(&mut self, name: impl Into<String>, units: u64) {
        self.0.push((name.into(), units));
    }

    fn check(&self) {
        for (name, units) in &self.0 {
            println!("{units:>8} CU  {name}");
        }
        let most = self.0.iter().max_by_key(|(_, units)| *units).unwrap();
        assert!(most.1 <= DEFAULT_COMPUTE_UNITS, "{} takes {} compute units", most.0, most.1);
    }
}

/// A full run: 256 members whose wallets exist, rules without a fixed number of witnesses.
struct Crowd {
    t: Owned,
    members: Vec<Keypair>,
    now: i64,
    costs: Costs,
}

/// The native side of an instruction.
struct Native<'a> {
    run: &'a mut CoordinatorAccount,
    user: Pubkey,
    clock: Clock,
}

fn crowd_config() -> Config {
    Config {
        init_min_clients: MAX_CLIENTS as u16,
        min_clients: 1,
        witness_nodes: 0,
        global_batch_size_start: 512,
        global_batch_size_end: 1024,
        global_batch_size_warmup_tokens: 1 << 20,
        ..super::run::config()
    }
}

impl Crowd {
    fn new() -> Self {
        let mut t = Owned::waiting(crowd_config());
        let members: Vec<Keypair> = (0..MAX_CLIENTS).map(|_| t.chain.user()).collect();
        Self { t, members, now: GENESIS_UNIX_TIME_S, costs: Costs::default() }
    }

    fn clock(&self) -> Clock {
        Clock { unix_timestamp: self.now, slot: 1_000 }
    }

    /// Changes the account natively, because 256 transactions of the same kind tell nothing.
    fn native(&mut self, change: impl FnOnce(&mut CoordinatorAccount, &Clock, &[Pubkey])) {
        let mut state = self.t.state();
        let members: Vec<Pubkey> = self.members.iter().map(key).collect();
        change(&mut state, &self.clock(), &members);
        self.t.chain.patch(&self.t.run.account.clone(), |account| account.data = state.as_bytes().to_vec());
    }

    fn advance(&mut self, seconds: u64) {
        self.now += i64::try_from(seconds).unwrap();
        self.t.chain.set_time(self.now, 1_000);
    }

    /// Sends the instruction, notes what it cost, and compares with what `native` makes of the same account.
    fn measure(&mut self, name: &str, member: usize, instruction: Instruction, native: impl FnOnce(&mut Native<'_>)) {
        let mut expected = self.t.state();
        native(&mut Native { run: &mut expected, user: key(&self.members[member]), clock: self.clock() });
        let units = self.t.chain.accept(&[&self.members[member]], &[instruction]);
        assert!(self.t.state().as_bytes() == expected.as_bytes(), "{name}: bytecode and native rules differ");
        self.costs.note(name, units);
    }

    fn measure_tick(&mut self, name: &str, expected: RunState) {
        let tick = self.t.run.tick(&key(&self.members[0]));
        self.measure(name, 0, tick, |native| machine::tick(native.run, &native.clock).unwrap());
        assert_eq!(self.t.state().run_state(), expected, "{name}");
    }

    /// The last of the round's 32 witnesses reports; the others are stored natively. All but the last 12 claim to have heard
    /// everyone, which is just short of a quorum, so that health checks have to look everything up.
    fn measure_last_witness(&mut self, name: &str) {
        let mut last = None;
        self.native(|state, clock, _| {
            let selection = Selection::of_round(state.current_round(), &state.state.coordinator.config).unwrap();
            let mut chosen: Vec<_> = (0..selection.clients())
                .filter_map(|index| selection.witness_proof(index))
                .filter(|proof| proof.witness == 1)
                .collect();
            assert_eq!(chosen.len(), 32);
            last = chosen.pop();
            for (at, proof) in chosen.into_iter().enumerate() {
                let sender = state.clients()[proof.index as usize].id.signer;
                let mut witness = report(proof, &[]);
                witness.participant_bloom.bits = if at < 20 { [u64::MAX; 16] } else { [0; 16] };
                machine::witness(state, &sender, &witness, clock).unwrap();
            }
        });
        let proof = last.unwrap();
        let sender = self.t.state().clients()[proof.index as usize].id.signer;
        let member = self.members.iter().position(|wallet| key(wallet) == sender).unwrap();
        let witness = report(proof, &[]);
        self.advance(1);
        let instruction = self.t.run.witness(&sender, witness);
        self.measure(name, member, instruction, |native| {
            machine::witness(native.run, &native.user, &witness, &native.clock).unwrap();
        });
        assert_eq!(self.t.state().run_state(), RunState::RoundWitness);
    }

    fn last_member(&self) -> Pubkey {
        key(&self.members[MAX_CLIENTS - 1])
    }
}

fn join_and_warm_up(c: &mut Crowd) {
    c.native(|state, clock, members| {
        for member in &members[..MAX_CLIENTS - 1] {
            machine::join_run(state, &node(member), clock).unwrap();
        }
    });
    c.advance(1);
    let last = c.last_member();
    let join = c.t.run.join(&last, &c.t.authorization, node(&last));
    for name in ["join_run, 256th of the roster", "join_run, again"] {
        c.measure(name, MAX_CLIENTS - 1, join.clone(), |native| {
            machine::join_run(native.run, &node(&native.user), &native.clock).unwrap();
        });
    }
    c.advance(2);
    c.measure_tick("tick, WaitingForMembers to Warmup", RunState::Warmup);
    c.advance(1);
    c.measure_tick("tick, nothing to do in Warmup", RunState::Warmup);
    c.native(|state, clock, members| {
        for (index, member) in members[..31].iter().enumerate() {
            let proof = WitnessProof::new(0, index as u64, true);
            machine::warmup_witness(state, member, &report(proof, &[]), clock).unwrap();
        }
    });
    let ready = c.t.run.warmup_witness(&last, 255);
    c.measure("warmup_witness, 32nd, starts the training", MAX_CLIENTS - 1, ready, |native| {
        let witness = report(WitnessProof::new(0, 255, true), &[]);
        machine::warmup_witness(native.run, &native.user, &witness, &native.clock).unwrap();
    });
    assert_eq!(c.t.state().run_state(), RunState::RoundTrain);
}

fn train(c: &mut Crowd) {
    for round in 0..3 {
        c.measure_last_witness(&format!("witness, 32nd of round {round}"));
        c.advance(5);
        c.measure_tick("tick, RoundWitness to RoundTrain", RunState::RoundTrain);
    }
    let state = c.t.state();
    let (client, proof) = unhealthy_clients(&state.state.coordinator).last().unwrap();
    let args = HealthCheckArgs { client, proof };
    let check = c.t.run.health_check(&key(&c.members[0]), args);
    c.measure("health_check, 32 witnesses", 0, check, |native| {
        machine::health_check(native.run, &native.user, &args, &native.clock).unwrap();
    });
    let elected = checkpointers(&c.t.state())[2].unwrap();
    let member = c.members.iter().position(|wallet| key(wallet) == elected).unwrap();
    let moved = c.t.run.checkpoint(&elected, hub("elsewhere/weights"));
    c.measure("checkpoint", member, moved, |native| {
        machine::checkpoint(native.run, &native.user, &hub("elsewhere/weights"), &native.clock).unwrap();
    });
}

fn finish(c: &mut Crowd) {
    c.advance(30);
    c.measure_tick("tick, RoundTrain to RoundWitness", RunState::RoundWitness);
    c.measure_last_witness("witness in RoundWitness");
    // Every other client leaves at once, the costliest way to end a round.
    c.native(|state, _, _| {
        for client in state.state.coordinator.epoch_state.clients.as_mut_slice().iter_mut().step_by(2) {
            client.state = 1;
        }
    });
    c.advance(5);
    c.measure_tick("tick, end of a round that half of the clients leave", RunState::RoundTrain);
    c.native(|state, _, _| state.state.coordinator.config.total_steps = 5);
    c.measure_last_witness("witness, last of half the clients");
    c.advance(5);
    c.measure_tick("tick, RoundWitness to Cooldown", RunState::Cooldown);
    c.advance(5);
    c.measure_tick("tick, end of the epoch, paying 128 clients", RunState::Finished);
}

#[test]
fn every_instruction_of_a_full_run_fits_the_default_compute_budget() {
    let mut c = Crowd::new();
    join_and_warm_up(&mut c);
    train(&mut c);
    finish(&mut c);
    c.costs.check();
}

#[test]
fn paying_a_full_epoch_fits_the_default_compute_budget() {
    let mut c = Crowd::new();
    join_and_warm_up(&mut c);
    let mut state = c.t.state();
    state.state.coordinator.run_state = RunState::Cooldown.number();
    state.state.clients_state.current_earning_rate = 1_000_000;
    c.native(|account, _, _| *account = *state);
    c.advance(100);
    c.measure_tick("tick, end of the epoch, paying 256 clients", RunState::WaitingForMembers);
    assert_eq!(c.t.state().roster_client(&c.last_member()).unwrap().earned, 1_000_000 / 256);
    c.native(|account, clock, members| {
        for member in members {
            machine::join_run(account, &node(member), clock).unwrap();
        }
    });
    c.advance(10);
    c.measure_tick("tick, WaitingForMembers to Warmup with 256 who stay", RunState::Warmup);
    c.costs.check();
}

#[test]
fn creating_configuring_and_claiming_fit_the_default_compute_budget() {
    let mut costs = Costs::default();
    let mut t = Treasury::prepared(Chain::new(), "costs of a run with a long name!");
    let owner = t.owner.insecure_clone();
    let create = t.create("costs of a run with a long name!");
    costs.note("run_create with init_coordinator inside", t.chain.accept(&[&owner], &[create]));
    let everything = RunUpdateArgs {
        update: configuration(super::run::config()),
        earning_rate_total_shared: Some(300),
        slashing_rate_per_client: Some(7),
        paused: Some(false),
        client_version: Some("2.0.0"),
    };
    let update = t.update(&everything);
    costs.note("run_update of everything", t.chain.accept(&[&owner], &[update]));
    let user = t.chain.user();
    let open = t.open_book(&key(&user), &key(&user));
    costs.note("participant_create", t.chain.accept(&[&user], &[open]));
    create_associated(&mut t.chain, &user, &key(&user), &t.mint);
    mint_to(&mut t.chain, &owner, &t.mint, &t.collateral, 1_000);
    for other in 0..MAX_CLIENTS - 1 {
        t.grant(&[other as u8; 32], 1);
    }
    t.grant(&key(&user), 300);
    let claim = t.claim(&key(&user), 300);
    costs.note("participant_claim, 256th of the roster", t.chain.accept(&[&user], &[claim]));

    let mut t = Owned::created(Chain::new(), "another run with a longish name");
    let owner = key(&t.owner);
    let instructions = [
        ("update", t.run.update(&owner, configuration(super::run::config()))),
        ("update_client_version", t.run.by(&owner, &UpdateClientVersionArgs { client_version: &"v".repeat(96) })),
        (
            "set_future_epoch_rates",
            t.run.by(&owner, &SetFutureEpochRatesArgs { earning_rate_total_shared: Some(1), slashing_rate_per_client: None }),
        ),
        ("set_paused(false)", t.run.set_paused(&owner, false)),
        ("set_paused(true)", t.run.set_paused(&owner, true)),
    ];
    for (name, instruction) in instructions {
        costs.note(name, t.chain.accept(&[&t.owner], &[instruction]));
    }
    let grantee = [5; 32];
    let create = authorizer::create(&t.owner, &owner, &grantee);
    costs.note("authorization_create", t.chain.accept(&[&t.owner], &[create]));
    let activate = authorizer::set_active(&owner, &grantee, true);
    costs.note("authorization_grantor_update", t.chain.accept(&[&t.owner], &[activate]));
    let delegates: Vec<Pubkey> = (0..20).map(|i| [i; 32]).collect();
    let create = authorizer::create(&t.owner, &owner, &owner);
    let delegate = authorizer::delegate(&t.owner, &owner, &owner, false, &delegates);
    t.chain.accept(&[&t.owner], &[create]);
    costs.note("authorization_grantee_update, 20 delegates", t.chain.accept(&[&t.owner], &[delegate]));
    costs.check();
}
