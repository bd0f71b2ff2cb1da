//! The coordinator: what its instructions do, what they refuse, and what they cost.

use psyche_protocol::accounts::Authorization;
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::{CoordinatorAccount, NodeIdentity, RunState, WitnessProof};
use psyche_protocol::machine::CoordinatorError;
use psyche_protocol::model::Checkpoint;
use psyche_protocol::select::{Selection, unhealthy_clients};
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer::{self, authorization_of, wrong_accounts_are_refused};
use super::chain::{Chain, derive, key, read_only, unsigned, with_account, with_data};
use super::codes::*;
use super::run::*;

#[test]
fn a_run_is_created_unconfigured_under_its_name() {
    let t = Owned::created(Chain::new(), "a run");
    let owner = key(&t.owner);
    let (_, bump) = instance_of("a run");
    assert_eq!(t.instance(), (bump, owner, owner, t.run.account, "a run".to_owned()));
    let state = t.state();
    assert_eq!((state.version, state.nonce), (1, 0));
    assert_eq!(state.run_state(), RunState::Uninitialized);
    assert_eq!(state.state.coordinator.run_id.as_str(), "a run");
    assert_eq!(state.state.client_version.as_str(), VERSION);
}

#[test]
fn creation_refuses_wrong_accounts_names_and_versions() {
    let mut chain = Chain::new();
    let [payer, account] = [chain.user(), chain.new_key()];
    let run = RunKeys::new("a run", key(&account));
    let size = CoordinatorAccount::SIZE;
    chain.accept(&[&payer, &account], &[allocate(&chain, &payer, &account, size)]);
    let init = run.init(&key(&payer), &init_args(&key(&payer), "a run"));

    chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&init, 0));
    for index in [0, 1, 2] {
        chain.refuse(CONSTRAINT_MUT, &[&payer], &read_only(&init, index));
    }
    chain.refuse(CONSTRAINT_SEEDS, &[&payer], &with_account(&init, 1, &[5; 32]));
    chain.refuse(CONSTRAINT_SEEDS, &[&payer], &with_account(&init, 1, &instance_of("another").0));
    chain.refuse(INVALID_PROGRAM_ID, &[&payer], &with_account(&init, 3, &ids::TOKEN_PROGRAM));
    chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&payer], &with_account(&init, 2, &[6; 32]));
    chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&payer], &with_account(&init, 2, &key(&payer)));
    let too_few = Instruction { accounts: init.accounts[..3].to_vec(), ..init.clone() };
    chain.refuse(ACCOUNT_NOT_ENOUGH_KEYS, &[&payer], &too_few);

    for name in ["", "a name that is one byte too lengthy", "zero\0"] {
        let args = init_args(&key(&payer), name);
        let refused = run.init(&key(&payer), &args);
        chain.refuse(CoordinatorError::RunIdInvalidLength.code(), &[&payer], &refused);
    }
    let long_version = "v".repeat(97);
    let args =
        psyche_protocol::instruction::InitCoordinatorArgs { client_version: &long_version, ..init_args(&key(&payer), "a run") };
    chain.refuse(CoordinatorError::InvalidClientVersion.code(), &[&payer], &run.init(&key(&payer), &args));

    let small = chain.new_key();
    chain.accept(&[&payer, &small], &[allocate(&chain, &payer, &small, size - 8)]);
    let wrong_size = CoordinatorError::CoordinatorAccountIncorrectSize.code();
    chain.refuse(wrong_size, &[&payer], &with_account(&init, 2, &key(&small)));
    chain.accept(&[&payer], &[init]);
}

#[test]
fn neither_a_name_nor_an_account_is_used_twice() {
    let mut t = Owned::created(Chain::new(), "a run");
    let account = t.chain.new_key();
    let owner = key(&t.owner);
    let allocate = allocate(&t.chain, &t.owner, &account, CoordinatorAccount::SIZE);
    t.chain.accept(&[&t.owner, &account], &[allocate]);
    let same_name = RunKeys::new("a run", key(&account)).init(&owner, &init_args(&owner, "a run"));
    t.chain.refuse(ALREADY_IN_USE, &[&t.owner], &same_name);
    let same_account = RunKeys::new("another", t.run.account).init(&owner, &init_args(&owner, "another"));
    let used = CoordinatorError::AccountAlreadyInitialized.code();
    t.chain.refuse(used, &[&t.owner], &same_account);
}

/// Tries the wrong accounts of instructions whose last two accounts are instance and coordinator account.
fn wrong_runs_are_refused(t: &mut Owned, signer: &Keypair, instructions: &[Instruction]) {
    let other = t.chain.new_key();
    let other_run = RunKeys::new("other", key(&other));
    let owner = key(&t.owner);
    let allocate = allocate(&t.chain, &t.owner, &other, CoordinatorAccount::SIZE);
    let init = other_run.init(&owner, &init_args(&owner, "other"));
    t.chain.accept(&[&t.owner, &other], &[allocate, init]);
    for good in instructions {
        wrong_run_is_refused(t, signer, good, &other_run);
    }
}

fn wrong_run_is_refused(t: &mut Owned, signer: &Keypair, good: &Instruction, other_run: &RunKeys) {
    let (instance, account) = (good.accounts.len() - 2, good.accounts.len() - 1);
    let too_few = Instruction { accounts: good.accounts[..account].to_vec(), ..good.clone() };
    t.chain.refuse(ACCOUNT_NOT_ENOUGH_KEYS, &[signer], &too_few);
    let trailing = with_data(good, [&good.data[..], &[0]].concat());
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[signer], &trailing);
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(good, 0));
    t.chain.refuse(CONSTRAINT_MUT, &[signer], &read_only(good, account));
    // Each account by itself is right, but they are not one run's.
    t.chain.refuse(CONSTRAINT_RAW, &[signer], &with_account(good, account, &other_run.account));
    t.chain.refuse(CONSTRAINT_RAW, &[signer], &with_account(good, instance, &other_run.instance));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[signer], &with_account(good, instance, &[8; 32]));
    for (index, real) in [(instance, t.run.instance), (account, t.run.account)] {
        let data = t.chain.data(&real);
        wrong_accounts_are_refused(&mut t.chain, &[signer], good, index, &data, &ids::COORDINATOR);
    }
    // A true copy of the instance at another address.
    let data = t.chain.data(&t.run.instance);
    let forged = t.chain.forge(&ids::COORDINATOR, data);
    t.chain.refuse(CONSTRAINT_SEEDS, &[signer], &with_account(good, instance, &forged));
    // The right account with contents that no program of this version writes.
    let real = t.chain.data(&t.run.account);
    let mut broken = |at: usize, value: u8, code: u32| {
        let mut data = real.clone();
        data[at] = value;
        t.chain.patch(&t.run.account, |account| account.data = data);
        t.chain.refuse(code, &[signer], good);
    };
    broken(8, 2, CONSTRAINT_RAW);
    broken(408, 8, CoordinatorError::CorruptAccount.code());
    broken(119_001, 2, CoordinatorError::CorruptAccount.code());
    t.chain.patch(&t.run.account, |account| account.data = real[..real.len() - 1].to_vec());
    t.chain.refuse(CoordinatorError::CoordinatorAccountIncorrectSize.code(), &[signer], good);
    t.chain.patch(&t.run.account, |account| account.data = real);
}

#[test]
fn every_instruction_of_the_owner_checks_owner_and_accounts() {
    let mut t = Owned::created(Chain::new(), "a run");
    let owner = key(&t.owner);
    let stranger = t.chain.user();
    let signer = t.owner.insecure_clone();
    let instructions = [
        t.run.update(&owner, configuration(config())),
        t.run.set_version(&owner, "1.0.1"),
        t.run.set_rates(&owner, Some(1), None),
        t.run.set_paused(&owner, false),
    ];
    for good in &instructions {
        t.chain.refuse(CONSTRAINT_RAW, &[&stranger], &with_account(good, 0, &key(&stranger)));
    }
    wrong_runs_are_refused(&mut t, &signer, &instructions);
    for good in instructions {
        t.chain.accept(&[&signer], &[good]);
    }
    assert_eq!(t.state().run_state(), RunState::WaitingForMembers);
    assert_eq!(t.state().state.client_version.as_str(), "1.0.1");
}

#[test]
fn rules_change_only_while_the_run_is_halted() {
    let mut t = Owned::waiting(config());
    let owner = key(&t.owner);
    let not_halted = CoordinatorError::UpdateConfigNotHalted.code();
    t.chain.refuse(not_halted, &[&t.owner], &t.run.update(&owner, configuration(config())));
    t.chain.refuse(not_halted, &[&t.owner], &t.run.set_version(&owner, "2"));
    let only_metadata = UpdateArgs { metadata: Some(metadata()), ..UpdateArgs::default() };
    t.chain.accept(&[&t.owner], &[t.run.update(&owner, only_metadata)]);
    t.chain.accept(&[&t.owner], &[t.run.set_paused(&owner, true)]);
    assert_eq!(t.state().run_state(), RunState::Paused);
    let contradiction = configuration(psyche_protocol::layout::Config { min_clients: 9, ..config() });
    let insane = CoordinatorError::ConfigSanityCheckFailed.code();
    t.chain.refuse(insane, &[&t.owner], &t.run.update(&owner, contradiction));
    t.chain.accept(&[&t.owner], &[t.run.update(&owner, configuration(config()))]);
    t.chain.refuse(CoordinatorError::InvalidClientVersion.code(), &[&t.owner], &t.run.set_version(&owner, &"v".repeat(97)));
    t.chain.refuse(CoordinatorError::Halted.code(), &[&t.owner], &t.run.set_paused(&owner, true));
}

#[test]
fn joining_takes_a_valid_authorization_of_the_join_authority() {
    let mut t = Owned::waiting(config());
    let good = t.join(0);
    let wallet = t.clients[0].insecure_clone();
    let user = key(&wallet);
    let missing = authorization_of(&key(&t.owner), &user).0;
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&wallet], &with_account(&good, 1, &missing));
    let data = t.chain.data(&t.authorization);
    wrong_accounts_are_refused(&mut t.chain, &[&wallet], &good, 1, &data, &ids::AUTHORIZER);
    // Somebody else's permission.
    let other = t.chain.user();
    let foreign = authorization_of(&key(&other), &ids::SYSTEM_PROGRAM).0;
    let create = authorizer::create(&other, &key(&other), &ids::SYSTEM_PROGRAM);
    let activate = authorizer::set_active(&key(&other), &ids::SYSTEM_PROGRAM, true);
    t.chain.accept(&[&other], &[create, activate]);
    t.chain.refuse(CONSTRAINT_RAW, &[&wallet], &with_account(&good, 1, &foreign));
    // A permission that does not hold, or for something else.
    let everyone = ids::SYSTEM_PROGRAM;
    let owner = key(&t.owner);
    t.chain.accept(&[&t.owner], &[authorizer::set_active(&owner, &everyone, false)]);
    t.chain.refuse(CONSTRAINT_RAW, &[&wallet], &good);
    t.chain.accept(&[&t.owner], &[authorizer::set_active(&owner, &everyone, true)]);
    let scope = b"other".as_slice();
    let (place, bump) = derive(&pda::authorization(&owner, &everyone, scope), &ids::AUTHORIZER);
    let mut other_scope = vec![0; Authorization::size(scope.len(), 0)];
    let forged = Authorization { scope, bump, ..Authorization::decode(&data).unwrap() };
    forged.encode(&mut other_scope).unwrap();
    t.chain.patch(&place, |account| (account.owner, account.data, account.lamports) = (ids::AUTHORIZER, other_scope, 1 << 30));
    t.chain.refuse(CONSTRAINT_RAW, &[&wallet], &with_account(&good, 1, &place));
    // The identity names another signer, or no peer-to-peer key.
    let mismatch = t.run.join(&user, &t.authorization, node(&key(&t.clients[1])));
    t.chain.refuse(CoordinatorError::SignerMismatch.code(), &[&wallet], &mismatch);
    let keyless = t.run.join(&user, &t.authorization, NodeIdentity { signer: user, p2p_identity: [0; 32] });
    t.chain.refuse(CoordinatorError::InvalidNodeIdentity.code(), &[&wallet], &keyless);
    wrong_runs_are_refused(&mut t, &wallet, std::slice::from_ref(&good));
    t.chain.accept(&[&wallet], &[good]);
    assert!(t.state().is_pending(&user));
}

#[test]
fn a_permission_covers_its_grantee_and_the_grantees_delegates_only() {
    let mut t = Owned::waiting(config());
    let grantee = key(&t.clients[0]);
    let owner = key(&t.owner);
    let address = authorization_of(&owner, &grantee).0;
    let create = authorizer::create(&t.owner, &owner, &grantee);
    t.chain.accept(&[&t.owner], &[create, authorizer::set_active(&owner, &grantee, true)]);
    let join = |t: &Owned, client: usize| {
        let user = key(&t.clients[client]);
        t.run.join(&user, &address, node(&user))
    };
    t.chain.accept(&[&t.clients[0]], &[join(&t, 0)]);
    t.chain.refuse(CONSTRAINT_RAW, &[&t.clients[1]], &join(&t, 1));
    let delegate = authorizer::delegate(&t.clients[0], &owner, &grantee, false, &[key(&t.clients[1])]);
    t.chain.accept(&[&t.clients[0]], &[delegate]);
    t.chain.accept(&[&t.clients[1]], &[join(&t, 1)]);
    t.chain.refuse(CONSTRAINT_RAW, &[&t.clients[2]], &join(&t, 2));
}

#[test]
fn every_instruction_of_clients_checks_its_accounts() {
    let mut t = Owned::training(config());
    let state = t.state();
    let (index, proof) = witnesses(&state)[0];
    let wallet = t.clients[t.wallet(&state.clients()[index].id.signer)].insecure_clone();
    let user = key(&wallet);
    let instructions = [
        t.run.tick(&user),
        t.run.checkpoint(&user, hub("elsewhere/weights")),
        t.run.warmup_witness(&user, index as u64),
        t.run.witness(&user, report(proof, &[])),
    ];
    wrong_runs_are_refused(&mut t, &wallet, &instructions);
    for good in instructions {
        t.chain.accept(&[&wallet], &[good]);
    }
}

#[test]
fn a_witness_is_accepted_once_from_whom_the_seed_chose_and_from_nobody_else() {
    let mut t = Owned::training(config());
    let state = t.state();
    let chosen = witnesses(&state);
    assert_eq!(chosen.len(), 2);
    let (index, proof) = chosen[0];
    let wallet = t.clients[t.wallet(&state.clients()[index].id.signer)].insecure_clone();
    let user = key(&wallet);
    let other = (0..3).find(|other| !chosen.iter().any(|(index, _)| index == other)).unwrap();
    let other = t.clients[t.wallet(&state.clients()[other].id.signer)].insecure_clone();
    let invalid = CoordinatorError::InvalidWitness.code();
    t.chain.refuse(invalid, &[&other], &t.run.witness(&key(&other), report(proof, &[])));
    let elsewhere = WitnessProof::new(proof.position + 1, proof.index, true);
    t.chain.refuse(invalid, &[&wallet], &t.run.witness(&user, report(elsewhere, &[])));
    let stranger = t.clients[3].insecure_clone();
    let not_a_client = CoordinatorError::SignerNotAClient.code();
    t.chain.refuse(not_a_client, &[&stranger], &t.run.witness(&key(&stranger), report(proof, &[])));
    t.chain.accept(&[&wallet], &[t.run.witness(&user, report(proof, &[user]))]);
    let duplicate = t.run.witness(&user, report(proof, &[]));
    t.chain.refuse(CoordinatorError::DuplicateWitness.code(), &[&wallet], &duplicate);
    let stored = t.state();
    assert_eq!(stored.current_round().witnesses.as_slice(), &[report(proof, &[user])]);
}

#[test]
fn a_client_that_the_witnesses_did_not_hear_is_dropped_and_paid_nothing() {
    let mut t = Owned::training(config());
    t.accept_witnesses(&[0, 1]);
    for _ in 0..2 {
        t.chain.advance(5);
        t.accept_tick();
        assert_eq!(t.state().run_state(), RunState::RoundTrain);
        t.accept_witnesses(&[0, 1]);
    }
    let state = t.state();
    let unhealthy: Vec<_> = unhealthy_clients(&state.state.coordinator).collect();
    assert_eq!(unhealthy.len(), 1);
    let (client, proof) = unhealthy[0];
    assert_eq!(client.signer, key(&t.clients[2]));
    let checker = t.clients[0].insecure_clone();
    let good = t.run.health_check(&key(&checker), HealthCheckArgs { client, proof });
    // A healthy client, a false place, somebody who is no member.
    let healthy = state.clients()[0].id;
    let selection = Selection::of_round(state.previous_round().unwrap(), &state.state.coordinator.config).unwrap();
    let args = HealthCheckArgs { client: healthy, proof: selection.committee(0).unwrap() };
    let refused = t.run.health_check(&key(&checker), args);
    t.chain.refuse(CoordinatorError::InvalidHealthCheck.code(), &[&checker], &refused);
    let args = HealthCheckArgs { client: healthy, proof };
    let refused = t.run.health_check(&key(&checker), args);
    t.chain.refuse(CoordinatorError::InvalidCommitteeProof.code(), &[&checker], &refused);
    let stranger = t.clients[3].insecure_clone();
    let refused = with_account(&good, 0, &key(&stranger));
    t.chain.refuse(CoordinatorError::SignerNotAClient.code(), &[&stranger], &refused);
    wrong_runs_are_refused(&mut t, &checker, std::slice::from_ref(&good));
    t.chain.accept(&[&checker], &[good]);
    assert!(!t.state().clients()[2].is_healthy());
}

#[test]
fn only_a_client_of_the_epoch_moves_the_checkpoint() {
    let mut t = Owned::training(config());
    let stranger = t.clients[3].insecure_clone();
    let moved = t.run.checkpoint(&key(&stranger), hub("elsewhere/weights"));
    t.chain.refuse(CoordinatorError::SignerNotAClient.code(), &[&stranger], &moved);
    let client = t.clients[0].insecure_clone();
    t.chain.accept(&[&client], &[with_account(&moved, 0, &key(&client))]);
    let model = t.state().state.coordinator.model.get().unwrap();
    assert!(matches!(model.llm().checkpoint, Checkpoint::Hub(repo) if repo.repo_id.as_str() == "elsewhere/weights"));
}

#[test]
fn a_halted_run_is_closed_by_its_owner_who_gets_the_rent_back() {
    let mut t = Owned::waiting(config());
    let owner = key(&t.owner);
    let spill = t.chain.user();
    let free = t.run.free(&owner, &key(&spill));
    t.chain.refuse(CoordinatorError::CloseCoordinatorNotHalted.code(), &[&t.owner], &free);
    t.chain.accept(&[&t.owner], &[t.run.set_paused(&owner, true)]);
    let stranger = t.chain.user();
    t.chain.refuse(CONSTRAINT_RAW, &[&stranger], &with_account(&free, 0, &key(&stranger)));
    t.chain.refuse(CONSTRAINT_MUT, &[&t.owner], &read_only(&free, 1));
    t.chain.refuse(CONSTRAINT_MUT, &[&t.owner], &read_only(&free, 2));
    t.chain.refuse(CONSTRAINT_RAW, &[&t.owner], &with_account(&free, 1, &t.run.account));
    let signer = t.owner.insecure_clone();
    wrong_runs_are_refused(&mut t, &signer, std::slice::from_ref(&free));
    let balance = |t: &Owned, key: &Pubkey| t.chain.svm.get_balance(&super::chain::address(key)).unwrap_or(0);
    let before = balance(&t, &key(&spill));
    let rent = balance(&t, &t.run.account) + balance(&t, &t.run.instance);
    t.chain.accept(&[&t.owner], &[free]);
    assert_eq!(balance(&t, &key(&spill)), before + rent);
    assert!(t.chain.data(&t.run.account).is_empty() && t.chain.data(&t.run.instance).is_empty());
}

#[test]
fn data_that_is_no_instruction_is_refused() {
    let mut t = Owned::waiting(config());
    let tick = t.run.tick(&key(&t.owner));
    t.chain.refuse(INSTRUCTION_MISSING, &[&t.owner], &with_data(&tick, vec![]));
    t.chain.refuse(INSTRUCTION_FALLBACK_NOT_FOUND, &[&t.owner], &with_data(&tick, vec![7; 8]));
    let elsewhere = super::chain::address(&[42; 32]);
    t.chain.svm.add_program_from_file(elsewhere, super::chain::elf("coordinator")).unwrap();
    let misplaced = Instruction { program_id: elsewhere, ..tick };
    t.chain.refuse(DECLARED_PROGRAM_ID_MISMATCH, &[&t.owner], &misplaced);
}
