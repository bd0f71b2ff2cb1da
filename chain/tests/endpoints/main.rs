//! Several endpoints on real sockets, some of which have bad days: who is asked how often, in which order, and what is
//! believed. Nothing here measures time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod clusters;
mod failover;
mod limits;
mod server;
mod slots;
mod support;
