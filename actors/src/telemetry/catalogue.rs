//! Every metric that a node exports. docs/METRICS.md lists the same ones, which a test checks.

use super::sheet::{Kind, Metric};

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels: &[], help }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels: &[], help }
}

const fn by(metric: Metric, labels: &'static [&'static str]) -> Metric {
    Metric { labels, ..metric }
}

/// Names the metrics, and lists all of them.
macro_rules! catalogue {
    ($($name:ident = $metric:expr;)*) => {
        $(pub(super) static $name: Metric = $metric;)*
        /// All of them, in the order in which they are exported.
        pub static METRICS: &[&Metric] = &[$(&$name),*];
    };
}

/// A pair's number tells two endpoints of one host apart.
const ENDPOINT: &[&str] = &["endpoint", "pair"];

catalogue! {
    BUILD_INFO = by(gauge("psyche_build_info", "always 1; the client's version"), &["version"]);
    NODE_INFO = by(gauge("psyche_node_info", "always 1; the run, the wallet's address and the peer key"), &["run_id", "address", "peer"]);
    UPTIME = gauge("psyche_uptime_seconds", "seconds since the node started");
    READY = gauge("psyche_ready", "1 if /readyz says so");
    RUN_STATE = by(gauge("psyche_run_state", "1 for the phase that the run is in, 0 for all others"), &["state"]);
    EPOCH = gauge("psyche_epoch", "the run's epoch");
    STEP = gauge("psyche_step", "the run's step");
    TOTAL_STEPS = gauge("psyche_total_steps", "steps that the run trains in all");
    CLIENTS = gauge("psyche_clients", "clients of the epoch");
    PEERS = gauge("psyche_peers", "connected members of the run");
    CHAIN_SLOT = gauge("psyche_chain_slot", "the newest slot that was seen");
    CHAIN_SILENCE = gauge("psyche_chain_silence_seconds", "seconds since a new slot was seen");
    MODEL_READY = gauge("psyche_model_ready", "1 once parameters are loaded");
    ROUND_DURATION = Metric { kind: Kind::Histogram, ..gauge("psyche_round_duration_seconds", "from the start of a round's training to the next phase after it") };
    STEPS_TRAINED = counter("psyche_steps_trained_total", "batches that this node trained");
    STEPS_SKIPPED = counter("psyche_steps_skipped_total", "batches that this node did not train to the end");
    STEPS_APPLIED = counter("psyche_steps_applied_total", "steps whose results were applied");
    RESULTS_APPLIED = counter("psyche_results_applied_total", "results that were applied, of all clients");
    SAMPLES_TRAINED = counter("psyche_samples_trained_total", "samples that this node trained");
    LOSS = gauge("psyche_loss", "mean loss of the batch trained last, in nats per token");
    TOKENS_PER_SECOND = gauge("psyche_tokens_per_second", "tokens a second of the batch trained last, of this node");
    PAYLOAD_BYTES = counter("psyche_payload_bytes_total", "bytes of the payloads that this node made");
    BLOB_BYTES = by(counter("psyche_blob_bytes_total", "bytes of blobs exchanged with peers"), &["direction"]);
    DIGESTS_COMPARED = counter("psyche_digests_compared_total", "digests of peers that were compared with this node's");
    DESYNC = counter("psyche_desync_total", "digests of peers that differed from this node's");
    POINTS_EARNED = gauge("psyche_points_earned", "points earned in all");
    POINTS_CLAIMED = gauge("psyche_points_claimed", "points claimed in all");
    POINTS_CLAIMABLE = gauge("psyche_points_claimable", "points earned, neither lost nor claimed");
    WALLET_LAMPORTS = gauge("psyche_wallet_lamports", "what the wallet holds, looked at every minute");
    TX_LANDED = by(counter("psyche_tx_landed_total", "transactions that were confirmed"), &["kind"]);
    TX_EXPIRED = by(counter("psyche_tx_expired_total", "transactions that never landed"), &["kind"]);
    TX_FAILED = by(counter("psyche_tx_failed_total", "transactions that failed otherwise"), &["kind"]);
    RPC_UP = by(gauge("psyche_rpc_up", "1 if requests flow to the endpoint"), ENDPOINT);
    RPC_REQUESTS = by(counter("psyche_rpc_requests_total", "answered or failed requests to the endpoint"), ENDPOINT);
    RPC_ERRORS = by(counter("psyche_rpc_errors_total", "requests to the endpoint that failed"), ENDPOINT);
    RPC_SLOT_LAG = by(gauge("psyche_rpc_slot_lag", "slots behind the best endpoint"), ENDPOINT);
    RPC_LATENCY = by(gauge("psyche_rpc_latency_seconds", "moving average of the endpoint's answers"), ENDPOINT);
    ACTOR_RESTARTS = by(counter("psyche_actor_restarts_total", "restarts of the actor"), &["actor"]);
    ACTOR_UP = by(gauge("psyche_actor_up", "instances of the actor that run"), &["actor"]);
    MAILBOX_DEPTH = by(gauge("psyche_mailbox_depth", "messages to the actor that wait or are being answered"), &["actor"]);
    WARNINGS = counter("psyche_warnings_total", "warnings that the node reported");
}
