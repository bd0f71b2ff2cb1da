//! The node as a system of actors: what follows the chain, trains, talks to peers and collects rewards, and the engine that
//! decides. [`NodeBuilder`] starts all of it inside any service and hands out its events.
//!
//! | Module | What it does |
//! |---|---|
//! | [`config`] | the node's configuration from variables, every violation at once |
//! | [`node`] | [`NodeBuilder`] and the running node |
//! | [`engine`] | the sans-IO round engine: every decision of a round |
//! | [`run`] | `RunActor`, which drives the engine, and the device queue |
//! | [`rpc`] | `RpcSupervisor`: transactions and readings |
//! | [`watcher`] | `CoordinatorWatcher`: one monotonic view of the coordinator account |
//! | [`gossip`] | `GradientGossip`: messages and blobs |
//! | [`trainer`] | `TrainerWorker`, one for each device |
//! | [`rewards`] | `RewardsActor`: points and claims |
//! | [`supervisor`] | restarts actors by factory, with backoff and budget |
//! | [`clock`] | the chain's time between readings |
//! | [`event_log`] | what the node reports |
//! | [`telemetry`] | health, metrics and status over HTTP |

pub mod clock;
pub mod config;
pub mod engine;
pub mod envelope;
pub mod event_log;
pub mod gossip;
pub mod node;
pub mod rewards;
pub mod rpc;
pub mod run;
pub mod supervisor;
pub mod telemetry;
pub mod trainer;
pub mod watcher;

pub use config::{ConfigError, NodeConfig};
pub use event_log::{Events, Heard};
pub use node::{Health, Node, NodeBuilder, NodeError, Outcome, ReadyNode};

/// The guide for hosts, whose code is compiled as a test of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../docs/EMBEDDING.md")]
pub struct EmbeddingGuide;

/// The version that a run's `client_version` is compared to.
pub const CLIENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// An error with all its causes, in one line for logs and events.
#[must_use]
pub fn chain_of(error: &dyn std::error::Error) -> String {
    use std::fmt::Write as _;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string can't fail.
        let _written = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guide_for_hosts_shows_a_whole_one_in_under_25_lines() {
        let guide = include_str!("../../docs/EMBEDDING.md");
        let code: Vec<_> = guide.lines().skip_while(|line| !line.starts_with("```rust")).skip(1).collect();
        let lines = code.iter().take_while(|line| !line.starts_with("```")).count();
        assert!((1..25).contains(&lines), "{lines} lines");
    }
}
