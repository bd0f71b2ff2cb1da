//! Error codes as clients see them, written down once more independently of the programs.

pub(crate) const ALREADY_IN_USE: u32 = 0;
pub(crate) const INSTRUCTION_MISSING: u32 = 100;
pub(crate) const INSTRUCTION_FALLBACK_NOT_FOUND: u32 = 101;
pub(crate) const INSTRUCTION_DID_NOT_DESERIALIZE: u32 = 102;
pub(crate) const CONSTRAINT_MUT: u32 = 2000;
pub(crate) const CONSTRAINT_RAW: u32 = 2003;
pub(crate) const CONSTRAINT_SEEDS: u32 = 2006;
pub(crate) const CONSTRAINT_ASSOCIATED: u32 = 2009;
pub(crate) const CONSTRAINT_TOKEN_OWNER: u32 = 2015;
pub(crate) const ACCOUNT_DISCRIMINATOR_NOT_FOUND: u32 = 3001;
pub(crate) const ACCOUNT_DISCRIMINATOR_MISMATCH: u32 = 3002;
pub(crate) const ACCOUNT_DID_NOT_DESERIALIZE: u32 = 3003;
pub(crate) const ACCOUNT_NOT_ENOUGH_KEYS: u32 = 3005;
pub(crate) const ACCOUNT_OWNED_BY_WRONG_PROGRAM: u32 = 3007;
pub(crate) const INVALID_PROGRAM_ID: u32 = 3008;
pub(crate) const INVALID_PROGRAM_EXECUTABLE: u32 = 3009;
pub(crate) const ACCOUNT_NOT_SIGNER: u32 = 3010;
pub(crate) const ACCOUNT_NOT_INITIALIZED: u32 = 3012;
pub(crate) const DECLARED_PROGRAM_ID_MISMATCH: u32 = 4100;
