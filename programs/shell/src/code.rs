//! The error codes below 6000, as Anchor numbers them.

use pinocchio::error::ProgramError;

/// The instruction data is shorter than a discriminator.
pub const INSTRUCTION_MISSING: ProgramError = ProgramError::Custom(100);
/// No instruction has this discriminator.
pub const INSTRUCTION_FALLBACK_NOT_FOUND: ProgramError = ProgramError::Custom(101);
/// The instruction's arguments do not decode.
pub const INSTRUCTION_DID_NOT_DESERIALIZE: ProgramError = ProgramError::Custom(102);
/// An account that is written to was passed read-only.
pub const CONSTRAINT_MUT: ProgramError = ProgramError::Custom(2000);
/// A rule between accounts does not hold.
pub const CONSTRAINT_RAW: ProgramError = ProgramError::Custom(2003);
/// An account's address is not the one that its seeds give.
pub const CONSTRAINT_SEEDS: ProgramError = ProgramError::Custom(2006);
/// An account is not the associated token account of its mint and owner.
pub const CONSTRAINT_ASSOCIATED: ProgramError = ProgramError::Custom(2009);
/// An account to be initialised already carries a discriminator.
pub const CONSTRAINT_ZERO: ProgramError = ProgramError::Custom(2013);
/// A token account belongs to somebody else.
pub const CONSTRAINT_TOKEN_OWNER: ProgramError = ProgramError::Custom(2015);
/// An account is too short for a discriminator.
pub const ACCOUNT_DISCRIMINATOR_NOT_FOUND: ProgramError = ProgramError::Custom(3001);
/// An account is of another type.
pub const ACCOUNT_DISCRIMINATOR_MISMATCH: ProgramError = ProgramError::Custom(3002);
/// An account's contents do not decode.
pub const ACCOUNT_DID_NOT_DESERIALIZE: ProgramError = ProgramError::Custom(3003);
/// Fewer accounts were passed than the instruction takes.
pub const ACCOUNT_NOT_ENOUGH_KEYS: ProgramError = ProgramError::Custom(3005);
/// An account belongs to another program.
pub const ACCOUNT_OWNED_BY_WRONG_PROGRAM: ProgramError = ProgramError::Custom(3007);
/// The account in a program's place is another program.
pub const INVALID_PROGRAM_ID: ProgramError = ProgramError::Custom(3008);
/// The account in a program's place is not a program.
pub const INVALID_PROGRAM_EXECUTABLE: ProgramError = ProgramError::Custom(3009);
/// An account that has to sign did not.
pub const ACCOUNT_NOT_SIGNER: ProgramError = ProgramError::Custom(3010);
/// An account that has to exist does not.
pub const ACCOUNT_NOT_INITIALIZED: ProgramError = ProgramError::Custom(3012);
/// The program was deployed under another id than the one compiled into it.
pub const DECLARED_PROGRAM_ID_MISMATCH: ProgramError = ProgramError::Custom(4100);
/// What the system program answers when an account to be created is in use.
pub const ACCOUNT_ALREADY_IN_USE: ProgramError = ProgramError::Custom(0);
