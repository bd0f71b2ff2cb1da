//! Which variables there are.

/// A variable that the node reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it means, with its default.
    pub meaning: &'static str,
}

/// Every variable, for help texts and for the documentation's test.
pub const VARIABLES: &[Variable] = &[
    Variable { name: "RPC", meaning: "URL of the primary Solana RPC endpoint (http or https); required" },
    Variable { name: "WS_RPC", meaning: "URL of the primary endpoint's websocket (ws or wss)" },
    Variable { name: "RPC_2, RPC_3, …", meaning: "further RPC endpoints, up to 32; reads go to the one that answers best" },
    Variable { name: "WS_RPC_2, WS_RPC_3, …", meaning: "their websockets, all followed at once" },
    Variable { name: "RUN_ID", meaning: "the run to join; where it is not set, the only run that this wallet may join" },
    Variable { name: "AUTHORIZER", meaning: "address that the run's join authority granted and that delegated to this wallet" },
    Variable { name: "RAW_WALLET_PRIVATE_KEY", meaning: "the wallet's private key itself, as a JSON array or base58" },
    Variable { name: "WALLET_PRIVATE_KEY_PATH", meaning: "file with the wallet's private key, as a JSON array" },
    Variable { name: "DATA_PARALLELISM", meaning: "devices that the batch is split over (default 1)" },
    Variable { name: "TENSOR_PARALLELISM", meaning: "devices that the model is split over (default 1)" },
    Variable { name: "MICRO_BATCH_SIZE", meaning: "samples that a device trains at a time (default 1)" },
    Variable { name: "DEVICE", meaning: "auto, cpu, cpu:N, cuda or cuda:0,2 (default auto)" },
    Variable { name: "PRECISION", meaning: "auto, f32 or bf16; auto is bf16 on CUDA devices, f32 on the CPU (default auto)" },
    Variable {
        name: "ACTIVATION_CHECKPOINTING",
        meaning: "true keeps only the inputs of layers and computes the rest twice: less memory, a third more time (default false)",
    },
    Variable {
        name: "SKIP_LOSS_SPIKES",
        meaning: "false sends the results of steps whose loss is a spike, too (default true)",
    },
    Variable { name: "NVIDIA_DRIVER_CAPABILITIES", meaning: "read by the NVIDIA container toolkit, not by the node" },
    Variable { name: "P2P_BIND", meaning: "address to listen on for peers (default 0.0.0.0)" },
    Variable { name: "P2P_PORT", meaning: "TCP and UDP port for peers (default 0: any free one)" },
    Variable { name: "BOOTSTRAP_PEERS", meaning: "multiaddresses of members, separated by commas" },
    Variable {
        name: "P2P_RELAY",
        meaning: "multiaddresses of relays to be reached through, separated by commas; serve: be one for other members",
    },
    Variable { name: "P2P_EXTERNAL", meaning: "multiaddresses under which peers reach the node, separated by commas" },
    Variable {
        name: "IDENTITY_SECRET_KEY_PATH",
        meaning: "file with the key by which peers know the node (default: derived from wallet and run)",
    },
    Variable { name: "RAW_IDENTITY_SECRET_KEY", meaning: "the key itself, as 64 hexadecimal digits" },
    Variable { name: "DATA_DIR", meaning: "folder for blobs, snapshots and the event log (default ./psyche-data)" },
    Variable { name: "SNAPSHOTS_KEPT", meaning: "snapshots that stay on the disk, the newest ones (default 2)" },
    Variable {
        name: "CHECKPOINT_DIR",
        meaning: "folder for the weights after each epoch at whose end the node is elected, and after the last one (default: only the last ones, in DATA_DIR/checkpoints)",
    },
    Variable {
        name: "CHECKPOINT_REPO",
        meaning: "owner/name of the repository that you fill from CHECKPOINT_DIR, named on chain when the node is elected; needs CHECKPOINT_DIR",
    },
    Variable { name: "DATA_PATH", meaning: "the training data, where it is not at the place that the run names" },
    Variable { name: "MODELS_DIR", meaning: "folder in which the run's checkpoint is looked up (default .)" },
    Variable {
        name: "METRICS_BIND",
        meaning: "address of /livez, /readyz, /metrics and /status; off serves nothing (default 127.0.0.1:9464)",
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT",
        meaning: "URL of an OpenTelemetry collector that metrics are pushed to, by OTLP over HTTP as JSON",
    },
    Variable { name: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", meaning: "the whole URL for metrics, instead of the one before" },
    Variable { name: "OTEL_EXPORTER_OTLP_HEADERS", meaning: "headers for the collector, as name=value, separated by commas" },
    Variable { name: "OTEL_EXPORTER_OTLP_PROTOCOL", meaning: "http/json, the only one that is spoken (default http/json)" },
    Variable { name: "OTEL_EXPORTER_OTLP_TIMEOUT", meaning: "milliseconds that a push may take (default 10000)" },
    Variable { name: "OTEL_METRIC_EXPORT_INTERVAL", meaning: "milliseconds between pushes (default 60000)" },
    Variable { name: "OTEL_SERVICE_NAME", meaning: "the node's name at the collector (default psyche-solana-client)" },
    Variable {
        name: "OTEL_RESOURCE_ATTRIBUTES",
        meaning: "what else it is told of the node, as name=value, separated by commas",
    },
    Variable { name: "OTEL_SDK_DISABLED", meaning: "true pushes nothing (default false)" },
    Variable { name: "CLAIM_REWARDS", meaning: "manual or auto (default manual)" },
    Variable {
        name: "PRIORITY_FEE_FLOOR_MICRO_LAMPORTS",
        meaning: "least price of a compute unit, in millionths of a lamport (default 0)",
    },
    Variable {
        name: "PRIORITY_FEE_CAP_MICRO_LAMPORTS",
        meaning: "highest price of a compute unit, whatever others pay (default 1000000)",
    },
    Variable { name: "COORDINATOR_PROGRAM_ID", meaning: "another coordinator program than the default one" },
    Variable { name: "AUTHORIZER_PROGRAM_ID", meaning: "another authorizer program than the default one" },
    Variable { name: "TREASURER_PROGRAM_ID", meaning: "another treasurer program than the default one" },
];
