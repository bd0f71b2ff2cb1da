//! What RPC endpoints bring: accounts, and the instructions of the transaction history.

use std::sync::OnceLock;

use psyche_protocol::F64Bits;
use psyche_protocol::accounts::{Authorization, CoordinatorInstance, Participant, Run};
use psyche_protocol::codec::{DecodeError, EncodeError};
use psyche_protocol::instruction::*;
use psyche_protocol::keys::is_public_key;
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::model::*;
use psyche_protocol::select::{Assignment, Selection, checkpointers, unhealthy_clients};

use super::{Target, Verdict, put};
use crate::allocation::within;

const START: i64 = 1_700_000_000;

/// Bytes of one change of the account: where, and eight bytes.
const CHANGE: usize = 12;

/// The coordinator account. An input is a byte that says how many clients the run has, and changes of the account's bytes:
/// whole accounts would be 119,160 bytes each, nearly all of them the empty roster.
pub(super) const COORDINATOR: Target = Target {
    name: "coordinator_account",
    length_max: 1 + 64 * CHANGE,
    tokens: &[],
    examples: || vec![vec![0], vec![1], vec![3], vec![9], changed(3, 16, 1), changed(2, 100, 0)],
    repair: |bytes| {
        let changes = bytes.len().saturating_sub(1) / CHANGE;
        bytes.resize(1 + changes * CHANGE, 0);
    },
    check: check_coordinator,
};

fn changed(clients: u8, at: u32, value: u64) -> Vec<u8> {
    [&[clients][..], &at.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// A run in which `clients` train.
fn run_of(clients: u8) -> Box<CoordinatorAccount> {
    let mut account = CoordinatorAccount::zeroed_boxed();
    let start = |account: &mut CoordinatorAccount| -> Option<()> {
        let mut clock = Clock { unix_timestamp: START, slot: 1000 };
        machine::init(bytemuck::bytes_of_mut(account), "a-run", "v1").ok()?;
        let update = UpdateArgs { config: Some(config()), model: Some(model()?), ..UpdateArgs::default() };
        machine::update(account, &update).ok()?;
        machine::set_paused(account, false, &clock).ok()?;
        for client in 1..=clients {
            let mut p2p_identity = [client; 32];
            while !is_public_key(&p2p_identity) {
                p2p_identity[31] = p2p_identity[31].wrapping_add(1);
            }
            machine::join_run(account, &NodeIdentity { signer: [client; 32], p2p_identity }, &clock).ok()?;
        }
        for _ in 0..4 {
            clock = Clock { unix_timestamp: clock.unix_timestamp + 31, slot: clock.slot + 80 };
            machine::tick(account, &clock).ok()?;
        }
        Some(())
    };
    // Where too few have joined it goes as far as it goes.
    let _waiting = start(&mut account);
    account
}

const fn config() -> Config {
    Config {
        warmup_time: 30,
        cooldown_time: 5,
        max_round_train_time: 20,
        round_witness_time: 2,
        global_batch_size_warmup_tokens: 1000,
        epoch_time: 1000,
        total_steps: 1000,
        init_min_clients: 1,
        min_clients: 1,
        witness_nodes: 0,
        global_batch_size_start: 16,
        global_batch_size_end: 64,
        verification_percent: 0,
        waiting_for_members_extra_time: 3,
    }
}

fn model() -> Option<Model> {
    Some(Model::Llm(Llm {
        max_seq_len: 128,
        cold_start_warmup_steps: 0,
        architecture: Architecture::HfLlama,
        checkpoint: Checkpoint::Hub(HubRepo { repo_id: FixedString::new("weights")?, revision: None }),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Local(FixedString::new("data")?),
        lr_schedule: LrSchedule::Constant { base_lr: F64Bits(1e-3f64.to_bits()), warmup_init_lr: F64Bits(0), warmup_steps: 10 },
        optimizer: Optimizer::Distro {
            clip_grad_norm: None,
            weight_decay: None,
            compression_decay: psyche_protocol::F32Bits(0.999f32.to_bits()),
            compression_topk: 8,
            compression_chunk: 64,
            quantize_1bit: true,
        },
    }))
}

/// The account that an input means.
fn account_of(bytes: &[u8]) -> Option<Vec<u8>> {
    static RUNS: OnceLock<Vec<Box<CoordinatorAccount>>> = OnceLock::new();
    let runs = RUNS.get_or_init(|| (0..10).map(run_of).collect());
    let (clients, changes) = bytes.split_first()?;
    let mut account = runs.get(usize::from(*clients) % runs.len())?.as_bytes().to_vec();
    for change in changes.as_chunks::<CHANGE>().0 {
        let [a, b, c, d, value @ ..] = *change;
        let at = u32::from_le_bytes([a, b, c, d]);
        // Most of the account is the roster: half of the changes are made to what lies before it.
        let bound = if at & 1 == 0 { account.len() } else { 8192 };
        put(&mut account, (at >> 1) as usize % bound, &value);
    }
    Some(account)
}

fn check_coordinator(bytes: &[u8]) -> Verdict {
    let Some(data) = account_of(bytes) else { return Verdict::Refused("no account".to_owned()) };
    match within(2 * CoordinatorAccount::SIZE, || CoordinatorAccount::load_boxed(&data)) {
        Ok(account) => {
            assert!(account.as_bytes() == data, "it was changed by being read");
            consult(&account);
            Verdict::Accepted
        }
        Err(error) => Verdict::Refused(format!("{:?}", error.what)),
    }
}

/// Everything that a node asks of an account, and what the programs would do with it.
fn consult(account: &CoordinatorAccount) {
    let coordinator = &account.state.coordinator;
    let found = coordinator.model.get();
    assert!(found.is_ok(), "a checked model can't be read");
    for round in [Some(account.current_round()), account.previous_round(), account.previous_previous_round()] {
        let Some(round) = round else { continue };
        let Ok(selection) = Selection::of_round(round, &coordinator.config) else { continue };
        let assignment = Assignment::new(round, &selection, coordinator.global_batch_size(round));
        assert!(assignment.iter().count() <= MAX_CLIENTS, "more batches than clients");
        let proofs = (0..u64::from(round.clients_len)).filter_map(|index| selection.committee(index));
        assert!(proofs.take(300).all(|proof| selection.verify_committee(&proof)), "its own proof is refused");
    }
    let named = checkpointers(account).into_iter().flatten().count() + unhealthy_clients(coordinator).count();
    assert!(named <= 2 * MAX_CLIENTS, "{named} clients");
    for later in [0, 1, 40, 100_000] {
        let mut moved = Box::new(*account);
        let now = START.saturating_add(later);
        let clock = Clock { unix_timestamp: now, slot: 5000 };
        let expected = machine::would_tick(&moved, now);
        if machine::tick(&mut moved, &clock).is_ok() {
            assert!(moved.validate().is_ok(), "a tick leaves what can't be read, from {expected:?}");
        }
    }
}

/// The accounts beside it. The first byte chooses one of four kinds.
pub(super) const BORSH: Target = Target {
    name: "borsh_account",
    length_max: 512,
    tokens: &[&[0, 0, 0, 0], &[32, 0, 0, 0], &[0xff; 4], b"CoordinatorJoinRun", &[1], &[3; 32]],
    examples: borsh_accounts,
    repair: |bytes| {
        let kind = bytes.first().map_or(0, |kind| usize::from(*kind) % DISCRIMINATORS.len());
        put(bytes, 1, &DISCRIMINATORS[kind]);
    },
    check: check_borsh,
};

const DISCRIMINATORS: [[u8; 8]; 4] =
    [CoordinatorInstance::DISCRIMINATOR, Authorization::DISCRIMINATOR, Run::DISCRIMINATOR, Participant::DISCRIMINATOR];

fn borsh_accounts() -> Vec<Vec<u8>> {
    let authorization = Authorization {
        bump: 0xfd,
        grantor: [1; 32],
        grantee: [2; 32],
        scope: b"CoordinatorJoinRun",
        active: true,
        delegates: &[[3; 32], [4; 32]],
        grantor_update_unix_timestamp: -5,
    };
    let instance = CoordinatorInstance {
        bump: 1,
        main_authority: [1; 32],
        join_authority: [2; 32],
        coordinator_account: [3; 32],
        run_id: "a-run",
    };
    let mut accounts = vec![vec![0; 1 + 173], vec![0; 1 + 300], vec![2; 1 + Run::SIZE], vec![3; 1 + Participant::SIZE]];
    let written = [instance.encode(&mut accounts[0][1..]), authorization.encode(&mut accounts[1][1..])];
    assert!(written.iter().all(Result::is_ok), "examples fit");
    accounts[1][0] = 1;
    put(&mut accounts[2], 1, &Run::DISCRIMINATOR);
    put(&mut accounts[3], 1, &Participant::DISCRIMINATOR);
    accounts
}

fn check_borsh(bytes: &[u8]) -> Verdict {
    let Some((kind, data)) = bytes.split_first() else { return Verdict::Refused("no kind".to_owned()) };
    within(4096, || match kind % 4 {
        0 => compared(data, CoordinatorInstance::decode(data), |value, buffer| value.encode(buffer)),
        1 => {
            edited(data);
            compared(data, Authorization::decode(data), |value, buffer| value.encode(buffer))
        }
        2 => compared(data, Run::decode(data), |value, buffer| value.encode(buffer)),
        _ => compared(data, Participant::decode(data), |value, buffer| value.encode(buffer)),
    })
}

/// What was read is written to the same bytes; what follows them in an account is unused.
fn compared<T>(
    data: &[u8],
    decoded: Result<T, DecodeError>,
    encode: impl FnOnce(&T, &mut [u8]) -> Result<usize, EncodeError>,
) -> Verdict {
    let value = match decoded {
        Ok(value) => value,
        Err(error) => return Verdict::Refused(format!("{error:?}")),
    };
    let mut buffer = vec![0xaa; data.len()];
    let written = encode(&value, &mut buffer).unwrap_or_else(|error| panic!("an accepted account can't be written: {error}"));
    assert!(buffer[..written] == data[..written], "accepted bytes are not the value's encoding");
    Verdict::Accepted
}

/// Edits in place leave what can be read, or change nothing.
fn edited(data: &[u8]) {
    let mut copy = data.to_vec();
    if Authorization::set_active_in(&mut copy, true, 77).is_err() {
        assert!(copy == data, "a refused edit has changed something");
        return;
    }
    assert!(Authorization::decode(&copy).is_ok_and(|edited| edited.active && edited.grantor_update_unix_timestamp == 77));
    let before = copy.clone();
    match Authorization::set_delegates_in(&mut copy, false, &[[9; 32]]) {
        Ok(total) => assert!(Authorization::decode(&copy).is_ok_and(|edited| edited.delegates.len() == total)),
        Err(_) => assert!(copy == before, "a refused edit has changed something"),
    }
}

/// Instruction data of the three programs.
pub(super) const INSTRUCTION: Target = Target {
    name: "instruction",
    length_max: MAX_LEN,
    tokens: &[
        &JoinRunArgs::DISCRIMINATOR,
        &WitnessArgs::DISCRIMINATOR,
        &WarmupWitnessArgs::DISCRIMINATOR,
        &HealthCheckArgs::DISCRIMINATOR,
        &CheckpointArgs::DISCRIMINATOR,
        &UpdateArgs::DISCRIMINATOR,
        &RunCreateArgs::DISCRIMINATOR,
        &RunUpdateArgs::DISCRIMINATOR,
        &[0; 4],
        &[1, 0, 0, 0],
        &[0xff; 4],
    ],
    examples: instructions,
    repair: |bytes| {
        let known = [WitnessArgs::DISCRIMINATOR, CheckpointArgs::DISCRIMINATOR, UpdateArgs::DISCRIMINATOR];
        let first = bytes.first().map_or(1, |first| usize::from(*first));
        if first & 7 == 0 {
            put(bytes, 0, &known[(first >> 3) % known.len()]);
        }
    },
    check: check_instruction,
};

fn instructions() -> Vec<Vec<u8>> {
    let update = UpdateArgs { config: Some(config()), model: model(), ..UpdateArgs::default() };
    let run = RunUpdateArgs {
        update,
        earning_rate_total_shared: Some(5),
        slashing_rate_per_client: None,
        paused: Some(false),
        client_version: Some("v2"),
    };
    let mut witness = WitnessArgs::DISCRIMINATOR.to_vec();
    witness.resize(MAX_LEN, 0);
    // Lists without entries, and no text: as long as it has to be.
    let len = (0..MAX_LEN).find(|len| WitnessArgs::decode(&witness[..*len]).is_ok());
    witness.truncate(len.unwrap_or(0));
    let all = [update.to_vec(), run.to_vec(), TickArgs.to_vec(), SetPausedArgs { paused: true }.to_vec()];
    all.into_iter().flatten().chain([witness]).collect()
}

/// How one kind of instruction takes `data`: none if it is of another kind.
fn decoded<'a, T: Args<'a>>(data: &'a [u8]) -> Option<Verdict> {
    let again = match T::decode(data) {
        Ok(args) => args.to_vec(),
        Err(DecodeError::Discriminator) => return None,
        Err(error) => return Some(Verdict::Refused(format!("{error:?}"))),
    };
    match again {
        Ok(again) => assert!(again == data, "accepted bytes are not the value's encoding"),
        Err(error) => assert!(data.len() > MAX_LEN, "an accepted instruction can't be written: {error}"),
    }
    Some(Verdict::Accepted)
}

fn check_instruction(data: &[u8]) -> Verdict {
    let one_of = || {
        decoded::<InitCoordinatorArgs>(data)
            .or_else(|| decoded::<UpdateArgs>(data))
            .or_else(|| decoded::<UpdateClientVersionArgs>(data))
            .or_else(|| decoded::<SetFutureEpochRatesArgs>(data))
            .or_else(|| decoded::<SetPausedArgs>(data))
            .or_else(|| decoded::<JoinRunArgs>(data))
            .or_else(|| decoded::<TickArgs>(data))
            .or_else(|| decoded::<WarmupWitnessArgs>(data))
            .or_else(|| decoded::<HealthCheckArgs>(data))
            .or_else(|| decoded::<CheckpointArgs>(data))
            .or_else(|| decoded::<AuthorizationCreateArgs>(data))
            .or_else(|| decoded::<AuthorizationGranteeUpdateArgs>(data))
            .or_else(|| decoded::<RunCreateArgs>(data))
            .or_else(|| decoded::<RunUpdateArgs>(data))
            .or_else(|| decoded::<ParticipantClaimArgs>(data))
            .or_else(|| witness(data))
    };
    within(64 * 1024, one_of).unwrap_or_else(|| Verdict::Refused("no instruction".to_owned()))
}

/// Slots of a report's lists past their length are not kept: it comes back as a value, not to the byte.
fn witness(data: &[u8]) -> Option<Verdict> {
    match WitnessArgs::decode(data) {
        Ok(args) => {
            let again = args.to_vec().unwrap_or_else(|error| panic!("an accepted report can't be written: {error}"));
            let twice = WitnessArgs::decode(&again).and_then(|args| args.to_vec().map_err(|_| DecodeError::Length));
            assert!(twice == Ok(again), "a report changes each time that it is written");
            Some(Verdict::Accepted)
        }
        Err(DecodeError::Discriminator) => None,
        Err(error) => Some(Verdict::Refused(format!("{error:?}"))),
    }
}
