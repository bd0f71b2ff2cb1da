//! What an owner does before a run can be joined: funds, token, treasury, grants, configuration, model and text.

use std::path::Path;

use anyhow::{Context as _, Result};
use psyche_chain::ops::{self, NewRun, NewTreasury, RunUpdate};
use psyche_chain::{EndpointPair, Rpc, RpcConfig, Wallet};
use psyche_data::{DatasetManifest, Vocabulary};
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig};
use psyche_messages::{Address, BlobHash, Points, RunId};
use psyche_protocol::layout::{FixedString, Metadata};

use super::network::Endpoint;
use super::plan::{MODEL_SEED, POINTS_PER_EPOCH, Plan, RUN_ID, VOCAB_SIZE};
use crate::commands::{chain_failed, failed_to};
use crate::programs;
use crate::run_config::RunConfig;

/// The text that is trained on, so that the program needs nothing beside it.
pub(crate) const TEXT: &[u8] = include_bytes!("../../../data/text/kjv.txt");
/// How long a slot is on the chain's own clock.
const SLOT_TIME_MS: u64 = 400;
/// What the owner gets: rent of the run's account and of a few small ones.
pub(crate) const OWNER_LAMPORTS: u64 = 10_000_000_000;
/// What a node gets: many times the fees of a long run.
pub(crate) const NODE_LAMPORTS: u64 = 1_000_000_000;
/// Decimals of the reward token.
const DECIMALS: u8 = 6;

/// Everybody's wallets, saved in the testnet's folder.
#[derive(Debug)]
pub(crate) struct Wallets {
    /// Creates, pays for and owns the run.
    pub(crate) owner: Wallet,
    /// Is granted the authorization, and names the nodes as its delegates.
    pub(crate) operator: Wallet,
    /// The nodes, in the order of the plan.
    pub(crate) nodes: Vec<Address>,
}

impl Wallets {
    /// Makes new ones.
    ///
    /// # Errors
    /// If they can't be written.
    pub(crate) fn make(plan: &Plan) -> Result<Self> {
        let save = |path: &Path| -> Result<Wallet> {
            let wallet = Wallet::new();
            wallet.save(path).map_err(failed_to)?;
            Ok(wallet)
        };
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            std::fs::create_dir_all(&node.folder).with_context(|| format!("failed to create {}", node.folder.display()))?;
            nodes.push(save(&node.wallet())?.address());
        }
        Ok(Self { owner: save(&plan.out.join("owner.json"))?, operator: save(&plan.out.join("operator.json"))?, nodes })
    }
}

/// Starts the chain, with the programs in place and everybody funded.
///
/// # Errors
/// If it does not start.
pub(crate) async fn chain(plan: &Plan, wallets: &Wallets) -> Result<Localnet> {
    let fund = |address: Address, lamports| Airdrop { address: address.0, lamports };
    let mut airdrops = vec![fund(wallets.owner.address(), OWNER_LAMPORTS), fund(wallets.operator.address(), NODE_LAMPORTS)];
    airdrops.extend(wallets.nodes.iter().map(|node| fund(*node, NODE_LAMPORTS)));
    let config = LocalnetConfig {
        slot_time_ms: SLOT_TIME_MS,
        chain_speed: plan.chain_speed,
        programs: programs::bundled(),
        airdrops,
        ..LocalnetConfig::default()
    };
    Localnet::start(config).await.map_err(failed_to)
}

/// A client of the chain at `endpoint`.
///
/// # Errors
/// If its URLs are not usable.
pub(crate) fn connect(endpoint: &Endpoint) -> Result<Rpc> {
    let pair = EndpointPair::parse(&endpoint.rpc, &endpoint.ws).map_err(failed_to)?;
    Rpc::new(RpcConfig::new(vec![pair])).map_err(chain_failed)
}

/// Writes tokens and initial weights, unless they are there.
///
/// # Errors
/// If they can't be made or written.
pub(crate) fn files(plan: &Plan) -> Result<()> {
    text(&plan.text())?;
    psyche_gpu::init::init_model(plan.model_config().as_bytes(), MODEL_SEED, &plan.model()).map_err(failed_to)?;
    let toml = plan.run_toml();
    std::fs::write(&toml, plan.run_config()).with_context(|| format!("failed to write {}", toml.display()))
}

fn text(folder: &Path) -> Result<()> {
    let path = folder.join("kjv.txt");
    // A manifest is written last: where it is, everything is.
    let hash = BlobHash::of(TEXT);
    if let Ok(made) = DatasetManifest::load(folder)
        && made.vocab_size == VOCAB_SIZE
        && matches!(&made.inputs[..], [text] if text.blake3 == hash)
    {
        return Ok(());
    }
    super::folder::remove(folder).with_context(|| format!("failed to clear {}", folder.display()))?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    std::fs::write(&path, TEXT).with_context(|| format!("failed to write {}", path.display()))?;
    let vocabulary = Vocabulary::Train { size: VOCAB_SIZE };
    psyche_data::tokenize(&[path], &vocabulary, folder, &mut |_progress| {}).map_err(failed_to)?;
    Ok(())
}

/// Creates, funds, configures and starts the run.
///
/// # Errors
/// What the chain refuses.
pub(crate) async fn run(plan: &Plan, rpc: &Rpc, wallets: &Wallets) -> Result<()> {
    let (owner, run_id) = (&wallets.owner, run_id()?);
    grants(rpc, wallets).await?;
    // An epoch has at least one step, so this pays for any number of them.
    let rewards = Points(POINTS_PER_EPOCH.saturating_mul(u64::from(plan.steps) + 1));
    let mint = ops::create_mint(rpc, owner, DECIMALS).await.map_err(chain_failed)?;
    ops::mint_to(rpc, owner, mint, owner.address(), rewards).await.map_err(chain_failed)?;
    let new = NewRun {
        run_id: run_id.clone(),
        client_version: psyche_actors::CLIENT_VERSION.to_owned(),
        join_authority: None,
        treasury: Some(NewTreasury { mint, index: None }),
    };
    ops::create_run(rpc, owner, &new).await.map_err(chain_failed)?;
    let config: RunConfig = toml::from_str(&plan.run_config()).context("failed to read the testnet's own configuration")?;
    let update = RunUpdate {
        metadata: Some(metadata(plan)?),
        config: Some((&config.config).into()),
        model: Some((&config.model).into()),
        ..RunUpdate::default()
    };
    ops::update_run(rpc, owner, &run_id, &update).await.map_err(chain_failed)?;
    ops::set_future_epoch_rates(rpc, owner, &run_id, Some(POINTS_PER_EPOCH), None).await.map_err(chain_failed)?;
    ops::top_up(rpc, owner, &run_id, rewards).await.map_err(chain_failed)?;
    ops::set_paused(rpc, owner, &run_id, false).await.map_err(chain_failed)?;
    Ok(())
}

/// The owner lets the operator in, and the operator its nodes: as with a whole rack under one authorization.
async fn grants(rpc: &Rpc, wallets: &Wallets) -> Result<()> {
    let (owner, operator) = (&wallets.owner, &wallets.operator);
    ops::authorization_create(rpc, owner, operator.address()).await.map_err(chain_failed)?;
    ops::authorization_delegate(rpc, operator, owner.address(), false, &wallets.nodes).await.map_err(chain_failed)?;
    Ok(())
}

fn metadata(plan: &Plan) -> Result<Metadata> {
    let model = psyche_gpu::config::LlamaConfig::from_json(plan.model_config().as_bytes()).map_err(failed_to)?;
    let too_long = "the run's description is too long";
    Ok(Metadata {
        name: FixedString::new("Local testnet").context(too_long)?,
        description: FixedString::new("A small LLaMA that learns the King James Bible.").context(too_long)?,
        num_parameters: model.parameter_count(),
        vocab_size: VOCAB_SIZE.into(),
    })
}

/// The run's name as the chain's operations take it.
///
/// # Errors
/// Never, as long as the constant is a run's name.
pub(crate) fn run_id() -> Result<RunId> {
    RUN_ID.parse().map_err(failed_to)
}
