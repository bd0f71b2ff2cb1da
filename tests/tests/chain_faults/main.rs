//! Faults of endpoints, as tests: two providers with bad days in front of one real chain, a run on the real programs that
//! goes through its phases all the while, and a node's watch that must neither miss a phase, see one twice, go backwards,
//! nor stay blind when the fault is over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod account;
mod endpoints;
mod play;
mod proxy;
mod record;
mod sending;
mod servers;
mod sockets;
mod stage;
