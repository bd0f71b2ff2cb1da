//! Error codes of the coordinator program.

use core::fmt;

/// Declares the codes and their texts.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal: $text:literal,)+) => {
        /// Why an instruction was refused; the number is the program's custom error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum CoordinatorError {
            $($(#[$doc])* $name = $code,)+
        }

        impl CoordinatorError {
            /// Every error, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The error with this code, if there is one.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The program's custom error code.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// A finished run cannot be changed.
    UpdateConfigFinished = 6000: "update a finished run",
    /// Rules change only while the run is halted.
    UpdateConfigNotHalted = 6001: "update a run that is not halted",
    /// The coordinator account has another size.
    CoordinatorAccountIncorrectSize = 6002: "use an account of the wrong size",
    /// The roster is full, and no place in it may be given away.
    ClientsFull = 6003: "join a run whose roster is full",
    /// The rules contradict themselves.
    ConfigSanityCheckFailed = 6004: "accept a configuration that contradicts itself",
    /// The model cannot be trained.
    ModelSanityCheckFailed = 6005: "accept a model description that cannot be trained",
    /// Steps count from 1.
    ProgressSanityCheckFailed = 6006: "accept progress without a step",
    /// The signer never joined, or is not of this epoch.
    SignerNotAClient = 6007: "find the signer among the clients",
    /// The identity names another signer.
    SignerMismatch = 6008: "join under another signer's name",
    /// Only a halted run can be closed.
    CloseCoordinatorNotHalted = 6009: "close a run that is not halted",
    /// There is no such round.
    NoActiveRound = 6010: "find the round",
    /// The sender is not the witness that it claims to be.
    InvalidWitness = 6011: "verify the witness",
    /// Not in this state.
    InvalidRunState = 6012: "accept this in the present run state",
    /// One report per witness.
    DuplicateWitness = 6013: "accept a second report from one witness",
    /// The client is healthy, or cannot be judged.
    InvalidHealthCheck = 6014: "confirm the health check",
    /// The run is halted.
    Halted = 6015: "move a halted run",
    /// The checkpoint names nothing that could exist.
    InvalidCheckpoint = 6016: "accept a checkpoint that names no place for weights",
    /// The round has all the witnesses that it can hold.
    WitnessesFull = 6017: "store another witness",
    /// The run is not paused.
    CannotResume = 6018: "resume a run that is not paused",
    /// Reserved by the deployed programs.
    InvalidWithdraw = 6019: "withdraw the client",
    /// The round's numbers contradict each other.
    InvalidCommitteeSelection = 6020: "select the round's committees",
    /// The place in the round is another.
    InvalidCommitteeProof = 6021: "verify the committee proof",
    /// As many clients as samples in a batch have joined for the epoch already.
    MoreClientsThanBatches = 6022: "join an epoch with as many clients as samples",
    /// A run id has 1 to 32 bytes.
    RunIdInvalidLength = 6023: "accept a run id of this length",
    /// A node needs a peer-to-peer key that is one (a check of ours).
    InvalidNodeIdentity = 6024: "accept a node without a valid peer-to-peer key",
    /// A client version has at most 96 bytes (a check of ours).
    InvalidClientVersion = 6025: "accept a client version of this length",
    /// The account was used before (a check of ours beside the framework's).
    AccountAlreadyInitialized = 6026: "initialise an account that is in use",
    /// The account's content makes no sense.
    CorruptAccount = 6027: "read the coordinator account",
    /// All steps are done: the owner has to add some first (a check of ours).
    StepsDone = 6028: "resume a run whose steps are all done",
    /// The round's seed elected others to name the checkpoint (a check of ours).
    NotElected = 6029: "accept a checkpoint from a member that was not elected",
}

impl fmt::Display for CoordinatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for CoordinatorError {}
