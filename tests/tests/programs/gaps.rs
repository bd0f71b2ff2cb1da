//! The gaps of the deployed programs, tried on the bytecode of ours. The same rules on the native state machine:
//! `protocol/tests/gaps.rs`.

use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{Args, HealthCheckArgs, UpdateArgs, WarmupWitnessArgs};
use psyche_protocol::keys::is_public_key;
use psyche_protocol::layout::{
    ClientState, Config, CoordinatorAccount, MAX_CLIENTS, NodeIdentity, ROSTER_IDLE_EPOCHS, RosterClient, RunState,
    WitnessProof,
};
use psyche_protocol::machine::CoordinatorError::{self, *};
use psyche_protocol::model::{Checkpoint, GcsRepo};
use psyche_protocol::select::{checkpointers, unhealthy_clients};
use solana_instruction::Instruction;

use super::chain::{key, with_data};
use super::codes::INSTRUCTION_DID_NOT_DESERIALIZE;
use super::run::*;

impl Owned {
    #[track_caller]
    fn refuse(&mut self, error: CoordinatorError, client: usize, instruction: &Instruction) {
        let wallet = self.clients[client].insecure_clone();
        self.chain.refuse(error.code(), &[&wallet], instruction);
    }

    fn set_rates(&mut self, earning: u64, slashing: u64) {
        let rates = self.run.set_rates(&key(&self.owner), Some(earning), Some(slashing));
        self.chain.accept(&[&self.owner], &[rates]);
    }

    fn tick_after(&mut self, seconds: u64) -> RunState {
        self.chain.advance(i64::try_from(seconds).unwrap());
        self.accept_tick();
        self.state().run_state()
    }

    /// Four clients in the first round of an epoch.
    fn four_in_training(config: Config, rates: (u64, u64)) -> Self {
        let mut this = Self::waiting(Config { init_min_clients: 4, ..config });
        this.set_rates(rates.0, rates.1);
        for client in 0..4 {
            this.accept_join(client);
        }
        assert_eq!(this.tick_after(2), RunState::Warmup);
        assert_eq!(this.tick_after(config.warmup_time), RunState::RoundTrain);
        this
    }

    /// A round in which every witness reports having heard `heard`.
    fn round(&mut self, heard: &[usize]) -> RunState {
        self.chain.advance(1);
        self.accept_witnesses(heard);
        self.tick_after(config().round_witness_time)
    }

    fn account_of(&self, client: usize) -> (u64, u64) {
        let state = self.state();
        state.roster_client(&key(&self.clients[client])).map_or((0, 0), |member| (member.earned, member.slashed))
    }
}

#[test]
fn a_warmup_witness_is_a_member_of_the_epoch_and_names_its_own_index_once() {
    let mut t = Owned::warming_up(config());
    let state = t.state();
    let wallets: Vec<usize> = state.clients().iter().map(|client| t.wallet(&client.id.signer)).collect();
    let user = key(&t.clients[wallets[0]]);
    let claim = |t: &Owned, from: usize, position, index| {
        let witness = report(WitnessProof::new(position, index, true), &[]);
        t.run.by(&key(&t.clients[from]), &WarmupWitnessArgs { witness })
    };
    for (position, index) in [(0, 1), (0, 3), (0, u64::MAX), (3, 0), (u64::MAX, 0)] {
        let refused = claim(&t, wallets[0], position, index);
        t.refuse(InvalidWitness, wallets[0], &refused);
    }
    let refused = claim(&t, 3, 0, 0);
    t.refuse(SignerNotAClient, 3, &refused);
    t.accept_join(3);
    t.refuse(InvalidWitness, 3, &refused);
    t.chain.accept(&[&t.clients[wallets[0]]], &[t.run.warmup_witness(&user, 0)]);
    let again = t.run.warmup_witness(&user, 0);
    t.refuse(DuplicateWitness, wallets[0], &again);
}

#[test]
fn a_peer_key_that_is_no_key_is_refused_at_the_door() {
    let mut t = Owned::waiting(config());
    let user = key(&t.clients[0]);
    let mut off_curve: Pubkey = [0x42; 32];
    while is_public_key(&off_curve) {
        off_curve[0] += 1;
    }
    let mut order_one = [0; 32];
    order_one[0] = 1;
    let mut beyond_the_prime = [0xff; 32];
    beyond_the_prime[0] = 0xed;
    for p2p_identity in [[0; 32], order_one, beyond_the_prime, off_curve] {
        let refused = t.run.join(&user, &t.authorization, NodeIdentity { signer: user, p2p_identity });
        t.refuse(InvalidNodeIdentity, 0, &refused);
    }
    t.accept_join(0);
    assert!(t.state().is_pending(&user));
}

#[test]
fn syscall_and_native_rule_agree_on_keys() {
    let mut t = Owned::waiting(config());
    let user = key(&t.clients[0]);
    let mut accepted = 0;
    for number in 0..60u8 {
        let p2p_identity = std::array::from_fn(|at| (at as u8).wrapping_mul(number).wrapping_add(number / 3));
        let join = t.run.join(&user, &t.authorization, NodeIdentity { signer: user, p2p_identity });
        let outcome = t.chain.send(&[&t.clients[0]], &[join]);
        assert_eq!(outcome.is_ok(), is_public_key(&p2p_identity), "{p2p_identity:?}");
        accepted += u32::from(outcome.is_ok());
    }
    assert!((10..50).contains(&accepted));
}

#[test]
fn only_elected_members_name_a_checkpoint_and_only_a_place_that_could_exist() {
    let mut t = Owned::waiting(Config { init_min_clients: 4, ..config() });
    for client in 0..4 {
        t.accept_join(client);
    }
    let name = |t: &Owned, client: usize, checkpoint| t.run.checkpoint(&key(&t.clients[client]), checkpoint);
    let early = name(&t, 0, hub("a/b"));
    t.refuse(SignerNotAClient, 0, &early);
    assert_eq!(t.tick_after(2), RunState::Warmup);
    t.refuse(NoActiveRound, 0, &early);
    assert_eq!(t.tick_after(config().warmup_time), RunState::RoundTrain);
    let elected: Vec<usize> = checkpointers(&t.state()).into_iter().flatten().map(|signer| t.wallet(&signer)).collect();
    let other = (0..4).find(|client| !elected.contains(client)).unwrap();
    let refused = name(&t, other, hub("a/b"));
    t.refuse(NotElected, other, &refused);
    let bucket = |text: &str| {
        let bucket = psyche_protocol::layout::FixedString::new(text).unwrap();
        Checkpoint::Gcs(GcsRepo { bucket, prefix: None })
    };
    for bad in [hub(""), hub("/etc/weights"), hub("a/../b"), hub("a b"), hub("a/b/c"), bucket("UPPER"), Checkpoint::Ephemeral] {
        let refused = name(&t, elected[0], bad);
        t.refuse(InvalidCheckpoint, elected[0], &refused);
    }
    for client in elected {
        let accepted = name(&t, client, hub("some-org/some_model.v2"));
        t.chain.accept(&[&t.clients[client]], &[accepted]);
    }
    let model = t.state().state.coordinator.model.get().unwrap();
    assert_eq!(model.llm().checkpoint, hub("some-org/some_model.v2"));
}

#[test]
fn texts_of_any_length_are_refused_with_a_code_of_their_own() {
    let mut t = Owned::created(super::chain::Chain::new(), "a run");
    let owner = key(&t.owner);
    for len in [97, 200, 700] {
        let refused = t.run.set_version(&owner, &"v".repeat(len));
        t.chain.refuse(InvalidClientVersion.code(), &[&t.owner], &refused);
    }
    let refused = t.run.set_version(&owner, "v\0");
    t.chain.refuse(InvalidClientVersion.code(), &[&t.owner], &refused);
    // A length that the data do not have, and text that is none.
    let good = t.run.set_version(&owner, "1.0.1");
    let mut longer = good.data.clone();
    longer[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&t.owner], &with_data(&good, longer));
    let mut broken = good.data.clone();
    broken[12] = 0xff;
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&t.owner], &with_data(&good, broken));
    // The owner's names of places are text, too: byte 9 of the repository is set behind its end.
    let mut configured = configuration(config());
    let data = UpdateArgs { metadata: None, config: None, ..configured }.to_vec().unwrap();
    let at = data.windows(5).position(|window| window == b"someo").unwrap();
    let mut holed = data.clone();
    holed[at + 3] = 0;
    let update = t.run.update(&owner, UpdateArgs { metadata: None, config: None, ..configured });
    t.chain.refuse(ModelSanityCheckFailed.code(), &[&t.owner], &with_data(&update, holed));
    configured.progress = None;
    t.chain.accept(&[&t.owner], &[t.run.update(&owner, configured), good]);
}

/// Both witnesses of two rounds did not hear client 3; then client 0 tells.
fn with_absent(slashing: u64) -> Owned {
    let mut t = Owned::four_in_training(config(), (900, slashing));
    for _ in 0..2 {
        assert_eq!(t.round(&[0, 1, 2]), RunState::RoundTrain);
    }
    let due: Vec<_> = unhealthy_clients(&t.state().state.coordinator).collect();
    assert_eq!(due.iter().map(|(client, _)| client.signer).collect::<Vec<_>>(), [key(&t.clients[3])]);
    for (client, proof) in due {
        let check = t.run.health_check(&key(&t.clients[0]), HealthCheckArgs { client, proof });
        t.chain.accept(&[&t.clients[0]], &[check]);
    }
    t
}

fn state_of(t: &Owned, client: usize) -> ClientState {
    let state = t.state();
    let at = state.client_index(&key(&t.clients[client])).unwrap();
    state.clients()[at].client_state()
}

#[test]
fn proven_absence_is_slashed_where_the_owner_set_a_rate() {
    for (rate, expected) in [(0, ClientState::Dropped), (70, ClientState::Ejected)] {
        let mut t = with_absent(rate);
        assert_eq!(state_of(&t, 3), expected);
        t.round(&[0, 1, 2]);
        t.chain.accept(&[&t.owner], &[t.run.set_paused(&key(&t.owner), true)]);
        assert_eq!(t.round(&[0, 1, 2]), RunState::Cooldown);
        assert_eq!(t.tick_after(config().cooldown_time), RunState::Paused);
        assert_eq!([0, 1, 2, 3].map(|client| t.account_of(client)), [(300, 0), (300, 0), (300, 0), (0, rate)]);
    }
}

#[test]
fn a_pause_keeps_the_epochs_points_and_the_last_epochs_run_resumes_with_more_steps() {
    let rules = Config { total_steps: 3, ..config() };
    let mut t = Owned::four_in_training(rules, (100, 0));
    assert_eq!(t.round(&[0, 1, 2, 3]), RunState::RoundTrain);
    assert_eq!(t.round(&[0, 1, 2, 3]), RunState::Cooldown);
    let owner = key(&t.owner);
    t.chain.accept(&[&t.owner], &[t.run.set_paused(&owner, true)]);
    assert_eq!(t.tick_after(config().cooldown_time), RunState::Paused);
    assert_eq!([0, 1, 2, 3].map(|client| t.account_of(client)), [(25, 0); 4]);
    let resume = t.run.set_paused(&owner, false);
    t.chain.refuse(StepsDone.code(), &[&t.owner], &resume);
    let more = UpdateArgs { config: Some(Config { total_steps: 9, ..rules }), ..UpdateArgs::default() };
    t.chain.accept(&[&t.owner], &[t.run.update(&owner, more), resume]);
    assert_eq!(t.state().run_state(), RunState::WaitingForMembers);
}

#[test]
fn a_round_that_nobody_witnesses_costs_its_members_nothing_once_health_was_judged() {
    for witnessed_rounds in 0..3 {
        let mut t = Owned::four_in_training(config(), (100, 0));
        for _ in 0..witnessed_rounds {
            assert_eq!(t.round(&[0, 1, 2, 3]), RunState::RoundTrain);
        }
        assert_eq!(t.tick_after(config().max_round_train_time), RunState::RoundWitness);
        assert_eq!(t.tick_after(config().round_witness_time), RunState::Cooldown);
        assert_eq!(t.tick_after(config().cooldown_time), RunState::WaitingForMembers);
        let share = if witnessed_rounds < 2 { 0 } else { 25 };
        assert_eq!([0, 1, 2, 3].map(|client| t.account_of(client)), [(share, 0); 4], "{witnessed_rounds} rounds");
    }
}

#[test]
fn a_full_roster_gives_away_places_without_points_only() {
    let mut t = Owned::waiting(config());
    let mut state = t.state();
    let roster = &mut state.state.clients_state;
    roster.next_active = ROSTER_IDLE_EPOCHS + 1;
    for number in 0..MAX_CLIENTS {
        let mut signer = [0xee; 32];
        signer[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut gone = RosterClient::new(NodeIdentity { signer, p2p_identity: [1; 32] }, u64::from(number < 250));
        (gone.earned, gone.slashed) = (u64::from(number != 100 && number < 200), u64::from((200..250).contains(&number)));
        assert!(roster.clients.push(&gone));
    }
    let patch = |t: &mut Owned, state: &CoordinatorAccount| {
        let bytes = state.as_bytes().to_vec();
        t.chain.patch(&t.run.account.clone(), |account| account.data = bytes);
    };
    patch(&mut t, &state);
    // Places 250 and on are vacant; then 100, one epoch later.
    for client in 0..4 {
        t.accept_join(client);
        assert_eq!(t.state().state.clients_state.clients.as_slice()[250 + client].id.signer, key(&t.clients[client]));
    }
    let mut state = t.state();
    for member in &mut state.state.clients_state.clients.as_mut_slice()[250..] {
        member.active = ROSTER_IDLE_EPOCHS + 1;
    }
    patch(&mut t, &state);
    let newcomer = t.chain.user();
    let join = t.run.join(&key(&newcomer), &t.authorization, node(&key(&newcomer)));
    t.chain.refuse(ClientsFull.code(), &[&newcomer], &join);
    state.state.clients_state.next_active += 1;
    patch(&mut t, &state);
    t.chain.accept(&[&newcomer], &[join]);
    let members = t.state();
    let members = members.state.clients_state.clients.as_slice();
    assert_eq!((members.len(), members[100].id.signer), (MAX_CLIENTS, key(&newcomer)));
    assert_eq!((members[100].earned, members[99].earned, members[200].slashed), (0, 1, 1));
}

#[test]
fn a_tick_that_finds_nothing_to_do_succeeds_and_writes_nothing() {
    let mut t = Owned::waiting(config());
    let idle = |t: &mut Owned| {
        let before = t.chain.data(&t.run.account);
        t.accept_tick();
        assert!(t.chain.data(&t.run.account) == before, "in {:?}", t.state().run_state());
    };
    idle(&mut t);
    for client in 0..3 {
        t.accept_join(client);
        idle(&mut t);
    }
    assert_eq!(t.tick_after(2), RunState::Warmup);
    idle(&mut t);
    assert_eq!(t.tick_after(config().warmup_time), RunState::RoundTrain);
    idle(&mut t);
    t.accept_witnesses(&[0, 1, 2]);
    idle(&mut t);
    let nonce = t.state().nonce;
    assert_eq!(t.tick_after(config().round_witness_time), RunState::RoundTrain);
    assert_eq!(t.state().nonce, nonce + 1);
}
