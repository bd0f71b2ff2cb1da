//! Points, claims, and the treasury that pays them. One point is one base unit of the treasury's token.

use psyche_messages::{Address, Points, RunId};
use psyche_protocol::accounts::{Participant, Run};
use psyche_protocol::books::treasurer as treasurer_rules;
use psyche_protocol::ids;
use psyche_protocol::layout::RosterClient;
use serde::Serialize;

use super::obstacle::Obstacle;
use crate::addresses;
use crate::error::ChainError;
use crate::instructions::treasurer::{self, TreasuryAddresses};
use crate::instructions::{system, token};
use crate::rpc::{AccountRead, Rpc};
use crate::run::RunInfo;
use crate::transaction::{Compute, Confirmed, Plan, Submitted};
use crate::wallet::Wallet;
use crate::{Instruction, Signature};

/// A run's treasury.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treasury {
    /// Its address, which is the run's main authority.
    pub run: Address,
    /// The token that it pays.
    pub mint: Address,
    /// Who owns it.
    pub main_authority: Address,
    /// Points paid for so far, to everybody together.
    pub claimed: Points,
}

impl Treasury {
    const fn addresses(&self) -> TreasuryAddresses {
        TreasuryAddresses { run: self.run, mint: self.mint }
    }

    /// Where it keeps its tokens.
    #[must_use]
    pub fn collateral(&self) -> Address {
        self.addresses().collateral()
    }
}

/// What a wallet has earned in a run, and what it can get for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunPoints {
    /// Earned in all epochs.
    pub earned: Points,
    /// Lost again.
    pub slashed: Points,
    /// Claimed in all.
    pub claimed: Points,
    /// Earned, neither lost nor claimed.
    pub claimable: Points,
    /// What the treasury holds; 0 without one.
    pub treasury: Points,
}

impl RunPoints {
    /// The points of `member` of a roster that has claimed `claimed` from a treasury that holds `treasury`.
    #[must_use]
    pub fn new(member: Option<&RosterClient>, claimed: u64, treasury: Points) -> Self {
        let (earned, slashed) = member.map_or((0, 0), |member| (member.earned, member.slashed));
        let claimable = Points(treasurer_rules::claimable(member, claimed));
        Self { earned: Points(earned), slashed: Points(slashed), claimed: Points(claimed), claimable, treasury }
    }
}

/// In what way a claim came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// Everything that was asked for is paid.
    Paid,
    /// The treasury held less than that, and paid what it held.
    PaidInPart,
    /// The treasury holds nothing, so nothing was sent.
    TreasuryEmpty,
    /// Nothing was earned that is not claimed or lost, so nothing was sent.
    NothingToClaim,
}

/// How a claim came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Claimed {
    /// In what way.
    pub kind: ClaimKind,
    /// What the chain said before the claim.
    pub before: RunPoints,
    /// What was paid by this claim.
    pub amount: Points,
    /// The transaction that paid it; `None` where nothing was sent.
    #[serde(serialize_with = "super::signature_text")]
    pub signature: Option<Signature>,
    /// Claimed in all, this claim included.
    pub claimed_in_all: Points,
    /// Earned and still not claimed: more than 0 where the treasury holds too little, or less was asked for.
    pub left: Points,
    /// What the treasury lacks for paying everything that this wallet has left.
    pub treasury_lacks: Points,
}

/// The treasury of `run`, if one owns it.
///
/// # Errors
/// [`ChainError`] where no endpoint answers, or the owner's account is a treasurer's but no treasury.
pub async fn treasury_of(rpc: &Rpc, run: &RunInfo) -> Result<Option<Treasury>, ChainError> {
    let address = run.main_authority;
    let read = rpc.account(address).await?;
    let Some(read) = read.filter(|read| read.owner == rpc.programs().treasurer) else {
        return Ok(None);
    };
    let found =
        Run::decode(&read.data).map_err(|source| ChainError::AccountMalformed { what: "treasury run", address, source })?;
    Ok(Some(Treasury {
        run: address,
        mint: Address(found.collateral_mint),
        main_authority: Address(found.main_authority),
        claimed: Points(found.total_claimed_earned_points),
    }))
}

async fn required_treasury(rpc: &Rpc, run: &RunInfo) -> Result<Treasury, ChainError> {
    let without = ChainError::Obstructed { action: "find the run's treasury", obstacle: Obstacle::NoTreasury };
    treasury_of(rpc, run).await?.ok_or(without)
}

/// What `user` has earned and claimed in `run`.
///
/// # Errors
/// [`ChainError`] where no endpoint answers.
pub async fn points(rpc: &Rpc, run: &RunInfo, user: Address) -> Result<RunPoints, ChainError> {
    let treasury = treasury_of(rpc, run).await?;
    Ok(standing(rpc, run, treasury.as_ref(), user).await?.0)
}

/// The points, and whether the participant's account exists. All accounts are of one slot.
async fn standing(
    rpc: &Rpc,
    run: &RunInfo,
    treasury: Option<&Treasury>,
    user: Address,
) -> Result<(RunPoints, bool), ChainError> {
    let view = rpc.coordinator(run.account).await?;
    let member = view.account.roster_client(&user.0);
    let Some(treasury) = treasury else {
        return Ok((RunPoints::new(member, 0, Points(0)), false));
    };
    let participant = addresses::participant(rpc.programs(), treasury.run, user);
    let mut reads = rpc.accounts(&[participant, treasury.collateral()]).await?.into_iter();
    let entry = reads.next().flatten().map(|read| decode_participant(participant, &read)).transpose()?;
    let held = reads.next().flatten().and_then(|read| crate::rpc::token_amount(&read.data));
    let claimed = entry.map_or(0, |entry| entry.claimed_earned_points);
    Ok((RunPoints::new(member, claimed, held.unwrap_or_default()), entry.is_some()))
}

pub(super) fn decode_participant(address: Address, read: &AccountRead) -> Result<Participant, ChainError> {
    Participant::decode(&read.data).map_err(|source| ChainError::AccountMalformed { what: "participant", address, source })
}

/// Claims what `wallet` has earned in the run `run_id`, as far as the treasury holds it, and at most `limit` if given. The
/// wallet's token account and its account with the treasury are created where they are missing.
///
/// # Errors
/// [`ChainError::NotPossible`] without a treasury; [`ChainError`] of the transaction.
pub async fn claim_rewards(rpc: &Rpc, wallet: &Wallet, run_id: &RunId, limit: Option<Points>) -> Result<Claimed, ChainError> {
    let (run, user) = (rpc.run_info(run_id).await?, wallet.address());
    let treasury = required_treasury(rpc, &run).await?;
    let (before, known) = standing(rpc, &run, Some(&treasury), user).await?;
    let outcome = Claimed::planned(before, limit);
    let amount = outcome.amount;
    if amount == Points(0) {
        return Ok(outcome);
    }
    let programs = rpc.programs();
    let mut instructions = vec![token::create_associated(user, user, treasury.mint)];
    if !known {
        instructions.push(treasurer::participant_create(programs, treasury.run, user)?);
    }
    instructions.push(treasurer::participant_claim(programs, &treasury.addresses(), run.account, user, amount.0)?);
    let plan = plan(wallet, "the claim", &[], &instructions);
    let paid = || async { Ok(standing(rpc, &run, Some(&treasury), user).await?.0.claimed > before.claimed) };
    match rpc.submit_until(&plan, paid).await? {
        Submitted::Confirmed(confirmed) => Ok(Claimed { signature: Some(confirmed.signature), ..outcome }),
        // A confirmation was lost, or the same wallet claimed elsewhere: what the chain says now counts.
        Submitted::AlreadyDone => Ok(outcome.as_found(&standing(rpc, &run, Some(&treasury), user).await?.0)),
    }
}

impl Claimed {
    /// The claim as it came out where `after` is what the chain says afterwards.
    const fn as_found(self, after: &RunPoints) -> Self {
        Self {
            amount: Points(after.claimed.0.saturating_sub(self.before.claimed.0)),
            claimed_in_all: after.claimed,
            left: after.claimable,
            treasury_lacks: Points(after.claimable.0.saturating_sub(after.treasury.0)),
            ..self
        }
    }

    /// What a claim of at most `limit` does where `before` is what the chain says.
    fn planned(before: RunPoints, limit: Option<Points>) -> Self {
        let wanted = before.claimable.min(limit.unwrap_or(before.claimable));
        let amount = wanted.min(before.treasury);
        let kind = match amount {
            Points(0) if before.claimable == Points(0) => ClaimKind::NothingToClaim,
            Points(0) if wanted > Points(0) => ClaimKind::TreasuryEmpty,
            Points(0) => ClaimKind::NothingToClaim,
            amount if amount < wanted => ClaimKind::PaidInPart,
            _ => ClaimKind::Paid,
        };
        Self {
            kind,
            before,
            amount,
            signature: None,
            claimed_in_all: Points(before.claimed.0.saturating_add(amount.0)),
            left: Points(before.claimable.0.saturating_sub(amount.0)),
            treasury_lacks: Points(before.claimable.0.saturating_sub(before.treasury.0)),
        }
    }
}

/// Moves `amount` base units from `wallet`'s associated token account to the treasury of the run `run_id`.
///
/// # Errors
/// [`ChainError::NotPossible`] without a treasury; [`ChainError`] of the transaction.
pub async fn top_up(rpc: &Rpc, wallet: &Wallet, run_id: &RunId, amount: Points) -> Result<Confirmed, ChainError> {
    let run = rpc.run_info(run_id).await?;
    let treasury = required_treasury(rpc, &run).await?;
    let from = addresses::associated_token(wallet.address(), treasury.mint);
    let held = rpc.token_balance(from).await?.unwrap_or_default();
    if held < amount {
        let reason = format!("{from} holds {held} base units of {}, less than {amount}", treasury.mint);
        return Err(ChainError::NotPossible { action: "top up the treasury", reason });
    }
    let instructions = [token::transfer(from, treasury.collateral(), wallet.address(), amount)];
    rpc.submit(&plan(wallet, "the top-up", &[], &instructions)).await
}

/// Creates a token whose supply `wallet` controls; returns its mint.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn create_mint(rpc: &Rpc, wallet: &Wallet, decimals: u8) -> Result<Address, ChainError> {
    let mint = Wallet::new();
    let rent = rpc.rent_minimum(token::MINT_LEN).await?;
    let (payer, len) = (wallet.address(), token::MINT_LEN as u64);
    let instructions = [
        system::create_account(payer, mint.address(), rent, len, Address(ids::TOKEN_PROGRAM)),
        token::initialize_mint(mint.address(), decimals, payer),
    ];
    let signers = [&mint];
    let made = || async { Ok(rpc.account(mint.address()).await?.is_some()) };
    rpc.submit_until(&plan(wallet, "the creation of the token", &signers, &instructions), made).await?;
    Ok(mint.address())
}

/// Mints `amount` base units of `mint` into `owner`'s associated token account, which is created where it is missing.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn mint_to(
    rpc: &Rpc,
    wallet: &Wallet,
    mint: Address,
    owner: Address,
    amount: Points,
) -> Result<Confirmed, ChainError> {
    let payer = wallet.address();
    let instructions = [
        token::create_associated(payer, owner, mint),
        token::mint_to(mint, addresses::associated_token(owner, mint), payer, amount),
    ];
    rpc.submit(&plan(wallet, "the minting of tokens", &[], &instructions)).await
}

/// How many decimals `mint` shows.
///
/// # Errors
/// [`ChainError::AccountMissing`] if there is no such token.
pub async fn token_decimals(rpc: &Rpc, mint: Address) -> Result<u8, ChainError> {
    let read = rpc.account(mint).await?.filter(|read| read.owner.0 == ids::TOKEN_PROGRAM);
    // A mint's layout: authority option 4 + 32, supply 8, decimals at 44.
    let decimals = read.filter(|read| read.data.len() == token::MINT_LEN).and_then(|read| read.data.get(44).copied());
    decimals.ok_or(ChainError::AccountMissing { what: "token", address: mint })
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, signers: &'a [&'a Wallet], instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers, instructions, compute: Compute::Simulated }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(earned: u64, slashed: u64, claimed: u64, treasury: u64) -> RunPoints {
        let id = psyche_protocol::layout::NodeIdentity { signer: [1; 32], p2p_identity: [2; 32] };
        let mut member = RosterClient::new(id, 0);
        (member.earned, member.slashed) = (earned, slashed);
        RunPoints::new(Some(&member), claimed, Points(treasury))
    }

    fn kind(before: RunPoints, limit: Option<u64>) -> (ClaimKind, u64, u64) {
        let claimed = Claimed::planned(before, limit.map(Points));
        (claimed.kind, claimed.amount.0, claimed.left.0)
    }

    #[test]
    fn a_claim_says_in_what_way_it_came_out() {
        assert_eq!(kind(points(50, 0, 0, 60), None), (ClaimKind::Paid, 50, 0));
        assert_eq!(kind(points(50, 0, 0, 60), Some(4)), (ClaimKind::Paid, 4, 46));
        assert_eq!(kind(points(50, 0, 0, 20), None), (ClaimKind::PaidInPart, 20, 30));
        assert_eq!(kind(points(50, 0, 0, 0), None), (ClaimKind::TreasuryEmpty, 0, 50));
        assert_eq!(kind(points(50, 0, 50, 9), None), (ClaimKind::NothingToClaim, 0, 0));
        assert_eq!(kind(points(50, 60, 0, 9), None), (ClaimKind::NothingToClaim, 0, 0));
    }

    #[test]
    fn a_claim_whose_confirmation_was_lost_tells_what_the_chain_tells() {
        let lost = Claimed::planned(points(50, 0, 10, 60), None);
        let found = lost.as_found(&points(50, 0, 50, 20));
        assert_eq!((found.amount, found.claimed_in_all, found.left), (Points(40), Points(50), Points(0)));
        let elsewhere = lost.as_found(&points(80, 0, 30, 40));
        assert_eq!((elsewhere.amount, elsewhere.left, elsewhere.treasury_lacks), (Points(20), Points(50), Points(10)));
    }

    proptest! {
        #[test]
        fn prop_a_claim_is_the_least_of_what_is_left_what_is_there_and_what_is_wanted(
            earned: u64, slashed: u64, claimed: u64, treasury: u64, limit: Option<u64>,
        ) {
            let before = points(earned, slashed, claimed, treasury);
            let plan = Claimed::planned(before, limit.map(Points));
            let left = earned.saturating_sub(slashed).saturating_sub(claimed);
            prop_assert_eq!(plan.amount.0, left.min(treasury).min(limit.unwrap_or(u64::MAX)));
            prop_assert_eq!(plan.left.0, left - plan.amount.0);
            prop_assert_eq!(plan.amount.0 == 0, matches!(plan.kind, ClaimKind::NothingToClaim | ClaimKind::TreasuryEmpty));
        }
    }
}
