//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use psyche_messages::{Address, RunId};

#[cfg(feature = "localnet")]
use crate::testnet::TestnetArgs;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 unusable configuration; 4 no such run; 5 not authorized; \
6 not enough funds; 7 no RPC endpoint answers; 10 the run wants another client version.

Every option that names a variable can be set in the environment or in the file given with --env-file; \
a variable that the environment sets wins over the file, and an option wins over both.";

/// Joins a decentralised training run with this machine's devices, and everything around it.
#[derive(Debug, Parser)]
#[command(name = "psyche-solana-client", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    /// File with variables, one NAME=value a line, for those that the environment does not set.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// How logs are written to stderr.
    #[arg(long, global = true, env = "LOGS", value_enum, default_value_t = Logs::Plain)]
    pub(crate) logs: Logs,
    /// What to do; `train` where nothing is named.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Logs {
    /// Lines for people.
    #[value(aliases = ["console", "tui", "tui-and-console"])]
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing.
    None,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join a run and train (also what happens without a subcommand).
    Train(TrainArgs),
    /// Check that the configuration can work, without doing anything.
    CheckConfig(TrainArgs),
    /// Check whether a wallet may join a run.
    CanJoin(CanJoinArgs),
    /// Claim the rewards that a wallet has earned in a run.
    TreasurerClaimRewards(ClaimArgs),
    /// Add reward tokens to a run's treasury.
    TreasurerTopUpRewards(TopUpArgs),
    /// Create a run (owner).
    CreateRun(CreateRunArgs),
    /// Change a run's configuration, model or description (owner, while the run is paused).
    UpdateConfig(UpdateConfigArgs),
    /// Pause a run, or resume it with --resume (owner).
    SetPaused(SetPausedArgs),
    /// Set how many points an epoch pays from the next epoch on (owner).
    SetFutureEpochRates(RatesArgs),
    /// Allow a wallet, or everybody, to join the runs of this join authority.
    JoinAuthorizationCreate(AuthorizeArgs),
    /// Let further wallets join under an authorization that this wallet was granted.
    JoinAuthorizationDelegate(DelegateArgs),
    /// Make and look at wallets.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Put the programs on a chain, under ids of one's own.
    Deploy(DeployArgs),
    /// Train a tokenizer on text and write its tokens.
    Tokenize(TokenizeArgs),
    /// Write a model's initial weights: the same bits on every machine.
    InitModel(InitModelArgs),
    /// Start a local Solana chain with the programs in place.
    #[cfg(feature = "localnet")]
    Localnet(LocalnetArgs),
    /// Run several nodes on a local chain, from nothing to claimed rewards.
    #[cfg(feature = "localnet")]
    Testnet(TestnetArgs),
}

/// What `train` and `check-config` take: the options that people reach for; every other setting is a variable.
#[derive(Debug, Default, Args)]
#[command(after_help = crate::commands::variables_help())]
pub(crate) struct TrainArgs {
    /// URL of the primary Solana RPC endpoint [env: RPC].
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// URL of the primary endpoint's websocket [env: WS_RPC].
    #[arg(long, value_name = "URL")]
    ws_rpc: Option<String>,
    /// The run to join [env: RUN_ID].
    #[arg(long)]
    run_id: Option<String>,
    /// Address that was granted the authorization under which this wallet joins [env: AUTHORIZER].
    #[arg(long, value_name = "ADDRESS")]
    authorizer: Option<String>,
    /// File with the wallet's private key [env: WALLET_PRIVATE_KEY_PATH].
    #[arg(long, value_name = "FILE")]
    wallet_private_key_path: Option<String>,
    /// Devices that the batch is split over [env: DATA_PARALLELISM].
    #[arg(long, value_name = "N")]
    data_parallelism: Option<String>,
    /// Devices that the model is split over [env: TENSOR_PARALLELISM].
    #[arg(long, value_name = "N")]
    tensor_parallelism: Option<String>,
    /// Samples that a device trains at a time [env: MICRO_BATCH_SIZE].
    #[arg(long, value_name = "N")]
    micro_batch_size: Option<String>,
    /// auto, cpu or cpu:N [env: DEVICE].
    #[arg(long)]
    device: Option<String>,
    /// Port for peers [env: P2P_PORT].
    #[arg(long, value_name = "PORT")]
    p2p_port: Option<String>,
    /// Members through which the others are found, separated by commas [env: BOOTSTRAP_PEERS].
    #[arg(long, value_name = "MULTIADDRS")]
    bootstrap_peers: Option<String>,
    /// Folder for blobs, snapshots and the event log [env: DATA_DIR].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
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
            ("P2P_PORT", self.p2p_port),
            ("BOOTSTRAP_PEERS", self.bootstrap_peers),
            ("DATA_DIR", self.data_dir),
        ];
        options.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
    }
}

/// How a command reaches the chain.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// URL of a Solana RPC endpoint; RPC_2, RPC_3 and so on are used when it fails.
    #[arg(long, env = "RPC", hide_env_values = true, value_name = "URL", default_value = "http://127.0.0.1:8899")]
    pub(crate) rpc: String,
    /// Another coordinator program than the default one.
    #[arg(long, env = "COORDINATOR_PROGRAM_ID", value_name = "ADDRESS")]
    pub(crate) coordinator_program_id: Option<Address>,
    /// Another authorizer program than the default one.
    #[arg(long, env = "AUTHORIZER_PROGRAM_ID", value_name = "ADDRESS")]
    pub(crate) authorizer_program_id: Option<Address>,
    /// Another treasurer program than the default one.
    #[arg(long, env = "TREASURER_PROGRAM_ID", value_name = "ADDRESS")]
    pub(crate) treasurer_program_id: Option<Address>,
}

/// Who signs and pays.
#[derive(Debug, Args)]
pub(crate) struct WalletArgs {
    /// File with the private key that signs and pays, as a JSON array; RAW_WALLET_PRIVATE_KEY is the other way.
    #[arg(long, env = "WALLET_PRIVATE_KEY_PATH", value_name = "FILE")]
    pub(crate) wallet_private_key_path: Option<PathBuf>,
}

/// A run, and who acts on it.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// The run's name, at most 32 bytes.
    #[arg(long, short = 'r', env = "RUN_ID")]
    pub(crate) run_id: RunId,
}

#[derive(Debug, Args)]
pub(crate) struct CanJoinArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    /// The run.
    #[arg(long, env = "RUN_ID")]
    pub(crate) run_id: RunId,
    /// Address that was granted the authorization; without it, open runs and the wallet's own grant are tried.
    #[arg(long, env = "AUTHORIZER", value_name = "ADDRESS")]
    pub(crate) authorizer: Option<Address>,
    /// The wallet's address; read from RAW_WALLET_PRIVATE_KEY or WALLET_PRIVATE_KEY_PATH where it is not given.
    #[arg(long, visible_aliases = ["address", "wallet", "user"], env = "ADDRESS", value_name = "ADDRESS")]
    pub(crate) pubkey: Option<Address>,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Claim at most this many points.
    #[arg(long, value_name = "POINTS")]
    pub(crate) max_claimed_points: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct TopUpArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Amount in base units of the reward token: what one point pays.
    #[arg(long, visible_alias = "collateral-amount", value_name = "AMOUNT")]
    pub(crate) amount: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CreateRunArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Version of the client that nodes must have.
    #[arg(long, short = 'c', default_value = psyche_actors::CLIENT_VERSION, value_name = "VERSION")]
    pub(crate) client_version: String,
    /// Address that decides who may join; the owner where it is not given.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) join_authority: Option<Address>,
    /// Token that rewards are paid in; with it the run gets a treasury.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) treasurer_collateral_mint: Option<Address>,
    /// Index of the treasury; derived from the run's name where it is not given.
    #[arg(long, requires = "treasurer_collateral_mint", value_name = "N")]
    pub(crate) treasurer_index: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateConfigArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// TOML file with [config] and [model].
    #[arg(long, value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,
    /// Continue from this step.
    #[arg(long, value_name = "STEP")]
    pub(crate) restart_from_step: Option<u32>,
    /// The run's title.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A sentence about the run.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Number of the model's parameters, for display.
    #[arg(long, value_name = "N")]
    pub(crate) num_parameters: Option<u64>,
    /// Size of the model's vocabulary, for display.
    #[arg(long, value_name = "N")]
    pub(crate) vocab_size: Option<u64>,
    /// Version of the client that nodes must have.
    #[arg(long, value_name = "VERSION")]
    pub(crate) client_version: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetPausedArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Resume instead of pausing.
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RatesArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Points that an epoch pays, shared by those who finish it.
    #[arg(long, visible_alias = "earning-rate-total-shared", value_name = "POINTS")]
    pub(crate) earning_rate: Option<u64>,
    /// Points that an ejected client is slashed.
    #[arg(long, visible_alias = "slashing-rate-per-client", value_name = "POINTS")]
    pub(crate) slashing_rate: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct AuthorizeArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// The wallet that may join.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "permissionless")]
    pub(crate) authorizer: Option<Address>,
    /// Let everybody join.
    #[arg(long, conflicts_with = "authorizer")]
    pub(crate) permissionless: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DelegateArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// The join authority that granted the authorization.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) join_authority: Address,
    /// Remove the delegates that are there.
    #[arg(long)]
    pub(crate) delegates_clear: bool,
    /// Wallets to add.
    #[arg(long, num_args = 0.., value_delimiter = ',', value_name = "ADDRESS")]
    pub(crate) delegates_added: Vec<Address>,
}

/// What can be done with wallets.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a wallet and write its private key to a new file.
    New {
        /// The file; it must not exist.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print a wallet's address.
    Address {
        #[command(flatten)]
        wallet: WalletArgs,
    },
    /// Print a wallet's balance in SOL.
    Balance {
        #[command(flatten)]
        chain: ChainArgs,
        #[command(flatten)]
        wallet: WalletArgs,
        /// The wallet's address, where there is no key.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<Address>,
    },
    /// Ask a test network's faucet for SOL.
    Airdrop {
        #[command(flatten)]
        chain: ChainArgs,
        #[command(flatten)]
        wallet: WalletArgs,
        /// The wallet's address, where there is no key.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<Address>,
        /// Amount in SOL.
        #[arg(long, default_value = "1")]
        sol: crate::units::Sol,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    /// The program's ELF file.
    #[arg(long, value_name = "FILE")]
    pub(crate) program: PathBuf,
    /// File with the key whose address becomes the program's id; made where it does not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) program_keypair: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// Text files.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// Folder for tokens.bin and tokenizer.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Entries of the vocabulary.
    #[arg(long, default_value_t = 4096, value_name = "N")]
    pub(crate) vocab_size: u32,
    /// Use this tokenizer.json instead of training one.
    #[arg(long, value_name = "FILE", conflicts_with = "vocab_size")]
    pub(crate) tokenizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InitModelArgs {
    /// The model's config.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Seed of the weights: the same seed gives the same bits on every machine.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Folder for config.json and the weights.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// How the local chain is started.
#[derive(Debug, Args)]
pub(crate) struct LocalnetArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Port of the JSON-RPC server.
    #[arg(long, default_value_t = 8899, value_name = "PORT")]
    pub(crate) rpc_port: u16,
    /// Port of the websocket server.
    #[arg(long, default_value_t = 8900, value_name = "PORT")]
    pub(crate) ws_port: u16,
    /// Length of a slot on the chain's clock, in milliseconds.
    #[arg(long, default_value_t = 400, value_name = "MS")]
    pub(crate) slot_time_ms: u64,
    /// How many seconds the chain's clock advances in a real second.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub(crate) chain_speed: f64,
    /// Keep the chain's state in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Give this wallet 100 SOL at the start; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) fund: Vec<Address>,
}
