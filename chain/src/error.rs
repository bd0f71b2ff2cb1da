//! One error type for everything that is said to a chain, with a verdict about trying again.

use core::time::Duration;

use psyche_messages::{Address, Backoff, Lamports, Retry, Slot};
use psyche_protocol::codec::{DecodeError, EncodeError};
use psyche_protocol::layout::LayoutError;
use solana_client::client_error::reqwest;
use solana_signature::Signature;
use solana_transaction_error::TransactionError;
use thiserror::Error;

use crate::endpoint::EndpointError;
use crate::ops::Obstacle;
use crate::program_error::{ProgramName, ProgramRefusal, passes, sentence};
use crate::wallet::WalletError;

/// Pause after which a call that failed of the moment may be repeated.
const PAUSE: Backoff = match Backoff::new(Duration::from_millis(250), Duration::from_secs(15), 200, 50) {
    Ok(backoff) => backoff,
    Err(_) => panic!("a constant schedule must be valid"),
};

/// An endpoint is on another cluster than the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("use {endpoint}: its genesis hash is {genesis}, but that of {others} is {expected}: they are on different clusters")]
pub struct ClusterMismatch {
    /// The endpoint without its keys.
    pub endpoint: String,
    /// Its place among the configured pairs.
    pub pair: usize,
    /// What it names.
    pub genesis: String,
    /// Who names what is believed, without keys.
    pub others: String,
    /// Their places among the configured pairs.
    pub other_pairs: Vec<usize>,
    /// What is believed.
    pub expected: String,
}

/// Why something that was said to a chain failed.
#[derive(Debug, Error)]
pub enum ChainError {
    /// An endpoint is no endpoint.
    #[error("use the endpoints")]
    Endpoint(#[from] EndpointError),
    /// A wallet can't be read or written.
    #[error("use the wallet")]
    Wallet(#[from] WalletError),
    /// No connection, or it broke.
    #[error("reach {endpoint}")]
    Unreachable {
        /// The endpoint without its keys.
        endpoint: String,
        /// What the transport says; its URL is removed.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP server answered with a status other than success.
    #[error("get an answer from {endpoint}: HTTP status {status}")]
    Http {
        /// The endpoint without its keys.
        endpoint: String,
        /// The status: 429 means too many requests.
        status: u16,
        /// How long the server wants to be left alone, if it says so.
        retry_after: Option<Duration>,
    },
    /// No endpoint can be asked: all of them failed, and those who probe them now got no answer either.
    #[error("find an endpoint that answers among {endpoints}")]
    NoneHealthy {
        /// How many there are.
        endpoints: usize,
    },
    /// An endpoint is on another cluster than the others. It is not used.
    #[error(transparent)]
    WrongCluster(Box<ClusterMismatch>),
    /// No answer in time.
    #[error("get an answer from {endpoint} within {after:?}")]
    Timeout {
        /// The endpoint without its keys.
        endpoint: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is not what the protocol promises.
    #[error("read the answer of {endpoint} to {method}")]
    Malformed {
        /// The endpoint without its keys.
        endpoint: String,
        /// What was asked.
        method: &'static str,
    },
    /// The endpoint can't answer now, though another may.
    #[error("get an answer to {method} from {endpoint}: code {code}")]
    Unfit {
        /// The endpoint without its keys.
        endpoint: String,
        /// What was asked.
        method: &'static str,
        /// The JSON-RPC code.
        code: i64,
    },
    /// The endpoint has not seen the slot that was asked for.
    #[error("read a state at or after slot {slot} from {endpoint}")]
    Behind {
        /// The endpoint without its keys.
        endpoint: String,
        /// The slot that it should have reached.
        slot: Slot,
    },
    /// The request itself is refused, wherever it is sent.
    #[error("have {method} accepted: code {code}")]
    Refused {
        /// What was asked.
        method: &'static str,
        /// The JSON-RPC code.
        code: i64,
    },
    /// A program refused an instruction.
    #[error("run {purpose}: the {program} refuses with code {code} ({refusal})")]
    Program {
        /// What the transaction was for.
        purpose: &'static str,
        /// Which program.
        program: ProgramName,
        /// Its code.
        code: u32,
        /// What it means by it.
        refusal: ProgramRefusal,
    },
    /// The payer does not hold enough.
    #[error("pay for {purpose}: {address} holds {balance} lamports")]
    InsufficientFunds {
        /// What the transaction was for.
        purpose: &'static str,
        /// Who should have paid.
        address: Address,
        /// What it holds.
        balance: Lamports,
    },
    /// The chain refused the transaction for another reason.
    #[error("run {purpose}: {}", sentence(.reason))]
    Transaction {
        /// What the transaction was for.
        purpose: &'static str,
        /// The chain's reason.
        reason: Box<TransactionError>,
    },
    /// The transaction did not get into a block while its blockhash was valid. It never will.
    #[error("see {purpose} confirmed before its blockhash expired: transaction {signature}")]
    Expired {
        /// What the transaction was for.
        purpose: &'static str,
        /// Its signature.
        signature: Signature,
    },
    /// It is not known whether the transaction landed, and it still may.
    #[error("learn in time what became of {purpose}: transaction {signature} may be on the chain, or come there yet")]
    Unsettled {
        /// What the transaction was for.
        purpose: &'static str,
        /// Its signature.
        signature: Signature,
    },
    /// The transaction does not fit into a packet.
    #[error("build {purpose}: {len} bytes are more than a transaction may have")]
    TooLarge {
        /// What the transaction was for.
        purpose: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The transaction could not be signed or encoded.
    #[error("build {purpose}: {reason}")]
    Build {
        /// What the transaction was for.
        purpose: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A transaction is on the chain, and no endpoint keeps it.
    #[error("find the transaction {signature} in any endpoint's history")]
    HistoryMissing {
        /// Its signature.
        signature: Signature,
    },
    /// An account that must exist does not.
    #[error("find the {what} at {address}")]
    AccountMissing {
        /// What was looked for.
        what: &'static str,
        /// Where.
        address: Address,
    },
    /// An account belongs to another program than it should.
    #[error("use the {what} at {address}: it belongs to {owner}")]
    AccountOwner {
        /// What was looked for.
        what: &'static str,
        /// Where.
        address: Address,
        /// Who owns it.
        owner: Address,
    },
    /// A Borsh account does not decode.
    #[error("read the {what} at {address}")]
    AccountMalformed {
        /// What was looked for.
        what: &'static str,
        /// Where.
        address: Address,
        /// What is wrong with its bytes.
        #[source]
        source: DecodeError,
    },
    /// A coordinator account has another layout.
    #[error("read the coordinator account at {address}")]
    AccountLayout {
        /// Where.
        address: Address,
        /// What is wrong with its bytes.
        #[source]
        source: LayoutError,
    },
    /// Arguments do not fit into an instruction.
    #[error("encode the arguments of {instruction}")]
    Encode {
        /// Which instruction.
        instruction: &'static str,
        /// What does not fit.
        #[source]
        source: EncodeError,
    },
    /// Something stands in the way, which was found before anything was sent.
    #[error("{action}: {obstacle}")]
    Obstructed {
        /// What was asked for, as an infinitive.
        action: &'static str,
        /// What stands in the way.
        obstacle: Obstacle,
    },
    /// What was asked for makes no sense for this run or wallet.
    #[error("{action}: {reason}")]
    NotPossible {
        /// What was asked for, as an infinitive.
        action: &'static str,
        /// Why not.
        reason: String,
    },
}

impl ChainError {
    /// What the caller may do about it. Calls of [`crate::Rpc`] have tried every endpoint already when they return an error,
    /// so `NextEndpoint` means: some other endpoint than those that are configured.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Transaction { reason, .. } if passes(reason) => Retry::After(PAUSE),
            Self::Unfit { .. } | Self::HistoryMissing { .. } => Retry::NextEndpoint,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Malformed { .. }
            | Self::Http { .. }
            | Self::Behind { .. }
            | Self::NoneHealthy { .. }
            | Self::Expired { .. } => Retry::After(PAUSE),
            _ => Retry::Never,
        }
    }

    /// Whether another endpoint may answer the same call.
    pub(crate) const fn moves_on(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::Malformed { .. }
                | Self::Unfit { .. }
                | Self::Http { .. }
                | Self::Behind { .. }
        )
    }

    /// Whether the endpoint wants to be left alone for a while.
    pub(crate) const fn is_rate_limit(&self) -> bool {
        matches!(self, Self::Http { status: 429, .. } | Self::Http { status: 503, retry_after: Some(_), .. })
    }

    /// The code with which `program` refused, if it did.
    #[must_use]
    pub fn program_code(&self, wanted: ProgramName) -> Option<u32> {
        match self {
            Self::Program { program, code, .. } if *program == wanted => Some(*code),
            _ => None,
        }
    }
}
