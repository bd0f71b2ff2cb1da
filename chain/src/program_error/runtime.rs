//! What the chain itself refuses with, before, around and instead of programs, as sentences of our own.

use solana_instruction::error::InstructionError as I;
use solana_transaction_error::TransactionError as T;

/// What `error` means. Custom codes are not among them: they belong to programs.
pub(crate) const fn sentence(error: &T) -> &'static str {
    match error {
        T::InstructionError(_, error) => instruction(error),
        T::AccountInUse => "an account is being written by another transaction at this moment",
        T::AccountLoadedTwice => "an account is named twice",
        T::AccountNotFound => "the paying wallet does not exist on this chain: it holds nothing",
        T::ProgramAccountNotFound => "the program does not exist on this chain",
        T::InsufficientFundsForFee => "the paying wallet does not hold enough for the fee",
        T::InvalidAccountForFee => "the paying account is no ordinary wallet and can't pay fees",
        T::AlreadyProcessed => "the same transaction is on the chain already",
        T::BlockhashNotFound => "the blockhash is too old, or the endpoint has not seen it yet",
        T::CallChainTooDeep => "programs call each other too deeply",
        T::MissingSignatureForFee => "nobody signed who could pay the fee",
        T::InvalidAccountIndex => "the transaction is malformed: it names an account that it does not list",
        T::SignatureFailure => "a signature does not fit its key",
        T::InvalidProgramForExecution => "what was called is no program",
        T::SanitizeFailure => "the transaction is malformed",
        T::ClusterMaintenance => "the chain takes no transactions at present",
        T::AccountBorrowOutstanding => "a program did not give an account back",
        T::WouldExceedMaxBlockCostLimit => "the block is full",
        T::UnsupportedVersion => "the chain does not know this version of transactions",
        T::InvalidWritableAccount => "an account can't be written that the transaction wants to write",
        T::WouldExceedMaxAccountCostLimit => "the block has no room for more writes to one of the accounts",
        T::WouldExceedAccountDataBlockLimit => "the block has no room for more data",
        T::TooManyAccountLocks => "the transaction names too many accounts",
        T::AddressLookupTableNotFound => "a table of addresses does not exist",
        T::InvalidAddressLookupTableOwner => "a table of addresses belongs to another program",
        T::InvalidAddressLookupTableData => "a table of addresses can't be read",
        T::InvalidAddressLookupTableIndex => "a table of addresses is shorter than it must be",
        T::InvalidRentPayingAccount => "an account would hold less than it must to stay",
        T::WouldExceedMaxVoteCostLimit => "the block has no room for more votes",
        T::WouldExceedAccountDataTotalLimit => "the chain has no room for more data",
        T::DuplicateInstruction(_) => "an instruction is given twice that may be given once",
        T::InsufficientFundsForRent { .. } => "an account would be left with less than it must hold to stay",
        T::MaxLoadedAccountsDataSizeExceeded => "the accounts are larger together than a transaction may load",
        T::InvalidLoadedAccountsDataSizeLimit => "the limit for the size of accounts is no valid one",
        T::ResanitizationNeeded => "the transaction must be checked anew",
        T::ProgramExecutionTemporarilyRestricted { .. } => "a program may not run at present",
        T::UnbalancedTransaction => "lamports would appear or vanish",
        T::ProgramCacheHitMaxLimit => "the chain has too many programs to load at this moment",
        T::CommitCancelled => "the chain gave the transaction up",
    }
}

#[expect(deprecated, reason = "older programs still refuse with what is no longer given out")]
const fn instruction(error: &I) -> &'static str {
    match error {
        I::GenericError => "the program failed without saying why",
        I::InvalidArgument => "the program does not accept an argument",
        I::InvalidInstructionData => "the program can't read the instruction: it may be of another version",
        I::InvalidAccountData => "an account's data is not what the program needs",
        I::AccountDataTooSmall => "an account is too small",
        I::InsufficientFunds => "an account does not hold enough",
        I::IncorrectProgramId => "an account belongs to another program",
        I::MissingRequiredSignature => "a signature is missing",
        I::AccountAlreadyInitialized => "an account is in use already",
        I::UninitializedAccount => "an account has not been set up",
        I::UnbalancedInstruction => "the instruction would make lamports appear or vanish",
        I::ModifiedProgramId => "a program tried to give away an account that is not its own",
        I::ExternalAccountLamportSpend => "a program tried to spend from an account that is not its own",
        I::ExternalAccountDataModified => "a program tried to write into an account that is not its own",
        I::ReadonlyLamportChange => "a program tried to change the balance of an account that it may only read",
        I::ReadonlyDataModified => "a program tried to write into an account that it may only read",
        I::DuplicateAccountIndex => "the instruction names an account twice",
        I::ExecutableModified => "a program tried to make an account a program",
        I::RentEpochModified => "a program tried to change when an account pays rent",
        I::NotEnoughAccountKeys => "too few accounts were given",
        I::AccountDataSizeChanged => "a program tried to change the length of an account that is not its own",
        I::AccountNotExecutable => "what was called can't run",
        I::AccountBorrowFailed => "an account is in use by the same call",
        I::AccountBorrowOutstanding => "an account was not given back",
        I::DuplicateAccountOutOfSync => "an account that was given twice ended in two states",
        I::Custom(_) => "the program refuses",
        I::InvalidError => "the program failed with a reason that is none",
        I::ExecutableDataModified => "a program tried to write into a program",
        I::ExecutableLamportChange => "a program tried to change the balance of a program",
        I::ExecutableAccountNotRentExempt => "a program's account does not hold enough to stay",
        I::UnsupportedProgramId => "the chain does not run this program",
        I::CallDepth => "programs call each other too deeply",
        I::MissingAccount => "an account that is needed was not given",
        I::ReentrancyNotAllowed => "a program was called while it was running",
        I::MaxSeedLengthExceeded => "a seed of an address is too long",
        I::InvalidSeeds => "no address follows from the seeds",
        I::InvalidRealloc => "an account can't grow that much",
        I::ComputationalBudgetExceeded => "the instruction takes more compute units than it was given",
        I::PrivilegeEscalation => "a program tried to do what nobody signed for",
        I::ProgramEnvironmentSetupFailure => "the chain could not prepare the program's run",
        I::ProgramFailedToComplete => "the program broke off: it panicked, or its compute units ran out",
        I::ProgramFailedToCompile => "the chain can't run the program's bytes",
        I::Immutable => "the account can't be changed",
        I::IncorrectAuthority => "somebody else has the authority for this",
        I::BorshIoError => "the program can't read or write its data",
        I::AccountNotRentExempt => "an account would not hold enough to stay",
        I::InvalidAccountOwner => "an account has another owner than it must",
        I::ArithmeticOverflow => "a number became too large",
        I::UnsupportedSysvar => "the chain does not offer a system account that the program reads",
        I::IllegalOwner => "an account can't be given to this owner",
        I::MaxAccountsDataAllocationsExceeded => "the transaction makes more room than it may",
        I::MaxAccountsExceeded => "the instruction touches more accounts than it may",
        I::MaxInstructionTraceLengthExceeded => "programs call each other too often",
        I::BuiltinProgramsMustConsumeComputeUnits => "a program of the chain took no compute units",
    }
}

/// Whether the chain refuses because of the moment: the same transaction may well be taken a moment later.
pub(crate) const fn passes(error: &T) -> bool {
    matches!(
        error,
        T::AccountInUse
            | T::BlockhashNotFound
            | T::ClusterMaintenance
            | T::WouldExceedMaxBlockCostLimit
            | T::WouldExceedMaxAccountCostLimit
            | T::WouldExceedAccountDataBlockLimit
            | T::WouldExceedMaxVoteCostLimit
            | T::ResanitizationNeeded
            | T::ProgramExecutionTemporarilyRestricted { .. }
            | T::ProgramCacheHitMaxLimit
            | T::CommitCancelled
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_meet_is_told_apart() {
        let met = [
            T::AccountInUse,
            T::AccountNotFound,
            T::InsufficientFundsForFee,
            T::InsufficientFundsForRent { account_index: 1 },
            T::BlockhashNotFound,
            T::AlreadyProcessed,
            T::ProgramAccountNotFound,
            T::WouldExceedMaxBlockCostLimit,
            T::InstructionError(0, I::ComputationalBudgetExceeded),
            T::InstructionError(0, I::ProgramFailedToComplete),
            T::InstructionError(0, I::MissingRequiredSignature),
            T::InstructionError(0, I::InsufficientFunds),
        ];
        let sentences: std::collections::HashSet<_> = met.iter().map(sentence).collect();
        assert_eq!(sentences.len(), met.len());
    }

    #[test]
    fn only_what_the_moment_brings_is_tried_again() {
        assert!(passes(&T::AccountInUse) && passes(&T::BlockhashNotFound));
        assert!(!passes(&T::InsufficientFundsForFee) && !passes(&T::AlreadyProcessed));
        assert!(!passes(&T::InstructionError(0, I::Custom(6012))));
    }
}
