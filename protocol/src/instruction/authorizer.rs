//! Instructions of the authorizer program.

use super::{Args, no_args};
use crate::Pubkey;
use crate::accounts::{MAX_DELEGATES, MAX_SCOPE_LEN};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// Creates an authorization, inactive. Accounts: payer (signs), grantor (signs), authorization, system program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationCreateArgs<'a> {
    /// Who is permitted; the system program's id means everyone.
    pub grantee: Pubkey,
    /// What is permitted.
    pub scope: &'a [u8],
}

impl<'a> Args<'a> for AuthorizationCreateArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0x14, 0x9d, 0xc4, 0xb3, 0xe7, 0xdf, 0x6d, 0x66];

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { grantee: *r.array()?, scope: r.bytes(MAX_SCOPE_LEN)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.put(&self.grantee)?;
        w.bytes(self.scope)
    }
}

/// The grantor switches an authorization on or off. Accounts: grantor (signs), authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationGrantorUpdateArgs {
    /// Whether it holds from now on.
    pub active: bool,
}

impl Args<'_> for AuthorizationGrantorUpdateArgs {
    const DISCRIMINATOR: [u8; 8] = [0x1d, 0x74, 0x41, 0xa1, 0x61, 0xbd, 0x3a, 0xf9];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { active: r.bool()? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.bool(self.active)
    }
}

/// The grantee names keys that act for it. Accounts: payer (signs), grantee (signs), authorization, system program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationGranteeUpdateArgs<'a> {
    /// Whether to forget the present delegates first.
    pub delegates_clear: bool,
    /// Keys to append.
    pub delegates_added: &'a [Pubkey],
}

impl<'a> Args<'a> for AuthorizationGranteeUpdateArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0xba, 0x6f, 0x7f, 0xc7, 0x59, 0x90, 0xc1, 0x43];

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { delegates_clear: r.bool()?, delegates_added: r.keys(MAX_DELEGATES)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.bool(self.delegates_clear)?;
        w.keys(self.delegates_added)
    }
}

no_args! {
    /// Closes an inactive authorization. Accounts: grantor (signs), spill, authorization, system program.
    AuthorizationCloseArgs = [0x81, 0xd0, 0xf8, 0x20, 0xc8, 0x85, 0x57, 0x17]
}
