//! The numbers that programs refuse with, as types, each with a sentence of its own that tells a person what is the matter.
//!
//! Sources: ABI sections 1.1 and 1.3 for the coordinator, the authorizer and the treasurer, with the checks of ours beyond;
//! the framework's, the system program's and the token programs' published lists of codes for theirs.

use core::fmt;

use psyche_protocol::books::{AuthorizerError, TreasurerError};
use psyche_protocol::machine::CoordinatorError;

use super::ProgramName;

/// Declares the codes of a program and their sentences.
macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident { $($(#[$code_doc:meta])* $code_name:ident = $code:literal: $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$code_doc])* #[doc = $text] $code_name = $code,)+
        }

        impl $name {
            /// Every refusal, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$code_name,)+];

            /// The refusal with this code, if there is one.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$code_name),)+
                    _ => None,
                }
            }

            /// What it means.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$code_name => $text,)+
                }
            }
        }
    };
}

refusals! {
    /// Why the framework of the deployed programs refuses, before a program looks at its arguments. Our programs use the same
    /// codes.
    FrameworkRefusal {
        InstructionMissing = 100: "the call names no instruction",
        InstructionFallbackNotFound = 101: "the program does not know this instruction: it may be of another version",
        InstructionDidNotDeserialize = 102: "the program can't read the arguments: it may be of another version",
        InstructionDidNotSerialize = 103: "the program can't pass its arguments on",
        IdlInstructionStub = 1000: "the program was built without its interface's instructions",
        IdlInstructionInvalidProgram = 1001: "the interface belongs to another program",
        IdlAccountNotEmpty = 1002: "the interface's account is not empty",
        EventInstructionStub = 1500: "the program was built without its event instructions",
        ConstraintMut = 2000: "an account that is written was passed as read-only",
        ConstraintHasOne = 2001: "an account names another account than the one that was passed",
        ConstraintSigner = 2002: "somebody who must agree did not sign",
        ConstraintRaw = 2003: "an account does not satisfy a condition: the authorization may be inactive or for somebody else, or the wallet not the owner",
        ConstraintOwner = 2004: "an account has another owner than it must",
        ConstraintRentExempt = 2005: "an account does not hold enough to stay",
        ConstraintSeeds = 2006: "an account is not at the address that its seeds give",
        ConstraintExecutable = 2007: "an account that must be a program is none",
        ConstraintState = 2008: "an account is in another state than it must be",
        ConstraintAssociated = 2009: "a token account is not the one that belongs to its owner and token",
        ConstraintAssociatedInit = 2010: "a token account can't be made where it belongs",
        ConstraintClose = 2011: "an account can't be closed into itself",
        ConstraintAddress = 2012: "an account is at another address than the one that is needed",
        ConstraintZero = 2013: "an account that must be new is in use",
        ConstraintTokenMint = 2014: "a token account is for another token",
        ConstraintTokenOwner = 2015: "a token account belongs to somebody else, or somebody else may spend from it",
        ConstraintMintMintAuthority = 2016: "somebody else may mint the token",
        ConstraintMintFreezeAuthority = 2017: "somebody else may freeze the token",
        ConstraintMintDecimals = 2018: "the token has another number of decimals",
        ConstraintSpace = 2019: "an account has another length than it must",
        ConstraintAccountIsNone = 2020: "an account that is needed here was left out",
        ConstraintTokenTokenProgram = 2021: "a token account belongs to another token program",
        ConstraintMintTokenProgram = 2022: "the token belongs to another token program",
        ConstraintAssociatedTokenTokenProgram = 2023: "an associated token account belongs to another token program",
        RequireViolated = 2500: "a condition of the program does not hold",
        RequireEqViolated = 2501: "two values that must be equal differ",
        RequireKeysEqViolated = 2502: "two addresses that must be equal differ",
        RequireNeqViolated = 2503: "two values that must differ are equal",
        RequireKeysNeqViolated = 2504: "two addresses that must differ are equal",
        RequireGtViolated = 2505: "a value is not greater than it must be",
        RequireGteViolated = 2506: "a value is smaller than it may be",
        AccountDiscriminatorAlreadySet = 3000: "an account that must be new holds data already",
        AccountDiscriminatorNotFound = 3001: "an account is too short to hold what is needed",
        AccountDiscriminatorMismatch = 3002: "an account holds another kind of data",
        AccountDidNotDeserialize = 3003: "an account's data can't be read: it may be of another version",
        AccountDidNotSerialize = 3004: "an account's data can't be written",
        AccountNotEnoughKeys = 3005: "too few accounts were passed",
        AccountNotMutable = 3006: "an account can't be written",
        AccountOwnedByWrongProgram = 3007: "an account belongs to another program",
        InvalidProgramId = 3008: "another program was passed than the one that is needed",
        InvalidProgramExecutable = 3009: "what was passed as a program can't run",
        AccountNotSigner = 3010: "a required signature is missing",
        AccountNotSystemOwned = 3011: "an account that must be an ordinary wallet belongs to a program",
        AccountNotInitialized = 3012: "a required account does not exist: without an authorization nobody joins",
        AccountNotProgramData = 3013: "an account does not hold a program's bytes",
        AccountNotAssociatedTokenAccount = 3014: "an account is not its owner's token account for this token",
        AccountSysvarMismatch = 3015: "another system account was passed than the one that is needed",
        AccountReallocExceedsLimit = 3016: "an account can't grow that much at once",
        AccountDuplicateReallocs = 3017: "an account can't change its length twice in one call",
        DeclaredProgramIdMismatch = 4100: "the program runs under another id than it was built for",
        TryingToInitPayerAsProgramAccount = 4101: "the paying wallet can't become a program's account",
        InvalidNumericConversion = 4102: "a number does not fit where it must go",
        Deprecated = 5000: "the instruction is no longer offered",
    }
}

refusals! {
    /// Why Solana's system program refuses.
    SystemRefusal {
        AccountAlreadyInUse = 0: "the account to be created exists already",
        ResultWithNegativeLamports = 1: "the paying account does not hold enough",
        InvalidProgramId = 2: "an account can't be given to this program",
        InvalidAccountDataLength = 3: "an account can't have this length",
        MaxSeedLengthExceeded = 4: "a seed of an address is too long",
        AddressWithSeedMismatch = 5: "an address does not follow from its seed",
        NonceNoRecentBlockhashes = 6: "the chain has no recent blockhash for a nonce",
        NonceBlockhashNotExpired = 7: "the nonce can't advance within one block",
        NonceUnexpectedBlockhashValue = 8: "the nonce holds another value than was expected",
    }
}

refusals! {
    /// Why the SPL token program refuses.
    TokenRefusal {
        NotRentExempt = 0: "the token account would not hold enough to stay",
        InsufficientFunds = 1: "the token account does not hold enough",
        InvalidMint = 2: "what was passed as the token is none",
        MintMismatch = 3: "the token account is for another token",
        OwnerMismatch = 4: "the token account belongs to another owner",
        FixedSupply = 5: "the token's supply is fixed: no more can be minted",
        AlreadyInUse = 6: "the token account is in use already",
        InvalidNumberOfProvidedSigners = 7: "the token's owner is a group, and another number of its members signed",
        InvalidNumberOfRequiredSigners = 8: "a group of owners can't require this number of signatures",
        UninitializedState = 9: "the token account has not been set up",
        NativeNotSupported = 10: "wrapped SOL does not allow this",
        NonNativeHasBalance = 11: "the token account still holds tokens",
        InvalidInstruction = 12: "the token program does not know this instruction",
        InvalidState = 13: "the token account's state does not allow this",
        Overflow = 14: "the amount of tokens is too large to be counted",
        AuthorityTypeNotSupported = 15: "this kind of authority does not exist for the account",
        MintCannotFreeze = 16: "the token can't be frozen",
        AccountFrozen = 17: "the token account is frozen",
        MintDecimalsMismatch = 18: "the token has another number of decimals than was said",
        NonNativeNotSupported = 19: "only wrapped SOL allows this",
    }
}

refusals! {
    /// Why the associated token account program refuses.
    AssociatedTokenRefusal {
        InvalidOwner = 0: "the associated token account belongs to somebody else",
    }
}

/// Why a program refused an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProgramRefusal {
    /// The coordinator's own code.
    Coordinator(CoordinatorError),
    /// The authorizer's own code.
    Authorizer(AuthorizerError),
    /// The treasurer's own code.
    Treasurer(TreasurerError),
    /// The framework's code, in one of these three.
    Framework(FrameworkRefusal),
    /// The system program's.
    System(SystemRefusal),
    /// The token program's.
    Token(TokenRefusal),
    /// The associated token account program's.
    AssociatedToken(AssociatedTokenRefusal),
    /// A code that nobody here knows.
    Unknown(u32),
}

/// Codes of a program's own begin here; the framework's lie below.
const OWN_CODES_FROM: u32 = 6000;

impl ProgramRefusal {
    /// What `program` means by `code`.
    #[must_use]
    pub fn of(program: ProgramName, code: u32) -> Self {
        let framework = || FrameworkRefusal::from_code(code).map(Self::Framework);
        let known = match program {
            ProgramName::Coordinator if code >= OWN_CODES_FROM => CoordinatorError::from_code(code).map(Self::Coordinator),
            ProgramName::Authorizer if code >= OWN_CODES_FROM => AuthorizerError::from_code(code).map(Self::Authorizer),
            ProgramName::Treasurer if code >= OWN_CODES_FROM => TreasurerError::from_code(code).map(Self::Treasurer),
            ProgramName::Coordinator | ProgramName::Authorizer | ProgramName::Treasurer => framework(),
            ProgramName::System => SystemRefusal::from_code(code).map(Self::System),
            ProgramName::Token => TokenRefusal::from_code(code).map(Self::Token),
            ProgramName::AssociatedToken => AssociatedTokenRefusal::from_code(code).map(Self::AssociatedToken),
            ProgramName::Loader | ProgramName::Other(_) => None,
        };
        known.unwrap_or(Self::Unknown(code))
    }

    /// What it means, in a sentence of its own.
    #[must_use]
    pub const fn sentence(&self) -> &'static str {
        match self {
            Self::Coordinator(error) => coordinator(*error),
            Self::Authorizer(error) => authorizer(*error),
            Self::Treasurer(error) => treasurer(*error),
            Self::Framework(refusal) => refusal.sentence(),
            Self::System(refusal) => refusal.sentence(),
            Self::Token(refusal) => refusal.sentence(),
            Self::AssociatedToken(refusal) => refusal.sentence(),
            Self::Unknown(_) => "this code is not known here: the program may be of another version",
        }
    }
}

impl fmt::Display for ProgramRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

const fn coordinator(error: CoordinatorError) -> &'static str {
    use CoordinatorError as E;
    match error {
        E::UpdateConfigFinished => "the run is finished and can't be changed any more",
        E::UpdateConfigNotHalted => "the run must be paused before this can be changed",
        E::CoordinatorAccountIncorrectSize => "the coordinator account has another size or version than the program knows",
        E::ClientsFull => "the run's roster is full: all 256 places hold points, or wallets that were there lately",
        E::ConfigSanityCheckFailed => "the run's configuration contradicts itself",
        E::ModelSanityCheckFailed => "the run's model description is incomplete or contradicts itself",
        E::ProgressSanityCheckFailed => "the run's progress contradicts itself: steps count from 1",
        E::SignerNotAClient => "this wallet is no client of the run's epoch",
        E::SignerMismatch => "the joining identity names another wallet than the one that signed",
        E::CloseCoordinatorNotHalted => "the run must be paused or finished before its accounts can be closed",
        E::NoActiveRound => "no round is in progress",
        E::InvalidWitness => "the witness statement does not fit the current round",
        E::InvalidRunState => "the run is in another phase",
        E::DuplicateWitness => "this client's witness statement is there already",
        E::InvalidHealthCheck => "the health check accuses a client that is healthy or not there",
        E::Halted => "the run is halted: it is paused, finished, or was never started",
        E::InvalidCheckpoint => "the checkpoint names no place where weights could be",
        E::WitnessesFull => "the round has all the witness statements that it takes",
        E::CannotResume => "the run can't be resumed, since it is not paused",
        E::InvalidWithdraw => "the client can't be withdrawn in its present state",
        E::InvalidCommitteeSelection => "the committee selection is not the one that the seed gives",
        E::InvalidCommitteeProof => "the committee proof does not hold for the current round",
        E::MoreClientsThanBatches => "as many clients have joined for this epoch as the global batch has samples",
        E::RunIdInvalidLength => "the run id is empty or longer than 32 bytes",
        E::InvalidNodeIdentity => "the peer-to-peer key is missing or is no valid key",
        E::InvalidClientVersion => "the client version is longer than 96 bytes",
        E::AccountAlreadyInitialized => "the account is in use for a run already",
        E::StepsDone => "all steps of the run are done: raise their number before resuming it",
        E::NotElected => "the round elected other members to name the checkpoint; every round draws anew",
        E::CorruptAccount => "the coordinator account holds something that makes no sense",
    }
}

const fn authorizer(error: AuthorizerError) -> &'static str {
    use AuthorizerError as E;
    match error {
        E::WrongParty => "the authorization is somebody else's",
        E::Undecodable => "the account holds no authorization that can be read",
        E::AuthorizationActiveIsTrue => "the authorization is still active; deactivate it first",
        E::AuthorizationClosingConditionsNotReachedYet => {
            "the authorization has delegates and was changed less than 30 days ago"
        }
        E::TooManyDelegates => "the authorization can't hold that many delegates",
    }
}

const fn treasurer(error: TreasurerError) -> &'static str {
    use TreasurerError as E;
    match error {
        E::WrongParty => "the run or an account is somebody else's",
        E::InvalidParameter => "an amount is out of range: a claim may not exceed what was earned, not lost and not claimed",
        E::RunIdInvalidLength => "the run id that the treasury was given is empty or longer than 32 bytes",
        E::TotalsOverflow => "the treasury's totals are full",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use psyche_messages::Address;

    use super::*;

    const PROGRAMS: [ProgramName; 7] = [
        ProgramName::Coordinator,
        ProgramName::Authorizer,
        ProgramName::Treasurer,
        ProgramName::System,
        ProgramName::Token,
        ProgramName::AssociatedToken,
        ProgramName::Loader,
    ];

    fn is_plain(sentence: &str) -> bool {
        let lower = sentence.to_lowercase();
        sentence.len() > 15 && sentence.contains(' ') && !lower.contains("0x") && !sentence.contains(['{', '}', '(', ')', '_'])
    }

    #[test]
    fn every_code_of_the_three_programs_is_known_by_its_own_type() {
        for error in CoordinatorError::ALL {
            assert_eq!(ProgramRefusal::of(ProgramName::Coordinator, error.code()), ProgramRefusal::Coordinator(*error));
        }
        for error in AuthorizerError::ALL.iter().filter(|error| error.code() >= OWN_CODES_FROM) {
            assert_eq!(ProgramRefusal::of(ProgramName::Authorizer, error.code()), ProgramRefusal::Authorizer(*error));
        }
        for error in TreasurerError::ALL.iter().filter(|error| error.code() >= OWN_CODES_FROM) {
            assert_eq!(ProgramRefusal::of(ProgramName::Treasurer, error.code()), ProgramRefusal::Treasurer(*error));
        }
        for code in 6000..=6023 {
            assert!(matches!(ProgramRefusal::of(ProgramName::Coordinator, code), ProgramRefusal::Coordinator(_)), "{code}");
        }
    }

    #[test]
    fn the_framework_speaks_in_our_three_programs_only() {
        for code in [100, 2003, 2006, 3002, 3007, 3010, 3012, 4100] {
            for program in &PROGRAMS[..3] {
                assert!(matches!(ProgramRefusal::of(*program, code), ProgramRefusal::Framework(_)), "{program} {code}");
            }
            for program in &PROGRAMS[3..] {
                assert_eq!(ProgramRefusal::of(*program, code), ProgramRefusal::Unknown(code), "{program} {code}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        /// Every code there is, not samples: the numbers are small.
        #[test]
        fn prop_every_code_has_a_plain_sentence_and_no_two_of_a_program_share_one(address: [u8; 32]) {
            for program in PROGRAMS.into_iter().chain([ProgramName::Other(Address(address))]) {
                let mut sentences = HashSet::new();
                for code in 0..=7_000 {
                    let refusal = ProgramRefusal::of(program, code);
                    prop_assert!(is_plain(refusal.sentence()), "{program} {code}: {refusal}");
                    let known = !matches!(refusal, ProgramRefusal::Unknown(_));
                    prop_assert!(!known || sentences.insert(refusal.sentence()), "{program} {code}: {refusal}");
                }
            }
        }
    }
}
