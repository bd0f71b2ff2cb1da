//! `testnet`: several nodes on a local chain, from nothing to claimed rewards.

mod args;
mod board;
mod fleet;
mod folder;
mod follow;
mod network;
mod plan;
mod plot;
mod progress;
mod verdict;

pub(crate) use args::TestnetArgs;
