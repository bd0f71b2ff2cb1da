//! Why a local chain does not start.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a local chain does not start or stop. Every one of them needs another configuration or a free machine, so there is
/// nothing to retry.
#[derive(Debug, Error)]
pub enum LocalnetError {
    /// The bind host is not an IP address.
    #[error("accept the bind host {host:?}: an IP address is needed")]
    BindHost {
        /// What was given.
        host: String,
    },
    /// A port is taken, or may not be bound.
    #[error("bind {host}:{port}")]
    Bind {
        /// The address.
        host: std::net::IpAddr,
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Slot time or clock speed would give slots shorter than the engine can tick, or none at all.
    #[error("accept slots of {slot_time_ms} ms at {chain_speed} times real time: a slot must take {min_ms} ms to {max_ms} ms")]
    SlotTime {
        /// Slot time on the chain's clock.
        slot_time_ms: u64,
        /// Chain seconds per real second.
        chain_speed: f64,
        /// The shortest real slot.
        min_ms: u64,
        /// The longest real slot.
        max_ms: u64,
    },
    /// The ledger's path is not UTF-8, or its folder can't be made.
    #[error("use the ledger {}", path.display())]
    Ledger {
        /// The path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A program is not an ELF that the chain can run.
    #[error("place the program {program}: {reason}")]
    Program {
        /// The program's address in base58.
        program: String,
        /// What the engine says.
        reason: String,
    },
    /// An airdrop was refused.
    #[error("airdrop {lamports} lamports to {address}")]
    Airdrop {
        /// The receiver in base58.
        address: String,
        /// The amount.
        lamports: u64,
    },
    /// The engine gave up.
    #[error("run the chain: {reason}")]
    Engine {
        /// What the engine says.
        reason: String,
    },
    /// The chain was not up in time.
    #[error("see the chain ready within {after:?}")]
    NotReady {
        /// How long it was waited for.
        after: Duration,
    },
    /// The chain did not come down in time.
    #[error("see the chain down within {after:?}")]
    NotStopped {
        /// How long it was waited for.
        after: Duration,
    },
}
