//! Which variables there are: `--help` and the reference in docs/OPERATORS.md are made of this, and tests compare it with what
//! is read.

use Unset::{Is, Means, Nothing};

/// What holds where a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The same as if it were set to this.
    Is(&'static str),
    /// What these words say.
    Means(&'static str),
    /// Nothing.
    Nothing,
}

/// A variable that the node, or something that it is built of, reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a line.
    pub meaning: &'static str,
    /// What else is to be known, in sentences of Markdown.
    pub more: &'static str,
    /// Its default.
    pub unset: Unset,
}

/// Every variable.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    Variable { name: "RPC", unset: Means("required"), more: "", meaning: "URL of the primary Solana RPC endpoint (http or https)" },
    Variable {
        name: "WS_RPC", unset: Nothing,
        meaning: "URL of the primary endpoint's websocket (ws or wss)",
        more: "Without any websocket the run is followed by polling, which is slower and costs requests.",
    },
    Variable {
        name: "RPC_2, RPC_3, …", unset: Nothing,
        meaning: "further RPC endpoints, up to 32, with gaps if you like",
        more: "Reads go to the one that answers well, transactions to all of them. All must be on one network.",
    },
    Variable {
        name: "WS_RPC_2, WS_RPC_3, …", unset: Nothing,
        meaning: "their websockets, all followed at once",
        more: "A pair may lack one half: it then serves subscriptions only, or reads and transactions only, and a warning names the missing variable.",
    },
    Variable { name: "RUN_ID", unset: Means("the only run that this wallet may join"), more: "", meaning: "the run to join" },
    Variable {
        name: "AUTHORIZER", unset: Nothing,
        meaning: "address that the run's join authority authorized and that named this wallet as its delegate",
        more: "Open runs and the wallet's own authorization are tried after it.",
    },
    Variable { name: "WALLET_PRIVATE_KEY_PATH", unset: Means("required, unless the next one is set"), more: "", meaning: "file with the wallet's private key, as a JSON array, that only its owner may read" },
    Variable {
        name: "RAW_WALLET_PRIVATE_KEY", unset: Nothing,
        meaning: "the wallet's private key itself, as a JSON array or base58",
        more: "It wins over the file. Whoever may look at the process or its container can read it.",
    },
    Variable { name: "DATA_PARALLELISM", unset: Is("1"), more: "", meaning: "devices that the batch is split over" },
    Variable { name: "TENSOR_PARALLELISM", unset: Is("1"), more: "", meaning: "devices that the model is split over" },
    Variable { name: "MICRO_BATCH_SIZE", unset: Is("1"), more: "", meaning: "samples that a device trains at a time" },
    Variable {
        name: "DEVICE", unset: Is("auto"),
        meaning: "what to train on: auto, cpu, cpu:N, cuda, or a list such as cuda:0,2",
        more: "See [Devices](#devices).",
    },
    Variable {
        name: "PRECISION", unset: Is("auto"),
        meaning: "element type that the model is computed in: auto, f32 or bf16",
        more: "`auto` is bf16 on CUDA devices and f32 on the CPU. Weights, sums of gradients and the optimiser are f32 in any case, so nodes of one run may differ in it.",
    },
    Variable { name: "ACTIVATION_CHECKPOINTING", unset: Is("false"), more: "", meaning: "true keeps only the inputs of layers for the backward pass and computes the rest again: less memory, about a third more time" },
    Variable {
        name: "SKIP_LOSS_SPIKES", unset: Is("true"),
        meaning: "true skips steps whose loss is a spike, false sends their results, too",
        more: "A spike is above the median of the last 64 losses by eight standard deviations and by half; peers are told that there is no result, and after three in a row the loss counts as the new normal. A loss that is no number is always skipped.",
    },
    Variable {
        name: "CUDA_VISIBLE_DEVICES", unset: Means("all"),
        meaning: "which CUDA devices the driver shows",
        more: "`DEVICE` counts those.",
    },
    Variable {
        name: "NVIDIA_DRIVER_CAPABILITIES", unset: Nothing,
        meaning: "what the NVIDIA container toolkit lets into the container",
        more: "Not read by the node.",
    },
    Variable { name: "OMP_NUM_THREADS", unset: Means("its cores"), more: "", meaning: "most threads of one CPU device" },
    Variable {
        name: "OMP_WAIT_POLICY", unset: Means("passive"),
        meaning: "how OpenMP's threads wait",
        more: "`train` starts itself anew with `passive` where neither this nor `GOMP_SPINCOUNT` is set.",
    },
    Variable { name: "P2P_BIND", unset: Is("0.0.0.0"), more: "", meaning: "address to listen on for peers" },
    Variable {
        name: "P2P_PORT", unset: Is("0"),
        meaning: "TCP and UDP (QUIC) port for peers",
        more: "0 takes any free one.",
    },
    Variable { name: "BOOTSTRAP_PEERS", unset: Nothing, more: "", meaning: "multiaddresses of members through which the others are found, separated by commas" },
    Variable {
        name: "P2P_RELAY", unset: Nothing,
        meaning: "multiaddresses of relays through which a node behind NAT is reached, separated by commas",
        more: "8 at most. The word `serve` among them makes this node a relay for other members.",
    },
    Variable {
        name: "P2P_EXTERNAL", unset: Means("found by peers that try"),
        meaning: "multiaddresses under which peers reach the node although it can't see them itself, separated by commas",
        more: "A forwarded port, or a relay's public address.",
    },
    Variable {
        name: "IDENTITY_SECRET_KEY_PATH", unset: Means("derived from wallet and run"),
        meaning: "file with the key by which peers know the node",
        more: "32 bytes that only their owner may read.",
    },
    Variable {
        name: "RAW_IDENTITY_SECRET_KEY", unset: Nothing,
        meaning: "the key itself, as 64 hexadecimal digits",
        more: "It wins over the file.",
    },
    Variable { name: "DATA_DIR", unset: Is("psyche-data"), more: "", meaning: "folder for blobs, snapshots and the event log" },
    Variable {
        name: "SNAPSHOTS_KEPT", unset: Is("2"),
        meaning: "snapshots that stay on the disk, the newest ones",
        more: "8 bytes per parameter each, and while one is being written, room for one more.",
    },
    Variable {
        name: "CHECKPOINT_DIR", unset: Means("only the last ones, in DATA_DIR/checkpoints"),
        meaning: "folder for the weights after each epoch at whose end the node is elected to keep them, and after the last one",
        more: "Each in a folder of its own as Hugging Face lays it out, `epoch-…-step-…` in a folder that has the address of the run's account; as many stay as `SNAPSHOTS_KEPT` says. Of this node alone.",
    },
    Variable {
        name: "CHECKPOINT_REPO", unset: Means("nothing is named"),
        meaning: "owner/name of the repository that you fill from CHECKPOINT_DIR",
        more: "The node names it on chain once a checkpoint is written. Who starts without a snapshot looks for it in `MODELS_DIR`.",
    },
    Variable { name: "DATA_PATH", unset: Nothing, more: "", meaning: "the training data, where it is not at the place that the run names" },
    Variable { name: "MODELS_DIR", unset: Is("."), more: "", meaning: "folder in which a checkpoint that the run names by a relative path is looked up" },
    Variable {
        name: "METRICS_BIND", unset: Means("127.0.0.1:9464"),
        meaning: "address of /livez, /readyz, /metrics and /status over HTTP; off serves nothing",
        more: "Such as `0.0.0.0:9464`; port 0 takes any free one. An address that can't be used stops the node (exit code 3), except for the default one, which is only warned of. See [METRICS.md](METRICS.md).",
    },
    Variable {
        name: "OTEL_EXPORTER_OTLP_ENDPOINT", unset: Means("nothing is pushed"),
        meaning: "URL of an OpenTelemetry collector that metrics are pushed to, by OTLP over HTTP as JSON",
        more: "`/v1/metrics` is appended to it.",
    },
    Variable { name: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", unset: Nothing, more: "", meaning: "the whole URL for metrics, instead of the one before" },
    Variable {
        name: "OTEL_EXPORTER_OTLP_HEADERS", unset: Nothing,
        meaning: "headers for the collector, as name=value, separated by commas",
        more: "Never logged.",
    },
    Variable { name: "OTEL_EXPORTER_OTLP_PROTOCOL", unset: Is("http/json"), more: "", meaning: "http/json, the only one that is spoken" },
    Variable { name: "OTEL_EXPORTER_OTLP_TIMEOUT", unset: Is("10000"), more: "", meaning: "milliseconds that a push may take" },
    Variable { name: "OTEL_METRIC_EXPORT_INTERVAL", unset: Is("60000"), more: "", meaning: "milliseconds between pushes" },
    Variable { name: "OTEL_SERVICE_NAME", unset: Is("psyche-solana-client"), more: "", meaning: "the node's name at the collector" },
    Variable { name: "OTEL_RESOURCE_ATTRIBUTES", unset: Nothing, more: "", meaning: "what else it is told of the node, as name=value, separated by commas" },
    Variable { name: "OTEL_SDK_DISABLED", unset: Is("false"), more: "", meaning: "true pushes nothing" },
    Variable { name: "CLAIM_REWARDS", unset: Is("manual"), more: "", meaning: "manual, or auto: after every epoch that paid something, and at the end" },
    Variable { name: "PRIORITY_FEE_FLOOR_MICRO_LAMPORTS", unset: Is("0"), more: "", meaning: "least price of a compute unit of the node's transactions, in millionths of a lamport" },
    Variable { name: "PRIORITY_FEE_CAP_MICRO_LAMPORTS", unset: Is("1000000"), more: "", meaning: "highest price of a compute unit, whatever others pay lately" },
    Variable { name: "COORDINATOR_PROGRAM_ID", unset: Nothing, more: "", meaning: "another coordinator program than the default one" },
    Variable { name: "AUTHORIZER_PROGRAM_ID", unset: Nothing, more: "", meaning: "another authorizer program than the default one" },
    Variable { name: "TREASURER_PROGRAM_ID", unset: Nothing, more: "", meaning: "another treasurer program than the default one" },
    Variable { name: "RUST_LOG", unset: Means("information about the node, warnings about everything"), more: "", meaning: "which logs are written, by module and level" },
];
