//! Talking to Solana: endpoints with fail-over, transactions with one life cycle, websockets that never go backwards,
//! wallets, derived addresses, instructions, and what nodes and commands do with them.
//!
//! Nothing here decides anything about training; nothing here knows whether a chain is local. Time comes from the chain.
//!
//! - [`rpc`]: [`Rpc`] reads and writes over several endpoints ([`EndpointPair`]).
//! - [`transaction`]: [`Rpc::submit`] and [`Rpc::submit_until`], the life cycle of a transaction ([`Plan`]).
//! - [`run`], [`watch`]: a run's accounts, and [`watch_coordinator`]: one monotonic view of its state.
//! - [`wallet`]: the key, redacted.
//! - [`addresses`], [`instructions`]: bytes for the programs (ABI sections 1.1 to 1.3).
//! - [`ops`]: what nodes and commands do, each in one call.
//! - [`mod@deploy`]: puts programs onto a chain by real loader transactions.

pub mod addresses;
mod convert;
pub mod deploy;
pub mod endpoint;
pub mod error;
pub mod instructions;
pub mod ops;
pub mod program_error;
pub mod rpc;
pub mod run;
pub mod transaction;
pub mod wallet;
pub mod watch;

pub use deploy::{DeployProgress, deploy};
pub use endpoint::{ENDPOINTS_MAX, EndpointError, EndpointPair, EndpointVariables, RpcUrl, WsUrl};
pub use error::{ChainError, ClusterMismatch};
pub use program_error::{FrameworkRefusal, ProgramIds, ProgramName, ProgramRefusal};
pub use rpc::{AccountRead, Circuit, Cluster, EndpointEvent, EndpointHealth, PairTrust, Rpc, RpcConfig, SignatureRecord};
pub use run::{CoordinatorView, RunInfo, about, epoch_left, watch_coordinator};
pub use solana_instruction::{AccountMeta, Instruction};
pub use solana_signature::Signature;
pub use transaction::{Compute, Confirmed, Plan, Submitted};
pub use wallet::{Wallet, WalletError};
pub use watch::{RunEvent, RunWatch, Watch, WatchConfig, WatchEvent, Watched, watch_account, watch_run};
