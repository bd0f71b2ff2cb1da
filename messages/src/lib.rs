//! The vocabulary of the node: ids, units, retry verdicts, secrets, the messages that nodes sign and the events that a
//! node reports. No IO, no runtime; every other crate of the node speaks in these types.
//!
//! - [`ids`]: newtypes for addresses, steps, slots, hashes and intervals.
//! - [`retry`]: what a caller may do about an error, and backoff schedules as data.
//! - [`secret`]: values that never appear in logs.
//! - [`round`]: what nodes tell each other within a round.
//! - [`updates`]: the signed log of what was applied, step by step.
//! - [`events`]: what a node reports about itself; the event log is made of these.
//! - [`envelope`]: the link between a command and its reply, which the actor shell builds on.

pub mod envelope;
pub mod events;
pub mod ids;
pub mod retry;
pub mod round;
pub mod secret;
pub mod updates;

pub use envelope::Command;
pub use events::{EndpointState, NodeEvent, Phase};
pub use ids::{
    Address, BatchInterval, BlobHash, ChainTime, Digest, Epoch, Lamports, Nonce, PeerKey, Points, RoundKey, RunId, Slot, Step,
};
pub use retry::{Backoff, Retry};
pub use round::{
    DigestAnnounced, Evidence, Manifest, ManifestAnnounced, ManifestEntry, ResultAnnounced, RoundMessage, SignedRoundMessage,
    SkipAnnounced, SnapshotAnnounced,
};
pub use secret::Secret;
pub use updates::{AppliedStep, UpdatePage, UpdatesAnnounced};
