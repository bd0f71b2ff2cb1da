//! The treasurer's rules: a run that a treasury owns, and what its clients are paid.
//!
//! *Who may what*: anybody creates a run under a free index; the run's main authority changes it; a user claims its own
//! points into its own token account. One point is one base unit of collateral.

use super::TreasurerError;
use crate::Pubkey;
use crate::accounts::{Participant, Run};
use crate::codec::{EncodeError, Writer};
use crate::instruction::{
    Args, RunCreateArgs, RunUpdateArgs, SetFutureEpochRatesArgs, SetPausedArgs, UpdateArgs, UpdateClientVersionArgs,
};
use crate::layout::{CoordinatorAccount, MAX_RUN_ID_LEN, RosterClient};
use crate::machine::{self, Clock, CoordinatorError};

type Outcome<T = ()> = Result<T, TreasurerError>;

const fn ensure(holds: bool, refusal: TreasurerError) -> Outcome {
    if holds { Ok(()) } else { Err(refusal) }
}

/// Whether a run may have this name.
///
/// # Errors
/// `RunIdInvalidLength`.
pub const fn check_run_id(run_id: &str) -> Outcome {
    ensure(!run_id.is_empty() && run_id.len() <= MAX_RUN_ID_LEN, TreasurerError::RunIdInvalidLength)
}

/// The accounts that a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct RunAccounts<'a> {
    /// The coordinator account.
    pub coordinator_account: &'a Pubkey,
    /// The coordinator instance.
    pub coordinator_instance: &'a Pubkey,
    /// The token that it pays.
    pub collateral_mint: &'a Pubkey,
}

/// What `run_create` writes: nothing claimed yet.
#[must_use]
pub const fn created(args: &RunCreateArgs<'_>, accounts: &RunAccounts<'_>, bump: u8) -> Run {
    Run {
        bump,
        index: args.index,
        main_authority: args.main_authority,
        join_authority: args.join_authority,
        coordinator_account: *accounts.coordinator_account,
        coordinator_instance: *accounts.coordinator_instance,
        collateral_mint: *accounts.collateral_mint,
        total_claimed_collateral_amount: 0,
        total_claimed_earned_points: 0,
    }
}

/// What `participant_create` writes.
#[must_use]
pub const fn opened(bump: u8) -> Participant {
    Participant { bump, claimed_collateral_amount: 0, claimed_earned_points: 0 }
}

/// Whether `authority` may change the run of these two coordinator accounts.
///
/// # Errors
/// `WrongParty`.
pub fn check_update(book: &Run, authority: &Pubkey, instance: &Pubkey, account: &Pubkey) -> Outcome {
    ensure(
        book.main_authority == *authority && book.coordinator_instance == *instance && book.coordinator_account == *account,
        TreasurerError::WrongParty,
    )
}

/// One instruction of the coordinator that an update consists of.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// `set_paused`.
    Paused(SetPausedArgs),
    /// `update`.
    Description(&'a UpdateArgs),
    /// `set_future_epoch_rates`.
    Rates(SetFutureEpochRatesArgs),
    /// `update_client_version`.
    Version(UpdateClientVersionArgs<'a>),
}

impl Change<'_> {
    /// Writes the coordinator's instruction data and returns its length.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        match self {
            Self::Paused(args) => encode(args, buffer),
            Self::Description(args) => encode(*args, buffer),
            Self::Rates(args) => encode(args, buffer),
            Self::Version(args) => encode(args, buffer),
        }
    }

    /// Does to the coordinator account what the coordinator does.
    ///
    /// # Errors
    /// The coordinator's; nothing changed then.
    pub fn apply(&self, account: &mut CoordinatorAccount, clock: &Clock) -> Result<(), CoordinatorError> {
        match self {
            Self::Paused(args) => machine::set_paused(account, args.paused, clock),
            Self::Description(args) => machine::update(account, args),
            Self::Rates(args) => {
                machine::set_future_epoch_rates(account, args.earning_rate_total_shared, args.slashing_rate_per_client)
            }
            Self::Version(args) => machine::update_client_version(account, args.client_version),
        }
    }
}

#[inline(never)]
fn encode<'a, A: Args<'a>>(args: &A, buffer: &mut [u8]) -> Result<usize, EncodeError> {
    let mut w = Writer::new(buffer);
    w.put(&A::DISCRIMINATOR)?;
    args.write(&mut w)?;
    Ok(w.written())
}

/// The coordinator's instructions that an update consists of, in their order. A pause comes first and a resumption last,
/// because most of the other changes need a halted run; an update without content has none.
#[must_use]
pub fn changes<'a>(args: &'a RunUpdateArgs<'a>) -> [Option<Change<'a>>; 5] {
    let UpdateArgs { metadata, config, model, progress } = &args.update;
    let describes = metadata.is_some() || config.is_some() || model.is_some() || progress.is_some();
    let rates = SetFutureEpochRatesArgs {
        earning_rate_total_shared: args.earning_rate_total_shared,
        slashing_rate_per_client: args.slashing_rate_per_client,
    };
    let prices = rates.earning_rate_total_shared.is_some() || rates.slashing_rate_per_client.is_some();
    let paused = |wanted: bool| {
        let paused = args.paused.filter(|paused| *paused == wanted)?;
        Some(Change::Paused(SetPausedArgs { paused }))
    };
    [
        paused(true),
        describes.then_some(Change::Description(&args.update)),
        prices.then_some(Change::Rates(rates)),
        args.client_version.map(|client_version| Change::Version(UpdateClientVersionArgs { client_version })),
        paused(false),
    ]
}

/// All of an update, on the coordinator account. After an error the account may hold a part of it: on chain the whole
/// transaction is undone then.
///
/// # Errors
/// The coordinator's, of the first instruction that it refuses.
pub fn run_update(account: &mut CoordinatorAccount, args: &RunUpdateArgs<'_>, clock: &Clock) -> Result<(), CoordinatorError> {
    changes(args).iter().flatten().try_for_each(|change| change.apply(account, clock))
}

/// What a rule needs to know of a user's token account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purse {
    /// The mint of its tokens.
    pub mint: Pubkey,
    /// Who may spend them.
    pub owner: Pubkey,
    /// Whether somebody else may spend them too.
    pub has_delegate: bool,
    /// Whether its tokens are wrapped lamports, which leave with the account when it is closed.
    pub is_native: bool,
    /// Who may close it, where that is not its owner.
    pub close_authority: Option<Pubkey>,
}

/// Whether `user` can be paid into this token account: it is the user's, of the run's token, and nobody else can take out
/// what is paid.
///
/// # Errors
/// `WrongParty`.
#[inline]
pub fn check_purse(book: &Run, user: &Pubkey, purse: &Purse) -> Outcome {
    let closer = purse.close_authority.is_some_and(|closer| closer != *user);
    let exposed = purse.has_delegate || (purse.is_native && closer);
    ensure(purse.mint == book.collateral_mint && purse.owner == *user && !exposed, TreasurerError::WrongParty)
}

/// Points that can be claimed: earned, not slashed, not claimed yet. `member` is the user's entry in the run's roster;
/// who has none has earned nothing.
#[must_use]
pub const fn claimable(member: Option<&RosterClient>, claimed: u64) -> u64 {
    match member {
        Some(member) => member.earned.saturating_sub(member.slashed).saturating_sub(claimed),
        None => 0,
    }
}

/// Books a claim of `points` for a user, and returns the base units of collateral to pay for them.
///
/// # Errors
/// `InvalidParameter` beyond what is [`claimable`]; `TotalsOverflow`.
#[inline]
pub fn claim(book: &mut Run, entry: &mut Participant, claimable: u64, points: u64) -> Outcome<u64> {
    ensure(points <= claimable, TreasurerError::InvalidParameter)?;
    let add = |total: u64| total.checked_add(points).ok_or(TreasurerError::TotalsOverflow);
    let (entry_points, entry_collateral) = (add(entry.claimed_earned_points)?, add(entry.claimed_collateral_amount)?);
    let (points_in_all, collateral) = (add(book.total_claimed_earned_points)?, add(book.total_claimed_collateral_amount)?);
    entry.claimed_earned_points = entry_points;
    entry.claimed_collateral_amount = entry_collateral;
    book.total_claimed_earned_points = points_in_all;
    book.total_claimed_collateral_amount = collateral;
    Ok(points)
}
