//! Talking to Solana: endpoints with fail-over, transactions with one life cycle, websockets that never go backwards,
//! wallets, derived addresses, instructions, and what the command line does with them.
//!
//! Nothing here decides anything about training; nothing here knows whether a chain is local. Time comes from the chain.
//!
//! - [`Rpc`]: reads and writes over several endpoints ([`EndpointPair`]).
//! - [`Rpc::submit`] and [`Rpc::submit_until`]: the life cycle of a transaction ([`Plan`]).
//! - [`watch_coordinator`]: one monotonic view of a run's account.
//! - [`Wallet`]: the key, redacted.
//! - [`addresses`]: derived addresses (ABI section 1.1).

pub mod addresses;
mod convert;
mod endpoint;
mod error;
mod program_error;
mod rpc;
mod run;
mod transaction;
mod wallet;
mod watch;

pub use endpoint::{ENDPOINTS_MAX, EndpointError, EndpointPair, RpcUrl, WsUrl};
pub use error::ChainError;
pub use program_error::{ProgramIds, ProgramName};
pub use rpc::{AccountRead, Rpc, RpcConfig, SignatureRecord};
pub use run::{CoordinatorView, RunInfo, watch_coordinator};
pub use solana_instruction::{AccountMeta, Instruction};
pub use solana_signature::Signature;
pub use transaction::{Compute, Confirmed, Plan, Submitted};
pub use wallet::{Wallet, WalletError, WalletWarning};
pub use watch::{Watch, WatchConfig, WatchEvent, Watched, watch_account};
