//! The engine beside the real state machine, one step at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod applying;
mod checkpoints;
mod desk;
mod duties;
mod finishing;
mod intake;
mod leaving;
mod loading;
mod oddities;
