//! The crate against vectors that a script computed without any of its code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use std::collections::HashMap;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use bytemuck::Zeroable;
use psyche_protocol::accounts::{Authorization, CoordinatorInstance, Participant, Run};
use psyche_protocol::codec::{Reader, Writer};
use psyche_protocol::instruction::*;
use psyche_protocol::layout::*;
use psyche_protocol::machine::Clock;
use psyche_protocol::model::*;
use psyche_protocol::select::*;
use psyche_protocol::{F32Bits, F64Bits, ids, pda};

const VECTORS: &str = include_str!("vectors/vectors.txt");

struct Vector(HashMap<&'static str, &'static str>);

impl Vector {
    fn text(&self, key: &str) -> &'static str {
        self.0.get(key).unwrap_or_else(|| panic!("vector without {key}"))
    }
    fn u64(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }
    fn bytes(&self, key: &str) -> Vec<u8> {
        hex::decode(self.text(key)).unwrap()
    }
    fn list(&self, key: &str) -> Vec<u64> {
        self.text(key).split(',').map(|n| n.parse().unwrap()).collect()
    }
}

/// Every vector of a kind; at least one, or the file is not what the test expects.
fn vectors(kind: &str) -> Vec<Vector> {
    let found: Vec<Vector> = VECTORS
        .lines()
        .filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))
        .map(|fields| Vector(fields.split(' ').map(|field| field.split_once('=').unwrap()).collect()))
        .collect();
    assert!(!found.is_empty(), "no vectors of kind {kind}");
    found
}

fn named(kind: &str, name: &str) -> Vec<u8> {
    let found = vectors(kind).into_iter().find(|v| v.text("name") == name).unwrap_or_else(|| panic!("no {kind} {name}"));
    found.bytes(if kind == "model" { "borsh" } else { "bytes" })
}

#[test]
fn the_committed_vectors_are_what_the_script_prints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    match Command::new("python3").arg("generate.py").current_dir(folder).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == VECTORS.as_bytes(), "vectors.txt is stale: run generate.py");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "python3 did not start"),
    }
}

/// Offsets of fields by the names that the script gives them.
macro_rules! offsets {
    ($($($field:ident).+,)+) => {
        HashMap::from([$((stringify!($($field).+).replace(' ', ""), offset_of!(CoordinatorAccount, $($field).+)),)+])
    };
}

#[test]
fn fields_lie_where_a_c_compiler_puts_them() {
    let ours = offsets![
        version,
        state.metadata.vocab_size,
        state.coordinator.run_id,
        state.coordinator.run_state,
        state.coordinator.model,
        state.coordinator.config,
        state.coordinator.config.total_steps,
        state.coordinator.config.waiting_for_members_extra_time,
        state.coordinator.progress,
        state.coordinator.progress.epoch_start_data_index,
        state.coordinator.epoch_state,
        state.coordinator.epoch_state.clients,
        state.coordinator.epoch_state.exited_clients,
        state.coordinator.epoch_state.rounds_head,
        state.coordinator.epoch_state.start_timestamp,
        state.coordinator.epoch_state.cold_start_epoch,
        state.coordinator.run_state_start_unix_timestamp,
        state.coordinator.pending_pause,
        state.clients_state,
        state.clients_state.next_active,
        state.clients_state.future_slashing_rate,
        state.is_training_first_tick,
        state.client_version,
        nonce,
    ];
    for vector in vectors("offset") {
        let path = vector.text("path");
        assert_eq!(ours.get(path).copied(), Some(vector.u64("at") as usize), "{path}");
    }
    let sizes = HashMap::from([
        ("Account", size_of::<CoordinatorAccount>()),
        ("Model", size_of::<ModelRaw>()),
        ("Config", size_of::<Config>()),
        ("Round", size_of::<Round>()),
        ("Witness", size_of::<Witness>()),
        ("EpochClient", size_of::<EpochClient>()),
        ("RosterClient", size_of::<RosterClient>()),
        ("Bloom", size_of::<Bloom>()),
        ("Metadata", size_of::<Metadata>()),
    ]);
    for vector in vectors("size") {
        assert_eq!(sizes.get(vector.text("of")).copied(), Some(vector.u64("bytes") as usize), "{}", vector.text("of"));
    }
}

fn distro_model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 512,
        cold_start_warmup_steps: 7,
        architecture: Architecture::HfDeepseek,
        checkpoint: Checkpoint::Hub(HubRepo {
            repo_id: FixedString::new("some-org/some-model").unwrap(),
            revision: FixedString::new("main"),
        }),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Http(HttpLocation {
            source: HttpSource::NumberedFiles {
                url_template: FixedString::new("https://data.example/{}.bin").unwrap(),
                start_index: 3,
                n_left_pad_zeros: 4,
                num_files: 99,
            },
            token_size: TokenSize::FourBytes,
            shuffle: Shuffle::Seeded(std::array::from_fn(|at| at as u8)),
        }),
        lr_schedule: LrSchedule::Cosine(DecayLr {
            base_lr: F64Bits(4e-4f64.to_bits()),
            warmup_init_lr: F64Bits(1e-6f64.to_bits()),
            final_lr: F64Bits(4e-5f64.to_bits()),
            warmup_steps: 250,
            total_steps: 5000,
        }),
        optimizer: Optimizer::Distro {
            clip_grad_norm: Some(F32Bits(1f32.to_bits())),
            weight_decay: None,
            compression_decay: F32Bits(0.999f32.to_bits()),
            compression_topk: 8,
            compression_chunk: 64,
            quantize_1bit: true,
        },
    })
}

fn adamw_model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 2048,
        cold_start_warmup_steps: 0,
        architecture: Architecture::Torchtitan,
        checkpoint: Checkpoint::P2PGcs(GcsRepo { bucket: FixedString::new("bucket").unwrap(), prefix: None }),
        data_type: DataType::Finetuning,
        data_location: DataLocation::Http(HttpLocation {
            source: HttpSource::Gcp {
                bucket_name: FixedString::new("data").unwrap(),
                filter_directory: FixedString::new("a/folder").unwrap(),
            },
            token_size: TokenSize::TwoBytes,
            shuffle: Shuffle::DontShuffle,
        }),
        lr_schedule: LrSchedule::WarmupStableDecay {
            base_lr: F64Bits(1e-3f64.to_bits()),
            warmup_init_lr: F64Bits(0),
            cosine_decay_final_lr: F64Bits(1e-4f64.to_bits()),
            linear_decay_final_lr: F64Bits(1e-5f64.to_bits()),
            warmup_steps: 1,
            stable_steps: 2,
            cosine_decay_steps: 3,
            linear_decay_steps: 4,
        },
        optimizer: Optimizer::AdamW {
            betas: [F32Bits(0.9f32.to_bits()), F32Bits(0.95f32.to_bits())],
            weight_decay: F32Bits(0.1f32.to_bits()),
            eps: F32Bits(1e-8f32.to_bits()),
            clip_grad_norm: Some(F32Bits(0.5f32.to_bits())),
        },
    })
}

#[test]
fn models_take_the_vectors_bytes_in_both_encodings() {
    for (name, model) in [("distro", distro_model()), ("adamw", adamw_model())] {
        let vector = vectors("model").into_iter().find(|v| v.text("name") == name).unwrap();
        let mut raw = ModelRaw::zeroed();
        raw.set(&model);
        assert_eq!(bytemuck::bytes_of(&raw), vector.bytes("raw"), "{name}: raw layout");
        assert_eq!(raw.get(), Ok(model));
        let mut buffer = [0; 1024];
        let mut writer = Writer::new(&mut buffer);
        model.write(&mut writer).unwrap();
        let written = writer.written();
        let expected = vector.bytes("borsh");
        assert_eq!(&buffer[..written], expected, "{name}: Borsh");
        assert_eq!(Model::read(&mut Reader::new(&expected)), Ok(model));
    }
}

#[test]
fn garbage_in_the_padding_of_a_raw_model_changes_nothing() {
    let vector = vectors("model").into_iter().find(|v| v.text("name") == "distro").unwrap();
    let mut bytes = vector.bytes("raw");
    // After the tags of model, schedule; after the checkpoint's 129 bytes; after the quantisation flag.
    for at in [4, 7, 153, 155, 468, 471, 549, 551] {
        assert_eq!(bytes[at], 0, "offset {at} is not padding");
        bytes[at] = 0xa5;
    }
    let raw: ModelRaw = bytemuck::pod_read_unaligned(&bytes);
    assert_eq!(raw.get(), Ok(distro_model()));
}

#[test]
fn discriminators_are_the_first_bytes_of_the_names_hashes() {
    let check = |name, discriminator: [u8; 8]| assert_eq!(named("global", name), discriminator, "{name}");
    check("init_coordinator", InitCoordinatorArgs::DISCRIMINATOR);
    check("free_coordinator", FreeCoordinatorArgs::DISCRIMINATOR);
    check("update", UpdateArgs::DISCRIMINATOR);
    check("update_client_version", UpdateClientVersionArgs::DISCRIMINATOR);
    check("set_future_epoch_rates", SetFutureEpochRatesArgs::DISCRIMINATOR);
    check("set_paused", SetPausedArgs::DISCRIMINATOR);
    check("join_run", JoinRunArgs::DISCRIMINATOR);
    check("tick", TickArgs::DISCRIMINATOR);
    check("witness", WitnessArgs::DISCRIMINATOR);
    check("warmup_witness", WarmupWitnessArgs::DISCRIMINATOR);
    check("health_check", HealthCheckArgs::DISCRIMINATOR);
    check("checkpoint", CheckpointArgs::DISCRIMINATOR);
    check("authorization_create", AuthorizationCreateArgs::DISCRIMINATOR);
    check("authorization_grantor_update", AuthorizationGrantorUpdateArgs::DISCRIMINATOR);
    check("authorization_grantee_update", AuthorizationGranteeUpdateArgs::DISCRIMINATOR);
    check("authorization_close", AuthorizationCloseArgs::DISCRIMINATOR);
    check("run_create", RunCreateArgs::DISCRIMINATOR);
    check("run_update", RunUpdateArgs::DISCRIMINATOR);
    check("participant_create", ParticipantCreateArgs::DISCRIMINATOR);
    check("participant_claim", ParticipantClaimArgs::DISCRIMINATOR);
    assert_eq!(named("account", "CoordinatorAccount"), CoordinatorAccount::DISCRIMINATOR);
    assert_eq!(named("account", "CoordinatorInstance"), CoordinatorInstance::DISCRIMINATOR);
    assert_eq!(named("account", "Authorization"), Authorization::DISCRIMINATOR);
    assert_eq!(named("account", "Run"), Run::DISCRIMINATOR);
    assert_eq!(named("account", "Participant"), Participant::DISCRIMINATOR);
}

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];

fn report() -> Witness {
    let keys = std::array::from_fn(|at| at as u64);
    let bloom = Bloom { keys, bits: std::array::from_fn(|at| at as u64 + 8) };
    Witness { proof: WitnessProof::new(3, 4, true), participant_bloom: bloom, broadcast_bloom: bloom, broadcast_merkle: A }
}

fn witness_args() -> WitnessArgs {
    let mut metadata = WitnessMetadata::new(9);
    metadata.tokens_per_sec = F32Bits(1.5f32.to_bits());
    metadata.bandwidth_per_sec = F32Bits(2.5f32.to_bits());
    metadata.loss = F32Bits(3.5f32.to_bits());
    let eval = WitnessEval { name: FixedString::new("arc").unwrap(), value: F32Bits(0.25f32.to_bits()) };
    assert!(metadata.evals.push(&eval));
    assert!(metadata.prompt_results.push(&-1) && metadata.prompt_results.push(&77));
    metadata.prompt_index = 5;
    metadata.efficiency = F32Bits(0.75f32.to_bits());
    WitnessArgs { witness: report(), metadata }
}

#[test]
fn instructions_encode_to_the_vectors_bytes() {
    let identity = NodeIdentity { signer: A, p2p_identity: B };
    let check = |name, encoded: Vec<u8>| assert_eq!(named("ix", name), encoded, "{name}");
    let init = InitCoordinatorArgs { main_authority: A, join_authority: B, run_id: "a-run", client_version: "v1" };
    check("init_coordinator", init.to_vec().unwrap());
    let rates = SetFutureEpochRatesArgs { earning_rate_total_shared: Some(1000), slashing_rate_per_client: None };
    check("set_future_epoch_rates", rates.to_vec().unwrap());
    check("join_run", JoinRunArgs { client: identity }.to_vec().unwrap());
    let proof = CommitteeProof { committee: Committee::Trainer, position: 5, index: 6 };
    check("health_check", HealthCheckArgs { client: identity, proof }.to_vec().unwrap());
    check("witness", witness_args().to_vec().unwrap());
    check("warmup_witness", WarmupWitnessArgs { witness: report() }.to_vec().unwrap());
    let repo = GcsRepo { bucket: FixedString::new("bucket").unwrap(), prefix: FixedString::new("folder") };
    check("checkpoint", CheckpointArgs { checkpoint: Checkpoint::Gcs(repo) }.to_vec().unwrap());
    let create = AuthorizationCreateArgs { grantee: A, scope: ids::JOIN_SCOPE };
    check("authorization_create", create.to_vec().unwrap());
    let delegates = AuthorizationGranteeUpdateArgs { delegates_clear: true, delegates_added: &[A, B] };
    check("authorization_grantee_update", delegates.to_vec().unwrap());
    let run = RunCreateArgs { index: 7, run_id: "a-run", client_version: "v1", main_authority: A, join_authority: B };
    check("run_create", run.to_vec().unwrap());
    let update = UpdateArgs {
        config: Some(Config {
            warmup_time: 30,
            cooldown_time: 31,
            max_round_train_time: 32,
            round_witness_time: 33,
            global_batch_size_warmup_tokens: 34,
            epoch_time: 600,
            total_steps: 5000,
            init_min_clients: 2,
            min_clients: 1,
            witness_nodes: 0,
            global_batch_size_start: 16,
            global_batch_size_end: 64,
            verification_percent: 0,
            waiting_for_members_extra_time: 3,
        }),
        progress: Some(Progress::new(1, 2, 3)),
        ..UpdateArgs::default()
    };
    let update = RunUpdateArgs {
        update,
        earning_rate_total_shared: Some(5),
        slashing_rate_per_client: None,
        paused: Some(true),
        client_version: Some("v2"),
    };
    check("run_update", update.to_vec().unwrap());
    check("participant_claim", ParticipantClaimArgs { claim_earned_points: 55 }.to_vec().unwrap());
}

#[test]
fn instructions_have_the_documented_sizes() {
    assert_eq!(witness_args().to_vec().unwrap().len(), 830);
    assert_eq!(WarmupWitnessArgs { witness: report() }.to_vec().unwrap().len(), 8 + 17 + 192 + 192 + 32);
    let identity = NodeIdentity { signer: A, p2p_identity: B };
    assert_eq!(JoinRunArgs { client: identity }.to_vec().unwrap().len(), 8 + 64);
    assert_eq!(TickArgs.to_vec().unwrap().len(), 8);
    assert_eq!(CoordinatorInstance::SIZE, 173);
    assert_eq!(Authorization::size(ids::JOIN_SCOPE.len(), 0), 108);
    assert_eq!(Authorization::size(ids::JOIN_SCOPE.len(), 3), 108 + 96);
    assert_eq!((Run::SIZE, Participant::SIZE, CoordinatorAccount::SIZE), (200, 32, 119_160));
}

fn round(seed: u64, clients_len: u16, data_index: u64) -> Round {
    Round { random_seed: seed, clients_len, data_index, ..Round::zeroed() }
}

#[test]
fn seeds_and_shuffles_equal_the_vectors() {
    for vector in vectors("seed") {
        let clock = Clock { unix_timestamp: vector.text("time").parse().unwrap(), slot: vector.u64("slot") };
        assert_eq!(clock.seed(), vector.u64("is_"));
    }
    for vector in vectors("roles") {
        let selection = Selection::of_round(&round(vector.u64("seed"), 1, 0), &Config::zeroed()).unwrap();
        assert_eq!(selection.role_seeds().0.as_slice(), vector.bytes("committee"));
        assert_eq!(selection.role_seeds().1.as_slice(), vector.bytes("witness"));
    }
    for vector in vectors("shuffle") {
        let count = vector.u64("count");
        let selection = Selection::of_round(&round(vector.u64("seed"), count as u16, 0), &Config::zeroed()).unwrap();
        let order: Vec<u64> = (0..count).map(|at| selection.witness_proof(at).unwrap().position).collect();
        assert_eq!(order, vector.list("order"));
    }
}

#[test]
fn elections_and_keys_equal_the_vectors() {
    let hexes = |text: &str| -> Vec<[u8; 32]> {
        text.split(',').filter(|hex| !hex.is_empty()).map(|text| hex::decode(text).unwrap().try_into().unwrap()).collect()
    };
    for vector in vectors("elected") {
        let mut account = CoordinatorAccount::zeroed_boxed();
        let epoch = &mut account.state.coordinator.epoch_state;
        let dropped = hexes(vector.text("dropped"));
        for number in 0..vector.u64("count") as u32 {
            let signer = psyche_protocol::hash::sha256(&[b"signer", &number.to_le_bytes()]);
            let mut client = EpochClient::new(NodeIdentity { signer, p2p_identity: [0; 32] });
            if dropped.contains(&signer) {
                client.state = ClientState::Dropped.number();
            }
            assert!(epoch.clients.push(&client));
        }
        *epoch.current_round_mut() = round(vector.u64("seed"), epoch.clients.len() as u16, 0);
        let elected: Vec<[u8; 32]> = checkpointers(&account).into_iter().flatten().collect();
        assert_eq!(elected, hexes(vector.text("is_")));
    }
    for vector in vectors("key") {
        let key = vector.bytes("bytes").try_into().unwrap();
        assert_eq!(psyche_protocol::keys::is_public_key(&key), vector.u64("is_") == 1, "{key:?}");
    }
}

#[test]
fn batches_equal_the_vectors() {
    for vector in vectors("assign") {
        let round = round(vector.u64("seed"), vector.u64("count") as u16, vector.u64("data_index"));
        let selection = Selection::of_round(&round, &Config::zeroed()).unwrap();
        let assignment = Assignment::new(&round, &selection, vector.u64("batch") as u16);
        let parts: Vec<String> = assignment.iter().map(|a| format!("{}:{}:{}", a.client, a.batch.start, a.batch.end)).collect();
        assert_eq!(parts.join(","), vector.text("parts"));
    }
    for vector in vectors("batch") {
        let config = Config {
            global_batch_size_start: vector.u64("start") as u16,
            global_batch_size_end: vector.u64("end") as u16,
            global_batch_size_warmup_tokens: vector.u64("warmup"),
            ..Config::zeroed()
        };
        let size = global_batch_size(&config, vector.u64("index"), vector.u64("seq") as u32);
        assert_eq!(u64::from(size), vector.u64("is_"), "{:?}", vector.0);
    }
}

#[test]
fn bloom_quorum_merkle_and_ids_equal_the_vectors() {
    for vector in vectors("bloom") {
        let mut bloom = Bloom::new(vector.list("keys").try_into().unwrap());
        let items: Vec<Vec<u8>> = vector.text("items").split(',').map(|item| hex::decode(item).unwrap()).collect();
        for item in &items {
            bloom.add(item);
        }
        assert_eq!(bloom.bits.to_vec(), vector.list("bits"));
        assert!(items.iter().all(|item| bloom.contains(item)));
        assert!(!bloom.contains(b"something else"));
    }
    for vector in vectors("quorum") {
        assert_eq!(u64::from(quorum(vector.u64("n") as u16)), vector.u64("is_"));
    }
    for vector in vectors("merkle") {
        let leaves: Vec<[u8; 32]> =
            (0..vector.u64("leaves") as u32).map(|at| psyche_protocol::hash::sha256(&[&at.to_le_bytes()])).collect();
        assert_eq!(merkle_root(&leaves).as_slice(), vector.bytes("root"));
    }
    for vector in vectors("treasurer") {
        assert_eq!(pda::treasurer_index(vector.text("run_id")), vector.u64("index"));
    }
    // A build for ids of one's own has other ids; the vectors are for the default ones.
    for (name, id, own) in [
        ("coordinator", ids::COORDINATOR, option_env!("PSYCHE_COORDINATOR_ID")),
        ("authorizer", ids::AUTHORIZER, option_env!("PSYCHE_AUTHORIZER_ID")),
        ("treasurer", ids::TREASURER, option_env!("PSYCHE_TREASURER_ID")),
    ] {
        assert!(own.is_some() || named("id", name) == id, "{name}");
    }
}
