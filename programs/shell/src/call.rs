//! One instruction as the runtime hands it over.

use pinocchio::{AccountView, Address, error::ProgramError};
use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{self, Args};

use crate::{account::ensure, code};

/// An instruction, undecoded. One thin value, because the bytecode passes at most five arguments to a function.
pub struct Call<'a> {
    program: &'a Address,
    accounts: &'a mut [AccountView],
    data: &'a [u8],
}

impl<'a> Call<'a> {
    /// The instruction, and its discriminator to dispatch on. Refuses a program that runs under another id than the
    /// `declared` one, for which its addresses would not fit.
    pub fn new(
        declared: &Pubkey,
        program: &'a Address,
        accounts: &'a mut [AccountView],
        data: &'a [u8],
    ) -> Result<([u8; 8], Self), ProgramError> {
        ensure(program.as_array() == declared, code::DECLARED_PROGRAM_ID_MISMATCH)?;
        let discriminator = instruction::discriminator(data).ok_or(code::INSTRUCTION_MISSING)?;
        Ok((*discriminator, Self { program, accounts, data }))
    }

    /// Decodes the arguments and takes the first `N` accounts; further ones are ignored.
    #[inline]
    pub fn open<A: Args<'a>, const N: usize>(self) -> Result<(&'a Address, &'a mut [AccountView; N], A), ProgramError> {
        let args = A::decode(self.data).map_err(|_| code::INSTRUCTION_DID_NOT_DESERIALIZE)?;
        let accounts = self.accounts.first_chunk_mut::<N>().ok_or(code::ACCOUNT_NOT_ENOUGH_KEYS)?;
        Ok((self.program, accounts, args))
    }
}
