//! The bytecode against the native state machine: random instructions, valid and invalid, of several users under a
//! jumping clock, must give the same codes and the same account bytes after every single one, and keep the invariants.
//!
//! `PSYCHE_PROGRAMS_SEED=n` runs one seed only; a failure prints its own.

mod choose;
#[path = "../../../protocol/tests/common/invariants.rs"]
mod invariants;

use std::collections::BTreeSet;

use psyche_protocol::instruction::{Args, HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::{CoordinatorAccount, MAX_CLIENTS, NodeIdentity, RosterClient, RunState, Witness};
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::model::Checkpoint;
use psyche_protocol::{Pubkey, ids};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer;
use super::chain::{Chain, GENESIS_UNIX_TIME_S, Outcome, Refusal, key, with_data};
use super::codes::*;
use super::run::{Owned, RunKeys, VERSION, allocate, init_args};

/// Instructions per seed.
const STEPS: usize = 400;
/// Seeds of a run without the environment variable.
const SEEDS: std::ops::Range<u64> = 1..13;

/// A small generator of our own (`SplitMix64`), so that a seed means the same sequence for ever.
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Deed {
    Wait {
        seconds: i64,
        slots: u64,
    },
    Tick,
    Join(NodeIdentity),
    Authorize(bool),
    WarmupWitness(Box<Witness>),
    Witness(Box<Witness>),
    HealthCheck(HealthCheckArgs),
    Checkpoint(Checkpoint),
    Update(Box<UpdateArgs>),
    Version(String),
    Rates(Option<u64>, Option<u64>),
    Paused(bool),
    /// Closes the run; if it was closed, it is made anew under its name.
    Free,
    /// Data that no instruction has.
    Noise(Vec<u8>),
}

/// Chain and native state side by side.
struct Pair {
    t: Owned,
    native: Box<CoordinatorAccount>,
    clock: Clock,
    /// Whether the permission for everyone holds.
    open: bool,
    seen: Seen,
}

/// What sequences came across.
#[derive(Debug, Default)]
struct Seen {
    states: BTreeSet<u8>,
    codes: BTreeSet<u32>,
    /// States in which a pause was accepted.
    paused_in: BTreeSet<u8>,
    accepted: usize,
    /// Accepted instructions that changed nothing.
    idle: usize,
    paid: usize,
    slashed: usize,
    reused: usize,
    freed: usize,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.states.extend(other.states);
        self.codes.extend(other.codes);
        self.paused_in.extend(other.paused_in);
        self.accepted += other.accepted;
        self.idle += other.idle;
        self.paid += other.paid;
        self.slashed += other.slashed;
        self.reused += other.reused;
        self.freed += other.freed;
    }
}

fn unconfigured() -> Box<CoordinatorAccount> {
    let mut native = CoordinatorAccount::zeroed_boxed();
    machine::init(bytemuck::bytes_of_mut(&mut *native), "a run", VERSION).unwrap();
    native
}

impl Pair {
    /// A new run; where it is to be `crowded`, with a roster that has two places left, held by wallets that joined long
    /// ago and now and then earned or lost a point.
    fn new(crowded: bool) -> Self {
        let t = Owned::created(Chain::fast(), "a run");
        let clock = Clock { unix_timestamp: GENESIS_UNIX_TIME_S, slot: 1_000 };
        let mut this = Self { t, native: unconfigured(), clock, open: true, seen: Seen::default() };
        this.compare();
        if crowded {
            this.crowd();
        }
        this
    }

    fn crowd(&mut self) {
        let roster = &mut self.native.state.clients_state;
        roster.next_active = 4;
        for number in 0..MAX_CLIENTS as u64 - 2 {
            let mut signer = [0xee; 32];
            signer[..8].copy_from_slice(&number.to_le_bytes());
            let mut gone = RosterClient::new(NodeIdentity { signer, p2p_identity: [1; 32] }, number % 4);
            gone.earned = u64::from(number % 3 != 1);
            gone.slashed = u64::from(number % 5 == 0);
            assert!(roster.clients.push(&gone));
        }
        let native = self.native.as_bytes().to_vec();
        self.t.chain.patch(&self.t.run.account, |account| account.data = native);
    }

    /// The run was closed: both sides begin anew, under the same name and with another account.
    fn recreate(&mut self) {
        assert!(self.t.chain.data(&self.t.run.account).is_empty() && self.t.chain.data(&self.t.run.instance).is_empty());
        let account = self.t.chain.new_key();
        let owner = key(&self.t.owner);
        self.t.run = RunKeys::new("a run", key(&account));
        let allocate = allocate(&self.t.chain, &self.t.owner, &account, CoordinatorAccount::SIZE);
        let init = self.t.run.init(&owner, &init_args(&owner, "a run"));
        self.t.chain.accept(&[&self.t.owner, &account], &[allocate, init]);
        self.native = unconfigured();
        self.seen.freed += 1;
    }

    /// All wallets: four clients, then the owner.
    fn wallet(&self, who: usize) -> &Keypair {
        self.t.clients.get(who).unwrap_or(&self.t.owner)
    }

    fn who(&self, signer: &Pubkey) -> usize {
        (0..=self.t.clients.len()).find(|who| key(self.wallet(*who)) == *signer).unwrap_or(0)
    }

    /// Does it on both sides.
    fn act(&mut self, who: usize, deed: &Deed) {
        match deed {
            Deed::Wait { seconds, slots } => {
                self.clock.unix_timestamp += seconds;
                self.clock.slot += slots;
                self.t.chain.set_time(self.clock.unix_timestamp, self.clock.slot);
            }
            Deed::Authorize(open) => {
                let switch = authorizer::set_active(&key(&self.t.owner), &ids::SYSTEM_PROGRAM, *open);
                self.t.chain.accept(&[&self.t.owner], &[switch]);
                self.open = *open;
            }
            _ => {
                let before = self.native.clone();
                let expected = self.expect(who, deed);
                let wallet = self.wallet(who).insecure_clone();
                let instruction = self.instruction(&key(&wallet), deed);
                let outcome: Outcome = self.t.chain.send(&[&wallet], &[instruction]);
                assert_eq!(outcome.map(|_| ()), expected.map_err(Refusal::Custom), "{deed:?} by {who}");
                match expected {
                    Ok(()) if matches!(deed, Deed::Free) => self.recreate(),
                    Ok(()) => self.note(&before, deed),
                    Err(code) => drop(self.seen.codes.insert(code)),
                }
                self.compare();
            }
        }
        self.seen.states.insert(self.native.run_state().number());
    }

    /// Checks what an accepted instruction made of the state before.
    fn note(&mut self, before: &CoordinatorAccount, deed: &Deed) {
        let changes = invariants::check(before, &self.native);
        let idle = self.native.as_bytes() == before.as_bytes();
        let counts = !idle && !matches!(deed, Deed::Version(_));
        assert_eq!(self.native.nonce, before.nonce + u64::from(counts), "{deed:?}");
        let seen = &mut self.seen;
        seen.accepted += 1;
        seen.idle += usize::from(idle);
        seen.paid += changes.paid;
        seen.slashed += changes.slashed;
        seen.reused += changes.reused;
        if matches!(deed, Deed::Paused(true)) {
            seen.paused_in.insert(before.run_state().number());
        }
    }

    /// The native side: what must happen, and the state that it leaves.
    fn expect(&mut self, who: usize, deed: &Deed) -> Result<(), u32> {
        let user = key(self.wallet(who));
        let owners = matches!(deed, Deed::Update(_) | Deed::Version(_) | Deed::Rates(..) | Deed::Paused(_) | Deed::Free);
        if owners && user != key(&self.t.owner) {
            return Err(CONSTRAINT_RAW);
        }
        let mut next = self.native.clone();
        let (run, clock) = (&mut *next, &self.clock);
        let outcome = match deed {
            Deed::Wait { .. } | Deed::Authorize(_) => unreachable!("not an instruction of the coordinator"),
            Deed::Tick => machine::tick(run, clock),
            Deed::Join(_) if !self.open => return Err(CONSTRAINT_RAW),
            Deed::Join(client) if client.signer != user => Err(machine::CoordinatorError::SignerMismatch),
            Deed::Join(client) => machine::join_run(run, client, clock),
            Deed::WarmupWitness(witness) => machine::warmup_witness(run, &user, witness, clock),
            Deed::Witness(witness) => machine::witness(run, &user, witness, clock),
            Deed::HealthCheck(args) => machine::health_check(run, &user, args, clock),
            Deed::Checkpoint(checkpoint) => machine::checkpoint(run, &user, checkpoint, clock),
            Deed::Update(args) => machine::update(run, args),
            Deed::Version(version) => machine::update_client_version(run, version),
            Deed::Rates(earning, slashing) => machine::set_future_epoch_rates(run, *earning, *slashing),
            Deed::Paused(paused) => machine::set_paused(run, *paused, clock),
            Deed::Free => machine::check_free(run),
            Deed::Noise(data) => return Err(noise_code(data)),
        };
        match outcome {
            Ok(()) => self.native = next,
            Err(_) => assert!(next.as_bytes() == self.native.as_bytes(), "an error of {deed:?} changed the state"),
        }
        outcome.map_err(machine::CoordinatorError::code)
    }

    fn instruction(&self, user: &Pubkey, deed: &Deed) -> Instruction {
        let run = &self.t.run;
        match deed {
            Deed::Join(client) => run.join(user, &self.t.authorization, *client),
            Deed::WarmupWitness(witness) => {
                run.by(user, &psyche_protocol::instruction::WarmupWitnessArgs { witness: **witness })
            }
            Deed::Witness(witness) => run.witness(user, **witness),
            Deed::HealthCheck(args) => run.health_check(user, *args),
            Deed::Checkpoint(checkpoint) => run.checkpoint(user, *checkpoint),
            Deed::Update(args) => run.update(user, **args),
            Deed::Version(version) => run.set_version(user, version),
            Deed::Rates(earning, slashing) => run.set_rates(user, *earning, *slashing),
            Deed::Paused(paused) => run.set_paused(user, *paused),
            Deed::Free => run.free(user, user),
            Deed::Noise(data) => with_data(&run.tick(user), data.clone()),
            Deed::Tick | Deed::Wait { .. } | Deed::Authorize(_) => run.tick(user),
        }
    }

    fn compare(&self) {
        let chain = self.t.chain.data(&self.t.run.account);
        let native = self.native.as_bytes();
        let difference = chain.iter().zip(native).position(|(chain, native)| chain != native);
        assert_eq!((chain.len(), difference), (native.len(), None), "account bytes differ");
    }
}

/// What the program answers to data that decode as nothing.
fn noise_code(data: &[u8]) -> u32 {
    match psyche_protocol::instruction::discriminator(data) {
        None => INSTRUCTION_MISSING,
        Some(tag) if *tag == psyche_protocol::instruction::TickArgs::DISCRIMINATOR => INSTRUCTION_DID_NOT_DESERIALIZE,
        Some(_) => INSTRUCTION_FALLBACK_NOT_FOUND,
    }
}

fn run_seed(seed: u64) -> Seen {
    let mut random = Random(seed);
    let mut pair = Pair::new(seed.is_multiple_of(2));
    for step in 0..STEPS {
        let (who, deed) = choose::next(&pair, &mut random);
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.act(who, &deed)));
        assert!(acted.is_ok(), "step {step} failed; PSYCHE_PROGRAMS_SEED={seed} repeats it");
    }
    pair.seen
}

#[test]
fn prop_bytecode_and_native_state_machine_agree_on_random_instructions() {
    if let Ok(seed) = std::env::var("PSYCHE_PROGRAMS_SEED") {
        println!("{:?}", run_seed(seed.parse().unwrap()));
        return;
    }
    let mut seen = Seen::default();
    for seed in SEEDS {
        seen.add(run_seed(seed));
    }
    println!("{seen:?}");
    assert!(seen.accepted > 50 * SEEDS.count(), "only {} instructions were accepted", seen.accepted);
    let every_state: BTreeSet<u8> = RunState::ALL.iter().map(|state| state.number()).collect();
    assert_eq!(seen.states, every_state, "some state was never reached");
    let pausable: BTreeSet<u8> = RunState::ALL.iter().filter(|state| !state.halted()).map(|state| state.number()).collect();
    assert_eq!(seen.paused_in, pausable, "no pause in some state");
    assert!(seen.codes.len() >= 22, "only these codes were seen: {:?}", seen.codes);
    let Seen { paid, slashed, reused, freed, idle, .. } = seen;
    assert!([paid, slashed, reused, freed, idle].into_iter().all(|times| times > 0), "something never happened");
}
