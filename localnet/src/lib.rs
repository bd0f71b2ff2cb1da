//! A Solana chain in this process: true JSON-RPC and WebSocket servers, programs executed as SBF bytecode, an airdrop
//! faucet, optional persistence, a chosen slot time, and a clock that may run faster than real time.
//!
//! The engine is surfpool-core; nothing that talks to the chain can tell, or needs to. [`Localnet::start`] returns once
//! both servers answer; [`Localnet::stop`] writes the ledger and returns once both ports are free again.
//!
//! The programs' bytes are the caller's business: they come in through [`LocalnetConfig::programs`] and are executable,
//! owned by the upgradeable loader, before the first request is served.

mod chain;
mod config;
mod error;

pub use chain::Localnet;
pub use config::{Airdrop, LocalnetConfig, Program};
pub use error::LocalnetError;
