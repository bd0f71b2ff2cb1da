//! What holds for every input: round trips, refusals without panics, permutations and tilings.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod common;

use bytemuck::Zeroable;
use common::{Run, config};
use proptest::collection::vec;
use proptest::prelude::*;
use psyche_protocol::accounts::{Authorization, CoordinatorInstance, Participant, Run as TreasuryRun};
use psyche_protocol::codec::{DecodeError, Reader, Writer};
use psyche_protocol::ids;
use psyche_protocol::instruction::*;
use psyche_protocol::layout::*;
use psyche_protocol::model::*;
use psyche_protocol::select::*;
use psyche_protocol::{F32Bits, F64Bits};

fn text<const L: usize>() -> impl Strategy<Value = FixedString<L>> {
    any::<Vec<u8>>().prop_map(|bytes| {
        let mut all = [0; L];
        let len = bytes.len().min(L);
        all[..len].copy_from_slice(&bytes[..len]);
        FixedString::from_bytes(all)
    })
}

fn option<T: Clone + std::fmt::Debug + 'static>(value: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(value)
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (0..6, text::<64>(), option(text::<64>())).prop_map(|(kind, name, optional)| {
        let hub = HubRepo { repo_id: name, revision: optional };
        let gcs = GcsRepo { bucket: name, prefix: optional };
        match kind {
            0 => Checkpoint::Ephemeral,
            1 => Checkpoint::Dummy(hub),
            2 => Checkpoint::Hub(hub),
            3 => Checkpoint::P2P(hub),
            4 => Checkpoint::Gcs(gcs),
            _ => Checkpoint::P2PGcs(gcs),
        }
    })
}

fn data_location() -> impl Strategy<Value = DataLocation> {
    let parts = (text::<64>(), text::<192>(), any::<(u32, u8, u32, bool, Option<[u8; 32]>)>());
    (0..8, parts).prop_map(|(kind, (short, long, (start_index, n_left_pad_zeros, num_files, wide, seed)))| {
        let http = |source| {
            let token_size = if wide { TokenSize::FourBytes } else { TokenSize::TwoBytes };
            DataLocation::Http(HttpLocation { source, token_size, shuffle: seed.map_or(Shuffle::DontShuffle, Shuffle::Seeded) })
        };
        match kind {
            0 => DataLocation::Dummy,
            1 => DataLocation::Server(short),
            2 => DataLocation::Local(long),
            3 => DataLocation::WeightedHttp(long),
            4 => DataLocation::Preprocessed(long),
            5 => http(HttpSource::SingleUrl(long)),
            6 => http(HttpSource::NumberedFiles { url_template: short, start_index, n_left_pad_zeros, num_files }),
            _ => http(HttpSource::Gcp { bucket_name: short, filter_directory: long }),
        }
    })
}

fn lr_schedule() -> impl Strategy<Value = LrSchedule> {
    (0..4, any::<[u64; 4]>(), any::<[u32; 4]>()).prop_map(|(kind, rates, steps)| {
        let [base_lr, warmup_init_lr, final_lr, last] = rates.map(F64Bits);
        let decay = DecayLr { base_lr, warmup_init_lr, final_lr, warmup_steps: steps[0], total_steps: steps[1] };
        match kind {
            0 => LrSchedule::Constant { base_lr, warmup_init_lr, warmup_steps: steps[0] },
            1 => LrSchedule::Linear(decay),
            2 => LrSchedule::Cosine(decay),
            _ => LrSchedule::WarmupStableDecay {
                base_lr,
                warmup_init_lr,
                cosine_decay_final_lr: final_lr,
                linear_decay_final_lr: last,
                warmup_steps: steps[0],
                stable_steps: steps[1],
                cosine_decay_steps: steps[2],
                linear_decay_steps: steps[3],
            },
        }
    })
}

fn optimizer() -> impl Strategy<Value = Optimizer> {
    (0..3, any::<[u32; 4]>(), any::<[Option<u32>; 2]>(), any::<(u16, u16, bool)>()).prop_map(
        |(kind, words, options, (compression_topk, compression_chunk, quantize_1bit))| {
            let [clip_grad_norm, decay] = options.map(|value| value.map(F32Bits));
            match kind {
                0 => Optimizer::Dummy,
                1 => Optimizer::AdamW {
                    betas: [F32Bits(words[0]), F32Bits(words[1])],
                    weight_decay: F32Bits(words[2]),
                    eps: F32Bits(words[3]),
                    clip_grad_norm,
                },
                _ => Optimizer::Distro {
                    clip_grad_norm,
                    weight_decay: decay,
                    compression_decay: F32Bits(words[0]),
                    compression_topk,
                    compression_chunk,
                    quantize_1bit,
                },
            }
        },
    )
}

fn any_model() -> impl Strategy<Value = Model> {
    (any::<(u32, u32)>(), 0..4usize, any::<bool>(), checkpoint(), data_location(), lr_schedule(), optimizer()).prop_map(
        |((max_seq_len, cold), architecture, tune, checkpoint, data_location, lr_schedule, optimizer)| {
            Model::Llm(Llm {
                max_seq_len,
                cold_start_warmup_steps: cold,
                architecture: Architecture::ALL[architecture],
                checkpoint,
                data_type: if tune { DataType::Finetuning } else { DataType::Pretraining },
                data_location,
                lr_schedule,
                optimizer,
            })
        },
    )
}

/// Whether `data` decodes, and if so whether it encodes to itself: decoding is injective, so that nobody can send one
/// instruction in two forms.
fn is_canonical<'a, T: Args<'a>>(data: &'a [u8]) -> bool {
    match T::decode(data) {
        Ok(args) => args.to_vec().is_ok_and(|encoded| encoded == data),
        Err(_) => true,
    }
}

fn all_canonical(data: &[u8]) -> bool {
    is_canonical::<InitCoordinatorArgs>(data)
        && is_canonical::<FreeCoordinatorArgs>(data)
        && is_canonical::<UpdateArgs>(data)
        && is_canonical::<UpdateClientVersionArgs>(data)
        && is_canonical::<SetFutureEpochRatesArgs>(data)
        && is_canonical::<SetPausedArgs>(data)
        && is_canonical::<JoinRunArgs>(data)
        && is_canonical::<TickArgs>(data)
        && is_canonical::<WarmupWitnessArgs>(data)
        && is_canonical::<HealthCheckArgs>(data)
        && is_canonical::<CheckpointArgs>(data)
        && is_canonical::<AuthorizationCreateArgs>(data)
        && is_canonical::<AuthorizationGrantorUpdateArgs>(data)
        && is_canonical::<AuthorizationGranteeUpdateArgs>(data)
        && is_canonical::<AuthorizationCloseArgs>(data)
        && is_canonical::<RunCreateArgs>(data)
        && is_canonical::<RunUpdateArgs>(data)
        && is_canonical::<ParticipantCreateArgs>(data)
        && is_canonical::<ParticipantClaimArgs>(data)
        // List slots past the length are not kept, so a report need not come back to the byte.
        && WitnessArgs::decode(data).map_or(true, |args| args.to_vec().is_ok())
}

const DISCRIMINATORS: [[u8; 8]; 12] = [
    InitCoordinatorArgs::DISCRIMINATOR,
    UpdateArgs::DISCRIMINATOR,
    UpdateClientVersionArgs::DISCRIMINATOR,
    SetFutureEpochRatesArgs::DISCRIMINATOR,
    JoinRunArgs::DISCRIMINATOR,
    WitnessArgs::DISCRIMINATOR,
    HealthCheckArgs::DISCRIMINATOR,
    CheckpointArgs::DISCRIMINATOR,
    AuthorizationCreateArgs::DISCRIMINATOR,
    AuthorizationGranteeUpdateArgs::DISCRIMINATOR,
    RunCreateArgs::DISCRIMINATOR,
    RunUpdateArgs::DISCRIMINATOR,
];

proptest! {
    #[test]
    fn prop_models_survive_both_encodings(model in any_model()) {
        let mut raw = ModelRaw::zeroed();
        raw.set(&model);
        prop_assert_eq!(raw.get(), Ok(model));
        let args = UpdateArgs { model: Some(model), ..UpdateArgs::default() };
        let bytes = args.to_vec().unwrap();
        prop_assert_eq!(UpdateArgs::decode(&bytes).unwrap().model, Some(model));
        // Every prefix is refused, and so is every longer form.
        prop_assert_eq!(UpdateArgs::decode(&bytes[..bytes.len() - 1]).err(), Some(DecodeError::Truncated));
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert_eq!(UpdateArgs::decode(&longer).err(), Some(DecodeError::Trailing));
    }

    #[test]
    fn prop_random_raw_models_never_panic(bytes in vec(any::<u8>(), 552), small in any::<bool>()) {
        // With small numbers more tags have a meaning.
        let bytes: Vec<u8> = bytes.iter().map(|byte| if small { byte % 3 } else { *byte }).collect();
        let raw: ModelRaw = bytemuck::pod_read_unaligned(&bytes);
        if let Ok(model) = raw.get() {
            let mut again = ModelRaw::zeroed();
            again.set(&model);
            prop_assert_eq!(again.get(), Ok(model));
        }
    }

    #[test]
    fn prop_random_instructions_are_refused_or_canonical(
        which in 0..DISCRIMINATORS.len(),
        body in vec(prop_oneof![0..3u8, any::<u8>()], 0..900),
    ) {
        let data = [DISCRIMINATORS[which].as_slice(), &body].concat();
        prop_assert!(all_canonical(&data));
        prop_assert!(all_canonical(&body));
    }

    #[test]
    fn prop_random_account_data_never_panics(disc in 0..4usize, body in vec(prop_oneof![0..3u8, any::<u8>()], 0..300)) {
        let discriminators =
            [CoordinatorInstance::DISCRIMINATOR, Authorization::DISCRIMINATOR, TreasuryRun::DISCRIMINATOR, Participant::DISCRIMINATOR];
        let mut data = [discriminators[disc].as_slice(), &body].concat();
        let mut buffer = [0; 4096];
        if let Ok(instance) = CoordinatorInstance::decode(&data) {
            instance.encode(&mut buffer).unwrap();
            prop_assert_eq!(CoordinatorInstance::decode(&buffer), Ok(instance));
        }
        if let Ok(run) = TreasuryRun::decode(&data) {
            run.encode(&mut buffer).unwrap();
            prop_assert_eq!(TreasuryRun::decode(&buffer), Ok(run));
        }
        if let Ok(participant) = Participant::decode(&data) {
            participant.encode(&mut buffer).unwrap();
            prop_assert_eq!(Participant::decode(&buffer), Ok(participant));
        }
        if let Ok(authorization) = Authorization::decode(&data) {
            authorization.encode(&mut buffer).unwrap();
            prop_assert_eq!(Authorization::decode(&buffer), Ok(authorization));
            Authorization::set_active_in(&mut data, true, 9).unwrap();
            prop_assert!(Authorization::decode(&data).unwrap().active);
        }
    }

    #[test]
    fn prop_delegates_are_edited_in_place(
        first in vec(any::<[u8; 32]>(), 0..5), second in vec(any::<[u8; 32]>(), 0..5), clear: bool, time: i64,
    ) {
        let create = Authorization {
            bump: 3, grantor: [1; 32], grantee: [2; 32], scope: ids::JOIN_SCOPE, active: true, delegates: &[],
            grantor_update_unix_timestamp: time,
        };
        let mut data = vec![0; Authorization::size(ids::JOIN_SCOPE.len(), 0)];
        create.encode(&mut data).unwrap();
        data.resize(Authorization::size(ids::JOIN_SCOPE.len(), first.len()), 0);
        prop_assert_eq!(Authorization::set_delegates_in(&mut data, false, &first), Ok(first.len()));
        let expected = if clear { second.clone() } else { [first.clone(), second.clone()].concat() };
        let size = Authorization::size(ids::JOIN_SCOPE.len(), expected.len());
        if size > data.len() {
            let before = data.clone();
            prop_assert_eq!(Authorization::set_delegates_in(&mut data, clear, &second), Err(DecodeError::Truncated));
            prop_assert_eq!(&before, &data);
            data.resize(size, 0);
        }
        prop_assert_eq!(Authorization::set_delegates_in(&mut data, clear, &second), Ok(expected.len()));
        data.truncate(size);
        prop_assert_eq!(Authorization::decode(&data), Ok(Authorization { delegates: &expected, ..create }));
        for key in first.iter().chain(&second) {
            prop_assert_eq!(Authorization::decode(&data).unwrap().is_valid_for(&[1; 32], key, ids::JOIN_SCOPE), expected.contains(key));
        }
    }

    #[test]
    fn prop_the_shuffle_is_a_permutation(count in 1..300u64, seed: [u8; 32]) {
        let mut seen = vec![false; count as usize];
        for index in 0..count {
            let position = shuffled_index(index, count, &seed).unwrap() as usize;
            prop_assert!(!std::mem::replace(&mut seen[position], true));
        }
        prop_assert_eq!(shuffled_index(count, count, &seed), None);
    }

    #[test]
    fn prop_an_assignment_tiles_the_batch(
        clients_len in 0..=256u16, random_seed: u64, data_index in 0..u64::MAX / 2, batch: u16, percent in 0..=100u8,
    ) {
        let round = Round { clients_len, random_seed, data_index, ..Round::zeroed() };
        // Few need the committees' shuffle, which is slow.
        let percent = if clients_len < 16 { percent } else { 0 };
        let config = Config { verification_percent: percent, ..Config::zeroed() };
        let selection = Selection::of_round(&round, &config).unwrap();
        let assignment = Assignment::new(&round, &selection, batch);
        let parts: Vec<Assigned> = assignment.iter().collect();
        let trainers = u64::from(clients_len) - u64::from(clients_len) * u64::from(percent) / 100;
        prop_assert_eq!(parts.len() as u64, trainers.min(u64::from(batch)));
        let mut next = data_index;
        for part in &parts {
            prop_assert_eq!(part.batch.start, next);
            prop_assert!(part.batch.end >= part.batch.start);
            next = part.batch.end + 1;
            prop_assert_eq!(assignment.of_client(part.client), Some(part.batch));
            prop_assert_eq!(assignment.owner_of(&part.batch), Some(part.client));
            prop_assert_eq!(selection.committee(u64::from(part.client)).unwrap().committee, Committee::Trainer);
        }
        if !parts.is_empty() {
            prop_assert_eq!(next - data_index, u64::from(batch));
            let sizes = parts.iter().map(|part| part.batch.samples());
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
        let mut clients: Vec<u16> = parts.iter().map(|part| part.client).collect();
        clients.sort_unstable();
        clients.dedup();
        prop_assert_eq!(clients.len(), parts.len());
    }

    #[test]
    fn prop_the_batch_grows_from_start_to_end(start in 1..1000u16, growth in 0..1000u16, warmup: u64, index: u64, seq: u32) {
        let config = Config {
            global_batch_size_start: start,
            global_batch_size_end: start + growth,
            global_batch_size_warmup_tokens: warmup,
            ..Config::zeroed()
        };
        let size = global_batch_size(&config, index, seq);
        let tokens = u128::from(index) * u128::from(seq);
        let expected = if tokens >= u128::from(warmup) {
            start + growth
        } else {
            start + ((2 * u128::from(growth) * tokens + u128::from(warmup)) / (2 * u128::from(warmup))) as u16
        };
        prop_assert_eq!(size, expected);
    }

    #[test]
    fn prop_exactly_the_wanted_number_are_witnesses(clients_len in 1..64u16, nodes in 0..33u16, random_seed: u64) {
        let round = Round { clients_len, random_seed, ..Round::zeroed() };
        let config = Config { witness_nodes: nodes, ..Config::zeroed() };
        match Selection::of_round(&round, &config) {
            Err(SelectError) => prop_assert!(nodes > clients_len),
            Ok(selection) => {
                let proofs: Vec<_> = (0..u64::from(clients_len)).map(|at| selection.witness_proof(at).unwrap()).collect();
                let witnesses = proofs.iter().filter(|proof| selection.verify_witness(proof)).count();
                prop_assert_eq!(witnesses, config.witness_target(usize::from(clients_len)));
            }
        }
    }

    #[test]
    fn prop_texts_read_back_or_are_refused(given: String) {
        match FixedString::<32>::new(&given) {
            Some(text) => prop_assert_eq!(text.as_str(), given),
            None => prop_assert!(given.len() > 32 || given.contains('\0')),
        }
    }

    #[test]
    fn prop_any_bytes_are_readable_as_text(bytes: [u8; 32]) {
        let text = FixedString::from_bytes(bytes);
        prop_assert!(bytes.starts_with(text.as_str().as_bytes()));
        prop_assert_eq!(text.is_empty(), bytes[0] == 0);
    }

    #[test]
    fn prop_readers_stay_inside_their_bytes(bytes in vec(any::<u8>(), 0..100), max in 0..50usize) {
        for read in [|r: &mut Reader<'_>, max| r.bytes(max).map(<[u8]>::len), |r: &mut Reader<'_>, max| r.keys(max).map(|keys| keys.len())] {
            let mut reader = Reader::new(&bytes);
            prop_assert!(read(&mut reader, max).map_or(true, |len| len <= max));
        }
        let mut small = [0; 8];
        let mut writer = Writer::new(&mut small);
        prop_assert_eq!(writer.put(&bytes).is_ok(), bytes.len() <= 8);
    }
}

#[test]
fn an_authorization_holds_for_its_grantee_its_delegates_or_everyone() {
    let valid = Authorization {
        bump: 0,
        grantor: [1; 32],
        grantee: [2; 32],
        scope: ids::JOIN_SCOPE,
        active: true,
        delegates: &[[3; 32]],
        grantor_update_unix_timestamp: 0,
    };
    let holds = |given: Authorization<'_>, user: u8| given.is_valid_for(&[1; 32], &[user; 32], ids::JOIN_SCOPE);
    assert!(holds(valid, 2) && holds(valid, 3) && !holds(valid, 4));
    assert!(holds(Authorization { grantee: ids::SYSTEM_PROGRAM, ..valid }, 4));
    assert!(!holds(Authorization { active: false, ..valid }, 2));
    assert!(!holds(Authorization { grantor: [9; 32], ..valid }, 2));
    assert!(!holds(Authorization { scope: b"CoordinatorJoinRuns", ..valid }, 2));
}

#[test]
fn loading_names_what_is_wrong_and_where() {
    let run = Run::new(config());
    let mut bytes = run.account.as_bytes().to_vec();
    let fault = |bytes: &[u8]| CoordinatorAccount::load_boxed(bytes).err().map(|error| (error.offset, error.what));
    assert_eq!(fault(&bytes), None);
    assert_eq!(fault(&bytes[1..]), Some((119_159, LayoutFault::Size)));
    let mut with = |at: usize, value: u8| {
        let was = std::mem::replace(&mut bytes[at], value);
        let fault = fault(&bytes);
        bytes[at] = was;
        fault
    };
    assert_eq!(with(0, 0), Some((0, LayoutFault::Discriminator)));
    assert_eq!(with(8, 2), Some((8, LayoutFault::Version)));
    assert_eq!(with(408, 8), Some((408, LayoutFault::Tag)));
    assert_eq!(with(416, 1), Some((416, LayoutFault::Tag)));
    assert_eq!(with(436, 6), Some((436, LayoutFault::Tag)));
    assert_eq!(with(440, 2), Some((436, LayoutFault::Tag)));
    assert_eq!(with(576, 6), Some((576, LayoutFault::Tag)));
    assert_eq!(with(936, 3), Some((936, LayoutFault::Tag)));
    assert_eq!(with(1048 + 14_080, 33), Some((1048 + 14_080, LayoutFault::Length)));
    assert_eq!(with(75_929, 2), Some((75_928, LayoutFault::Length)));
    assert_eq!(with(94_369, 2), Some((94_368, LayoutFault::Length)));
    assert_eq!(with(94_376, 4), Some((94_376, LayoutFault::Length)));
    assert_eq!(with(94_400, 2), Some((94_400, LayoutFault::Tag)));
    assert_eq!(with(94_416, 2), Some((94_416, LayoutFault::Tag)));
    assert_eq!(with(119_001, 2), Some((119_000, LayoutFault::Length)));
}
