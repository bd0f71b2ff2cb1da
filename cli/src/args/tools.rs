//! Tools around a run: programs, tokens, weights, a local chain.

#[cfg(feature = "localnet")]
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "localnet")]
use psyche_messages::Address;

use super::{ChainArgs, JsonArgs, WalletArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Stopped half-way, the same command goes on from there.

Example:
  psyche-solana-client deploy --program coordinator.so \\
    --program-keypair coordinator.json \\
    --wallet-private-key-path owner.json")]
pub(crate) struct DeployArgs {
    /// The program's ELF file.
    #[arg(long, env = "DEPLOY_PROGRAM", value_name = "FILE")]
    pub(crate) program: PathBuf,
    /// File with the key whose address becomes the program's id; made where it does not exist.
    #[arg(long, env = "DEPLOY_PROGRAM_KEYPAIR", value_name = "FILE")]
    pub(crate) program_keypair: PathBuf,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client tokenize --text book.txt --vocab-size 4096 \\
    --out tokens")]
pub(crate) struct TokenizeArgs {
    /// Text files.
    #[arg(long, env = "TOKENIZE_TEXT", required = true, num_args = 1.., value_delimiter = ',', value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// Folder for tokens.bin and tokenizer.json.
    #[arg(long, env = "TOKENIZE_OUT", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Entries of the vocabulary.
    #[arg(long, env = "TOKENIZE_VOCAB_SIZE", default_value_t = 4096, value_name = "N")]
    pub(crate) vocab_size: u32,
    /// Use this tokenizer.json instead of training one.
    #[arg(long, env = "TOKENIZE_TOKENIZER", value_name = "FILE", conflicts_with = "vocab_size")]
    pub(crate) tokenizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client init-model --config config.json --seed 7 \\
    --out model")]
pub(crate) struct InitModelArgs {
    /// The model's config.json.
    #[arg(long, env = "INIT_MODEL_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Seed of the weights: the same seed gives the same bits on every machine.
    #[arg(long, env = "INIT_MODEL_SEED")]
    pub(crate) seed: u64,
    /// Folder for config.json and the weights.
    #[arg(long, env = "INIT_MODEL_OUT", value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
DIR holds config.json, the weights as safetensors, and tokenizer.json: a
checkpoint, a snapshot of a node, the folder `trained` of a testnet, or a
LLaMA from elsewhere. Each token takes a whole forward pass on the CPU: this
is for looking at a model, not for serving it. --temperature 0 takes the
likeliest token every time.

Example:
  psyche-solana-client generate --checkpoint testnet-out/trained \\
    --prompt 'In the beginning' --tokens 60")]
pub(crate) struct GenerateArgs {
    /// Folder of the model.
    #[arg(long, env = "GENERATE_CHECKPOINT", value_name = "DIR")]
    pub(crate) checkpoint: PathBuf,
    /// Text to go on from; without it the model begins a text of its own.
    #[arg(long, env = "GENERATE_PROMPT", default_value = "", value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Most tokens to write.
    #[arg(long, env = "GENERATE_TOKENS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4096), value_name = "N")]
    pub(crate) tokens: u16,
    /// How freely tokens are drawn: 0 takes the likeliest one, 1 draws by the model's own chances.
    #[arg(long, env = "GENERATE_TEMPERATURE", default_value_t = 0.8, value_parser = temperature, value_name = "T")]
    pub(crate) temperature: f32,
    /// Draw only from so many of the likeliest tokens; 0 draws from all.
    #[arg(long, env = "GENERATE_TOP_K", default_value_t = 40, value_name = "K")]
    pub(crate) top_k: u16,
    /// The same seed writes the same text.
    #[arg(long, env = "GENERATE_SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The tokenizer, where it is not in DIR.
    #[arg(long, env = "GENERATE_TOKENIZER", value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Above a few, every token is as likely as any other.
fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=10.0).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 10 is accepted".to_owned()),
    }
}

/// How the local chain is started.
#[cfg(feature = "localnet")]
#[derive(Debug, Args)]
#[command(after_help = "\
Prints RPC=… and WS_RPC=…, then runs until Ctrl-C.

Example:
  psyche-solana-client localnet --chain-speed 8 --fund <WALLET>")]
pub(crate) struct LocalnetArgs {
    /// Address to listen on.
    #[arg(long, env = "LOCALNET_BIND", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Port of the JSON-RPC server.
    #[arg(long, env = "LOCALNET_RPC_PORT", default_value_t = 8899, value_name = "PORT")]
    pub(crate) rpc_port: u16,
    /// Port of the websocket server.
    #[arg(long, env = "LOCALNET_WS_PORT", default_value_t = 8900, value_name = "PORT")]
    pub(crate) ws_port: u16,
    /// Length of a slot on the chain's clock, in milliseconds.
    #[arg(long, env = "LOCALNET_SLOT_TIME_MS", default_value_t = 400, value_name = "MS")]
    pub(crate) slot_time_ms: u64,
    /// How many seconds the chain's clock advances in a real second.
    #[arg(long, env = "LOCALNET_CHAIN_SPEED", default_value_t = 1.0, value_name = "X")]
    pub(crate) chain_speed: f64,
    /// Keep the chain's state in this file.
    #[arg(long, env = "LOCALNET_LEDGER", value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Give this wallet 100 SOL at the start; may be repeated.
    #[arg(long, env = "LOCALNET_FUND", value_delimiter = ',', value_name = "ADDRESS", value_parser = super::values::address)]
    pub(crate) fund: Vec<Address>,
}

/// Where a local chain is served once more.
#[cfg(feature = "localnet")]
#[derive(Debug, Args)]
#[command(after_help = "\
Passes connections on to the chain that localnet started, and prints RPC=… and WS_RPC=….

Example:
  psyche-solana-client localnet-endpoint --rpc-port 9899 --ws-port 9900")]
pub(crate) struct LocalnetEndpointArgs {
    /// Host of the chain.
    #[arg(long, env = "LOCALNET_CHAIN_HOST", default_value = "127.0.0.1", value_name = "HOST")]
    pub(crate) chain_host: String,
    /// Port of the chain's JSON-RPC server.
    #[arg(long, env = "LOCALNET_CHAIN_RPC_PORT", default_value_t = 8899, value_name = "PORT")]
    pub(crate) chain_rpc_port: u16,
    /// Port of the chain's websocket server.
    #[arg(long, env = "LOCALNET_CHAIN_WS_PORT", default_value_t = 8900, value_name = "PORT")]
    pub(crate) chain_ws_port: u16,
    /// Address to listen on.
    #[arg(long, env = "LOCALNET_BIND", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Port of the JSON-RPC endpoint; 0 takes a free one.
    #[arg(long, env = "LOCALNET_RPC_PORT", default_value_t = 8899, value_name = "PORT")]
    pub(crate) rpc_port: u16,
    /// Port of the websocket endpoint; 0 takes a free one.
    #[arg(long, env = "LOCALNET_WS_PORT", default_value_t = 8900, value_name = "PORT")]
    pub(crate) ws_port: u16,
}
