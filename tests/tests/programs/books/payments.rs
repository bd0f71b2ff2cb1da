//! Random payments of two treasuries of one owner, in one token, to the same users.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use psyche_protocol::accounts::{Participant, Run};
use psyche_protocol::books::treasurer as rules;
use psyche_protocol::instruction::{RunUpdateArgs, UpdateArgs};
use psyche_protocol::layout::{Config, Progress};
use psyche_protocol::layout::{CoordinatorAccount, RosterClient};
use psyche_protocol::machine::Clock;
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::super::chain::{Chain, GENESIS_UNIX_TIME_S, Refusal, derive, key, with_account};
use super::super::codes::*;
use super::super::run::{RunKeys, allocate, config, configuration, metadata, node};
use super::super::tokens::{amount, approve, associated, create_associated, mint_to, revoke};
use super::super::treasury::{Treasury, run_of};
use super::check;

const RUNS: usize = 2;
const USERS: usize = 3;
/// The token program's "insufficient funds".
const TOKEN_INSUFFICIENT_FUNDS: u32 = 1;

/// How much somebody claims.
#[derive(Clone, Copy, Debug)]
enum Points {
    Nothing,
    All,
    OneMore,
    Some(u64),
}

/// What somebody does. Accounts of a claim are the right ones unless said otherwise.
#[derive(Clone, Debug)]
enum Deed {
    Wait(i64),
    Update { run: usize, by: Option<usize>, account_of: Option<usize>, args: Box<Update> },
    Open { run: usize, payer: usize, user: usize },
    Claim { run: usize, user: usize, points: Points, wrong: Wrong },
    Earn(usize, usize, u64),
    Slash(usize, usize, u64),
    TopUp(usize, u64),
    Approve(usize),
    Revoke(usize),
}

/// What is wrong with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Paid into somebody else's account.
    Purse(usize),
    /// From somebody else's book.
    Book(usize),
    /// By another run's roster.
    Roster,
    /// From another run's collateral.
    Collateral,
}

/// The eight options of an update.
#[derive(Clone, Debug)]
struct Update {
    parts: [bool; 4],
    sane: bool,
    rates: [Option<u64>; 2],
    paused: Option<bool>,
    version: Option<usize>,
}

impl Update {
    fn with<T>(&self, use_args: impl FnOnce(&RunUpdateArgs<'_>) -> T) -> T {
        let [has_metadata, has_config, has_model, has_progress] = self.parts;
        let config = if self.sane { config() } else { Config { min_clients: 0, ..config() } };
        let version = self.version.map(|len| "v".repeat(len));
        use_args(&RunUpdateArgs {
            update: UpdateArgs {
                metadata: has_metadata.then(metadata),
                config: has_config.then_some(config),
                model: configuration(config).model.filter(|_| has_model),
                progress: has_progress.then(|| Progress::new(1, u32::from(self.sane), 0)),
            },
            earning_rate_total_shared: self.rates[0],
            slashing_rate_per_client: self.rates[1],
            paused: self.paused,
            client_version: version.as_deref(),
        })
    }
}

fn update() -> impl Strategy<Value = Update> {
    let parts = prop_oneof![2 => Just([false; 4]), 2 => Just([true; 4]), 3 => any::<[bool; 4]>()];
    let rate = || prop::option::of(0..1_000u64);
    let version = prop::option::weighted(0.4, prop_oneof![Just(0usize), Just(5), Just(96), Just(97)]);
    (parts, prop::bool::weighted(0.8), rate(), rate(), prop::option::of(any::<bool>()), version).prop_map(
        |(parts, sane, earning, slashing, paused, version)| Update { parts, sane, rates: [earning, slashing], paused, version },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    let run = || prop_oneof![3 => Just(0usize), 1 => Just(1usize)];
    let points = prop_oneof![
        1 => Just(Points::Nothing),
        3 => Just(Points::All),
        1 => Just(Points::OneMore),
        3 => (0..400u64).prop_map(Points::Some),
        1 => Just(Points::Some(u64::MAX)),
    ];
    let wrong = prop_oneof![
        7 => Just(Wrong::Nothing),
        1 => (0..USERS).prop_map(Wrong::Purse),
        1 => (0..USERS).prop_map(Wrong::Book),
        1 => Just(Wrong::Roster),
        1 => Just(Wrong::Collateral),
    ];
    let by = prop::option::weighted(0.15, 0..USERS);
    let account_of = prop::option::weighted(0.1, 0..RUNS);
    prop_oneof![
        1 => (0..50i64).prop_map(Deed::Wait),
        3 => (run(), by, account_of, update()).prop_map(|(run, by, account_of, args)| {
            Deed::Update { run, by, account_of, args: Box::new(args) }
        }),
        3 => (run(), 0..USERS, 0..USERS).prop_map(|(run, payer, user)| Deed::Open { run, payer, user }),
        9 => (run(), 0..USERS, points, wrong).prop_map(|(run, user, points, wrong)| {
            Deed::Claim { run, user, points, wrong }
        }),
        4 => (run(), 0..USERS, 1..500u64).prop_map(|(run, user, points)| Deed::Earn(run, user, points)),
        1 => (run(), 0..USERS, 1..300u64).prop_map(|(run, user, points)| Deed::Slash(run, user, points)),
        3 => (run(), 1..800u64).prop_map(|(run, tokens)| Deed::TopUp(run, tokens)),
        1 => (0..USERS).prop_map(Deed::Approve),
        2 => (0..USERS).prop_map(Deed::Revoke),
    ]
}

/// One treasury as the rules have it.
struct Native {
    book: Run,
    account: Box<CoordinatorAccount>,
    entries: BTreeMap<usize, Participant>,
    topped_up: u64,
}

/// What the sequences reached.
#[derive(Default)]
struct Reached {
    codes: BTreeSet<u32>,
    accepted: usize,
    paid: u64,
}

/// What all sequences start from.
struct Base {
    chain: Chain,
    owner: Keypair,
    mint: Pubkey,
    users: Vec<Keypair>,
    runs: Vec<(u64, RunKeys)>,
}

impl Base {
    fn new() -> Self {
        let mut first = Treasury::created(Chain::fast(), "first");
        let owner = first.owner.insecure_clone();
        let account = first.chain.new_key();
        let allocation = allocate(&first.chain, &owner, &account, CoordinatorAccount::SIZE);
        first.chain.accept(&[&owner, &account], &[allocation]);
        let second = (first.index ^ 1, RunKeys::new("second", key(&account)));
        let runs = vec![(first.index, first.run.clone()), second];
        let users = (0..USERS).map(|_| first.chain.user()).collect();
        let (mint, mut chain) = (first.mint, first.chain);
        let create = treasury(Chain::bare(), &owner, mint, &runs[1]).create("second");
        chain.accept(&[&owner], &[create]);
        let mut this = Self { chain, owner, mint, users, runs };
        for user in &this.users {
            create_associated(&mut this.chain, user, &key(user), &mint);
        }
        this
    }
}

fn treasury(chain: Chain, owner: &Keypair, mint: Pubkey, (index, run): &(u64, RunKeys)) -> Treasury {
    let address = run_of(*index).0;
    let collateral = associated(&address, &mint);
    Treasury { chain, owner: owner.insecure_clone(), index: *index, mint, address, collateral, run: run.clone() }
}

/// Chain and rules side by side.
struct Pair<'a> {
    base: &'a Base,
    chain: Chain,
    /// For their instructions; their chains are not used.
    treasuries: Vec<Treasury>,
    natives: Vec<Native>,
    approved: [bool; USERS],
    clock: Clock,
}

impl<'a> Pair<'a> {
    fn new(base: &'a Base) -> Self {
        let chain = base.chain.copy();
        let treasuries: Vec<Treasury> =
            base.runs.iter().map(|run| treasury(Chain::bare(), &base.owner, base.mint, run)).collect();
        let native = |t: &Treasury| Native {
            book: Run::decode(&chain.data(&t.address)).unwrap(),
            account: CoordinatorAccount::load_boxed(&chain.data(&t.run.account)).unwrap(),
            entries: BTreeMap::new(),
            topped_up: 0,
        };
        let natives = treasuries.iter().map(native).collect();
        let clock = Clock { unix_timestamp: GENESIS_UNIX_TIME_S, slot: 1_000 };
        Self { base, chain, treasuries, natives, approved: [false; USERS], clock }
    }

    fn user(&self, user: usize) -> Pubkey {
        key(&self.base.users[user])
    }

    fn purse(&self, user: usize) -> Pubkey {
        associated(&self.user(user), &self.base.mint)
    }

    fn act(&mut self, deed: &Deed, reached: &mut Reached) {
        let before: Vec<Run> = self.natives.iter().map(|native| native.book).collect();
        match deed {
            Deed::Update { .. } | Deed::Open { .. } | Deed::Claim { .. } => self.instruct(deed, reached),
            _ => self.happen(deed),
        }
        self.check(deed, &before);
    }

    /// What is not an instruction of the treasurer.
    fn happen(&mut self, deed: &Deed) {
        match *deed {
            Deed::Wait(seconds) => {
                self.clock.unix_timestamp += seconds;
                self.chain.set_time(self.clock.unix_timestamp, self.clock.slot);
            }
            Deed::Earn(run, user, points) => self.change_member(run, user, |member| member.earned += points),
            Deed::Slash(run, user, points) => self.change_member(run, user, |member| member.slashed += points),
            Deed::TopUp(run, tokens) => {
                self.natives[run].topped_up += tokens;
                mint_to(&mut self.chain, &self.base.owner, &self.base.mint, &self.treasuries[run].collateral, tokens);
            }
            Deed::Approve(user) => {
                self.approved[user] = true;
                let purse = self.purse(user);
                approve(&mut self.chain, &self.base.users[user], &purse, &[5; 32]);
            }
            Deed::Revoke(user) => {
                self.approved[user] = false;
                let purse = self.purse(user);
                revoke(&mut self.chain, &self.base.users[user], &purse);
            }
            _ => unreachable!("an instruction of the treasurer"),
        }
    }

    /// As the end of an epoch would.
    fn change_member(&mut self, run: usize, user: usize, change: impl FnOnce(&mut RosterClient)) {
        let signer = self.user(user);
        let account = &mut self.natives[run].account;
        if account.roster_client(&signer).is_none() {
            assert!(account.state.clients_state.clients.push(&RosterClient::new(node(&signer), 0)));
        }
        let roster = account.state.clients_state.clients.as_mut_slice();
        change(roster.iter_mut().find(|member| member.id.signer == signer).unwrap());
        let data = account.as_bytes().to_vec();
        self.chain.patch(&self.treasuries[run].run.account, |account| account.data = data);
    }

    fn instruct(&mut self, deed: &Deed, reached: &mut Reached) {
        let (instruction, signers) = self.instruction(deed);
        let expected = self.expect(deed);
        let outcome = self.chain.send(&signers, &[instruction]).map(|_| ());
        assert_eq!(outcome, expected.map_err(Refusal::Custom).map(|_| ()), "{deed:?}: {:#?}", self.chain.logs);
        match expected {
            Ok(paid) => (reached.accepted, reached.paid) = (reached.accepted + 1, reached.paid + paid),
            Err(code) => drop(reached.codes.insert(code)),
        }
    }

    fn points(&self, run: usize, user: usize, points: Points) -> u64 {
        let native = &self.natives[run];
        let claimed = native.entries.get(&user).map_or(0, |entry| entry.claimed_earned_points);
        let all = rules::claimable(native.account.roster_client(&self.user(user)), claimed);
        match points {
            Points::Nothing => 0,
            Points::All => all,
            Points::OneMore => all + 1,
            Points::Some(points) => points,
        }
    }

    fn instruction(&self, deed: &Deed) -> (Instruction, Vec<&'a Keypair>) {
        let base = self.base;
        match deed {
            Deed::Update { run, by, account_of, args } => {
                let mut instruction = args.with(|args| self.treasuries[*run].update(args));
                if let Some(other) = account_of {
                    instruction = with_account(&instruction, 3, &self.treasuries[*other].run.account);
                }
                let signer = by.map_or(&base.owner, |by| &base.users[by]);
                (with_account(&instruction, 0, &key(signer)), vec![signer])
            }
            Deed::Open { run, payer, user } => {
                let signers = vec![&base.users[*payer], &base.users[*user]];
                (self.treasuries[*run].open_book(&self.user(*payer), &self.user(*user)), signers)
            }
            Deed::Claim { run, user, points, wrong } => {
                let t = &self.treasuries[*run];
                let good = t.claim(&self.user(*user), self.points(*run, *user, *points));
                let other = &self.treasuries[1 - run];
                let instruction = match wrong {
                    Wrong::Nothing => good,
                    Wrong::Purse(of) => with_account(&good, 1, &self.purse(*of)),
                    Wrong::Book(of) => with_account(&good, 4, &t.participant(&self.user(*of))),
                    Wrong::Roster => with_account(&good, 5, &other.run.account),
                    Wrong::Collateral => with_account(&good, 3, &other.collateral),
                };
                (instruction, vec![&base.users[*user]])
            }
            _ => unreachable!("no instruction of the treasurer"),
        }
    }

    /// What the rules say, and the state that they leave; how many tokens are paid.
    fn expect(&mut self, deed: &Deed) -> Result<u64, u32> {
        match deed {
            Deed::Update { run, by, account_of, args } => {
                let signer = by.map_or_else(|| key(&self.base.owner), |by| self.user(by));
                let account = &self.treasuries[account_of.unwrap_or(*run)].run.account;
                let native = &mut self.natives[*run];
                rules::check_update(&native.book, &signer, &self.treasuries[*run].run.instance, account)
                    .map_err(|error| error.code())?;
                let mut next = native.account.clone();
                args.with(|args| rules::run_update(&mut next, args, &self.clock)).map_err(|error| error.code())?;
                native.account = next;
                Ok(0)
            }
            Deed::Open { run, user, .. } => {
                let t = &self.treasuries[*run];
                let (_, bump) = derive(&pda::participant(&t.address, &self.user(*user)), &ids::TREASURER);
                let entries = &mut self.natives[*run].entries;
                if entries.contains_key(user) {
                    return Err(ALREADY_IN_USE);
                }
                entries.insert(*user, rules::opened(bump));
                Ok(0)
            }
            Deed::Claim { run, user, points, wrong } => {
                let points = self.points(*run, *user, *points);
                self.expect_claim(*run, *user, points, *wrong)
            }
            _ => unreachable!("no instruction of the treasurer"),
        }
    }

    fn expect_claim(&mut self, run: usize, user: usize, points: u64, wrong: Wrong) -> Result<u64, u32> {
        let of = |right: usize| match wrong {
            Wrong::Book(of) => of,
            _ => right,
        };
        let purse_of = if let Wrong::Purse(of) = wrong { of } else { user };
        let purse = rules::Purse {
            mint: self.base.mint,
            owner: self.user(purse_of),
            has_delegate: self.approved[purse_of],
            is_native: false,
            close_authority: None,
        };
        let (me, native) = (self.user(user), &mut self.natives[run]);
        if !native.entries.contains_key(&of(user)) {
            return Err(ACCOUNT_NOT_INITIALIZED);
        }
        rules::check_purse(&native.book, &me, &purse).map_err(|error| error.code())?;
        match wrong {
            Wrong::Roster => return Err(CONSTRAINT_RAW),
            Wrong::Collateral => return Err(CONSTRAINT_TOKEN_OWNER),
            Wrong::Book(of) if of != user => return Err(CONSTRAINT_SEEDS),
            _ => {}
        }
        let (mut book, mut entry) = (native.book, native.entries[&user]);
        let member = native.account.roster_client(&me).copied();
        let claimable = rules::claimable(member.as_ref(), entry.claimed_earned_points);
        let paid = rules::claim(&mut book, &mut entry, claimable, points).map_err(|error| error.code())?;
        if paid > native.topped_up - native.book.total_claimed_collateral_amount {
            return Err(TOKEN_INSUFFICIENT_FUNDS);
        }
        if paid > 0 {
            let member = member.unwrap();
            assert!(entry.claimed_earned_points <= member.earned - member.slashed, "{entry:?} of {member:?}");
        }
        native.book = book;
        native.entries.insert(user, entry);
        Ok(paid)
    }

    /// Everything that must hold after every instruction.
    fn check(&self, deed: &Deed, before: &[Run]) {
        let mut minted = 0;
        for ((native, t), before) in self.natives.iter().zip(&self.treasuries).zip(before) {
            let book = Run::decode(&self.chain.data(&t.address)).unwrap();
            assert_eq!(book, native.book, "after {deed:?}");
            assert!(self.chain.data(&t.run.account) == native.account.as_bytes(), "coordinator accounts differ after {deed:?}");
            let mut claimed = [0; 2];
            for user in 0..USERS {
                let data = self.chain.data(&t.participant(&self.user(user)));
                let entry = (!data.is_empty()).then(|| Participant::decode(&data).unwrap());
                assert_eq!(entry.as_ref(), native.entries.get(&user), "after {deed:?}");
                claimed[0] += entry.map_or(0, |entry| entry.claimed_earned_points);
                claimed[1] += entry.map_or(0, |entry| entry.claimed_collateral_amount);
            }
            assert_eq!(claimed, [book.total_claimed_earned_points, book.total_claimed_collateral_amount]);
            assert_eq!(amount(&self.chain, &t.collateral), native.topped_up - claimed[1], "after {deed:?}");
            assert!(book.total_claimed_earned_points >= before.total_claimed_earned_points);
            assert!(book.total_claimed_collateral_amount >= before.total_claimed_collateral_amount);
            minted += native.topped_up;
        }
        for user in 0..USERS {
            let entries = self.natives.iter().filter_map(|native| native.entries.get(&user));
            let claimed: u64 = entries.map(|entry| entry.claimed_collateral_amount).sum();
            assert_eq!(amount(&self.chain, &self.purse(user)), claimed, "user {user} after {deed:?}");
        }
        let supply = self.chain.data(&self.base.mint)[36..44].try_into().unwrap();
        assert_eq!(u64::from_le_bytes(supply), minted, "tokens were made or lost");
    }
}

#[test]
fn prop_bytecode_and_rules_of_the_treasurer_agree_on_random_instructions() {
    let base = Base::new();
    let reached = RefCell::new(Reached::default());
    check(&prop::collection::vec(deed(), 20..80), |deeds| {
        let mut pair = Pair::new(&base);
        for deed in &deeds {
            pair.act(deed, &mut reached.borrow_mut());
        }
    });
    let Reached { codes, accepted, paid } = reached.into_inner();
    println!("{accepted} instructions accepted, {paid} tokens paid, codes {codes:?}");
    assert!(accepted > 1_000 && paid > 10_000, "only {accepted} instructions were accepted, {paid} tokens paid");
    // Of the programs' own codes: too much claimed, not halted, insane rules and progress, wrong state, too long a version.
    let expected = [
        ALREADY_IN_USE,
        TOKEN_INSUFFICIENT_FUNDS,
        CONSTRAINT_RAW,
        CONSTRAINT_SEEDS,
        CONSTRAINT_TOKEN_OWNER,
        ACCOUNT_NOT_INITIALIZED,
        6000,
        6001,
        6004,
        6006,
        6015,
        6018,
        6025,
    ];
    assert!(codes.is_superset(&BTreeSet::from(expected)), "only these codes were seen: {codes:?}");
}
