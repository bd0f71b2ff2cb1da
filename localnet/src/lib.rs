//! A Solana chain in this process: true JSON-RPC and WebSocket servers, programs executed as SBF bytecode, an airdrop
//! faucet, optional persistence, a chosen slot time, and a clock that may run faster than real time.
//!
//! The engine is surfpool-core; nothing that talks to the chain can tell, or needs to. [`Localnet::start`] returns once
//! both servers answer; [`Localnet::stop`] writes the ledger and returns once both ports are free again.
//!
//! Where surfpool answers otherwise than a validator and it can be mended from outside, `front` mends it: notifications carry
//! the slot of the change and not that of the subscription, `rootSubscribe` works, and the websocket's port follows the
//! JSON-RPC server's, where clients with one address look for it. What differs still:
//!
//! - Accounts are read, and account changes told, as processed, whatever commitment was asked for; signatures, transactions,
//!   slots and heights do follow the commitment. `getEpochInfo` is always that of the newest slot.
//! - `accountSubscribe` knows neither `dataSlice` nor `minContextSlot`; `blockSubscribe` and `voteSubscribe` are refused, as
//!   most providers do.
//! - `getRecentPrioritizationFees` lists only blocks that hold transactions with a price; it is empty on an idle chain.
//! - `getSupply` is zero, and there are no vote accounts and no leader schedule.
//! - The slot count starts again after a restart with a ledger.
//!
//! The programs' bytes are the caller's business: they come in through [`LocalnetConfig::programs`] and are executable,
//! owned by the upgradeable loader, before the first request is served.

mod chain;
mod config;
mod error;
mod front;

pub use chain::Localnet;
pub use config::{Airdrop, LocalnetConfig, Program};
pub use error::LocalnetError;
