//! The local chain under clients that know nothing of us: web3.js, kit, solana-py and solders, each as its registry ships it
//! (`tests/clients/`, installed by `scripts/setup-clients.sh`). What they read of a run is compared with what we read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod clients;
mod follow;
mod pins;
mod rewards;
mod run;
mod support;
mod wallet;
