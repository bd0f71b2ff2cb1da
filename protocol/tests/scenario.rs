//! Whole epochs, told from beginning to end.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use common::{Run, START, config, identity, model, report};
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, CoordinatorError, would_tick};
use psyche_protocol::model::*;
use psyche_protocol::select::{Selection, unhealthy_clients};

#[test]
fn an_epoch_runs_from_joining_to_payment() {
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, Some(1000), None).unwrap();
    run.train(&[1, 2, 3]);
    assert_eq!(run.account.state.clients_state.current_earning_rate, 1000);
    let epoch_start = run.account.state.coordinator.epoch_state.start_timestamp;
    let mut rounds = 0;
    while run.round(&[1, 2, 3]) == RunState::RoundTrain {
        rounds += 1;
        let round = run.account.current_round();
        assert_eq!((round.height, round.data_index, round.clients_len), (rounds, u64::from(rounds) * 16, 3));
        assert_eq!(run.account.state.coordinator.epoch_state.rounds_head, rounds % 4);
        assert!(rounds < 100);
    }
    // Rounds take six seconds. The epoch's time is over in the round that ends 100 seconds after its Warmup began;
    // two more drain the pipeline.
    assert_eq!(run.state(), RunState::Cooldown);
    assert_eq!(run.step(), run.account.state.coordinator.epoch_state.last_step);
    assert!(run.clock.unix_timestamp as u64 - epoch_start >= 100 + 12);
    assert!(run.account.current_round().witnesses.is_empty());
    assert_eq!(run.earned(1), 0);

    assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
    assert_eq!([run.earned(1), run.earned(2), run.earned(3)], [333; 3]);
    let progress = run.account.state.coordinator.progress;
    assert_eq!((progress.epoch, progress.epoch_start_data_index), (1, u64::from(rounds + 1) * 16));
    assert!(matches!(run.checkpoint(), Checkpoint::P2P(_)));
    // Nobody is pending: everyone has to join anew, and the next epoch begins where this one stopped.
    assert!(!run.account.is_pending(&[1; 32]));
    assert_eq!(run.tick_after(60), RunState::WaitingForMembers);
    run.train(&[2, 3]);
    assert!(matches!(run.checkpoint(), Checkpoint::P2P(_)));
    assert_eq!(run.account.current_round().data_index, progress.epoch_start_data_index);
    assert_eq!(run.account.state.coordinator.epoch_state.start_step, progress.step);
}

#[test]
fn a_silent_client_is_dropped_by_health_checks_and_not_paid() {
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, Some(900), None).unwrap();
    run.train(&[1, 2, 3]);
    run.round(&[1, 2, 3]);
    // Client 3 falls silent in round 1; judged in round 2, it is gone when that round ends.
    assert_eq!(run.round(&[1, 2]), RunState::RoundTrain);
    assert_eq!(run.account.current_round().height, 2);
    assert_eq!(unhealthy_clients(&run.account.state.coordinator).count(), 1);
    assert_eq!(run.health_checks(1), 1);
    assert_eq!(run.account.clients()[2].client_state(), ClientState::Dropped);
    // A second witness reports the same: no error, no change.
    let nonce = run.account.nonce;
    let selection = Selection::of_round(run.account.previous_round().unwrap(), &run.account.state.coordinator.config).unwrap();
    let again = HealthCheckArgs { client: identity(3), proof: selection.committee(2).unwrap() };
    assert_eq!(machine::health_check(&mut run.account, &[2; 32], &again, &run.clock), Ok(()));
    assert_eq!(run.account.nonce, nonce);
    assert_eq!(unhealthy_clients(&run.account.state.coordinator).count(), 0);
    run.round(&[1, 2]);
    assert_eq!(run.account.clients().len(), 2);
    let exited = &run.account.state.coordinator.epoch_state.exited_clients;
    assert_eq!((exited.len(), exited.as_slice()[0].exited_height), (1, 2));
    // It is still found under its index of the previous round, but can't be dropped twice.
    assert_eq!(
        machine::health_check(&mut run.account, &[2; 32], &again, &run.clock),
        Err(CoordinatorError::InvalidCommitteeProof)
    );
    while run.round(&[1, 2]) == RunState::RoundTrain {}
    run.tick_after(5);
    assert_eq!([run.earned(1), run.earned(2), run.earned(3)], [450, 450, 0]);
}

#[test]
fn health_checks_need_a_reason_and_a_true_proof() {
    let mut run = Run::new(config());
    run.train(&[1, 2, 3]);
    let check = |run: &mut Run, from: u8, client: u8, proof: CommitteeProof| {
        let args = HealthCheckArgs { client: identity(client), proof };
        machine::health_check(&mut run.account, &[from; 32], &args, &run.clock)
    };
    let proof = CommitteeProof { committee: Committee::Trainer, position: 0, index: 0 };
    assert_eq!(check(&mut run, 1, 1, proof), Err(CoordinatorError::InvalidHealthCheck), "too early");
    run.round(&[1, 2, 3]);
    run.round(&[1, 2]);
    let selection = Selection::of_round(run.account.previous_round().unwrap(), &run.account.state.coordinator.config).unwrap();
    let of = |index| selection.committee(index).unwrap();
    assert_eq!(check(&mut run, 1, 2, of(1)), Err(CoordinatorError::InvalidHealthCheck), "healthy");
    assert_eq!(check(&mut run, 1, 3, of(1)), Err(CoordinatorError::InvalidCommitteeProof), "another's index");
    assert_eq!(check(&mut run, 9, 3, of(2)), Err(CoordinatorError::SignerNotAClient));
    let elsewhere = CommitteeProof { position: of(2).position + 1, ..of(2) };
    assert_eq!(check(&mut run, 1, 3, elsewhere), Err(CoordinatorError::InvalidCommitteeProof));
    let verifier = CommitteeProof { committee: Committee::Verifier, ..of(2) };
    assert_eq!(check(&mut run, 1, 3, verifier), Err(CoordinatorError::InvalidCommitteeProof));
    let beyond = CommitteeProof { index: u64::MAX, ..of(2) };
    assert_eq!(check(&mut run, 1, 3, beyond), Err(CoordinatorError::InvalidCommitteeProof));
    assert_eq!(check(&mut run, 1, 3, of(2)), Ok(()));
}

#[test]
fn a_pause_waits_for_the_epochs_end_and_keeps_its_points() {
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, Some(1000), None).unwrap();
    run.train(&[1, 2]);
    run.round(&[1, 2]);
    run.set_paused(true).unwrap();
    assert_eq!(run.state(), RunState::RoundTrain);
    assert_eq!(run.round(&[1, 2]), RunState::Cooldown);
    assert_eq!(run.tick_after(5), RunState::Paused);
    assert_eq!([run.earned(1), run.earned(2)], [500, 500]);
    assert!(run.account.clients().iter().all(|client| client.client_state() == ClientState::Withdrawn));
    assert_eq!(machine::tick(&mut run.account, &run.clock), Err(CoordinatorError::Halted));
    // A client may join while the run is paused, but resuming makes everyone join anew.
    run.join(1).unwrap();
    run.wait(100);
    run.set_paused(false).unwrap();
    assert_eq!(run.state(), RunState::WaitingForMembers);
    assert!(!run.account.is_pending(&[1; 32]));
    // Nobody of the last epoch stayed by name, so the weights come from outside again; and the start is a cold one.
    run.warmup(&[1, 2]);
    assert!(matches!(run.checkpoint(), Checkpoint::Hub(_)));
    assert_eq!(run.account.state.coordinator.epoch_state.cold_start_epoch, 1);
}

#[test]
fn a_run_paused_in_its_last_cooldown_goes_on_once_it_has_more_steps() {
    let mut run = Run::new(Config { total_steps: 3, ..config() });
    machine::set_future_epoch_rates(&mut run.account, Some(10), None).unwrap();
    run.train(&[1, 2]);
    assert_eq!(run.round(&[1, 2]), RunState::RoundTrain);
    assert_eq!(run.round(&[1, 2]), RunState::Cooldown);
    run.set_paused(true).unwrap();
    assert_eq!(run.tick_after(5), RunState::Paused);
    assert_eq!((run.earned(1), run.step()), (5, 3));
    assert_eq!(run.set_paused(false), Err(CoordinatorError::StepsDone));
    let longer = Config { total_steps: 30, ..config() };
    let update = UpdateArgs { config: Some(longer), ..UpdateArgs::default() };
    machine::update(&mut run.account, &update).unwrap();
    run.set_paused(false).unwrap();
    run.train(&[1, 2]);
    assert_eq!((run.state(), run.step()), (RunState::RoundTrain, 3));
}

#[test]
fn a_pause_before_training_is_immediate() {
    let mut run = Run::new(config());
    run.warmup(&[1, 2]);
    run.set_paused(true).unwrap();
    assert_eq!(run.state(), RunState::Paused);
    assert_eq!(run.set_paused(true), Err(CoordinatorError::Halted));
    run.set_paused(false).unwrap();
    assert_eq!(run.set_paused(false), Err(CoordinatorError::CannotResume));
}

#[test]
fn a_run_finishes_at_its_last_step() {
    let mut run = Run::new(Config { total_steps: 4, ..config() });
    run.train(&[1, 2]);
    assert_eq!(run.round(&[1, 2]), RunState::RoundTrain);
    assert_eq!(run.round(&[1, 2]), RunState::RoundTrain);
    assert_eq!(run.round(&[1, 2]), RunState::Cooldown);
    assert_eq!((run.step(), run.tick_after(5)), (4, RunState::Finished));
    let rename = UpdateArgs::default();
    assert_eq!(machine::update(&mut run.account, &rename), Err(CoordinatorError::UpdateConfigFinished));
    assert_eq!(run.set_paused(false), Err(CoordinatorError::CannotResume));
    assert_eq!(run.set_paused(true), Err(CoordinatorError::Halted));
    assert_eq!(machine::check_free(&run.account), Ok(()));
}

#[test]
fn a_round_without_witnesses_sends_everyone_home() {
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, Some(1000), None).unwrap();
    run.train(&[1, 2]);
    assert_eq!(run.round(&[]), RunState::Cooldown);
    assert_eq!(run.tick_after(5), RunState::WaitingForMembers);
    assert_eq!((run.earned(1), run.account.clients().len()), (0, 0));
    run.train(&[1, 2]);
    assert!(matches!(run.checkpoint(), Checkpoint::Hub(_)));
}

#[test]
fn too_few_clients_or_witnesses_end_the_epoch() {
    let mut run = Run::new(Config { init_min_clients: 4, min_clients: 3, witness_nodes: 3, ..config() });
    run.warmup(&[1, 2, 3, 4]);
    assert_eq!(run.tick_after(30), RunState::RoundTrain);
    // One of three witnesses is less than the quorum of two.
    run.wait(1);
    let witness = (1..=4).find(|client| run.report_of(*client, &[]).proof.witness == 1).unwrap();
    run.witness(witness, &[1, 2, 3, 4]).unwrap();
    assert_eq!(run.tick_after(20), RunState::RoundWitness);
    assert_eq!(run.tick_after(2), RunState::Cooldown);
}

#[test]
fn the_last_witness_ends_the_training_at_once() {
    let mut run = Run::new(Config { witness_nodes: 2, ..config() });
    run.train(&[1, 2, 3]);
    run.wait(1);
    let (witnesses, others): (Vec<u8>, Vec<u8>) = (1..=3).partition(|client| run.report_of(*client, &[]).proof.witness == 1);
    assert_eq!((witnesses.len(), others.len()), (2, 1));
    assert_eq!(run.witness(others[0], &[]), Err(CoordinatorError::InvalidWitness));
    let mut forged = run.report_of(others[0], &[]);
    forged.proof.witness = 1;
    assert_eq!(
        machine::witness(&mut run.account, &[others[0]; 32], &forged, &run.clock),
        Err(CoordinatorError::InvalidWitness)
    );
    let stolen = run.report_of(witnesses[0], &[]);
    assert_eq!(
        machine::witness(&mut run.account, &[others[0]; 32], &stolen, &run.clock),
        Err(CoordinatorError::InvalidWitness)
    );
    run.witness(witnesses[0], &[]).unwrap();
    assert_eq!(run.witness(witnesses[0], &[]), Err(CoordinatorError::DuplicateWitness));
    assert_eq!(run.state(), RunState::RoundTrain);
    run.witness(witnesses[1], &[]).unwrap();
    assert_eq!(run.state(), RunState::RoundWitness);
    assert_eq!(machine::witness(&mut run.account, &[99; 32], &stolen, &run.clock), Err(CoordinatorError::SignerNotAClient));
}

#[test]
fn a_warmup_witness_speaks_for_itself_and_once() {
    let mut run = Run::new(config());
    run.warmup(&[1, 2]);
    let claim = |index| report(WitnessProof::new(0, index, true), &[]);
    for index in [1, 2, 31, 256, u64::MAX] {
        let refused = machine::warmup_witness(&mut run.account, &[1; 32], &claim(index), &run.clock);
        assert_eq!(refused, Err(CoordinatorError::InvalidWitness), "index {index}");
    }
    run.ready(1).unwrap();
    assert_eq!(run.ready(1), Err(CoordinatorError::DuplicateWitness));
    run.ready(2).unwrap();
    assert_eq!(run.state(), RunState::RoundTrain);
    assert!(run.account.current_round().witnesses.is_empty());
    // One that comes late is ignored.
    assert_eq!(run.ready(1), Ok(()));
    assert!(run.account.current_round().witnesses.is_empty());
}

#[test]
fn an_epoch_that_loses_its_members_in_warmup_pays_nothing() {
    let mut run = Run::new(config());
    machine::set_future_epoch_rates(&mut run.account, Some(1000), None).unwrap();
    run.warmup(&[1, 2]);
    run.account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = ClientState::Dropped.number();
    assert_eq!(would_tick(&run.account, run.clock.unix_timestamp + 1), Some(RunState::WaitingForMembers));
    assert_eq!(run.tick_after(1), RunState::WaitingForMembers);
    assert_eq!([run.earned(1), run.earned(2)], [0, 0]);
    assert!(run.account.is_pending(&[2; 32]), "the training never began, so nobody has to join anew");
}

#[test]
fn rules_change_only_while_halted_and_only_sensibly() {
    let mut run = Run::unconfigured();
    assert_eq!(run.set_paused(false), Err(CoordinatorError::ConfigSanityCheckFailed));
    let update = |run: &mut Run, args: UpdateArgs| machine::update(&mut run.account, &args);
    let with = |config| UpdateArgs { config: Some(config), ..UpdateArgs::default() };
    for broken in [
        Config { warmup_time: 100, ..config() },
        Config { max_round_train_time: 0, ..config() },
        Config { max_round_train_time: 100, ..config() },
        Config { round_witness_time: 0, ..config() },
        Config { cooldown_time: 0, ..config() },
        Config { waiting_for_members_extra_time: 0, ..config() },
        Config { total_steps: 0, ..config() },
        Config { min_clients: 0, ..config() },
        Config { min_clients: 3, ..config() },
        Config { init_min_clients: 257, ..config() },
        Config { witness_nodes: 3, ..config() },
        Config { witness_nodes: 33, min_clients: 40, init_min_clients: 40, ..config() },
        Config { global_batch_size_start: 0, ..config() },
        Config { global_batch_size_start: 17, ..config() },
        Config { verification_percent: 101, ..config() },
    ] {
        assert_eq!(update(&mut run, with(broken)), Err(CoordinatorError::ConfigSanityCheckFailed), "{broken:?}");
    }
    assert_eq!(update(&mut run, with(config())), Ok(()));
    assert_eq!(run.set_paused(false), Err(CoordinatorError::ModelSanityCheckFailed));
    let Model::Llm(llm) = model();
    for broken in [
        Llm { max_seq_len: 0, ..llm },
        Llm { checkpoint: Checkpoint::Ephemeral, ..llm },
        Llm { data_location: DataLocation::Server(FixedString::EMPTY), ..llm },
        Llm { optimizer: Optimizer::Dummy, ..llm },
    ] {
        let args = UpdateArgs { model: Some(Model::Llm(broken)), ..UpdateArgs::default() };
        assert_eq!(update(&mut run, args), Err(CoordinatorError::ModelSanityCheckFailed));
    }
    let slow = Llm { cold_start_warmup_steps: 4, ..llm };
    update(&mut run, UpdateArgs { model: Some(Model::Llm(slow)), ..UpdateArgs::default() }).unwrap();
    assert_eq!(run.set_paused(false), Err(CoordinatorError::ConfigSanityCheckFailed), "(100 - 30) / 20 rounds are 3");
    update(&mut run, UpdateArgs { model: Some(model()), ..UpdateArgs::default() }).unwrap();
    let nowhere = UpdateArgs { progress: Some(Progress::new(0, 0, 0)), ..UpdateArgs::default() };
    assert_eq!(update(&mut run, nowhere), Err(CoordinatorError::ProgressSanityCheckFailed));
    let nonce = run.account.nonce;
    machine::update_client_version(&mut run.account, "v2").unwrap();
    assert_eq!((run.account.nonce, run.account.state.client_version.as_str()), (nonce, "v2"));
    let long = "x".repeat(97);
    let refused = machine::update_client_version(&mut run.account, &long);
    assert_eq!(refused, Err(CoordinatorError::InvalidClientVersion));
    run.set_paused(false).unwrap();
    assert_eq!(run.step(), 1);
    assert_eq!(update(&mut run, with(config())), Err(CoordinatorError::UpdateConfigNotHalted));
    assert_eq!(update(&mut run, UpdateArgs::default()), Ok(()));
    let refused = machine::update_client_version(&mut run.account, "v3");
    assert_eq!(refused, Err(CoordinatorError::UpdateConfigNotHalted));
    assert_eq!(machine::check_free(&run.account), Err(CoordinatorError::CloseCoordinatorNotHalted));
}

#[test]
fn an_account_is_initialised_once_and_with_a_proper_name() {
    let mut run = Run::unconfigured();
    let data = bytemuck::bytes_of_mut(&mut *run.account);
    let again = |data: &mut [u8], run_id: &str, version: &str| machine::init(data, run_id, version).err();
    assert_eq!(again(data, "a-run", "v1"), Some(CoordinatorError::AccountAlreadyInitialized));
    assert_eq!(again(&mut data[8..], "a-run", "v1"), Some(CoordinatorError::CoordinatorAccountIncorrectSize));
    data[..8].fill(0);
    data[500] = 9;
    for name in ["", "a-name-of-thirty-three-bytes-long", "zero\0byte"] {
        assert_eq!(again(data, name, "v1"), Some(CoordinatorError::RunIdInvalidLength));
    }
    assert_eq!(again(data, "a-run", &"x".repeat(97)), Some(CoordinatorError::InvalidClientVersion));
    assert_eq!(again(data, "b-run", "v1"), None);
    assert_eq!((data[500], run.account.state.coordinator.run_id.as_str()), (0, "b-run"), "what was there is erased");
}

#[test]
fn a_timeout_needs_its_whole_seconds_and_another_instant() {
    let mut run = Run::new(config());
    run.join(1).unwrap();
    run.join(2).unwrap();
    assert_eq!(would_tick(&run.account, START + 2), None);
    assert_eq!(would_tick(&run.account, START + 3), Some(RunState::Warmup));
    assert_eq!(would_tick(&run.account, i64::MIN), None);
    assert_eq!(would_tick(&run.account, i64::MAX), Some(RunState::Warmup));
}
