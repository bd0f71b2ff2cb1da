//! What nodes and their operators ask for: `train`, `check-config`, `can-join`.

use clap::Args;
use psyche_messages::{Address, RunId};

use super::values::{address, run_id};
use super::{ChainArgs, JsonArgs, WalletArgs};

/// What `train` and `check-config` take: the options that people reach for; every other setting is a variable. They are
/// read as text, so that everything that is wrong is told at once.
#[derive(Debug, Default, Args)]
#[command(after_help = crate::commands::variables_help())]
pub(crate) struct TrainArgs {
    /// URL of the primary Solana RPC endpoint.
    #[arg(long, env = "RPC", hide_env_values = true, value_name = "URL")]
    rpc: Option<String>,
    /// URL of the primary endpoint's websocket.
    #[arg(long, env = "WS_RPC", hide_env_values = true, value_name = "URL")]
    ws_rpc: Option<String>,
    /// The run to join [default: the only run that this wallet may join].
    #[arg(long, short = 'r', env = "RUN_ID")]
    run_id: Option<String>,
    /// Address that was granted the authorization under which this wallet joins; open runs and the wallet's own grant are
    /// tried too.
    #[arg(long, env = "AUTHORIZER", value_name = "ADDRESS")]
    authorizer: Option<String>,
    /// File with the wallet's private key, as a JSON array that only its owner may read.
    #[arg(long, env = "WALLET_PRIVATE_KEY_PATH", value_name = "FILE")]
    wallet_private_key_path: Option<String>,
    /// Devices that the batch is split over [default: 1].
    #[arg(long, env = "DATA_PARALLELISM", value_name = "N")]
    data_parallelism: Option<String>,
    /// Devices that the model is split over [default: 1].
    #[arg(long, env = "TENSOR_PARALLELISM", value_name = "N")]
    tensor_parallelism: Option<String>,
    /// Samples that a device trains at a time [default: 1].
    #[arg(long, env = "MICRO_BATCH_SIZE", value_name = "N")]
    micro_batch_size: Option<String>,
    /// What to train on: auto (CUDA where it works, otherwise the CPU), cpu, cpu:N (at most N devices), cuda (all of them), or
    /// cuda:0,2 (these, numbered as CUDA_VISIBLE_DEVICES leaves them; `devices` lists them) [default: auto].
    #[arg(long, env = "DEVICE")]
    device: Option<String>,
    /// Element type that the model is computed in: f32, bf16 (half the memory of activations, several times faster on CUDA
    /// devices), or auto, which is bf16 on CUDA devices and f32 on the CPU. Weights, sums and optimiser stay f32 in any case
    /// [default: auto].
    #[arg(long, env = "PRECISION")]
    precision: Option<String>,
    /// Keep only the inputs of the layers for the backward pass and compute the rest again: room for larger micro-batches or
    /// longer sequences, for about a third more time [default: false].
    #[arg(long, env = "ACTIVATION_CHECKPOINTING", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    activation_checkpointing: Option<String>,
    /// Skip steps whose loss lies far above the last ones, and tell peers that there is no result; false trains on with them
    /// [default: true].
    #[arg(long, env = "SKIP_LOSS_SPIKES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    skip_loss_spikes: Option<String>,
    /// TCP and UDP port for peers [default: any free one].
    #[arg(long, env = "P2P_PORT", value_name = "PORT")]
    p2p_port: Option<String>,
    /// Members through which the others are found, separated by commas.
    #[arg(long, env = "BOOTSTRAP_PEERS", value_name = "MULTIADDRS")]
    bootstrap_peers: Option<String>,
    /// Relays through which a node behind NAT is reached, separated by commas; `serve`: be one for other members.
    #[arg(long, env = "P2P_RELAY", value_name = "MULTIADDRS")]
    p2p_relay: Option<String>,
    /// File with the key by which peers know the node [default: derived from wallet and run].
    #[arg(long, env = "IDENTITY_SECRET_KEY_PATH", value_name = "FILE")]
    identity_secret_key_path: Option<String>,
    /// Folder for blobs, snapshots and the event log [default: ./psyche-data].
    #[arg(long, env = "DATA_DIR", value_name = "DIR")]
    data_dir: Option<String>,
    /// Folder for checkpoints as Hugging Face lays them out: after each epoch at whose end the node is elected to keep them, and
    /// after the last one [default: only the last ones, in DATA_DIR/checkpoints].
    #[arg(long, env = "CHECKPOINT_DIR", value_name = "DIR")]
    checkpoint_dir: Option<String>,
    /// Repository that you fill from --checkpoint-dir, which the node names on chain once it has written a checkpoint, as
    /// owner/name [default: nothing is named].
    #[arg(long, env = "CHECKPOINT_REPO", value_name = "REPO")]
    checkpoint_repo: Option<String>,
    /// Address at which health, metrics and status are served, such as 0.0.0.0:9464; port 0 takes any free one, `off` serves
    /// nothing [default: 127.0.0.1:9464, if it is free].
    #[arg(long, env = "METRICS_BIND", value_name = "ADDRESS")]
    metrics_bind: Option<String>,
}

impl TrainArgs {
    /// The options that were given, as variables.
    pub(crate) fn into_variables(self) -> impl Iterator<Item = (String, String)> {
        let options = [
            ("RPC", self.rpc),
            ("WS_RPC", self.ws_rpc),
            ("RUN_ID", self.run_id),
            ("AUTHORIZER", self.authorizer),
            ("WALLET_PRIVATE_KEY_PATH", self.wallet_private_key_path),
            ("DATA_PARALLELISM", self.data_parallelism),
            ("TENSOR_PARALLELISM", self.tensor_parallelism),
            ("MICRO_BATCH_SIZE", self.micro_batch_size),
            ("DEVICE", self.device),
            ("PRECISION", self.precision),
            ("ACTIVATION_CHECKPOINTING", self.activation_checkpointing),
            ("SKIP_LOSS_SPIKES", self.skip_loss_spikes),
            ("P2P_PORT", self.p2p_port),
            ("BOOTSTRAP_PEERS", self.bootstrap_peers),
            ("P2P_RELAY", self.p2p_relay),
            ("IDENTITY_SECRET_KEY_PATH", self.identity_secret_key_path),
            ("DATA_DIR", self.data_dir),
            ("CHECKPOINT_DIR", self.checkpoint_dir),
            ("CHECKPOINT_REPO", self.checkpoint_repo),
            ("METRICS_BIND", self.metrics_bind),
        ];
        options.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  psyche-solana-client check-config --env-file .env")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) train: TrainArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line per check: ✓ fine, ! worth knowing, ✗ in the way, - not found out; what, result; remedy. Exits with 0 if \
nothing is in the way of training. Each kind of obstacle has an exit code of its own; where there are several, the first \
line with ✗ gives the code. Takes at most 20 seconds, and changes nothing. Without RUN_ID the run that train would take is \
looked at.

Example:
  psyche-solana-client doctor --env-file .env
  psyche-solana-client doctor --env-file .env --json")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) train: TrainArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
CUDA devices are numbered as CUDA_VISIBLE_DEVICES leaves them, here and in --device. That two of them share an NVLink is told \
by what works across: atomic operations do over NVLink and don't over PCI Express.

Example:
  psyche-solana-client devices --json")]
pub(crate) struct DevicesArgs {
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line per check and exits with 0 only if a join would succeed now. Each obstacle has an exit code of its own; where \
there are several, the first one gives the code.

Example:
  psyche-solana-client can-join --rpc <RPC> --run-id <RUN_ID> \\
    --authorizer <AUTHORIZER> --pubkey <PUBKEY>
  RAW_WALLET_PRIVATE_KEY=\"$(cat id.json)\" psyche-solana-client can-join \\
    --run-id <RUN_ID> --json")]
pub(crate) struct CanJoinArgs {
    /// The run's name.
    #[arg(long, short = 'r', env = "RUN_ID", value_parser = run_id)]
    pub(crate) run_id: RunId,
    /// Address that was granted the authorization and made the wallet its delegate; open runs and the wallet's own grant
    /// are tried too.
    #[arg(long, env = "AUTHORIZER", value_name = "ADDRESS", value_parser = address)]
    pub(crate) authorizer: Option<Address>,
    /// The wallet's address; read from RAW_WALLET_PRIVATE_KEY or the key file where it is not given.
    #[arg(long, visible_aliases = ["address", "wallet", "user"], env = "ADDRESS", value_name = "ADDRESS", value_parser = address)]
    pub(crate) pubkey: Option<Address>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}
