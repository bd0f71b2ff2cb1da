//! The same instructions as the node builds them.

use psyche_chain::instructions::{authorizer, coordinator, treasurer};
use psyche_chain::program_error::ProgramIds;
use psyche_chain::run::RunInfo;
use psyche_messages::Address;
use psyche_protocol::accounts::{Authorization, Run};
use psyche_protocol::instruction::*;
use solana_instruction::Instruction;

use super::scene::Scene;

/// Rebuilds the scene's instruction with the node's own builders, from its arguments and from who and what it is about.
pub(super) fn rebuilt(name: &str, scene: &Scene) -> Instruction {
    let data = &scene.good.data;
    match scene.good.program_id.to_bytes() {
        id if id == psyche_protocol::ids::AUTHORIZER => grant(name, scene, data),
        id if id == psyche_protocol::ids::TREASURER => payment(name, scene, data),
        _ => training(name, scene, data),
    }
}

fn account(scene: &Scene, at: usize) -> Address {
    Address(scene.good.accounts[at].pubkey.to_bytes())
}

fn grant(name: &str, scene: &Scene, data: &[u8]) -> Instruction {
    let (ids, at) = (ProgramIds::default(), |at| account(scene, at));
    // Those that exist name their parties themselves.
    let parties = |place: usize| {
        let data = scene.chain.data(&at(place).0);
        let found = Authorization::decode(&data).unwrap();
        (Address(found.grantor), Address(found.grantee))
    };
    match name {
        "AuthorizationCreateArgs" => {
            let args = AuthorizationCreateArgs::decode(data).unwrap();
            authorizer::create(&ids, at(1), Address(args.grantee))
        }
        "AuthorizationGrantorUpdateArgs" => {
            let args = AuthorizationGrantorUpdateArgs::decode(data).unwrap();
            authorizer::set_active(&ids, parties(1).0, parties(1).1, args.active)
        }
        "AuthorizationGranteeUpdateArgs" => {
            let args = AuthorizationGranteeUpdateArgs::decode(data).unwrap();
            authorizer::delegate(&ids, parties(2).0, parties(2).1, &args)
        }
        "AuthorizationCloseArgs" => authorizer::close(&ids, parties(2).0, parties(2).1, at(1)),
        _ => panic!("the node does not build {name}"),
    }
    .unwrap()
}

fn payment(name: &str, scene: &Scene, data: &[u8]) -> Instruction {
    let (ids, at) = (ProgramIds::default(), |at| account(scene, at));
    match name {
        "RunCreateArgs" => {
            let args = RunCreateArgs::decode(data).unwrap();
            treasurer::run_create(&ids, at(0), at(3), at(4), at(5), &args)
        }
        "RunUpdateArgs" => {
            let args = RunUpdateArgs::decode(data).unwrap();
            treasurer::run_update(&ids, at(0), &run(at(2), at(3), at(1)), &args)
        }
        "ParticipantCreateArgs" => treasurer::participant_create(&ids, at(2), at(1)),
        "ParticipantClaimArgs" => {
            let args = ParticipantClaimArgs::decode(data).unwrap();
            let mint = Run::decode(&scene.chain.data(&at(2).0)).unwrap().collateral_mint;
            let treasury = treasurer::TreasuryAddresses { run: at(2), mint: Address(mint) };
            treasurer::participant_claim(&ids, &treasury, at(5), at(0), args.claim_earned_points)
        }
        _ => panic!("the node does not build {name}"),
    }
    .unwrap()
}

fn run(instance: Address, account: Address, main_authority: Address) -> RunInfo {
    let run_id = "a run".parse().unwrap();
    RunInfo { run_id, instance, account, main_authority, join_authority: main_authority }
}

fn training(name: &str, scene: &Scene, data: &[u8]) -> Instruction {
    let (ids, at) = (ProgramIds::default(), |at| account(scene, at));
    let signer = at(0);
    let run = &match name {
        "InitCoordinatorArgs" => run(at(1), at(2), signer),
        "FreeCoordinatorArgs" | "JoinRunArgs" => run(at(2), at(3), signer),
        _ => run(at(1), at(2), signer),
    };
    match name {
        "InitCoordinatorArgs" => {
            let args = InitCoordinatorArgs::decode(data).unwrap();
            coordinator::init(&ids, signer, run.instance, run.account, &args)
        }
        "FreeCoordinatorArgs" => coordinator::free(&ids, run, at(1)),
        "UpdateArgs" => coordinator::update(&ids, run, &UpdateArgs::decode(data).unwrap()),
        "UpdateClientVersionArgs" => {
            let args = UpdateClientVersionArgs::decode(data).unwrap();
            coordinator::update_client_version(&ids, run, args.client_version)
        }
        "SetFutureEpochRatesArgs" => {
            coordinator::set_future_epoch_rates(&ids, run, &SetFutureEpochRatesArgs::decode(data).unwrap())
        }
        "SetPausedArgs" => coordinator::set_paused(&ids, run, SetPausedArgs::decode(data).unwrap().paused),
        "JoinRunArgs" => coordinator::join_run(&ids, run, at(1), JoinRunArgs::decode(data).unwrap().client),
        "TickArgs" => coordinator::tick(&ids, run, signer),
        "WitnessArgs" => coordinator::witness(&ids, run, signer, &WitnessArgs::decode(data).unwrap()),
        "WarmupWitnessArgs" => coordinator::warmup_witness(&ids, run, signer, &WarmupWitnessArgs::decode(data).unwrap()),
        "HealthCheckArgs" => coordinator::health_check(&ids, run, signer, &HealthCheckArgs::decode(data).unwrap()),
        "CheckpointArgs" => coordinator::checkpoint(&ids, run, signer, &CheckpointArgs::decode(data).unwrap()),
        _ => panic!("the node does not build {name}"),
    }
    .unwrap()
}
