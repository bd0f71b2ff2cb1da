#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may unwrap")]

use std::sync::Arc;

use psyche_messages::{ChainTime, Slot};
use psyche_protocol::layout::{CoordinatorAccount, EpochClient, NodeIdentity, RosterClient, RunState};

use super::*;
use crate::program_error::ProgramRefusal;

const USER: Address = Address([1; 32]);
const MASTER: Address = Address([2; 32]);
const AUTHORITY: Address = Address([3; 32]);

fn run() -> RunInfo {
    let [instance, account, main_authority] = [[7; 32], [8; 32], [9; 32]].map(Address);
    RunInfo { run_id: "run".parse().unwrap(), instance, account, main_authority, join_authority: AUTHORITY }
}

fn grant(grantee: Address, active: bool, delegates: &[Address]) -> Grant {
    let (address, grantor_updated, rent) = (Address([4; 32]), ChainTime(0), Lamports(1));
    Grant { address, grantor: AUTHORITY, grantee, active, delegates: delegates.to_vec(), grantor_updated, rent }
}

fn judged(grants: &[Grant], authorizer: Option<Address>) -> (JoinAnswer, Option<GrantedBy>) {
    let (answer, by) = judge_grants(grants, &run(), USER, authorizer);
    (answer, by.map(|(by, _)| by))
}

#[test]
fn it_is_said_whose_grant_lets_the_wallet_in() {
    let by = |grants: &[Grant], authorizer| judged(grants, authorizer).1;
    assert_eq!(by(&[grant(EVERYONE, true, &[])], None), Some(GrantedBy::Everyone));
    assert_eq!(by(&[grant(USER, true, &[])], None), Some(GrantedBy::Wallet));
    assert_eq!(by(&[grant(MASTER, true, &[USER])], Some(MASTER)), Some(GrantedBy::Delegate));
    // The given authorizer comes first, and the others are tried after it.
    assert_eq!(by(&[grant(MASTER, false, &[USER]), grant(EVERYONE, true, &[])], Some(MASTER)), Some(GrantedBy::Everyone));
}

#[test]
fn an_authorizer_that_does_not_let_the_wallet_in_is_told_even_if_the_run_is_open() {
    let (answer, _) = judged(&[grant(MASTER, true, &[]), grant(EVERYONE, true, &[])], Some(MASTER));
    assert!(matches!(&answer, JoinAnswer::Warn(words) if words.contains("no delegate")), "{answer:?}");
}

#[test]
fn each_way_of_not_being_authorized_has_its_reason_and_remedy() {
    let cases: [(Vec<Grant>, Option<Address>, &str); 5] = [
        (vec![], None, "ask the run's join authority"),
        (vec![grant(USER, false, &[])], None, "is not active"),
        (vec![], Some(MASTER), "has granted nothing"),
        (vec![grant(MASTER, false, &[USER])], Some(MASTER), "is not active"),
        (vec![grant(MASTER, true, &[])], Some(MASTER), "join-authorization-delegate"),
    ];
    for (grants, authorizer, reason) in cases {
        let (answer, by) = judged(&grants, authorizer);
        assert!(matches!(&answer, JoinAnswer::No(words) if words.contains(reason)), "{reason}: {answer:?}");
        assert_eq!(by, None);
    }
}

/// A run in `state` with a batch of `batch` samples, changed by `change`.
fn view(state: RunState, batch: u16, change: impl FnOnce(&mut CoordinatorAccount)) -> CoordinatorView {
    let mut account = CoordinatorAccount::zeroed_boxed();
    account.state.coordinator.run_state = state.number();
    account.state.coordinator.config.global_batch_size_end = batch;
    account.state.coordinator.config.total_steps = 10;
    change(&mut account);
    CoordinatorView { slot: Slot(5), account: Arc::from(account) }
}

fn identity(n: u8) -> NodeIdentity {
    NodeIdentity { signer: [n; 32], p2p_identity: [n; 32] }
}

fn state_report(view: &CoordinatorView) -> JoinReport {
    let mut report = JoinReport { run: None, view: None, grant: None, checks: Vec::new() };
    check_state(&mut report, view, USER, Some(ChainTime(1_000)));
    report
}

fn obstacle(view: &CoordinatorView) -> Option<JoinQuestion> {
    state_report(view).obstacle().map(|check| check.question)
}

fn warned(view: &CoordinatorView, question: JoinQuestion) -> bool {
    let warning = |check: &JoinCheck| check.question == question && matches!(check.answer, JoinAnswer::Warn(_));
    state_report(view).checks.iter().any(warning)
}

#[test]
fn who_has_to_wait_for_the_next_epoch_is_told_for_how_long() {
    let working = view(RunState::RoundTrain, 4, |account| {
        account.state.coordinator.epoch_state.start_timestamp = 400;
        account.state.coordinator.config.epoch_time = 1_800;
    });
    let check = state_report(&working).checks.into_iter().find(|check| check.question == JoinQuestion::NotPaused);
    let Some(JoinAnswer::Yes(words)) = check.map(|check| check.answer) else { panic!("the run takes members") };
    assert!(words.contains("goes on for about 20 min; who joins now takes part from the next one on"), "{words}");
    assert_eq!(epoch_left(&working.account, ChainTime(5_000)), Some(0), "its time is up, and its last steps are in work");
    assert_eq!(epoch_left(&view(RunState::WaitingForMembers, 4, |_| ()).account, ChainTime(1)), None);
    assert_eq!([30, 91, 5_400, 9_000].map(about), ["30 s", "2 min", "90 min", "2.5 h"]);
}

#[test]
fn runs_that_take_nobody_are_told_apart() {
    assert_eq!(obstacle(&view(RunState::Finished, 4, |_| ())), Some(JoinQuestion::NotFinished));
    assert_eq!(obstacle(&view(RunState::Paused, 4, |_| ())), Some(JoinQuestion::NotPaused));
    assert_eq!(obstacle(&view(RunState::Uninitialized, 4, |_| ())), Some(JoinQuestion::NotPaused));
    for state in [RunState::WaitingForMembers, RunState::Warmup, RunState::RoundTrain, RunState::Cooldown] {
        assert_eq!(obstacle(&view(state, 4, |_| ())), None, "{state:?}");
    }
    let pausing = view(RunState::RoundTrain, 4, |account| account.state.coordinator.pending_pause = 1);
    assert!(warned(&pausing, JoinQuestion::NotPaused) && obstacle(&pausing).is_none());
}

#[test]
fn a_key_that_trains_already_is_an_obstacle_and_one_that_has_left_or_waits_is_not() {
    let member = |state, change: fn(&mut EpochClient)| {
        view(state, 4, |account| {
            let mut client = EpochClient::new(identity(1));
            change(&mut client);
            assert!(account.state.coordinator.epoch_state.clients.push(&client));
        })
    };
    assert_eq!(obstacle(&member(RunState::RoundTrain, |_| ())), Some(JoinQuestion::NotMember));
    assert_eq!(obstacle(&member(RunState::WaitingForMembers, |_| ())), None, "the list is of the last epoch");
    let dropped = member(RunState::RoundTrain, |client| client.state = ClientState::Dropped.number());
    assert!(obstacle(&dropped).is_none() && warned(&dropped, JoinQuestion::NotMember));
    let pending = view(RunState::WaitingForMembers, 4, |account| {
        assert!(account.state.clients_state.clients.push(&RosterClient::new(identity(1), 0)));
    });
    assert!(obstacle(&pending).is_none() && warned(&pending, JoinQuestion::NotMember));
}

#[test]
fn full_lists_are_told_and_left_to_the_chain_to_judge() {
    let full = |clients: u8, batch| {
        view(RunState::WaitingForMembers, batch, |account| {
            for n in 0..clients {
                assert!(account.state.clients_state.clients.push(&RosterClient::new(identity(100 + n), 0)));
            }
        })
    };
    assert!(!warned(&full(3, 4), JoinQuestion::BatchHasRoom));
    assert!(warned(&full(4, 4), JoinQuestion::BatchHasRoom));
    assert!(state_report(&full(4, 4)).can_join());
    let program = ProgramName::Coordinator;
    for (code, question) in
        [(6022, JoinQuestion::BatchHasRoom), (6003, JoinQuestion::RosterHasRoom), (6015, JoinQuestion::ChainAccepts)]
    {
        let mut report = state_report(&full(4, 4));
        let refusal = ProgramRefusal::of(program, code);
        report.amend(&ChainError::Program { purpose: "the join", program, code, refusal });
        assert_eq!(report.obstacle().unwrap().question, question, "{code}");
    }
}

#[test]
fn a_wallet_must_keep_its_rent_and_pay_a_fee() {
    let kept = Lamports(890_880);
    let judged = |lamports| judge_balance(Lamports(lamports), kept, USER);
    for little in [0, 1, 890_880, 895_879] {
        assert!(matches!(judged(little), JoinAnswer::No(_)), "{little}");
    }
    assert!(matches!(judged(895_880), JoinAnswer::Warn(_)));
    assert!(matches!(judged(5_000_000), JoinAnswer::Yes(_)));
}

#[test]
fn another_client_version_is_an_obstacle_and_test_takes_any() {
    let wants = |version: &str| {
        let view = view(RunState::Paused, 4, |account| assert!(account.state.client_version.set(version)));
        let mut report = JoinReport { run: None, view: None, grant: None, checks: Vec::new() };
        check_version(&mut report, &view, Some("2.0"));
        report.can_join()
    };
    assert!(wants("2.0") && wants("test") && wants(""));
    assert!(!wants("2.1"));
}
