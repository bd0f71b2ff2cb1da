//! The chain crate against a real local chain: JSON-RPC, websockets, and the programs' bytecode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod deploy;
mod operations;
mod proxy;
mod retries;
mod rpc;
mod run;
mod support;
mod watch;
