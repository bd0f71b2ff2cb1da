//! The treasurer: what its instructions do and what they refuse.

use psyche_protocol::accounts::{CoordinatorInstance, Participant, Run};
use psyche_protocol::instruction::{RunUpdateArgs, UpdateArgs};
use psyche_protocol::layout::{CoordinatorAccount, RunState};
use psyche_protocol::machine::CoordinatorError;
use psyche_protocol::{ids, pda};
use solana_instruction::{Instruction, error::InstructionError};
use solana_keypair::Keypair;

use super::authorizer::wrong_accounts_are_refused;
use super::chain::{Chain, Refusal, derive, key, read_only, unsigned, with_account, with_data};
use super::codes::*;
use super::run::{RunKeys, VERSION, allocate, config, configuration, metadata};
use super::tokens::{amount, approve, associated, create_associated, create_mint, mint_to, set_close_authority};
use super::treasury::{Treasury, run_of};

const INVALID_PARAMETER: u32 = 6000;
const RUN_ID_INVALID_LENGTH: u32 = 6001;
/// The token program's "insufficient funds".
const TOKEN_INSUFFICIENT_FUNDS: u32 = 1;

#[test]
fn a_treasury_run_owns_the_coordinators_run_and_holds_the_collateral() {
    let t = Treasury::created(Chain::new(), "paid");
    let owner = key(&t.owner);
    let expected = Run {
        bump: run_of(t.index).1,
        index: t.index,
        main_authority: owner,
        join_authority: owner,
        coordinator_account: t.run.account,
        coordinator_instance: t.run.instance,
        collateral_mint: t.mint,
        total_claimed_collateral_amount: 0,
        total_claimed_earned_points: 0,
    };
    assert_eq!(t.book(), expected);
    let data = t.chain.data(&t.run.instance);
    let instance = CoordinatorInstance::decode(&data).unwrap();
    assert_eq!((instance.main_authority, instance.join_authority), (t.address, owner));
    assert_eq!(instance.run_id, "paid");
    assert_eq!(t.state().state.client_version.as_str(), VERSION);
    assert_eq!(t.chain.data(&t.collateral)[..64], [t.mint, t.address].concat());
}

#[test]
fn creation_refuses_wrong_accounts_and_a_second_time() {
    let mut t = Treasury::prepared(Chain::new(), "paid");
    let create = t.create("paid");
    let owner = t.owner.insecure_clone();
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&create, 0));
    for index in [0, 1, 2, 4, 5] {
        t.chain.refuse(CONSTRAINT_MUT, &[&owner], &read_only(&create, index));
    }
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner], &with_account(&create, 1, &run_of(t.index + 1).0));
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner], &with_account(&create, 4, &[4; 32]));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&owner], &with_account(&create, 3, &[3; 32]));
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&owner], &with_account(&create, 3, &key(&owner)));
    for index in 6..10 {
        t.chain.refuse(INVALID_PROGRAM_ID, &[&owner], &with_account(&create, index, &ids::TREASURER));
    }
    let too_few = Instruction { accounts: create.accounts[..9].to_vec(), ..create.clone() };
    t.chain.refuse(ACCOUNT_NOT_ENOUGH_KEYS, &[&owner], &too_few);
    // Another token account than the run's own: the associated token program refuses.
    let other_mint = create_mint(&mut t.chain, &owner);
    let elsewhere = with_account(&create, 2, &associated(&t.address, &other_mint));
    assert!(matches!(t.chain.send(&[&owner], &[elsewhere]), Err(Refusal::Other(_))));
    for name in ["", "a name that is one byte too lengthy"] {
        t.chain.refuse(RUN_ID_INVALID_LENGTH, &[&owner], &t.create(name));
    }
    t.chain.accept(&[&owner], std::slice::from_ref(&create));
    t.chain.refuse(ALREADY_IN_USE, &[&owner], &create);
    // Another index cannot take over the same name or account.
    let mut second = t.create("paid");
    second.data[8..16].copy_from_slice(&(t.index + 1).to_le_bytes());
    let address = run_of(t.index + 1).0;
    second.accounts[2].pubkey = super::chain::address(&associated(&address, &t.mint));
    let second = with_account(&second, 1, &address);
    t.chain.refuse(CoordinatorError::AccountAlreadyInitialized.code(), &[&owner], &second);
}

#[test]
fn only_initialised_mints_and_token_accounts_count() {
    let (mut t, user) = funded();
    let mut second = t.create("paid");
    second.data[8..16].copy_from_slice(&(t.index + 1).to_le_bytes());
    let second = with_account(&second, 1, &run_of(t.index + 1).0);
    let claim = t.claim(&key(&user), 1);
    let owner = t.owner.insecure_clone();
    let cases = [(82, InstructionError::UninitializedAccount), (81, InstructionError::InvalidAccountData)];
    for (len, refusal) in cases {
        let mint = t.chain.forge(&ids::TOKEN_PROGRAM, vec![0; len]);
        let outcome = t.chain.send(&[&owner], &[with_account(&second, 3, &mint)]);
        assert_eq!(outcome, Err(Refusal::Other(refusal)), "a mint of {len} bytes");
    }
    let cases = [(165, InstructionError::UninitializedAccount), (82, InstructionError::InvalidAccountData)];
    for (len, refusal) in cases {
        for index in [1, 3] {
            let account = t.chain.forge(&ids::TOKEN_PROGRAM, vec![0; len]);
            let outcome = t.chain.send(&[&user], &[with_account(&claim, index, &account)]);
            assert_eq!(outcome, Err(Refusal::Other(refusal.clone())), "a token account of {len} bytes");
        }
    }
}

#[test]
fn a_token_account_made_before_does_not_stop_the_creation() {
    let mut t = Treasury::prepared(Chain::new(), "paid");
    create_associated(&mut t.chain, &t.owner, &t.address, &t.mint);
    let create = t.create("paid");
    t.chain.accept(&[&t.owner], &[create]);
    assert_eq!(t.book().collateral_mint, t.mint);
}

#[test]
fn one_update_configures_prices_names_a_version_and_resumes() {
    let mut t = Treasury::created(Chain::new(), "paid");
    let everything = RunUpdateArgs {
        update: configuration(config()),
        earning_rate_total_shared: Some(300),
        slashing_rate_per_client: Some(7),
        paused: Some(false),
        client_version: Some("2.0.0"),
    };
    t.chain.accept(&[&t.owner], &[t.update(&everything)]);
    let state = t.state();
    assert_eq!(state.run_state(), RunState::WaitingForMembers);
    assert_eq!(state.state.metadata, metadata());
    assert_eq!(state.state.clients_state.future_earning_rate, 300);
    assert_eq!(state.state.clients_state.future_slashing_rate, 7);
    assert_eq!(state.state.client_version.as_str(), "2.0.0");
    let pause_and_change = RunUpdateArgs {
        update: UpdateArgs { config: Some(config()), ..UpdateArgs::default() },
        paused: Some(true),
        ..RunUpdateArgs::default()
    };
    t.chain.accept(&[&t.owner], &[t.update(&pause_and_change)]);
    assert_eq!(t.state().run_state(), RunState::Paused);
    t.chain.accept(&[&t.owner], &[t.update(&RunUpdateArgs::default())]);
}

#[test]
fn an_update_is_the_owners_and_for_the_runs_own_accounts() {
    let mut t = Treasury::created(Chain::new(), "paid");
    let rates = RunUpdateArgs { earning_rate_total_shared: Some(300), ..RunUpdateArgs::default() };
    let good = t.update(&rates);
    let owner = t.owner.insecure_clone();
    let stranger = t.chain.user();
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&good, 0));
    t.chain.refuse(CONSTRAINT_RAW, &[&stranger], &with_account(&good, 0, &key(&stranger)));
    t.chain.refuse(CONSTRAINT_MUT, &[&owner], &read_only(&good, 3));
    t.chain.refuse(INVALID_PROGRAM_ID, &[&owner], &with_account(&good, 4, &ids::TREASURER));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&owner], &with_account(&good, 1, &[3; 32]));
    let data = t.chain.data(&t.address);
    wrong_accounts_are_refused(&mut t.chain, &[&owner], &good, 1, &data, &ids::TREASURER);
    let copy = t.chain.forge(&ids::TREASURER, data);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner], &with_account(&good, 1, &copy));
    // Another run of the same owner.
    let other = Treasury::created(std::mem::replace(&mut t.chain, Chain::new()), "other");
    t.chain = other.chain;
    t.chain.refuse(CONSTRAINT_RAW, &[&owner], &with_account(&good, 2, &other.run.instance));
    t.chain.refuse(CONSTRAINT_RAW, &[&owner], &with_account(&good, 3, &other.run.account));
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&owner], &with_account(&good, 2, &t.address));
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&owner], &with_account(&good, 3, &t.address));
    // The owner of the treasury's run cannot go round the treasurer.
    let around = t.run.set_rates(&key(&owner), Some(1), None);
    t.chain.refuse(CONSTRAINT_RAW, &[&owner], &around);
    t.chain.accept(&[&owner], &[good]);
}

#[test]
fn a_book_is_opened_once_per_user_who_signs() {
    let mut t = Treasury::created(Chain::new(), "paid");
    let user = t.chain.user();
    let owner = t.owner.insecure_clone();
    let open = t.open_book(&key(&owner), &key(&user));
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&user], &unsigned(&open, 0));
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&owner], &unsigned(&open, 1));
    for index in [0, 3] {
        t.chain.refuse(CONSTRAINT_MUT, &[&owner, &user], &read_only(&open, index));
    }
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner, &user], &with_account(&open, 3, &t.participant(&key(&owner))));
    t.chain.refuse(INVALID_PROGRAM_ID, &[&owner, &user], &with_account(&open, 4, &ids::TREASURER));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&owner, &user], &with_account(&open, 2, &[3; 32]));
    let data = t.chain.data(&t.address);
    wrong_accounts_are_refused(&mut t.chain, &[&owner, &user], &open, 2, &data, &ids::TREASURER);
    let copy = t.chain.forge(&ids::TREASURER, data);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner, &user], &with_account(&open, 2, &copy));
    // Also with a book at the address that the copy's would have.
    let (book, _) = derive(&pda::participant(&copy, &key(&user)), &ids::TREASURER);
    let consistent = with_account(&with_account(&open, 2, &copy), 3, &book);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&owner, &user], &consistent);
    t.chain.accept(&[&owner, &user], std::slice::from_ref(&open));
    let entry = t.entry(&key(&user));
    assert_eq!((entry.claimed_collateral_amount, entry.claimed_earned_points), (0, 0));
    t.chain.refuse(ALREADY_IN_USE, &[&owner, &user], &open);
}

/// A treasury of 1,000 tokens, a user with 300 points, an open book and a token account.
fn funded() -> (Treasury, Keypair) {
    let mut t = Treasury::created(Chain::new(), "paid");
    let user = t.chain.user();
    let open = t.open_book(&key(&t.owner), &key(&user));
    t.chain.accept(&[&t.owner, &user], &[open]);
    create_associated(&mut t.chain, &user, &key(&user), &t.mint);
    mint_to(&mut t.chain, &t.owner, &t.mint, &t.collateral, 1_000);
    t.grant(&key(&user), 300);
    (t, user)
}

#[test]
fn points_are_paid_once_in_tokens() {
    let (mut t, user) = funded();
    let me = key(&user);
    let wallet = associated(&me, &t.mint);
    t.chain.accept(&[&user], &[t.claim(&me, 0)]);
    t.chain.accept(&[&user], &[t.claim(&me, 120)]);
    assert_eq!((amount(&t.chain, &wallet), amount(&t.chain, &t.collateral)), (120, 880));
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, 181));
    t.chain.accept(&[&user], &[t.claim(&me, 180)]);
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, 1));
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, u64::MAX));
    assert_eq!((amount(&t.chain, &wallet), amount(&t.chain, &t.collateral)), (300, 700));
    let entry = t.entry(&me);
    assert_eq!((entry.claimed_collateral_amount, entry.claimed_earned_points), (300, 300));
    let book = t.book();
    assert_eq!((book.total_claimed_collateral_amount, book.total_claimed_earned_points), (300, 300));
}

#[test]
fn a_book_that_claims_more_than_was_earned_pays_nothing() {
    let (mut t, user) = funded();
    let mut data = t.chain.data(&t.participant(&key(&user)));
    let entry = Participant { claimed_earned_points: 301, ..t.entry(&key(&user)) };
    entry.encode(&mut data).unwrap();
    t.chain.patch(&t.participant(&key(&user)), |account| account.data = data);
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&key(&user), 1));
    t.chain.accept(&[&user], &[t.claim(&key(&user), 0)]);
    assert_eq!((t.book().total_claimed_earned_points, amount(&t.chain, &t.collateral)), (0, 1_000));
}

#[test]
fn points_that_were_slashed_are_not_paid() {
    let (mut t, user) = funded();
    let me = key(&user);
    t.slash(&me, 120);
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, 181));
    t.chain.accept(&[&user], &[t.claim(&me, 100)]);
    // Slashed once more after the claim: what was paid stays paid, and nothing is left, not less than nothing.
    t.slash(&me, 250);
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, 1));
    t.chain.accept(&[&user], &[t.claim(&me, 0)]);
    t.slash(&me, u64::MAX);
    t.chain.refuse(INVALID_PARAMETER, &[&user], &t.claim(&me, 1));
    assert_eq!((t.entry(&me).claimed_earned_points, amount(&t.chain, &t.collateral)), (100, 900));
}

#[test]
fn a_claim_of_nothing_changes_nothing_and_costs_less() {
    let (mut t, user) = funded();
    let me = key(&user);
    let before = (t.book(), t.entry(&me), amount(&t.chain, &t.collateral));
    let nothing = t.chain.accept(&[&user], &[t.claim(&me, 0)]);
    assert_eq!((t.book(), t.entry(&me), amount(&t.chain, &t.collateral)), before);
    let something = t.chain.accept(&[&user], &[t.claim(&me, 1)]);
    assert!(nothing < something, "{nothing} units for nothing, {something} for something");
}

#[test]
fn what_somebody_else_could_empty_is_not_paid_into() {
    let (mut t, user) = funded();
    let me = key(&user);
    let wallet = associated(&me, &t.mint);
    let claim = t.claim(&me, 1);
    let sponsor = key(&t.chain.user());
    // A sponsor who gets the account's rent back takes no tokens with it.
    set_close_authority(&mut t.chain, &user, &wallet, &sponsor);
    t.chain.accept(&[&user], std::slice::from_ref(&claim));
    // Wrapped lamports do leave with the account.
    t.chain.patch(&wallet, |account| account.data[109..113].copy_from_slice(&1u32.to_le_bytes()));
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &claim);
    t.chain.patch(&wallet, |account| account.data[109..113].fill(0));
    approve(&mut t.chain, &user, &wallet, &sponsor);
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &claim);
    assert_eq!(t.entry(&me).claimed_earned_points, 1);
}

#[test]
fn names_and_versions_have_their_lengths() {
    let mut t = Treasury::prepared(Chain::new(), "paid");
    let owner = t.owner.insecure_clone();
    let long = t.create_with(&"n".repeat(33), VERSION);
    t.chain.refuse(RUN_ID_INVALID_LENGTH, &[&owner], &long);
    let invalid = CoordinatorError::InvalidClientVersion.code();
    let long = t.create_with("paid", &"v".repeat(97));
    t.chain.refuse(invalid, &[&owner], &long);
    let nul = t.create_with("paid", "1\0");
    t.chain.refuse(invalid, &[&owner], &nul);
    let endless = t.create_with("paid", &"v".repeat(800));
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&owner], &endless);
    let create = t.create_with("paid", &"v".repeat(96));
    t.chain.accept(&[&owner], &[create]);
    let version = "v".repeat(97);
    let update = t.update(&RunUpdateArgs { client_version: Some(&version), ..RunUpdateArgs::default() });
    t.chain.refuse(invalid, &[&owner], &update);
    assert_eq!(t.state().state.client_version.as_str(), "v".repeat(96));
}

#[test]
fn an_empty_treasury_pays_nothing_and_books_nothing() {
    let (mut t, user) = funded();
    t.grant(&[1; 32], 1);
    let stranger = t.chain.user();
    let open = t.open_book(&key(&stranger), &key(&stranger));
    t.chain.accept(&[&stranger], &[open]);
    create_associated(&mut t.chain, &stranger, &key(&stranger), &t.mint);
    t.chain.refuse(INVALID_PARAMETER, &[&stranger], &t.claim(&key(&stranger), 1));
    t.grant(&key(&stranger), 5_000);
    t.chain.refuse(TOKEN_INSUFFICIENT_FUNDS, &[&stranger], &t.claim(&key(&stranger), 1_001));
    assert_eq!(t.entry(&key(&stranger)).claimed_earned_points, 0);
    t.chain.accept(&[&stranger], &[t.claim(&key(&stranger), 1_000)]);
    t.chain.refuse(TOKEN_INSUFFICIENT_FUNDS, &[&user], &t.claim(&key(&user), 1));
}

#[test]
fn a_claim_refuses_every_wrong_account() {
    let (mut t, user) = funded();
    let me = key(&user);
    let good = t.claim(&me, 1);
    let stranger = t.chain.user();
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&good, 0));
    for index in [1, 2, 3, 4] {
        t.chain.refuse(CONSTRAINT_MUT, &[&user], &read_only(&good, index));
    }
    let too_few = Instruction { accounts: good.accounts[..6].to_vec(), ..good.clone() };
    t.chain.refuse(ACCOUNT_NOT_ENOUGH_KEYS, &[&user], &too_few);
    t.chain.refuse(INVALID_PROGRAM_ID, &[&user], &with_account(&good, 6, &ids::TREASURER));
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&user], &with_data(&good, good.data[..15].to_vec()));
    // The user's own token account: right mint, right owner, nobody else's to spend.
    let other_mint = create_mint(&mut t.chain, &user);
    let wrong_mint = create_associated(&mut t.chain, &user, &me, &other_mint);
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &with_account(&good, 1, &wrong_mint));
    let wrong_owner = create_associated(&mut t.chain, &user, &key(&stranger), &t.mint);
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &with_account(&good, 1, &wrong_owner));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&user], &with_account(&good, 1, &[3; 32]));
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&user], &with_account(&good, 1, &t.address));
    // The run and its token account.
    let run = t.chain.data(&t.address);
    wrong_accounts_are_refused(&mut t.chain, &[&user], &good, 2, &run, &ids::TREASURER);
    let copy = t.chain.forge(&ids::TREASURER, run);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&user], &with_account(&good, 2, &copy));
    t.chain.refuse(CONSTRAINT_TOKEN_OWNER, &[&user], &with_account(&good, 3, &wrong_owner));
    let runs_other = create_associated(&mut t.chain, &user, &t.address, &other_mint);
    t.chain.refuse(CONSTRAINT_ASSOCIATED, &[&user], &with_account(&good, 3, &runs_other));
    // The book.
    let entry = t.chain.data(&t.participant(&me));
    wrong_accounts_are_refused(&mut t.chain, &[&user], &good, 4, &entry, &ids::TREASURER);
    let open = t.open_book(&key(&stranger), &key(&stranger));
    t.chain.accept(&[&stranger], &[open]);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&user], &with_account(&good, 4, &t.participant(&key(&stranger))));
    // The coordinator account: of this run, of the coordinator program, whole.
    let account = t.chain.data(&t.run.account);
    let copy = t.chain.forge(&ids::COORDINATOR, account.clone());
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &with_account(&good, 5, &copy));
    let foreign = t.chain.forge(&ids::TOKEN_PROGRAM, account.clone());
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&user], &with_account(&good, 5, &foreign));
    t.chain.patch(&t.run.account.clone(), |content| content.data.truncate(CoordinatorAccount::SIZE - 1));
    t.chain.refuse(ACCOUNT_DID_NOT_DESERIALIZE, &[&user], &good);
    t.chain.patch(&t.run.account.clone(), |content| content.data = account);
    // A delegate could take what is paid.
    let wallet = associated(&me, &t.mint);
    approve(&mut t.chain, &user, &wallet, &key(&stranger));
    t.chain.refuse(CONSTRAINT_RAW, &[&user], &good);
    assert_eq!(t.entry(&me).claimed_earned_points, 0);
}

#[test]
fn a_program_that_cannot_run_is_none() {
    let (mut t, user) = funded();
    let claim = t.claim(&key(&user), 1);
    let token_program = super::chain::address(&ids::TOKEN_PROGRAM);
    let mut account = t.chain.svm.get_account(&token_program).unwrap();
    account.executable = false;
    t.chain.svm.set_account(token_program, account).unwrap();
    t.chain.refuse(INVALID_PROGRAM_EXECUTABLE, &[&user], &claim);
}

#[test]
fn data_that_is_no_instruction_is_refused() {
    let mut t = Treasury::created(Chain::new(), "paid");
    let update = t.update(&RunUpdateArgs::default());
    t.chain.refuse(INSTRUCTION_MISSING, &[&t.owner], &with_data(&update, vec![1, 2]));
    t.chain.refuse(INSTRUCTION_FALLBACK_NOT_FOUND, &[&t.owner], &with_data(&update, vec![1; 20]));
    let elsewhere = super::chain::address(&[42; 32]);
    t.chain.svm.add_program_from_file(elsewhere, super::chain::elf("treasurer")).unwrap();
    let misplaced = Instruction { program_id: elsewhere, ..update };
    t.chain.refuse(DECLARED_PROGRAM_ID_MISMATCH, &[&t.owner], &misplaced);
}

#[test]
fn a_coordinator_account_of_another_program_is_not_taken_over() {
    let mut t = Treasury::prepared(Chain::new(), "paid");
    let account = t.chain.new_key();
    let small = allocate(&t.chain, &t.owner, &account, 64);
    t.chain.accept(&[&t.owner, &account], &[small]);
    t.run = RunKeys::new("paid", key(&account));
    let wrong_size = CoordinatorError::CoordinatorAccountIncorrectSize.code();
    t.chain.refuse(wrong_size, &[&t.owner], &t.create("paid"));
    t.run = RunKeys::new("paid", key(&t.owner));
    t.chain.refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &[&t.owner], &t.create("paid"));
}
