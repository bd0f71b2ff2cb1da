//! The authorizer.

use psyche_protocol::accounts::Authorization;
use psyche_protocol::instruction::{
    AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::{Instruction, error::InstructionError};
use solana_keypair::Keypair;

use super::chain::{Chain, Refusal, derive, instruction, key, read_only, unsigned, with_account, with_data};
use super::codes::*;

const ACTIVE_IS_TRUE: u32 = 6000;
const CLOSING_CONDITIONS_NOT_REACHED_YET: u32 = 6001;
const THIRTY_DAYS_S: i64 = 30 * 24 * 60 * 60;

/// Address and bump of a grantor's permission to join.
pub(crate) fn authorization_of(grantor: &Pubkey, grantee: &Pubkey) -> (Pubkey, u8) {
    derive(&pda::authorization(grantor, grantee, ids::JOIN_SCOPE), &ids::AUTHORIZER)
}

pub(crate) fn create(payer: &Keypair, grantor: &Pubkey, grantee: &Pubkey) -> Instruction {
    let (authorization, _) = authorization_of(grantor, grantee);
    let args = AuthorizationCreateArgs { grantee: *grantee, scope: ids::JOIN_SCOPE };
    let accounts = [("ws", key(payer)), ("s", *grantor), ("w", authorization), ("", ids::SYSTEM_PROGRAM)];
    instruction(&ids::AUTHORIZER, &args, &accounts)
}

pub(crate) fn set_active(grantor: &Pubkey, grantee: &Pubkey, active: bool) -> Instruction {
    let (authorization, _) = authorization_of(grantor, grantee);
    let args = AuthorizationGrantorUpdateArgs { active };
    instruction(&ids::AUTHORIZER, &args, &[("s", *grantor), ("w", authorization)])
}

pub(crate) fn delegate(payer: &Keypair, grantor: &Pubkey, grantee: &Pubkey, clear: bool, added: &[Pubkey]) -> Instruction {
    let (authorization, _) = authorization_of(grantor, grantee);
    let args = AuthorizationGranteeUpdateArgs { delegates_clear: clear, delegates_added: added };
    let accounts = [("ws", key(payer)), ("s", *grantee), ("w", authorization), ("", ids::SYSTEM_PROGRAM)];
    instruction(&ids::AUTHORIZER, &args, &accounts)
}

pub(crate) fn close(grantor: &Pubkey, grantee: &Pubkey, spill: &Pubkey) -> Instruction {
    let (authorization, _) = authorization_of(grantor, grantee);
    let accounts = [("s", *grantor), ("w", *spill), ("w", authorization), ("", ids::SYSTEM_PROGRAM)];
    instruction(&ids::AUTHORIZER, &AuthorizationCloseArgs, &accounts)
}

/// A chain with one authorization on it.
struct Granted {
    chain: Chain,
    payer: Keypair,
    grantor: Keypair,
    grantee: Keypair,
    address: Pubkey,
}

impl Granted {
    fn new() -> Self {
        let mut chain = Chain::new();
        let [payer, grantor, grantee] = [chain.user(), chain.user(), chain.user()];
        let (address, _) = authorization_of(&key(&grantor), &key(&grantee));
        chain.accept(&[&payer, &grantor], &[create(&payer, &key(&grantor), &key(&grantee))]);
        Self { chain, payer, grantor, grantee, address }
    }

    fn set_active(&self, active: bool) -> Instruction {
        set_active(&key(&self.grantor), &key(&self.grantee), active)
    }

    fn delegate(&self, clear: bool, added: &[Pubkey]) -> Instruction {
        delegate(&self.payer, &key(&self.grantor), &key(&self.grantee), clear, added)
    }

    fn close(&self) -> Instruction {
        close(&key(&self.grantor), &key(&self.grantee), &key(&self.payer))
    }

    /// Everything about the account but its delegates, and those.
    fn state(&self) -> (bool, Vec<Pubkey>, i64, usize) {
        let data = self.chain.data(&self.address);
        let found = Authorization::decode(&data).unwrap();
        assert_eq!((found.grantor, found.grantee), (key(&self.grantor), key(&self.grantee)));
        assert_eq!(found.scope, ids::JOIN_SCOPE);
        (found.active, found.delegates.to_vec(), found.grantor_update_unix_timestamp, data.len())
    }
}

#[test]
fn an_authorization_is_created_inactive_and_switched_by_its_grantor() {
    let mut t = Granted::new();
    let created_at = i64::try_from(t.chain.now()).unwrap();
    assert_eq!(t.state(), (false, vec![], created_at, 108));
    t.chain.advance(5);
    t.chain.accept(&[&t.grantor], &[t.set_active(true)]);
    assert_eq!(t.state(), (true, vec![], created_at + 5, 108));
    t.chain.accept(&[&t.grantor], &[t.set_active(false)]);
    assert!(!t.state().0);
}

#[test]
fn a_grantee_appends_and_clears_delegates_and_the_account_follows_in_length_and_rent() {
    let mut t = Granted::new();
    let keys: Vec<Pubkey> = (1..=5u8).map(|i| [i; 32]).collect();
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(false, &keys[..3])]);
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(false, &keys[3..])]);
    assert_eq!((t.state().1, t.state().3), (keys.clone(), 108 + 5 * 32));
    let balance = |t: &Granted| t.chain.svm.get_balance(&super::chain::address(&t.address)).unwrap();
    assert_eq!(balance(&t), t.chain.svm.minimum_balance_for_rent_exemption(108 + 5 * 32));
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(true, &keys[4..])]);
    assert_eq!((t.state().1, t.state().3), (keys[4..].to_vec(), 108 + 32));
    assert_eq!(balance(&t), t.chain.svm.minimum_balance_for_rent_exemption(108 + 32));
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(true, &[])]);
    assert_eq!(t.state().3, 108);
}

#[test]
fn an_address_that_received_lamports_before_can_still_be_created() {
    let mut chain = Chain::new();
    let [payer, grantor] = [chain.user(), chain.user()];
    let (address, _) = authorization_of(&key(&grantor), &ids::SYSTEM_PROGRAM);
    chain.patch(&address, |account| account.lamports = 1_000_000);
    chain.accept(&[&payer, &grantor], &[create(&payer, &key(&grantor), &ids::SYSTEM_PROGRAM)]);
    assert_eq!(chain.data(&address).len(), 108);
}

#[test]
fn rent_is_the_same_however_the_cluster_states_it() {
    let sysvar = ids::decode_base58("SysvarRent111111111111111111111111111111111").unwrap();
    for (price, threshold, accepted) in [(6_960u64, 1.0f64, true), (3_480, 2.0, true), (4_640, 1.5, false)] {
        let mut chain = Chain::new();
        let [payer, grantor] = [chain.user(), chain.user()];
        chain.patch(&sysvar, |account| {
            account.data = [&price.to_le_bytes()[..], &threshold.to_le_bytes(), &[50]].concat();
        });
        let outcome = chain.send(&[&payer, &grantor], &[create(&payer, &key(&grantor), &[3; 32])]);
        let address = super::chain::address(&authorization_of(&key(&grantor), &[3; 32]).0);
        let expected = accepted.then_some((128 + 108) * 6_960);
        assert_eq!(outcome.is_ok(), accepted, "{price} x {threshold}: {outcome:?}");
        assert_eq!(chain.svm.get_balance(&address), expected);
    }
}

#[test]
fn creation_refuses_missing_signatures_wrong_addresses_and_a_second_time() {
    let mut t = Granted::new();
    let stranger = t.chain.user();
    let again = create(&t.payer, &key(&t.grantor), &key(&t.grantee));
    t.chain.refuse(ALREADY_IN_USE, &[&t.payer, &t.grantor], &again);
    let fresh = create(&t.payer, &key(&t.grantor), &key(&stranger));
    let signers: [&Keypair; 2] = [&t.payer, &t.grantor];
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&t.grantor], &unsigned(&fresh, 0));
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&t.payer], &unsigned(&fresh, 1));
    t.chain.refuse(CONSTRAINT_SEEDS, &signers, &with_account(&fresh, 2, &t.address));
    t.chain.refuse(INVALID_PROGRAM_ID, &signers, &with_account(&fresh, 3, &ids::TOKEN_PROGRAM));
    for index in [0, 2] {
        t.chain.refuse(CONSTRAINT_MUT, &signers, &read_only(&fresh, index));
    }
    let too_few = Instruction { accounts: fresh.accounts[..3].to_vec(), ..fresh.clone() };
    t.chain.refuse(ACCOUNT_NOT_ENOUGH_KEYS, &signers, &too_few);
    t.chain.accept(&signers, &[fresh]);
}

#[test]
fn only_the_grantor_switches_and_only_authorizations_can_be_switched() {
    let mut t = Granted::new();
    let stranger = t.chain.user();
    let switch = t.set_active(true);
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&switch, 0));
    t.chain.refuse(CONSTRAINT_RAW, &[&stranger], &with_account(&switch, 0, &key(&stranger)));
    t.chain.refuse(CONSTRAINT_RAW, &[&t.grantee], &with_account(&switch, 0, &key(&t.grantee)));
    t.chain.refuse(CONSTRAINT_MUT, &[&t.grantor], &read_only(&switch, 1));
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&t.grantor], &with_account(&switch, 1, &[9; 32]));
    let data = t.chain.data(&t.address);
    wrong_accounts_are_refused(&mut t.chain, &[&t.grantor], &switch, 1, &data, &ids::AUTHORIZER);
    assert!(!t.state().0);
}

/// Tries an instruction with forged accounts in the place of the one at `index`, whose right data is `data`.
pub(crate) fn wrong_accounts_are_refused(
    chain: &mut Chain,
    signers: &[&Keypair],
    instruction: &Instruction,
    index: usize,
    data: &[u8],
    owner: &Pubkey,
) {
    let mut refuse = |code: u32, owner: &Pubkey, data: Vec<u8>| {
        let forged = chain.forge(owner, data);
        chain.refuse(code, signers, &with_account(instruction, index, &forged));
    };
    refuse(ACCOUNT_OWNED_BY_WRONG_PROGRAM, &ids::TOKEN_PROGRAM, data.to_vec());
    refuse(ACCOUNT_DISCRIMINATOR_NOT_FOUND, owner, vec![0; 7]);
    refuse(ACCOUNT_DISCRIMINATOR_MISMATCH, owner, [&[0xff; 8], &data[8..]].concat());
    // The coordinator account is fixed in length; the others must decode.
    if data.len() != CoordinatorAccount::SIZE {
        refuse(ACCOUNT_DID_NOT_DESERIALIZE, owner, data[..12].to_vec());
    }
}

#[test]
fn an_authorization_at_another_address_is_refused() {
    let mut t = Granted::new();
    let data = t.chain.data(&t.address);
    let forged = t.chain.forge(&ids::AUTHORIZER, data);
    let switch = with_account(&t.set_active(true), 1, &forged);
    t.chain.refuse(CONSTRAINT_SEEDS, &[&t.grantor], &switch);
    t.chain.patch(&t.address.clone(), |account| account.data.truncate(60));
    t.chain.refuse(ACCOUNT_DID_NOT_DESERIALIZE, &[&t.grantor], &t.set_active(true));
}

#[test]
fn only_the_grantee_names_delegates() {
    let mut t = Granted::new();
    let stranger = t.chain.user();
    let update = t.delegate(false, &[[1; 32]]);
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&t.grantee], &unsigned(&update, 0));
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[&t.payer], &unsigned(&update, 1));
    t.chain.refuse(CONSTRAINT_RAW, &[&t.payer, &stranger], &with_account(&update, 1, &key(&stranger)));
    t.chain.refuse(CONSTRAINT_RAW, &[&t.payer, &t.grantor], &with_account(&update, 1, &key(&t.grantor)));
    for index in [0, 2] {
        t.chain.refuse(CONSTRAINT_MUT, &[&t.payer, &t.grantee], &read_only(&update, index));
    }
    t.chain.refuse(INVALID_PROGRAM_ID, &[&t.payer, &t.grantee], &with_account(&update, 3, &ids::AUTHORIZER));
    let data = t.chain.data(&t.address);
    wrong_accounts_are_refused(&mut t.chain, &[&t.payer, &t.grantee], &update, 2, &data, &ids::AUTHORIZER);
    assert!(t.state().1.is_empty());
}

#[test]
fn an_authorization_closes_when_inactive_and_its_delegates_had_thirty_days() {
    let mut t = Granted::new();
    t.chain.accept(&[&t.grantor], &[t.set_active(true)]);
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(false, &[[1; 32]])]);
    t.chain.refuse(ACTIVE_IS_TRUE, &[&t.grantor], &t.close());
    t.chain.accept(&[&t.grantor], &[t.set_active(false)]);
    t.chain.advance(THIRTY_DAYS_S - 1);
    t.chain.refuse(CLOSING_CONDITIONS_NOT_REACHED_YET, &[&t.grantor], &t.close());
    t.chain.advance(1);
    let stranger = t.chain.user();
    t.chain.refuse(CONSTRAINT_RAW, &[&stranger], &with_account(&t.close(), 0, &key(&stranger)));
    t.chain.refuse(ACCOUNT_NOT_SIGNER, &[], &unsigned(&t.close(), 0));
    t.chain.refuse(CONSTRAINT_RAW, &[&t.grantor], &with_account(&t.close(), 1, &t.address));
    t.chain.refuse(CONSTRAINT_MUT, &[&t.grantor], &read_only(&t.close(), 1));
    t.chain.accept(&[&t.grantor], &[t.close()]);
    assert!(t.chain.data(&t.address).is_empty());
    t.chain.refuse(ACCOUNT_NOT_INITIALIZED, &[&t.grantor], &t.set_active(true));
    t.chain.accept(&[&t.payer, &t.grantor], &[create(&t.payer, &key(&t.grantor), &key(&t.grantee))]);
}

#[test]
fn a_closed_authorization_stays_closed_within_its_transaction() {
    let mut t = Granted::new();
    // The rent comes back before the transaction is over; data, type and owner do not.
    let [from, to] = [key(&t.payer), t.address].map(|key| super::chain::address(&key));
    let revive = solana_system_interface::instruction::transfer(&from, &to, 5_000_000);
    let attempt = [t.close(), revive, t.set_active(true)];
    let outcome = t.chain.send(&[&t.grantor, &t.payer], &attempt);
    assert_eq!(outcome, Err(Refusal::Custom(ACCOUNT_OWNED_BY_WRONG_PROGRAM)));
    assert!(!t.state().0, "the transaction was undone as a whole");
    // Made anew in the same transaction, it is new: inactive, without delegates.
    t.chain.accept(&[&t.payer, &t.grantee], &[t.delegate(false, &[[1; 32]])]);
    t.chain.advance(THIRTY_DAYS_S);
    let again = create(&t.payer, &key(&t.grantor), &key(&t.grantee));
    t.chain.accept(&[&t.payer, &t.grantor], &[t.close(), again]);
    assert_eq!((t.state().0, t.state().1), (false, vec![]));
}

#[test]
fn an_authorization_without_delegates_closes_at_once() {
    let mut t = Granted::new();
    t.chain.accept(&[&t.grantor], &[t.close()]);
    assert!(t.chain.data(&t.address).is_empty());
}

#[test]
fn data_that_is_no_instruction_is_refused() {
    let mut t = Granted::new();
    let switch = t.set_active(true);
    t.chain.refuse(INSTRUCTION_MISSING, &[&t.grantor], &with_data(&switch, vec![1; 7]));
    t.chain.refuse(INSTRUCTION_FALLBACK_NOT_FOUND, &[&t.grantor], &with_data(&switch, vec![1; 9]));
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&t.grantor], &with_data(&switch, switch.data[..8].to_vec()));
    let bad_bool = [&switch.data[..8], &[2]].concat();
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&t.grantor], &with_data(&switch, bad_bool));
    let create = create(&t.payer, &key(&t.grantor), &[3; 32]);
    let long_scope = [&create.data[..40], &33u32.to_le_bytes(), &[b'x'; 33]].concat();
    t.chain.refuse(INSTRUCTION_DID_NOT_DESERIALIZE, &[&t.payer, &t.grantor], &with_data(&create, long_scope));
}

#[test]
fn a_program_under_another_id_than_its_own_does_nothing() {
    let mut chain = Chain::new();
    let [payer, grantor] = [chain.user(), chain.user()];
    let elsewhere = super::chain::address(&[42; 32]);
    chain.svm.add_program_from_file(elsewhere, super::chain::elf("authorizer")).unwrap();
    let mut create = create(&payer, &key(&grantor), &[3; 32]);
    create.program_id = elsewhere;
    chain.refuse(DECLARED_PROGRAM_ID_MISMATCH, &[&payer, &grantor], &create);
}

#[test]
fn a_payer_without_funds_cannot_create() {
    let mut chain = Chain::new();
    let [payer, grantor] = [chain.user(), chain.user()];
    chain.patch(&key(&payer), |account| account.lamports = 1_000_000);
    let create = create(&payer, &key(&grantor), &[3; 32]);
    let refusal = chain.send(&[&payer, &grantor], &[create]).unwrap_err();
    // The system program's "result with negative lamports".
    assert!(matches!(refusal, Refusal::Custom(1) | Refusal::Other(InstructionError::InsufficientFunds)), "{refusal:?}");
}
