//! The node's side of the peer-to-peer network: signed round messages over gossip, blobs by hash, discovery, limits.
//! No tensors, no chain.
//!
//! [`Net::start`] spawns one task that owns the libp2p swarm and returns a [`NetHandle`] (cheap to clone) and an
//! [`EventReceiver`]. Every channel between the two is bounded; what happens when one is full is documented at
//! [`NetEvent`] and [`NetHandle`].
//!
//! - [`wire`]: versioned, canonical byte forms and the signatures over them.
//! - [`blobs`]: the content-addressed store on disk.
//! - [`identity`]: the ed25519 key that is a peer's identity on chain and in the network.

mod behaviour;
pub mod blobs;
mod buffers;
mod conduct;
mod config;
mod dialer;
mod driver;
mod error;
mod fetch;
mod handle;
pub mod identity;
mod outbox;
mod relays;
mod scope;
mod traffic;
mod transfer;
mod upgrades;
pub mod wire;

#[cfg(test)]
mod tests;

pub use blobs::{BlobError, BlobStore};
pub use config::{NetConfig, RELAYS_MAX};
pub use error::{FetchError, NetError};
pub use handle::{EventReceiver, Lie, Net, NetEvent, NetHandle, Presence};
pub use identity::peer_key_of;
pub use traffic::BlobTraffic;
pub use transfer::{Part, PartRequest, PartResponse};
pub use wire::{Signer, SnapshotFile, SnapshotIndex, Wire, WireError};
