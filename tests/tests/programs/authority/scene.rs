//! Where an instruction succeeds, and what else lies around there.

use psyche_protocol::instruction::RunUpdateArgs;
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::{Pubkey, ids};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::authorizer;
use super::super::chain::{Chain, Refusal, elf, key};
use super::super::run::{RunKeys, allocate, init_args};
use super::super::tokens::{create_associated, create_mint, mint_to};
use super::super::treasury::{Treasury, run_of};
use super::role::Role;

const CLOCK: &str = "SysvarC1ock11111111111111111111111111111111";
const RENT: &str = "SysvarRent111111111111111111111111111111111";

/// An instruction that succeeds, with what each of its accounts is for.
pub(super) struct Scene {
    pub(super) chain: Chain,
    pub(super) good: Instruction,
    pub(super) signers: Vec<Keypair>,
    pub(super) roles: Vec<Role>,
    /// Accounts of other runs, programs, sysvars: what an attacker has at hand.
    pub(super) around: Vec<(&'static str, Pubkey)>,
    /// Answers that do not follow from the role: place, account, answer.
    pub(super) special: Vec<(usize, Pubkey, Result<(), Refusal>)>,
    /// What the same instruction is refused with a second time, where it is.
    pub(super) again: Option<u32>,
}

impl Scene {
    /// A scene on a chain on which everything for `good` is prepared. `owner` owns the run next to it, too.
    pub(super) fn new(mut chain: Chain, owner: &Keypair, good: Instruction, signers: &[&Keypair], roles: &[Role]) -> Self {
        let around = around(&mut chain, owner);
        let signers = signers.iter().map(|signer| signer.insecure_clone()).collect();
        Self { chain, good, signers, roles: roles.to_vec(), around, special: Vec::new(), again: None }
    }

    pub(super) fn again(self, code: u32) -> Self {
        Self { again: Some(code), ..self }
    }

    pub(super) fn special(mut self, place: usize, account: Pubkey, answer: Result<(), Refusal>) -> Self {
        self.special.push((place, account, answer));
        self
    }

    /// The address of one of the things around.
    pub(super) fn at(&self, name: &str) -> Pubkey {
        self.around.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("there is no {name}")).1
    }
}

/// A second treasury run of the same owner that pays the same token, a coordinator run of the owner's own, permissions and
/// books with them, programs, copies of programs, and sysvars.
fn around(chain: &mut Chain, owner: &Keypair) -> Vec<(&'static str, Pubkey)> {
    let stranger = chain.user();
    let mut things = vec![
        ("nothing", [0xee; 32]),
        ("a wallet", key(&stranger)),
        ("the system program", ids::SYSTEM_PROGRAM),
        ("the token program", ids::TOKEN_PROGRAM),
        ("the associated token program", ids::ASSOCIATED_TOKEN_PROGRAM),
        ("the coordinator", ids::COORDINATOR),
        ("the authorizer", ids::AUTHORIZER),
        ("the treasurer", ids::TREASURER),
        ("the clock", ids::decode_base58(CLOCK).unwrap()),
        ("the rent", ids::decode_base58(RENT).unwrap()),
    ];
    for (name, at) in [("coordinator", [0xc1; 32]), ("treasurer", [0xc2; 32])] {
        chain.svm.add_program_from_file(super::super::chain::address(&at), elf(name)).unwrap();
    }
    things.extend([("a false coordinator", [0xc1; 32]), ("a false token program", [0xc2; 32])]);

    let account = chain.new_key();
    let allocation = allocate(chain, owner, &account, CoordinatorAccount::SIZE);
    let run = RunKeys::new("next door", key(&account));
    let init = run.init(&key(owner), &init_args(&key(owner), "next door"));
    chain.accept(&[owner, &account], &[allocation, init]);
    things.extend([("another instance", run.instance), ("another coordinator account", run.account)]);

    let everyone = ids::SYSTEM_PROGRAM;
    let grantor = key(&stranger);
    let create = authorizer::create(&stranger, &grantor, &everyone);
    chain.accept(&[&stranger], &[create, authorizer::set_active(&grantor, &everyone, true)]);
    things.push(("another authorization", authorizer::authorization_of(&grantor, &everyone).0));
    treasury_next_door(chain, owner, &stranger, &mut things);
    things
}

fn treasury_next_door(chain: &mut Chain, owner: &Keypair, user: &Keypair, things: &mut Vec<(&'static str, Pubkey)>) {
    let mut t = Treasury::created(std::mem::replace(chain, Chain::bare()), "treasury next door");
    let open = t.open_book(&key(user), &key(user));
    t.chain.accept(&[user], &[open]);
    let purse = create_associated(&mut t.chain, user, &key(user), &t.mint);
    mint_to(&mut t.chain, &t.owner, &t.mint, &t.collateral, 1_000_000);
    let rates = t.update(&RunUpdateArgs { earning_rate_total_shared: Some(1), ..RunUpdateArgs::default() });
    t.chain.accept(&[&t.owner], &[rates]);
    let other_mint = create_mint(&mut t.chain, owner);
    let owners_purse = create_associated(&mut t.chain, owner, &key(owner), &other_mint);
    things.extend([
        ("another treasury run", t.address),
        ("another treasury's collateral", t.collateral),
        ("another treasury's instance", t.run.instance),
        ("another treasury's coordinator account", t.run.account),
        ("another book", t.participant(&key(user))),
        ("another mint", t.mint),
        ("a third mint", other_mint),
        ("a stranger's tokens", purse),
        ("the owner's tokens of a third mint", owners_purse),
        ("a mint that nobody initialised", t.chain.forge(&ids::TOKEN_PROGRAM, vec![0; 82])),
        ("a token account that nobody initialised", t.chain.forge(&ids::TOKEN_PROGRAM, vec![0; 165])),
        ("a treasury run that nobody created", run_of(4711).0),
    ]);
    *chain = t.chain;
}
