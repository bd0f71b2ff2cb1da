//! The authorizer's rules: a grantor permits a grantee, or keys that the grantee names, to do what a scope says.
//!
//! *Who may what*: the grantor creates, switches and closes; the grantee names its delegates, also while the
//! authorization is inactive. All functions work on the account's data.

use super::AuthorizerError;
use crate::Pubkey;
use crate::accounts::Authorization;
use crate::codec::DecodeError;
use crate::instruction::{AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs};

/// How long delegates are left in peace after the grantor's last change, in seconds: 30 days.
pub const CLOSING_DELAY_S: i64 = 30 * 24 * 60 * 60;
/// Most delegates that an authorization can be given: four times the clients that a run has room for, and few enough
/// that whoever is named last still joins within a quarter of the default compute budget.
pub const DELEGATES_MAX: usize = 1024;

type Outcome<T = ()> = Result<T, AuthorizerError>;

/// What `authorization_create` writes: inactive, without delegates.
#[must_use]
pub const fn created<'a>(grantor: &Pubkey, args: &AuthorizationCreateArgs<'a>, bump: u8, now: i64) -> Authorization<'a> {
    Authorization {
        bump,
        grantor: *grantor,
        grantee: args.grantee,
        scope: args.scope,
        active: false,
        delegates: &[],
        grantor_update_unix_timestamp: now,
    }
}

#[inline]
fn undecodable(_: DecodeError) -> AuthorizerError {
    AuthorizerError::Undecodable
}

#[inline]
fn granted_by<'a>(data: &'a [u8], signer: &Pubkey) -> Outcome<Authorization<'a>> {
    let found = Authorization::decode(data).map_err(undecodable)?;
    if found.grantor == *signer { Ok(found) } else { Err(AuthorizerError::WrongParty) }
}

#[inline]
fn granted_to<'a>(data: &'a [u8], signer: &Pubkey) -> Outcome<Authorization<'a>> {
    let found = Authorization::decode(data).map_err(undecodable)?;
    if found.grantee == *signer { Ok(found) } else { Err(AuthorizerError::WrongParty) }
}

/// The grantor switches the authorization on or off, at `now` in unix seconds.
///
/// # Errors
/// `Undecodable`, `WrongParty`.
pub fn grantor_update(data: &mut [u8], signer: &Pubkey, active: bool, now: i64) -> Outcome {
    granted_by(data, signer)?;
    Authorization::set_active_in(data, active, now).map_err(undecodable)
}

/// How many bytes the account has after the grantee's update.
///
/// # Errors
/// `Undecodable`, `WrongParty`, `TooManyDelegates`.
#[inline]
pub fn space_after(data: &[u8], signer: &Pubkey, args: &AuthorizationGranteeUpdateArgs<'_>) -> Outcome<usize> {
    let found = granted_to(data, signer)?;
    let kept = if args.delegates_clear { 0 } else { found.delegates.len() };
    let total = kept.saturating_add(args.delegates_added.len());
    // Forgetting is always possible, whatever an account holds.
    if total > DELEGATES_MAX && !args.delegates_added.is_empty() {
        return Err(AuthorizerError::TooManyDelegates);
    }
    Ok(Authorization::size(found.scope.len(), total))
}

/// The grantee forgets its delegates or names more. The data must have at least [`space_after`] bytes: an account grows
/// before and shrinks after.
///
/// # Errors
/// `Undecodable` (also where the data is too short), `WrongParty`, `TooManyDelegates`.
#[inline]
pub fn grantee_update(data: &mut [u8], signer: &Pubkey, args: &AuthorizationGranteeUpdateArgs<'_>) -> Outcome {
    space_after(data, signer, args)?;
    Authorization::set_delegates_in(data, args.delegates_clear, args.delegates_added).map_err(undecodable)?;
    Ok(())
}

/// Whether the grantor may close the authorization at `now`: it is inactive, and its delegates, if it has any, had
/// [`CLOSING_DELAY_S`] since the grantor's last change.
///
/// # Errors
/// `Undecodable`, `WrongParty`, `AuthorizationActiveIsTrue`, `AuthorizationClosingConditionsNotReachedYet`.
pub fn check_close(data: &[u8], signer: &Pubkey, now: i64) -> Outcome {
    let found = granted_by(data, signer)?;
    if found.active {
        return Err(AuthorizerError::AuthorizationActiveIsTrue);
    }
    let closable_at = found.grantor_update_unix_timestamp.saturating_add(CLOSING_DELAY_S);
    if found.delegates.is_empty() || now >= closable_at {
        Ok(())
    } else {
        Err(AuthorizerError::AuthorizationClosingConditionsNotReachedYet)
    }
}
