//! What is looked at before a node joins anything, so that it refuses early and in words.

use psyche_chain::ops;
use psyche_chain::{ChainError, ClusterMismatch, CoordinatorView, Rpc, RunInfo};
use psyche_gpu::devices::{Machine, Placement, init_threads};
use psyche_gpu::memory::{MemorySetup, RankMemory, check_fit, largest_micro_batch};
use psyche_gpu::mesh::Topology;
use psyche_gpu::{GpuError, check_divisible};

use super::NodeError;
use crate::CLIENT_VERSION;
use crate::config::{ConfigError, NodeConfig, Violation};
use crate::engine::version_fits;
use crate::run::RunPlan;

/// Below this a wallet can't pay for even a few transactions, in lamports.
pub const BALANCE_MIN: u64 = 100_000;

/// How a model fits into the devices of its ranks.
#[derive(Clone, Debug)]
pub struct ModelFit {
    /// What each rank needs, by rank.
    pub needs: Vec<RankMemory>,
    /// What does not fit into what is free now, in words.
    pub warnings: Vec<String>,
    /// The largest micro-batch that fits into what is free now, if any does and the memory's size is known.
    pub largest_micro_batch: Option<usize>,
}

/// The devices of all ranks, on this machine; tells what it has.
pub(super) fn devices(config: &NodeConfig) -> Result<(Machine, Placement), NodeError> {
    let machine = Machine::look();
    let placement = config.placement(&machine)?;
    init_threads(1);
    tracing::info!(actor = "node", device = %placement, cpu = %machine.cpu, cuda = %machine.cuda, "the node's devices");
    for warning in &placement.warnings {
        tracing::warn!(actor = "node", "{warning}");
    }
    Ok((machine, placement))
}

/// That the model can be split over the ranks and fits into their devices, before anything of it is loaded.
///
/// # Errors
/// [`NodeError::Model`] if it can't be split, or could not fit even if all memory were free.
pub fn model_fit(config: &NodeConfig, plan: &RunPlan, machine: &Machine, placement: &Placement) -> Result<ModelFit, NodeError> {
    fit(config, plan, machine, placement).map_err(NodeError::Model)
}

fn fit(config: &NodeConfig, plan: &RunPlan, machine: &Machine, placement: &Placement) -> Result<ModelFit, GpuError> {
    check_divisible(&plan.model, usize::from(config.mesh.tp))?;
    let Some(seat) = placement.seats.first() else {
        return Ok(ModelFit { needs: Vec::new(), warnings: Vec::new(), largest_micro_batch: None });
    };
    let needs = RankMemory::of(&MemorySetup {
        config: &plan.model,
        optimizer: &plan.optimizer(),
        topology: Topology::new(usize::from(config.mesh.dp), usize::from(config.mesh.tp))?,
        sequence_len: plan.seq_len,
        precision: config.compute.precision_on(seat),
        checkpointing: config.compute.checkpointing,
        on_cpu: !seat.is_cuda(),
    })?;
    let micro_batch_size = usize::try_from(config.mesh.micro_batch).unwrap_or(usize::MAX);
    let warnings = check_fit(&needs, &placement.seats, machine, micro_batch_size)?;
    let largest_micro_batch = largest_micro_batch(&needs, &placement.seats, machine);
    Ok(ModelFit { needs, warnings, largest_micro_batch })
}

/// As [`model_fit`]; tells what each rank will need.
pub(super) fn model_fits(
    config: &NodeConfig,
    plan: &RunPlan,
    machine: &Machine,
    placement: &Placement,
) -> Result<(), NodeError> {
    let fit = model_fit(config, plan, machine, placement)?;
    if let Some(most) = fit.needs.iter().max_by_key(|needs| needs.state()) {
        tracing::info!(actor = "node", ranks = fit.needs.len(), memory = %most, "what a rank needs");
    }
    for warning in fit.warnings {
        tracing::warn!(actor = "node", "{warning}");
    }
    Ok(())
}

/// That all endpoints which answer are on one cluster.
///
/// # Errors
/// [`NodeError::Config`] that names the variable of the one that is not.
pub async fn one_cluster(rpc: &Rpc, config: &NodeConfig) -> Result<(), NodeError> {
    let Err(error) = rpc.check_clusters().await else { return Ok(()) };
    let ChainError::WrongCluster(mismatch) = error else { return Err(error.into()) };
    let ClusterMismatch { endpoint, pair, genesis, others, other_pairs, expected } = mismatch.as_ref();
    let name = |pair: &usize| config.endpoint_names.get(*pair).map_or("RPC", String::as_str);
    let right: Vec<&str> = other_pairs.iter().map(name).collect();
    let problem = format!(
        "leads to another cluster than {}: {endpoint} has the genesis hash {genesis}, but {others} has {expected}",
        right.join(", ")
    );
    let variable = name(pair).to_owned();
    Err(NodeError::Config(ConfigError { violations: vec![Violation { variable, problem }] }))
}

/// The run and its state.
pub(super) async fn run_of(rpc: &Rpc, config: &NodeConfig) -> Result<(RunInfo, CoordinatorView), NodeError> {
    match rpc.fetch_run(&config.run_id).await {
        Ok(found) => Ok(found),
        Err(ChainError::AccountMissing { .. }) => {
            Err(NodeError::NoRun { run_id: config.run_id.clone(), program: config.programs.coordinator })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the wallet may take part in the run with this client.
pub(super) async fn may_take_part(
    rpc: &Rpc,
    config: &NodeConfig,
    info: &RunInfo,
    view: &CoordinatorView,
) -> Result<(), NodeError> {
    let wanted = view.account.state.client_version.as_str();
    if !version_fits(wanted) {
        return Err(NodeError::OtherVersion { wanted: wanted.to_owned(), ours: CLIENT_VERSION });
    }
    let wallet = config.wallet.address();
    if ops::find_grant(rpc, info, wallet, config.authorizer).await?.is_none() {
        return Err(NodeError::NotAuthorized { wallet, join_authority: info.join_authority });
    }
    let balance = rpc.balance(wallet).await?.0;
    if balance < BALANCE_MIN {
        return Err(NodeError::NoFunds { wallet, balance });
    }
    Ok(())
}
