//! The Borsh accounts and the instructions of authorizer and treasurer, whole and to the byte, against vectors that a
//! script computed without any of the crate's code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use psyche_protocol::accounts::{Authorization, CoordinatorInstance, Participant, Run};
use psyche_protocol::instruction::{
    Args, AuthorizationCloseArgs, AuthorizationGrantorUpdateArgs, ParticipantCreateArgs, RunUpdateArgs, UpdateArgs,
};
use psyche_protocol::layout::{Config, FixedString, Metadata, Progress};
use psyche_protocol::model::Model;
use psyche_protocol::{Pubkey, codec::Reader, ids};

const VECTORS: &str = include_str!("vectors/vectors.txt");
const A: Pubkey = [1; 32];
const B: Pubkey = [2; 32];
const C: Pubkey = [3; 32];
const D: Pubkey = [4; 32];
const E: Pubkey = [5; 32];

/// The bytes of a vector, by kind, name and field.
fn vector(kind: &str, name: &str, field: &str) -> Vec<u8> {
    let start = format!("{kind} name={name} ");
    let line = VECTORS.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {kind} {name}"));
    let field = format!(" {field}=");
    let (_, value) = line.split_once(&field).unwrap();
    hex::decode(value.split(' ').next().unwrap()).unwrap()
}

#[test]
fn accounts_are_the_vectors_to_their_last_byte() {
    let instance =
        CoordinatorInstance { bump: 0xfe, main_authority: A, join_authority: B, coordinator_account: C, run_id: "a-run" };
    let bytes = vector("acct", "CoordinatorInstance", "bytes");
    let mut buffer = [0xaa; CoordinatorInstance::SIZE];
    instance.encode(&mut buffer).unwrap();
    assert_eq!((&buffer[..], CoordinatorInstance::decode(&bytes)), (&bytes[..], Ok(instance)));

    let authorization = Authorization {
        bump: 0xfd,
        grantor: A,
        grantee: B,
        scope: ids::JOIN_SCOPE,
        active: true,
        delegates: &[C, D],
        grantor_update_unix_timestamp: -5,
    };
    let bytes = vector("acct", "Authorization", "bytes");
    let mut buffer = vec![0xaa; Authorization::size(ids::JOIN_SCOPE.len(), 2)];
    authorization.encode(&mut buffer).unwrap();
    assert_eq!((&buffer, Authorization::decode(&bytes)), (&bytes, Ok(authorization)));

    let run = Run {
        bump: 0xfc,
        index: 7,
        main_authority: A,
        join_authority: B,
        coordinator_account: C,
        coordinator_instance: D,
        collateral_mint: E,
        total_claimed_collateral_amount: 8,
        total_claimed_earned_points: 9,
    };
    let bytes = vector("acct", "Run", "bytes");
    let mut buffer = [0xaa; Run::SIZE];
    run.encode(&mut buffer).unwrap();
    assert_eq!((&buffer[..], Run::decode(&bytes)), (&bytes[..], Ok(run)));

    let participant = Participant { bump: 0xfb, claimed_collateral_amount: 10, claimed_earned_points: 11 };
    let bytes = vector("acct", "Participant", "bytes");
    let mut buffer = [0xaa; Participant::SIZE];
    participant.encode(&mut buffer).unwrap();
    assert_eq!((&buffer[..], Participant::decode(&bytes)), (&bytes[..], Ok(participant)));
}

#[test]
fn edits_in_place_leave_the_bytes_that_encoding_would() {
    let mut data = vector("acct", "Authorization", "bytes");
    Authorization::set_active_in(&mut data, false, 77).unwrap();
    data.resize(Authorization::size(ids::JOIN_SCOPE.len(), 3), 0xaa);
    assert_eq!(Authorization::set_delegates_in(&mut data, false, &[E]), Ok(3));
    let bytes = vector("acct", "Authorization", "bytes");
    let expected = Authorization {
        active: false,
        delegates: &[C, D, E],
        grantor_update_unix_timestamp: 77,
        ..Authorization::decode(&bytes).unwrap()
    };
    let mut buffer = vec![0xaa; data.len()];
    expected.encode(&mut buffer).unwrap();
    assert_eq!(data, buffer);
}

#[test]
fn instructions_without_much_to_say_are_the_vectors() {
    assert_eq!(
        AuthorizationGrantorUpdateArgs { active: true }.to_vec().unwrap(),
        vector("ix", "authorization_grantor_update", "bytes")
    );
    assert_eq!(AuthorizationCloseArgs.to_vec().unwrap(), vector("ix", "authorization_close", "bytes"));
    assert_eq!(ParticipantCreateArgs.to_vec().unwrap(), vector("ix", "participant_create", "bytes"));
}

#[test]
fn an_update_of_all_eight_parts_is_the_vector_and_fits_a_transaction() {
    let model = Model::read(&mut Reader::new(&vector("model", "distro", "borsh"))).unwrap();
    let everything = RunUpdateArgs {
        update: UpdateArgs {
            metadata: Some(Metadata {
                name: FixedString::new("a run").unwrap(),
                description: FixedString::new("for tests").unwrap(),
                num_parameters: 11,
                vocab_size: 12,
            }),
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
            model: Some(model),
            progress: Some(Progress::new(1, 2, 3)),
        },
        earning_rate_total_shared: Some(5),
        slashing_rate_per_client: Some(6),
        paused: Some(false),
        client_version: Some("v2"),
    };
    let bytes = vector("whole", "run_update", "bytes");
    assert_eq!(everything.to_vec().unwrap(), bytes);
    assert_eq!(RunUpdateArgs::decode(&bytes).unwrap().to_vec().unwrap(), bytes);
    // A transaction has 1,232 bytes; one signature, seven keys, a blockhash and the frame take 338.
    assert!(bytes.len() <= 1_232 - 338, "{} bytes", bytes.len());
}
