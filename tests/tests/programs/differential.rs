//! The bytecode against the native state machine: random instructions, valid and invalid, of several users under a
//! jumping clock, must give the same codes and the same account bytes after every single one.
//!
//! `PSYCHE_PROGRAMS_SEED=n` runs one seed only; a failure prints its own.

mod choose;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use psyche_protocol::instruction::{Args, HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::{CoordinatorAccount, NodeIdentity, RunState, Witness};
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::model::Checkpoint;
use psyche_protocol::{Pubkey, ids};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer;
use super::chain::{Chain, GENESIS_UNIX_TIME_S, Outcome, Refusal, key, with_data};
use super::codes::*;
use super::run::{Owned, VERSION};

/// Instructions per seed.
const STEPS: usize = 400;
/// Seeds of a run without the environment variable.
const SEEDS: std::ops::Range<u64> = 1..13;
/// Seeds that do not fit are left out, so that a slow machine is not kept busy.
const TIME_MAX: Duration = Duration::from_secs(15);

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
    states: BTreeSet<u8>,
    codes: BTreeSet<u32>,
    accepted: usize,
}

impl Pair {
    fn new() -> Self {
        let t = Owned::created(Chain::fast(), "a run");
        let mut native = CoordinatorAccount::zeroed_boxed();
        machine::init(bytemuck::bytes_of_mut(&mut *native), "a run", VERSION).unwrap();
        let clock = Clock { unix_timestamp: GENESIS_UNIX_TIME_S, slot: 1_000 };
        let this = Self { t, native, clock, open: true, states: BTreeSet::new(), codes: BTreeSet::new(), accepted: 0 };
        this.compare();
        this
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
                let expected = self.expect(who, deed);
                let wallet = self.wallet(who).insecure_clone();
                let instruction = self.instruction(&key(&wallet), deed);
                let outcome: Outcome = self.t.chain.send(&[&wallet], &[instruction]);
                assert_eq!(outcome.map(|_| ()), expected.map_err(Refusal::Custom), "{deed:?} by {who}");
                match expected {
                    Ok(()) => self.accepted += 1,
                    Err(code) => drop(self.codes.insert(code)),
                }
                self.compare();
            }
        }
        self.states.insert(self.native.run_state().number());
    }

    /// The native side: what must happen, and the state that it leaves.
    fn expect(&mut self, who: usize, deed: &Deed) -> Result<(), u32> {
        let user = key(self.wallet(who));
        let owners = matches!(deed, Deed::Update(_) | Deed::Version(_) | Deed::Rates(..) | Deed::Paused(_));
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

fn run_seed(seed: u64) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new();
    for step in 0..STEPS {
        let (who, deed) = choose::next(&pair, &mut random);
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.act(who, &deed)));
        assert!(acted.is_ok(), "step {step} failed; PSYCHE_PROGRAMS_SEED={seed} repeats it");
        if pair.native.run_state() == RunState::Finished && random.chance(20) {
            break;
        }
    }
    pair
}

#[test]
fn prop_bytecode_and_native_state_machine_agree_on_random_instructions() {
    if let Ok(seed) = std::env::var("PSYCHE_PROGRAMS_SEED") {
        let pair = run_seed(seed.parse().unwrap());
        println!("{} accepted, codes {:?}", pair.accepted, pair.codes);
        return;
    }
    let started = Instant::now();
    let (mut states, mut codes, mut accepted, mut seeds) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
    for seed in SEEDS {
        if started.elapsed() > TIME_MAX && seeds > 0 {
            break;
        }
        let pair = run_seed(seed);
        states.extend(pair.states);
        codes.extend(pair.codes);
        accepted += pair.accepted;
        seeds += 1;
    }
    println!("{seeds} seeds, {accepted} instructions accepted, states {states:?}, codes {codes:?}");
    assert!(accepted > 50 * seeds, "only {accepted} instructions of {seeds} seeds were accepted");
    if seeds == SEEDS.count() {
        let every_state: BTreeSet<u8> = RunState::ALL.iter().map(|state| state.number()).collect();
        assert_eq!(states, every_state, "some state was never reached");
        assert!(codes.len() >= 20, "only these codes were seen: {codes:?}");
    }
}
