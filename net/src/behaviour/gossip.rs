//! Gossip: strict signing, validation before anything is passed on, the shape of the mesh, and what peers' conduct in it costs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::gossipsub::{
    self, Config, ConfigBuilder, IdentTopic, IdentityTransform, MessageAuthenticity, PeerScoreParams, PeerScoreThresholds,
    TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use psyche_messages::Address;

use crate::error::{NetError, boxed};
use crate::wire::ENVELOPE_BYTES_MAX;

/// Room that gossip's own fields (source, key, signature, topic) take beside an envelope.
const FRAME_BYTES: usize = 1024;

/// What gossip may have buffered of a stream.
const BUFFER_BYTES: usize = 64 * 1024;

/// What every point of a peer's bad conduct (see `conduct`) takes from its score.
pub(crate) const SCORE_PER_POINT: f64 = -2.0;

/// Gossip in which peers can subscribe to the run's topic only.
pub(crate) type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// How many peers a node exchanges whole messages with.
struct Mesh {
    low: usize,
    target: usize,
    high: usize,
    /// Of these at least so many that it dialled itself, so that nobody can surround it.
    outbound: usize,
    /// Further peers that are told which messages there are.
    lazy: usize,
}

/// Every node of a small run, and three hops for the 256 of the largest.
const MESH: Mesh = Mesh { low: 5, target: 8, high: 12, outbound: 2, lazy: 6 };

// gossipsub checks the general sizes only where a topic repeats them, and meshes misbehave silently when they are out of order.
const _: () = {
    assert!(MESH.outbound < MESH.low && MESH.low <= MESH.target && MESH.target <= MESH.high);
    assert!(MESH.outbound * 2 <= MESH.target);
    assert!(MESH.lazy >= 1);
};

/// The topic of a run.
pub(crate) fn topic_of(run_tag: &Address) -> IdentTopic {
    IdentTopic::new(format!("psyche-solana-client/round/1/{run_tag}"))
}

/// Gossip on the run's topic.
pub(super) fn build(keypair: &Keypair, run_tag: &Address) -> Result<Gossip, NetError> {
    let setup = |source| NetError::Setup { part: "gossip", source };
    let topic = topic_of(run_tag);
    let config = config(&topic).map_err(|error| setup(boxed(error)))?;
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let authenticity = MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, config, filter).map_err(|error| setup(boxed(error)))?;
    gossip.with_peer_score(score(&topic), thresholds()).map_err(|error| setup(boxed(error)))?;
    gossip.subscribe(&topic).map_err(|error| setup(boxed(error)))?;
    Ok(gossip)
}

fn config(topic: &IdentTopic) -> Result<Config, gossipsub::ConfigBuilderError> {
    ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // The bound for a message is set by topic. The general one must stay far above it: gossipsub compares it with all that
        // is buffered, and drops the stream when several honest messages arrive in one piece.
        .max_transmit_size(BUFFER_BYTES)
        .max_transmit_size_for_topic(ENVELOPE_BYTES_MAX + FRAME_BYTES, topic.hash())
        .mesh_n_low(MESH.low)
        .mesh_n(MESH.target)
        .mesh_n_high(MESH.high)
        .mesh_outbound_min(MESH.outbound)
        .gossip_lazy(MESH.lazy)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        .flood_publish(true)
        // Bounds on what one peer makes this node remember or send.
        .max_publish_messages(256)
        .max_control_messages_sent(1024)
        .connection_handler_queue_len(1024)
        .build()
}

/// What earns and costs a peer its place in the mesh. Delivery quotas are off: a healthy run is silent between rounds. So are
/// penalties for a shared address, since one machine or one NAT may hold many nodes, and for slow links.
fn score(topic: &IdentTopic) -> PeerScoreParams {
    let topic_score = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: 0.9,
        first_message_deliveries_cap: 20.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The square of the count: one slip is nothing, ten are the end.
        invalid_message_deliveries_weight: -2.0,
        invalid_message_deliveries_decay: 0.98,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic.hash(), topic_score)]),
        topic_score_cap: 12.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.9,
        slow_peer_weight: 0.0,
        retain_score: Duration::from_secs(600),
        ..PeerScoreParams::default()
    }
}

const fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -20.0,
        publish_threshold: -40.0,
        graylist_threshold: -80.0,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 1.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn the_mesh_has_the_sizes_that_were_checked_also_for_the_topic() {
        let topic = topic_of(&Address([1; 32]));
        let config = config(&topic).unwrap();
        let hash = topic.hash();
        let sizes = (config.mesh_n_low_for_topic(&hash), config.mesh_n_for_topic(&hash), config.mesh_n_high_for_topic(&hash));
        assert_eq!(sizes, (MESH.low, MESH.target, MESH.high));
        assert_eq!((config.mesh_n_low(), config.mesh_n(), config.mesh_n_high()), sizes);
        assert_eq!(config.mesh_outbound_min_for_topic(&hash), MESH.outbound);
        assert!(matches!(config.validation_mode(), ValidationMode::Strict));
        assert!(config.validate_messages());
    }

    #[test]
    fn scores_and_thresholds_are_consistent_and_no_praise_outweighs_a_conviction() {
        let topic = topic_of(&Address([1; 32]));
        let score = score(&topic);
        score.validate().unwrap();
        thresholds().validate().unwrap();
        // Ten invalid messages, against everything that a peer can earn.
        let invalid = score.topics[&topic.hash()].invalid_message_deliveries_weight * 100.0;
        assert!(invalid + score.topic_score_cap < thresholds().graylist_threshold);
    }
}
