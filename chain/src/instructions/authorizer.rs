//! The authorizer's instructions, for grants to join runs.

use psyche_messages::Address;
use psyche_protocol::ids;
use psyche_protocol::instruction::{
    AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
use solana_instruction::Instruction;

use super::{build, payer, read, signer, written};
use crate::addresses;
use crate::error::ChainError;
use crate::program_error::ProgramIds;

const SYSTEM: Address = Address(ids::SYSTEM_PROGRAM);

/// Creates an inactive grant of `grantor` to `grantee`; the grantor pays.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn create(programs: &ProgramIds, grantor: Address, grantee: Address) -> Result<Instruction, ChainError> {
    let authorization = addresses::authorization(programs, grantor, grantee);
    let accounts = vec![payer(grantor), signer(grantor), written(authorization), read(SYSTEM)];
    let args = AuthorizationCreateArgs { grantee: grantee.0, scope: ids::JOIN_SCOPE };
    build("authorization_create", programs.authorizer, accounts, &args)
}

/// Switches a grant on or off.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn set_active(programs: &ProgramIds, grantor: Address, grantee: Address, active: bool) -> Result<Instruction, ChainError> {
    let authorization = addresses::authorization(programs, grantor, grantee);
    let accounts = vec![signer(grantor), written(authorization)];
    build("authorization_grantor_update", programs.authorizer, accounts, &AuthorizationGrantorUpdateArgs { active })
}

/// Names the keys that act for `grantee`, who signs and pays.
///
/// # Errors
/// [`ChainError::Encode`] for more delegates than fit.
pub fn delegate(
    programs: &ProgramIds,
    grantor: Address,
    grantee: Address,
    args: &AuthorizationGranteeUpdateArgs<'_>,
) -> Result<Instruction, ChainError> {
    let authorization = addresses::authorization(programs, grantor, grantee);
    let accounts = vec![payer(grantee), signer(grantee), written(authorization), read(SYSTEM)];
    build("authorization_grantee_update", programs.authorizer, accounts, args)
}

/// Closes an inactive grant; its rent goes to `spill`.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn close(programs: &ProgramIds, grantor: Address, grantee: Address, spill: Address) -> Result<Instruction, ChainError> {
    let authorization = addresses::authorization(programs, grantor, grantee);
    let accounts = vec![signer(grantor), written(spill), written(authorization), read(SYSTEM)];
    build("authorization_close", programs.authorizer, accounts, &AuthorizationCloseArgs)
}
