//! What an account is for, and from it: what anything else in its place is refused with.

use psyche_protocol::accounts::{Authorization, CoordinatorInstance, Participant, Run};
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::machine::CoordinatorError;
use psyche_protocol::{Pubkey, ids, pda};
use solana_instruction::error::InstructionError;

use super::super::chain::{Refusal, derive};
use super::super::codes::*;

/// Bytes of a mint and of a token account.
const MINT_LEN: usize = 82;
const TOKEN_ACCOUNT_LEN: usize = 165;

/// Accounts that our programs make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Authorization,
    Instance,
    Account,
    Run,
    Participant,
}

impl Kind {
    pub(super) const fn owner(self) -> Pubkey {
        match self {
            Self::Authorization => ids::AUTHORIZER,
            Self::Instance | Self::Account => ids::COORDINATOR,
            Self::Run | Self::Participant => ids::TREASURER,
        }
    }

    const fn discriminator(self) -> [u8; 8] {
        match self {
            Self::Authorization => Authorization::DISCRIMINATOR,
            Self::Instance => CoordinatorInstance::DISCRIMINATOR,
            Self::Account => CoordinatorAccount::DISCRIMINATOR,
            Self::Run => Run::DISCRIMINATOR,
            Self::Participant => Participant::DISCRIMINATOR,
        }
    }

    /// The seeds that the data says; `None` where it says none.
    fn address(self, data: &[u8]) -> Option<Pubkey> {
        let address = match self {
            Self::Authorization => {
                let found = Authorization::decode(data).ok()?;
                derive(&pda::authorization(&found.grantor, &found.grantee, found.scope), &self.owner())
            }
            Self::Instance => derive(&pda::coordinator_instance(CoordinatorInstance::decode(data).ok()?.run_id), &self.owner()),
            Self::Run => derive(&pda::run(&Run::decode(data).ok()?.index.to_le_bytes()), &self.owner()),
            Self::Account | Self::Participant => return None,
        };
        Some(address.0)
    }

    /// Whether the account's contents are read as Borsh before anything else is compared.
    fn decodes(self, data: &[u8]) -> bool {
        match self {
            Self::Authorization => Authorization::decode(data).is_ok(),
            Self::Instance => CoordinatorInstance::decode(data).is_ok(),
            Self::Run => Run::decode(data).is_ok(),
            Self::Participant => Participant::decode(data).is_ok(),
            Self::Account => true,
        }
    }
}

/// What an account is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Signs, and it does not matter who.
    Anyone,
    /// Signs, and must be who it is; anybody else gets this code.
    Party(u32),
    /// Receives lamports.
    Spill,
    /// Is of a type of ours and belongs to the others; one that does not gets this code.
    Ours(Kind, u32),
    /// Must be this one account of the owner of this kind; what it holds is left to that owner.
    Linked(Kind, u32),
    /// Will be created, at its derived address.
    Fresh,
    /// Will become a coordinator account. Read-only ones are found out before (true) or after (false) anything else.
    Blank(bool),
    /// Is a program.
    Program,
    /// Is a mint.
    Mint,
    /// Will be the run's token account, by the associated token program.
    FreshTokens,
    /// Is a token account and belongs to the others; one that does not gets this code.
    Tokens(u32),
}

/// An account as it is on chain, in the place of another.
pub(super) struct Given {
    pub(super) key: Pubkey,
    pub(super) owner: Pubkey,
    pub(super) lamports: u64,
    pub(super) data: Vec<u8>,
    /// Passed as writable, but the chain lets nobody write to it.
    pub(super) demoted: bool,
}

impl Given {
    /// Refusal of what does not belong to `owner`.
    fn owned_by(&self, owner: &Pubkey) -> Result<(), Refusal> {
        if self.owner == *owner {
            return Ok(());
        }
        let absent = self.lamports == 0 && self.owner == ids::SYSTEM_PROGRAM;
        Err(Refusal::Custom(if absent { ACCOUNT_NOT_INITIALIZED } else { ACCOUNT_OWNED_BY_WRONG_PROGRAM }))
    }

    fn is_a(&self, kind: Kind) -> Result<(), Refusal> {
        self.owned_by(&kind.owner())?;
        let found = self.data.first_chunk::<8>().ok_or(Refusal::Custom(ACCOUNT_DISCRIMINATOR_NOT_FOUND))?;
        if *found != kind.discriminator() {
            return Err(Refusal::Custom(ACCOUNT_DISCRIMINATOR_MISMATCH));
        }
        if kind.decodes(&self.data) { Ok(()) } else { Err(Refusal::Custom(ACCOUNT_DID_NOT_DESERIALIZE)) }
    }

    /// Refusal of what is no initialised token account, or mint, of this length; its state is at `state_at`.
    fn token_program_made(&self, len: usize, state_at: usize) -> Result<(), Refusal> {
        self.owned_by(&ids::TOKEN_PROGRAM)?;
        if self.data.len() != len {
            return Err(Refusal::Other(InstructionError::InvalidAccountData));
        }
        if self.data[state_at] == 0 { Err(Refusal::Other(InstructionError::UninitializedAccount)) } else { Ok(()) }
    }
}

impl Role {
    /// What `given` is answered in this role, in which it is not the right account; `Ok` where it will do.
    pub(super) fn answer(self, given: &Given) -> Result<(), Refusal> {
        let read_only = if given.demoted { Err(Refusal::Custom(CONSTRAINT_MUT)) } else { Ok(()) };
        match self {
            Self::Anyone | Self::Spill => read_only,
            Self::Party(code) => Err(Refusal::Custom(code)),
            Self::Ours(kind, code) => {
                given.is_a(kind)?;
                let misplaced = kind.address(&given.data).is_some_and(|address| address != given.key);
                Err(Refusal::Custom(if misplaced { CONSTRAINT_SEEDS } else { code }))
            }
            Self::Linked(kind, code) => {
                given.owned_by(&kind.owner())?;
                Err(Refusal::Custom(code))
            }
            Self::Fresh => {
                read_only?;
                Err(Refusal::Custom(CONSTRAINT_SEEDS))
            }
            Self::Blank(first) => {
                if first {
                    read_only?;
                }
                given.owned_by(&ids::COORDINATOR)?;
                let wrong_size = given.data.len() != CoordinatorAccount::SIZE;
                let code = if wrong_size {
                    CoordinatorError::CoordinatorAccountIncorrectSize
                } else {
                    CoordinatorError::AccountAlreadyInitialized
                };
                Err(Refusal::Custom(code.code()))
            }
            Self::Program => Err(Refusal::Custom(INVALID_PROGRAM_ID)),
            Self::Mint => {
                given.token_program_made(MINT_LEN, 45)?;
                Err(Refusal::Other(InstructionError::InvalidSeeds))
            }
            Self::FreshTokens => {
                read_only?;
                Err(Refusal::Other(InstructionError::InvalidSeeds))
            }
            Self::Tokens(code) => {
                given.token_program_made(TOKEN_ACCOUNT_LEN, 108)?;
                Err(Refusal::Custom(code))
            }
        }
    }
}
