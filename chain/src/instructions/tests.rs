#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use psyche_protocol::instruction::{AuthorizationCreateArgs, JoinRunArgs, SetPausedArgs};
use psyche_protocol::layout::NodeIdentity;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::program_error::ProgramIds;
use crate::run::RunInfo;

fn run() -> RunInfo {
    RunInfo {
        run_id: "run".parse().unwrap(),
        instance: Address([1; 32]),
        account: Address([2; 32]),
        main_authority: Address([3; 32]),
        join_authority: Address([4; 32]),
    }
}

fn flags(instruction: &Instruction) -> Vec<(Address, bool, bool)> {
    let flags = |meta: &AccountMeta| (Address(meta.pubkey.to_bytes()), meta.is_signer, meta.is_writable);
    instruction.accounts.iter().map(flags).collect()
}

fn discriminator(name: &str) -> [u8; 8] {
    Sha256::digest(format!("global:{name}"))[..8].try_into().unwrap()
}

#[test]
fn joining_names_user_grant_instance_and_account_in_order() {
    let programs = ProgramIds::default();
    let client = NodeIdentity { signer: [5; 32], p2p_identity: [6; 32] };
    let join = coordinator::join_run(&programs, &run(), Address([7; 32]), client).unwrap();
    assert_eq!(Address(join.program_id.to_bytes()), programs.coordinator);
    assert_eq!(
        flags(&join),
        [
            (Address([5; 32]), true, false),
            (Address([7; 32]), false, false),
            (Address([1; 32]), false, false),
            (Address([2; 32]), false, true),
        ]
    );
    assert_eq!(join.data[..8], discriminator("join_run"));
    assert_eq!(JoinRunArgs::decode(&join.data).unwrap().client, client);
}

#[test]
fn owners_sign_for_what_only_owners_may_do() {
    let programs = ProgramIds::default();
    let pause = coordinator::set_paused(&programs, &run(), true).unwrap();
    let owner_set = [(Address([3; 32]), true, false), (Address([1; 32]), false, false), (Address([2; 32]), false, true)];
    assert_eq!(flags(&pause), owner_set);
    assert_eq!(SetPausedArgs::decode(&pause.data).unwrap(), SetPausedArgs { paused: true });
}

#[test]
fn a_grant_is_created_where_it_is_looked_for() {
    let programs = ProgramIds::default();
    let (grantor, grantee) = (Address([8; 32]), Address([9; 32]));
    let create = authorizer::create(&programs, grantor, grantee).unwrap();
    assert_eq!(flags(&create)[2].0, crate::addresses::authorization(&programs, grantor, grantee));
    let args = AuthorizationCreateArgs::decode(&create.data).unwrap();
    assert_eq!((args.grantee, args.scope), (grantee.0, b"CoordinatorJoinRun".as_slice()));
}

#[test]
fn discriminators_are_those_of_the_names() {
    let programs = ProgramIds::default();
    let user = Address([5; 32]);
    let tick = coordinator::tick(&programs, &run(), user).unwrap();
    assert_eq!(tick.data, discriminator("tick"));
    let participant = treasurer::participant_create(&programs, Address([3; 32]), user).unwrap();
    assert_eq!(participant.data, discriminator("participant_create"));
    let treasury = treasurer::TreasuryAddresses { run: Address([3; 32]), mint: Address([4; 32]) };
    let claim = treasurer::participant_claim(&programs, &treasury, Address([2; 32]), user, 7).unwrap();
    assert_eq!((&claim.data[..8], claim.data[8]), (discriminator("participant_claim").as_slice(), 7));
}
