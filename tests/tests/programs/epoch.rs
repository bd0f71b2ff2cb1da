//! One whole epoch on the bytecode, from the first authorization to tokens in three wallets.

use psyche_protocol::instruction::{HealthCheckArgs, RunUpdateArgs};
use psyche_protocol::layout::{Config, CoordinatorAccount, RunState};
use psyche_protocol::model::Checkpoint;
use psyche_protocol::select::unhealthy_clients;
use psyche_protocol::{Pubkey, ids};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer::{self, authorization_of};
use super::chain::{Chain, key};
use super::run::{config, configuration, node, report, witnesses};
use super::tokens::{amount, associated, create_associated, mint_to};
use super::treasury::Treasury;

const EARNING_RATE: u64 = 1_000;

/// A treasury run that anyone may join, and four wallets that do.
struct Epoch {
    t: Treasury,
    authorization: Pubkey,
    clients: Vec<Keypair>,
}

impl Epoch {
    fn new(config: Config) -> Self {
        let mut t = Treasury::created(Chain::new(), "epoch");
        let owner = key(&t.owner);
        let everyone = ids::SYSTEM_PROGRAM;
        let create = authorizer::create(&t.owner, &owner, &everyone);
        t.chain.accept(&[&t.owner], &[create, authorizer::set_active(&owner, &everyone, true)]);
        mint_to(&mut t.chain, &t.owner, &t.mint, &t.collateral, 10 * EARNING_RATE);
        let start = RunUpdateArgs {
            update: configuration(config),
            earning_rate_total_shared: Some(EARNING_RATE),
            paused: Some(false),
            ..RunUpdateArgs::default()
        };
        t.chain.accept(&[&t.owner], &[t.update(&start)]);
        let clients = (0..4).map(|_| t.chain.user()).collect();
        Self { authorization: authorization_of(&owner, &everyone).0, t, clients }
    }

    fn state(&self) -> Box<CoordinatorAccount> {
        self.t.state()
    }

    fn send(&mut self, client: usize, instruction: Instruction) {
        self.t.chain.accept(&[&self.clients[client]], &[instruction]);
    }

    fn join(&mut self, client: usize) {
        let user = key(&self.clients[client]);
        let join = self.t.run.join(&user, &self.authorization, node(&user));
        self.send(client, join);
    }

    fn tick_after(&mut self, seconds: u64, expected: RunState) {
        self.t.chain.advance(i64::try_from(seconds).unwrap());
        // Anyone ticks, also the one who is in no epoch.
        let tick = self.t.run.tick(&key(&self.clients[3]));
        self.send(3, tick);
        assert_eq!(self.state().run_state(), expected);
    }

    fn wallet(&self, signer: &Pubkey) -> usize {
        self.clients.iter().position(|wallet| key(wallet) == *signer).unwrap()
    }

    /// All witnesses of the round report; they heard `heard`. The last report ends the training.
    fn witness_round(&mut self, heard: &[usize]) {
        let heard: Vec<Pubkey> = heard.iter().map(|client| key(&self.clients[*client])).collect();
        let state = self.state();
        for (index, proof) in witnesses(&state) {
            let sender = state.clients()[index].id.signer;
            let witness = self.t.run.witness(&sender, report(proof, &heard));
            self.send(self.wallet(&sender), witness);
        }
        assert_eq!(self.state().run_state(), RunState::RoundWitness);
    }

    fn earned(&self, client: usize) -> u64 {
        self.state().roster_client(&key(&self.clients[client])).map_or(0, |member| member.earned)
    }

    /// Opens the book, makes the token account and claims everything.
    fn claim_all(&mut self, client: usize) -> u64 {
        let wallet = self.clients[client].insecure_clone();
        let user = key(&wallet);
        let points = self.earned(client);
        create_associated(&mut self.t.chain, &wallet, &user, &self.t.mint);
        let instructions = [self.t.open_book(&user, &user), self.t.claim(&user, points)];
        self.t.chain.accept(&[&wallet], &instructions);
        amount(&self.t.chain, &associated(&user, &self.t.mint))
    }
}

#[test]
fn an_epoch_runs_from_authorization_to_tokens() {
    let config = Config { epoch_time: 40, ..config() };
    let mut e = Epoch::new(config);
    for client in 0..3 {
        e.join(client);
    }
    e.tick_after(2, RunState::Warmup);
    assert_eq!(e.state().clients().len(), 3);

    // Everyone that the epoch waits for is ready: training begins before the warm-up's time is over.
    e.t.chain.advance(3);
    for index in 0..2u64 {
        let client = e.wallet(&e.state().clients()[index as usize].id.signer);
        let ready = e.t.run.warmup_witness(&key(&e.clients[client]), index);
        e.send(client, ready);
    }
    assert_eq!(e.state().run_state(), RunState::RoundTrain);
    // Whoever joins now joins the next epoch.
    e.join(3);
    assert_eq!(e.state().clients().len(), 3);

    // The third client falls silent: nobody hears it, in the third round it is dropped.
    for _ in 0..2 {
        e.witness_round(&[0, 1]);
        e.tick_after(config.round_witness_time, RunState::RoundTrain);
    }
    let state = e.state();
    let (client, proof) = unhealthy_clients(&state.state.coordinator).next().unwrap();
    assert_eq!(client.signer, key(&e.clients[2]));
    let check = e.t.run.health_check(&key(&e.clients[0]), HealthCheckArgs { client, proof });
    e.send(0, check);
    e.witness_round(&[0, 1]);
    e.tick_after(config.round_witness_time, RunState::RoundTrain);
    assert_eq!(e.state().clients().len(), 2);

    // The epoch's time is over: two more steps drain the pipeline, then it cools down and pays.
    e.t.chain.advance(40);
    let mut rounds = 0;
    loop {
        if e.state().run_state() == RunState::RoundTrain {
            e.witness_round(&[0, 1]);
        }
        rounds += 1;
        e.t.chain.advance(i64::try_from(config.round_witness_time).unwrap());
        let tick = e.t.run.tick(&key(&e.clients[3]));
        e.send(3, tick);
        if e.state().run_state() == RunState::Cooldown {
            break;
        }
        assert!(rounds < 5, "the epoch ends in time");
    }
    assert_eq!(rounds, 3);
    e.tick_after(config.cooldown_time, RunState::WaitingForMembers);
    let state = e.state();
    assert_eq!((state.state.coordinator.progress.epoch, state.state.coordinator.progress.step), (1, 7));
    let checkpoint = state.state.coordinator.model.get().unwrap().llm().checkpoint;
    assert!(matches!(checkpoint, Checkpoint::P2P(_)));

    assert_eq!([0, 1, 2, 3].map(|client| e.earned(client)), [EARNING_RATE / 2, EARNING_RATE / 2, 0, 0]);
    assert_eq!([0, 1, 2].map(|client| e.claim_all(client)), [EARNING_RATE / 2, EARNING_RATE / 2, 0]);
    assert_eq!(amount(&e.t.chain, &e.t.collateral), 9 * EARNING_RATE);
    assert_eq!(e.t.book().total_claimed_earned_points, EARNING_RATE);
}

#[test]
fn every_client_joins_anew_for_every_epoch() {
    let config = Config { total_steps: 4, ..config() };
    let mut e = Epoch::new(config);
    for client in 0..3 {
        e.join(client);
    }
    e.tick_after(2, RunState::Warmup);
    e.tick_after(config.warmup_time, RunState::RoundTrain);
    assert_eq!(e.state().state.clients_state.pending().count(), 0);
    for client in 0..3 {
        e.join(client);
    }
    assert_eq!(e.state().state.clients_state.pending().count(), 3);
    // Nobody reports at all: the round and the epoch end, everyone is sent home unpaid, the run goes on with who
    // joined anew.
    e.tick_after(config.max_round_train_time, RunState::RoundWitness);
    e.tick_after(config.round_witness_time, RunState::Cooldown);
    e.tick_after(config.cooldown_time, RunState::WaitingForMembers);
    assert_eq!(e.earned(0), 0);
    e.tick_after(2, RunState::Warmup);
    assert_eq!(e.state().clients().len(), 3);
    e.tick_after(config.warmup_time, RunState::RoundTrain);
    for _ in 0..2 {
        e.witness_round(&[0, 1, 2]);
        e.t.chain.advance(i64::try_from(config.round_witness_time).unwrap());
        let tick = e.t.run.tick(&key(&e.clients[3]));
        e.send(3, tick);
    }
    assert_eq!(e.state().run_state(), RunState::Cooldown);
    e.tick_after(config.cooldown_time, RunState::Finished);
    assert_eq!([0, 1, 2].map(|client| e.earned(client)), [EARNING_RATE / 3; 3]);
}

#[test]
fn an_ejected_member_claims_what_is_left() {
    let config = config();
    let mut e = Epoch::new(config);
    let rates = RunUpdateArgs { slashing_rate_per_client: Some(100), ..RunUpdateArgs::default() };
    e.t.chain.accept(&[&e.t.owner], &[e.t.update(&rates)]);
    // The first epoch pays all three; in the second nobody hears the third.
    for (heard, absent) in [(vec![0, 1, 2], 0), (vec![0, 1], 1)] {
        for client in 0..3 {
            e.join(client);
        }
        e.tick_after(2, RunState::Warmup);
        e.tick_after(config.warmup_time, RunState::RoundTrain);
        for _ in 0..2 {
            e.witness_round(&heard);
            e.tick_after(config.round_witness_time, RunState::RoundTrain);
        }
        let due: Vec<_> = unhealthy_clients(&e.state().state.coordinator).collect();
        assert_eq!(due.len(), absent);
        for (client, proof) in due {
            let check = e.t.run.health_check(&key(&e.clients[0]), HealthCheckArgs { client, proof });
            e.send(0, check);
        }
        // An outage ends the epoch: no report at all.
        e.tick_after(config.max_round_train_time, RunState::RoundWitness);
        e.tick_after(config.round_witness_time, RunState::Cooldown);
        e.tick_after(config.cooldown_time, RunState::WaitingForMembers);
    }
    assert_eq!([0, 1, 2].map(|client| e.earned(client)), [833, 833, 333]);
    let third = e.clients[2].insecure_clone();
    let user = key(&third);
    create_associated(&mut e.t.chain, &third, &user, &e.t.mint);
    let too_much = [e.t.open_book(&user, &user), e.t.claim(&user, 234)];
    assert!(e.t.chain.send(&[&third], &too_much).is_err());
    let rest = [e.t.open_book(&user, &user), e.t.claim(&user, 233)];
    e.t.chain.accept(&[&third], &rest);
    assert_eq!(amount(&e.t.chain, &associated(&user, &e.t.mint)), 233);
    assert_eq!(e.claim_all(0), 833);
}
