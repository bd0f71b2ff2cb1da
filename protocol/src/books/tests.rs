#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::accounts::{Authorization, Participant, Run};
use crate::ids;
use crate::instruction::{AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs};
use crate::layout::{NodeIdentity, RosterClient};

const GRANTOR: [u8; 32] = [1; 32];
const GRANTEE: [u8; 32] = [2; 32];

fn grant(delegates: usize) -> Vec<u8> {
    let keys: Vec<[u8; 32]> = (0..delegates).map(|i| [i as u8; 32]).collect();
    let args = AuthorizationCreateArgs { grantee: GRANTEE, scope: ids::JOIN_SCOPE };
    let created = Authorization { delegates: &keys, ..authorizer::created(&GRANTOR, &args, 255, 100) };
    let mut data = vec![0; Authorization::size(ids::JOIN_SCOPE.len(), delegates)];
    created.encode(&mut data).unwrap();
    data
}

#[test]
fn error_codes_are_what_clients_know_and_are_found_by_their_numbers() {
    for error in AuthorizerError::ALL {
        assert_eq!(AuthorizerError::from_code(error.code()), Some(*error));
    }
    for error in TreasurerError::ALL {
        assert_eq!(TreasurerError::from_code(error.code()), Some(*error));
    }
    let known = [AuthorizerError::AuthorizationActiveIsTrue, AuthorizerError::AuthorizationClosingConditionsNotReachedYet];
    assert_eq!(known.map(AuthorizerError::code), [6000, 6001]);
    assert_eq!([TreasurerError::InvalidParameter, TreasurerError::RunIdInvalidLength].map(TreasurerError::code), [6000, 6001]);
    assert_eq!(AuthorizerError::from_code(6100), None);
}

#[test]
fn delegates_are_bounded_when_they_are_named_and_can_always_be_forgotten() {
    let full = grant(authorizer::DELEGATES_MAX);
    let update = |clear, added| AuthorizationGranteeUpdateArgs { delegates_clear: clear, delegates_added: added };
    let one = [[9; 32]];
    let refused = authorizer::space_after(&full, &GRANTEE, &update(false, &one));
    assert_eq!(refused, Err(AuthorizerError::TooManyDelegates));
    assert_eq!(authorizer::grantee_update(&mut full.clone(), &GRANTEE, &update(false, &one)), refused.map(|_| ()));
    assert_eq!(authorizer::space_after(&full, &GRANTEE, &update(false, &[])), Ok(full.len()));
    assert_eq!(authorizer::space_after(&full, &GRANTEE, &update(true, &one)), Ok(108 + 32));
    // An account that another program's rules let grow further can still be cleared.
    let more = grant(authorizer::DELEGATES_MAX + 7);
    assert_eq!(authorizer::space_after(&more, &GRANTEE, &update(true, &[])), Ok(108));
    assert!(authorizer::space_after(&more, &GRANTEE, &update(false, &one)).is_err());
}

#[test]
fn closing_waits_for_the_delegates_and_never_overflows() {
    let mut data = grant(1);
    let at = 100 + authorizer::CLOSING_DELAY_S;
    assert_eq!(authorizer::check_close(&data, &GRANTEE, at), Err(AuthorizerError::WrongParty));
    let early = AuthorizerError::AuthorizationClosingConditionsNotReachedYet;
    assert_eq!(authorizer::check_close(&data, &GRANTOR, at - 1), Err(early));
    assert_eq!(authorizer::check_close(&data, &GRANTOR, at), Ok(()));
    authorizer::grantor_update(&mut data, &GRANTOR, false, i64::MAX).unwrap();
    assert_eq!(authorizer::check_close(&data, &GRANTOR, 0), Err(early));
    assert_eq!(authorizer::check_close(&data, &GRANTOR, i64::MAX), Ok(()));
    assert_eq!(authorizer::check_close(&grant(0), &GRANTOR, i64::MIN), Ok(()));
    assert_eq!(authorizer::check_close(&data[..20], &GRANTOR, 0), Err(AuthorizerError::Undecodable));
}

fn purse() -> treasurer::Purse {
    treasurer::Purse { mint: [7; 32], owner: [3; 32], has_delegate: false, is_native: false, close_authority: None }
}

fn book() -> Run {
    Run {
        bump: 255,
        index: 1,
        main_authority: [1; 32],
        join_authority: [2; 32],
        coordinator_account: [5; 32],
        coordinator_instance: [6; 32],
        collateral_mint: [7; 32],
        total_claimed_collateral_amount: 0,
        total_claimed_earned_points: 0,
    }
}

#[test]
fn nobody_is_paid_into_an_account_that_somebody_else_can_empty() {
    let ok = |purse: treasurer::Purse| treasurer::check_purse(&book(), &[3; 32], &purse).is_ok();
    assert!(ok(purse()));
    assert!(!ok(treasurer::Purse { mint: [8; 32], ..purse() }));
    assert!(!ok(treasurer::Purse { owner: [4; 32], ..purse() }));
    assert!(!ok(treasurer::Purse { has_delegate: true, ..purse() }));
    // The rent of a token account may be a sponsor's; wrapped lamports would leave with the account.
    let sponsored = treasurer::Purse { close_authority: Some([9; 32]), ..purse() };
    assert!(ok(sponsored));
    assert!(!ok(treasurer::Purse { is_native: true, ..sponsored }));
    assert!(ok(treasurer::Purse { is_native: true, close_authority: Some([3; 32]), ..purse() }));
}

fn member(earned: u64, slashed: u64) -> RosterClient {
    let mut member = RosterClient::new(NodeIdentity { signer: [3; 32], p2p_identity: [4; 32] }, 0);
    (member.earned, member.slashed) = (earned, slashed);
    member
}

proptest! {
    #[test]
    fn prop_claims_never_exceed_what_was_earned_and_not_slashed(
        earned: u64, slashed: u64, before: u64, points: u64, totals: u64,
    ) {
        let mut entry = Participant { claimed_collateral_amount: before, claimed_earned_points: before, bump: 1 };
        let mut run = Run { total_claimed_collateral_amount: totals, total_claimed_earned_points: totals, ..book() };
        let (entry_before, run_before) = (entry, run);
        let claimable = treasurer::claimable(Some(&member(earned, slashed)), before);
        prop_assert!(claimable <= earned.saturating_sub(slashed));
        match treasurer::claim(&mut run, &mut entry, claimable, points) {
            Ok(paid) => {
                prop_assert_eq!(paid, points);
                prop_assert!(points == 0 || entry.claimed_earned_points <= earned - slashed);
                prop_assert_eq!(entry.claimed_earned_points - before, points);
                prop_assert_eq!(entry.claimed_collateral_amount - before, points);
                prop_assert_eq!(run.total_claimed_earned_points - totals, points);
                prop_assert_eq!(run.total_claimed_collateral_amount - totals, points);
            }
            Err(error) => {
                prop_assert_eq!((entry, run), (entry_before, run_before));
                let expected = if points > claimable { TreasurerError::InvalidParameter } else { TreasurerError::TotalsOverflow };
                prop_assert_eq!(error, expected);
            }
        }
    }
}

#[test]
fn a_stranger_has_nothing_to_claim_and_a_slash_after_the_claim_leaves_nothing() {
    assert_eq!(treasurer::claimable(None, 0), 0);
    assert_eq!(treasurer::claimable(Some(&member(300, 0)), 100), 200);
    assert_eq!(treasurer::claimable(Some(&member(300, 120)), 100), 80);
    assert_eq!(treasurer::claimable(Some(&member(300, 250)), 100), 0);
    assert_eq!(treasurer::claimable(Some(&member(300, u64::MAX)), 0), 0);
}
